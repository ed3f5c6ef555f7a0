"""What a model kept of the orders that it learned from, since its weights are given away.

Three questions, each asked of the end of the day's training part and, for comparison, of parts that no training saw:

* *longest match*: how many tokens in a row of what it generates occur in a part. The training piece is as long as the
  validation part, for longer ones hold more by chance.
* *extraction*: given true events, how often the next k are exactly those that followed. A continuation is exact only
  as long as its history is the recorded one, so the chance of one draw is the product of the model's own
  probabilities, and a greedy one is exact where k events in a row are those that the model expects most: no
  continuation need be drawn. An order that is placed and cancelled over and over is continued by whoever has seen
  two rounds of it, so continuations are also told of which at least half of the tokens differ (``varied``).
* *membership*: how well the loss of a window tells whether it was learned from (area under the curve, 0.5 = not).

A day changes: later hours may be easier whoever learned what. Two controls show by how much: a Markov chain over the
same tokens that saw the training part up to that end only, so that both pieces are new to it, and the membership of
the validation part against the test part, both unseen.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tradefm_gym.model.baselines import Markov
from tradefm_gym.model.config import load_weights
from tradefm_gym.model.likelihood import EventScores, score_events
from tradefm_gym.model.serving import checkpoint, make_engine
from tradefm_gym.realism.bootstrap import Estimate, mean_of
from tradefm_gym.realism.discriminator import area
from tradefm_gym.realism.encoded_day import TOKEN, EncodedDay
from tradefm_gym.realism.matches import longest_matches
from tradefm_gym.realism.rows import of

STEPS = (1, 2, 4, 8, 16, 32)  # events of a continuation
WINDOW = 64  # events whose mean loss stands for their membership
BLOCK = 512  # events that are resampled together
MOST_TOKENS = 65_536  # of what was generated
CHAIN = "markov_"  # begins the quantities of the chain, and
RECORD = "real_"  # those of the record itself
_ROWS = 64  # of the engine

Told = dict[str, Any]


class Pieces:
    """What of a day is held against what: by name its inputs, or its tokens.

    Attributes:
        early: the training part but for its end; the chain learns from it.
        late: the end of the training part, as long as validation and test together, a third of it at most.
        validation, test: what no training saw.
    """

    def __init__(self, day: EncodedDay) -> None:
        train = day.inputs_of("train")
        self.validation, self.test = day.inputs_of("validation"), day.inputs_of("test")
        self.train = train
        cut = len(train) - min(len(self.validation) + len(self.test), len(train) // 3)
        self.early, self.late = train[:cut], train[cut:]

    def chain(self) -> Markov:
        """A chain to which the late piece is as new as validation and test."""
        return Markov([self.early[:, TOKEN]], [self.validation[:, TOKEN]])


def match_rows(pieces: Pieces, generated: Sequence[np.ndarray], prefix: str = "") -> Iterator[Told]:
    """Longest matches of token sequences in the training part's end and in the validation part, of equal length.

    Args:
        pieces: of the day.
        generated: (k,) tokens each.
        prefix: of the quantity.
    """
    held = pieces.validation[:, TOKEN]
    corpora = {"in_train": pieces.train[-len(held) :, TOKEN], "in_held_out": held, "all_train": pieces.train[:, TOKEN]}
    chosen = _at_most(generated, MOST_TOKENS)
    block = np.concatenate([1_000 * i + np.arange(len(one)) // BLOCK for i, one in enumerate(chosen)])
    found = {name: np.concatenate(longest_matches(chosen, [corpus])) for name, corpus in corpora.items()}
    about = {"quantity": f"{prefix}longest_match", "n": len(block), "seeds": len(chosen)}
    for name in ("in_train", "in_held_out"):
        yield about | {"metric": name} | of(mean_of(found[name], block))
    gap = found["in_train"] - found["in_held_out"]
    yield about | {"metric": "train_less_held_out"} | of(mean_of(gap, block))
    for name, lengths in found.items():
        yield about | {"metric": f"largest_{name}"} | of(Estimate(int(lengths.max()), np.nan, np.nan))


def extraction_rows(
    scores: dict[str, list[EventScores]], tokens: dict[str, list[np.ndarray]], prefix: str = "", greedy: bool = True
) -> Iterator[Told]:
    """How often k events are continued exactly.

    Args:
        scores: of the segments of "train" and "held_out".
        tokens: (n - 1,) of the events that were scored, likewise.
        prefix: of the quantity.
        greedy: whether the scores tell the events that are expected.
    """
    for name, segments in scores.items():
        quantity = f"{prefix}extraction_{name}"
        for steps in STEPS:
            varied = np.concatenate([_varied(one, steps) for one in tokens[name]])
            block = np.concatenate([1_000 * i + _blocks(len(one.nats), steps) for i, one in enumerate(segments)])
            kinds = {"sampled": [np.exp(-_run_sums(one.nats, steps)) for one in segments]}
            if greedy:
                kinds["greedy"] = [_run_sums(one.expected, steps) == steps for one in segments]
            for kind, shares in kinds.items():
                share = np.concatenate(shares).astype(np.float64)
                for metric, values in {f"{kind}_{steps}": share, f"{kind}_varied_{steps}": share * varied}.items():
                    about = {"quantity": quantity, "metric": metric, "n": len(block), "seeds": 1}
                    if len(block):
                        yield about | of(mean_of(values, block))
        if greedy:
            longest = [_longest_run(one.expected, seen) for one, seen in zip(segments, tokens[name], strict=True)]
            for metric, length in zip(
                ("greedy_longest", "greedy_longest_varied"), np.max(longest, axis=0), strict=True
            ):
                about = {"quantity": quantity, "metric": metric, "n": sum(len(one.nats) for one in segments)}
                yield about | {"seeds": 1} | of(Estimate(int(length), np.nan, np.nan))


def membership_rows(late: EventScores, validation: EventScores, test: EventScores, prefix: str = "") -> Iterator[Told]:
    """Area under the curve of the loss of windows: learned from against not, and not against not."""
    adjacent = EventScores(late.nats[-len(validation.nats) :], late.expected[-len(validation.nats) :])
    pairs = {
        "auc": ([late], [validation, test]),
        "auc_adjacent": ([adjacent], [validation]),
        "auc_control": ([validation], [test]),
    }
    for metric, (members, others) in pairs.items():
        (first, first_block), (second, second_block) = _windows(members), _windows(others)
        found = area(-first, -second, first_block, second_block)
        yield {"quantity": f"{prefix}membership", "metric": metric, "n": len(first) + len(second), "seeds": 1} | of(
            found
        )


def model_rows(day: EncodedDay, model: str) -> Iterator[Told]:
    """Extraction and membership of a model, and of the chain."""
    pieces = Pieces(day)
    config, weights = load_weights(checkpoint(model)[0])
    engine = make_engine(config, weights, _ROWS)
    segments = [pieces.late, pieces.validation, pieces.test]
    tokens = [one[1:, TOKEN] for one in segments]
    seen = {"train": tokens[:1], "held_out": tokens[1:]}
    late, validation, test = score_events(engine, segments, greedy=True)
    yield from extraction_rows({"train": [late], "held_out": [validation, test]}, seen)
    yield from membership_rows(late, validation, test)
    chain = pieces.chain()
    nats = [chain.event_nats(one[:, TOKEN]) for one in segments]
    late, validation, test = (EventScores(one, np.zeros(len(one), bool)) for one in nats)
    yield from extraction_rows({"train": [late], "held_out": [validation, test]}, seen, CHAIN, greedy=False)
    yield from membership_rows(late, validation, test, CHAIN)


def chance_rows(day: EncodedDay, paths: int = 16, length: int = 1024, seed: int = 0) -> Iterator[Told]:
    """Longest matches of the record's test part, and of paths of the chain from there."""
    pieces = Pieces(day)
    chain, test = pieces.chain(), pieces.test[:, TOKEN]
    yield from match_rows(pieces, [test], RECORD)
    uniforms = np.random.default_rng(seed).random((paths, length, 2))
    starts = np.linspace(0, len(test) - 1, paths).astype(np.int64)
    drawn = [chain.draw(int(test[start]), one) for start, one in zip(starts, uniforms, strict=True)]
    yield from match_rows(pieces, drawn, CHAIN)


