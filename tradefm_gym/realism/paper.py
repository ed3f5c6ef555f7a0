"""The figures that the TradeFM paper published (arXiv 2602.23784), and where a realism card has the like of them.

The paper's figures pool more than 9,000 US equities over months; ours are of single recorded days, of a model four
hundred times as small. A ratio over Compound Hawkes is what compares best, and even that only roughly.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradefm_gym.arguments import one_sentence
from tradefm_gym.realism.part_files import write_text
from tradefm_gym.realism.rows import LEAST, Row, Rows

KEPT = Path(__file__).with_name("figures.json")  # rows of our cards that the package comes with
ERRORS = "Distributional error on held-out days"
CLAIMS = "Claims of the text"
HAWKES, ZERO = "hawkes", "zero_intelligence"


@dataclass(frozen=True)
class Published:
    """A figure of the paper's table of distances; None where it gives none."""

    said: str
    quantity: str  # of a card
    metric: str
    model: float
    hawkes: float
    zero_intelligence: float | None = None

    @property
    def ratio(self) -> float:
        """The paper's model over its Compound Hawkes."""
        return self.model / self.hawkes


@dataclass(frozen=True)
class Claim:
    """A figure that stands in the paper's text, and the rows of a card that are its like; none: we have no like."""

    said: str
    published: str
    quantities: tuple[str, ...] = ()
    metric: str = ""
    arm: str = "model"

    @property
    def asked(self) -> tuple[str, ...]:
        """The quantities, one without a name if there is no like."""
        return self.quantities or ("",)


PUBLISHED = (
    Published("log return over 10 s, K-S", "log_return_10s", "ks", 0.013, 0.039, 0.376),
    Published("spread, K-S", "spread", "ks", 0.238, 0.218),
    Published("spread, W1", "spread", "w1", 0.400, 0.302, 0.375),
    Published("inter-arrival, K-S", "inter_arrival", "ks", 0.281, 0.515),
    Published("price depth, K-S", "price_depth", "ks", 0.169, 0.281),
)

FACTS = ("no_autocorrelation", "slow_decay", "heavy_tails", "convergence_to_gaussian")
CLAIMS_OF_TEXT = (
    *(
        Claim(f"log return over {seconds} s, K-S over that of Hawkes", "0.33 to 0.5",
              (f"log_return_{seconds}s",), "ks_over_reference")
        for seconds in (1, 10, 30, 60, 120)
    ),
    Claim("fills of real orders through the simulator, correlation of counts", "0.91 to 0.98",
          ("fill_count_64_events",), "distribution_correlation", "round_trip"),
    Claim("the same of volumes", "0.91 to 0.98",
          ("fill_volume_64_events",), "distribution_correlation", "round_trip"),
    Claim("stylised facts that hold (1 yes, 0 no)", "all four", FACTS, "agrees"),
    Claim("nats per event of the 251M model, perplexity 17.85 (other tokens)", "2.88", ("code_length",), "token"),
    Claim("unseen venues (Japan and China) without training", "moderate rise"),
    Claim("volume and inter-arrival follow the indicators that are set", "as expected"),
)  # fmt: skip


