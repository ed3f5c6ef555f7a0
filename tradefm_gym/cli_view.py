"""``tradefm-gym view``: a recorded episode, or two of one seed beside each other, as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class View:
    """Write a page of a recorded episode: depth over time, own orders and fills, ladder, position, reward ledger.

    ``tradefm_gym.EpisodeRecorder(env, folder)`` records them.
    """

    episode: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()  # what EpisodeRecorder wrote
    # two episodes of one seed: the first decision at which their actions differ, and what each paid for
    compare: tuple[Path, Path] | None = None
    out: Path = Path("episode.html")

    def run(self) -> int:
        """Writes the page."""
        from tradefm_gym import viewing
        from tradefm_gym.envs.episode import Episode

        if (len(self.episode) != 1) if self.compare is None else bool(self.episode):
            raise ValueError(f"view got {len(self.episode)} episodes; it takes one, or --compare and two")
        if self.compare is None:
            viewing.write_view(Episode.load(self.episode[0]), self.out)
        else:
            viewing.write_comparison([(path.stem, Episode.load(path)) for path in self.compare], self.out)
        print(self.out)
        return 0
