"""Commands that make models: token shards from recorded days."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from tradefm_gym.model.tokenizer_options import TokenizerOptions


@dataclass(frozen=True)
class Tokenize:
    """Tokenize recorded days once, into shards that training maps into memory."""

    # recorded days (data folders, .npz files, anything that "data check" reads), or folders that hold some
    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path  # the folder to write
    tokenizer: Path | None = None  # a checkpoint folder or tokenizer.json; without it bins are calibrated on the data
    options: tyro.conf.OmitArgPrefixes[TokenizerOptions] = field(default_factory=TokenizerOptions)
    minimum_events: int = 4_000  # smaller days are left out

    def run(self) -> int:
        """Tokenizes one day after the other."""
        from tradefm_gym.model.shards import PARTS
        from tradefm_gym.model.tokenizer import TradeTokenizer
        from tradefm_gym.tokenizing import write_shards

        tokenizer = None if self.tokenizer is None else TradeTokenizer.load(self.tokenizer)
        with Console(stderr=True).status("reading") as status:
            shards = write_shards(self.data, self.out, tokenizer, self.options, self.minimum_events, status.update)
        counts = ", ".join(f"{shards.events(part):,} {part}" for part in PARTS)
        print(f"{self.out}: {len(shards.sets)} sets; events: {counts}")
        return 0
