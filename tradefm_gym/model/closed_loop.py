"""What a network is told besides its weights once it runs freely: calibrated on its own rollouts.

A network that forecasts well from recorded histories need not keep up in histories of its own making what it
has learned: there each taker brings on fewer of its side than in the record, since a drawn event says less about
its author's intentions than a real one. ``persistence`` makes up for that. It moves probability from the takers of
one side to those of the other, by so much for each unit of signed order-flow pressure (see ``market.features``); how
often somebody takes liquidity stays what the network says. It does not ask who caused the pressure. Where an asset's
habits tell how its own takers repeat (see ``flow.repeating``), that is what counts, and there is no persistence.

Real takers are followed by more of their side, mostly by the next slices of the same parent order. A network knows the
signs of one that is under way; an agent's order out of the blue shows none, and hardly anything follows it.
``following`` gives agents' takers that share of what followed real ones on the asset's training part (see
``flow.followers``). Takers that could be foreseen meet those who offer to them, and move prices less than others
(Lillo and Farmer 2004; Bouchaud, Farmer and Lillo 2009). So ``answering`` makes orders that rest at the touch or inside
the spread, on the side that is taken from, likelier by so many for each taker that follows an agent.

Nor does a network see how many orders rest: adds outnumber what cancels and takers remove by a little, and over ten
thousand events books grow dense and spreads narrow. ``restoring`` makes cancels likelier on a side where more lots
than usual rest near the mid, and rarer where there are fewer.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from tradefm_gym.arguments import shortened
from tradefm_gym.model.strange_files import read_text

FORMAT = 1
FILE = "closed_loop.json"


@dataclass(frozen=True)
class ClosedLoop:
    """Corrections of a network in a closed loop. The default corrects nothing.

    Attributes:
        persistence: probability that a unit of fast and a unit of slow pressure move to takers of its side, without
            habits that tell how takers repeat.
        following: share of what follows a real taker that follows an agent's, beside what the network says.
        answering: orders offered at the touch or better for each taker that follows an agent.
        restoring: log-odds of cancels on a side for each unit of the logarithm of its density over the usual one.
        provenance: what it was calibrated on.
    """

    persistence: tuple[float, float] = (0.0, 0.0)
    following: float = 0.0
    answering: float = 0.0
    restoring: float = 0.0
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "persistence", check_persistence(self.persistence))
        object.__setattr__(self, "following", check_number("following", self.following, 1))
        object.__setattr__(self, "answering", check_number("answering", self.answering, 4))
        object.__setattr__(self, "restoring", check_number("restoring", self.restoring, 10))

    @classmethod
    def load(cls, folder: str | Path) -> "ClosedLoop":
        """What a checkpoint folder says; nothing if it holds no such file.

        Raises:
            ValueError: if the file is none of this format.
        """
        path = Path(folder) / FILE
        if not path.exists() and not path.is_symlink():
            return cls()
        try:
            state = json.loads(read_text(path))
        except (OSError, ValueError, RecursionError) as error:
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            raise ValueError(
                f"path {str(path)!r} holds no closed-loop corrections: it is no JSON file{reason}"
            ) from error
        known = {"format", *(field.name for field in fields(cls))}
        if not isinstance(state, dict) or not state.keys() <= known:
            found = shortened(sorted(state)) if isinstance(state, dict) else f"a {type(state).__name__}"
            raise ValueError(
                f"path {str(path)!r} holds no closed-loop corrections; allowed are {sorted(known)}, not {found}"
            )
        version = state.pop("format", None)
        if version != FORMAT or isinstance(version, bool):
            raise ValueError(
                f"path {str(path)!r} holds no closed-loop corrections: format is {shortened(version)}; allowed is 1"
            )
        try:
            return cls(**state)
        except ValueError as error:
            raise ValueError(f"path {str(path)!r} holds no closed-loop corrections: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Writes the file of a checkpoint folder; a failed write leaves the old one."""
        path = Path(folder) / FILE
        temporary = path.with_name(path.name + ".tmp")
        state = {
            "format": FORMAT,
            "persistence": list(self.persistence),
            "following": self.following,
            "answering": self.answering,
            "restoring": self.restoring,
            "provenance": self.provenance,
        }
        temporary.write_text(json.dumps(state, indent=1) + "\n")
        temporary.replace(path)


def check_persistence(value) -> tuple[float, float]:
    """Two numbers in [0, 1]."""
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    real = [isinstance(x, (int, float)) and not isinstance(x, bool) for x in numbers]
    if len(numbers) != 2 or not all(real) or not all(0 <= x <= 1 for x in numbers):  # nor is NaN there
        raise ValueError(
            f"persistence is {shortened(value)}; allowed are two numbers in [0, 1], for fast and slow pressure"
        )
    return float(numbers[0]), float(numbers[1])


def check_number(name: str, value, most: float) -> float:
    """One number in [0, ``most``]."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{name} is {shortened(value)}; allowed is a number in [0, {most:g}]")
    return float(value)