def _run_sums(values: np.ndarray, steps: int) -> np.ndarray:
    """Sums (n - steps + 1,) over each run of ``steps`` values."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return total[steps:] - total[:-steps] if len(values) >= steps else np.zeros(0)


def _blocks(length: int, steps: int) -> np.ndarray:
    return np.arange(max(length - steps + 1, 0)) // BLOCK


def _varied(tokens: np.ndarray, steps: int) -> np.ndarray:
    """Whether at least half of each run of ``steps`` tokens differ, (n - steps + 1,) bool."""
    if len(tokens) < steps:
        return np.zeros(0, bool)
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(tokens, steps), axis=1)
    return 2 * (1 + (np.diff(ordered, axis=1) != 0).sum(1)) >= steps


def _longest_run(expected: np.ndarray, tokens: np.ndarray) -> tuple[int, int]:
    """Lengths of the longest run of true values (n,), and of the longest whose tokens (n,) are varied."""
    gaps = np.flatnonzero(np.concatenate([[True], ~expected, [True]]))
    longest = int(np.diff(gaps).max()) - 1
    for steps in range(longest, 0, -1):
        if ((_run_sums(expected, steps) == steps) & _varied(tokens, steps)).any():
            return longest, steps
    return longest, 0


def _windows(segments: Sequence[EventScores]) -> tuple[np.ndarray, np.ndarray]:
    """Mean nats (w,) of whole windows, and the blocks (w,) of neighbours."""
    means, blocks = [], []
    for number, scores in enumerate(segments):
        count = len(scores.nats) // WINDOW
        means.append(scores.nats[: count * WINDOW].reshape(count, WINDOW).mean(1))
        blocks.append(1_000_000 * number + np.arange(count) * WINDOW // BLOCK)
    return np.concatenate(means), np.concatenate(blocks)


def _at_most(sequences: Sequence[np.ndarray], tokens: int) -> list[np.ndarray]:
    """The beginnings of sequences, so that they hold no more tokens than that together."""
    each = tokens // max(1, len(sequences))
    return [one[:each] for one in sequences if len(one)]