def rows_of(paths: Sequence[Path]) -> list[Row]:
    """Rows of cards that ``tradefm-gym realism`` wrote; of the ones that the package comes with where none is given.

    Raises:
        FileNotFoundError, OSError, ValueError: if a file is not there, cannot be read, or is no card.
    """
    found = []
    for path in paths or ([KEPT] if KEPT.is_file() else []):
        needed = "a card.json of tradefm-gym realism"
        with one_sentence(path, "read", needed):
            text = path.read_bytes()
        try:
            found += [Row.from_json(row) for row in json.loads(text)["rows"]]
        except KeyError as error:
            raise ValueError(f"card {str(path)!r} lacks {error}; it must be {needed}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"card {str(path)!r} is damaged or none ({error}); it must be {needed}") from None
    return found


def keep(rows: Iterable[Row], about: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the rows that stand beside the paper's, and what cards they come from."""
    wanted = _asked()
    arms = ("tradefm", HAWKES, ZERO, *(claim.arm for claim in CLAIMS_OF_TEXT))
    chosen = (row for row in rows if (row.quantity, row.metric) in wanted)
    kept = [row.to_json() for row in chosen if any(_is(row.arm, one) for one in arms)]
    with one_sentence(path, "written", "a file that can be"):
        write_text(path, json.dumps({"cards": list(about), "rows": kept}, indent=1))


@dataclass(frozen=True)
class Beside:
    """A published figure with ours of one set and one model.

    Attributes:
        table: which of the paper's it belongs to.
        said: what it is of.
        published, published_hawkes, published_ratio: the paper's; text where that is no number.
        set, arm: ours; empty without a card.
        model, hawkes, zero_intelligence: ours, None where nothing was measured.
        ratio: our model over our Hawkes.
        n: recorded samples behind ours.
        enough: whether these are as many as a verdict takes.
    """

    table: str
    said: str
    published: str
    published_hawkes: str = ""
    published_ratio: str = ""
    set: str = ""
    arm: str = ""
    model: Row | None = None
    hawkes: Row | None = None
    zero_intelligence: Row | None = None
    ratio: float | None = None
    n: int = 0

    @property
    def enough(self) -> bool:
        """Whether there are as many recorded samples as a verdict takes."""
        return self.n >= LEAST


def beside(rows: Sequence[Row]) -> list[Beside]:
    """Every figure of the paper with ours, for each set and model in turn; once without ours if there is no model."""
    table, found = Rows(rows), []
    for name, arm in _models(rows) or [("", "")]:
        found += [_distance(one, table, name, arm) for one in PUBLISHED]
        found += [_claimed(claim, quantity, table, name, arm) for claim in CLAIMS_OF_TEXT for quantity in claim.asked]
    return found


def _distance(one: Published, table: Rows, name: str, arm: str) -> Beside:
    model = table.get(name, one.quantity, one.metric, arm)
    hawkes, zero = (_first(table, name, one.quantity, one.metric, flow) for flow in (HAWKES, ZERO))
    ratio = model.value / hawkes.value if model and hawkes and hawkes.value else None
    theirs = f"{one.model:g}", f"{one.hawkes:g}", f"{one.ratio:.2f}"
    return Beside(ERRORS, one.said, *theirs, name, arm, model, hawkes, zero, ratio, 0 if model is None else model.n)


def _claimed(claim: Claim, quantity: str, table: Rows, name: str, arm: str) -> Beside:
    whose = arm if claim.arm == "model" else claim.arm
    row = table.get(name, quantity, claim.metric, whose)
    said = claim.said if len(claim.asked) == 1 else f"{claim.said}: {quantity.replace('_', ' ')}"
    about = {"set": name, "arm": whose if name else "", "n": 0 if row is None else row.n}
    return Beside(CLAIMS, said, claim.published, model=row, **about)


def _models(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Sets and TradeFM flows of cards of which anything that is asked for was measured, in their order."""
    wanted = _asked()
    found = ((row.set, row.arm) for row in rows if _is(row.arm, "tradefm") and (row.quantity, row.metric) in wanted)
    return list(dict.fromkeys(found))


def _asked() -> set[tuple[str, str]]:
    """Quantities and metrics of which ours stand beside the paper's."""
    distances = {(one.quantity, one.metric) for one in PUBLISHED}
    return distances | {(quantity, one.metric) for one in CLAIMS_OF_TEXT for quantity in one.quantities}


def _first(table: Rows, name: str, quantity: str, metric: str, flow: str) -> Row | None:
    """The row of a flow, with its parameters' path or without."""
    arms = [arm for arm in table.names("arm", set=name, quantity=quantity, metric=metric) if _is(arm, flow)]
    return table.get(name, quantity, metric, arms[0]) if arms else None


def _is(arm: str, flow: str) -> bool:
    """Whether an arm is of a flow, whatever its path and its options are."""
    return arm.partition("?")[0].partition(":")[0] == flow
