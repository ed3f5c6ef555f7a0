"""What is said of models that remember everything, nothing, or a part."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tradefm_gym.model.likelihood import EventScores
from tradefm_gym.realism import memorisation
from tradefm_gym.realism.matches import longest_matches


def naive_matches(query, corpus):
    found = []
    for start in range(len(query)):
        length = 0
        while start + length < len(query) and any(
            np.array_equal(one[at : at + length + 1], query[start : start + length + 1])
            for one in corpus
            for at in range(len(one) - length)
        ):
            length += 1
        found.append(length)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_longest_matches_equal_those_of_a_search(seed):
    random = np.random.default_rng(seed)
    corpus = [random.integers(0, 3, n) for n in (30, 1, 25)]
    queries = [random.integers(0, 3, 20), corpus[0][5:25], random.integers(0, 4, 7), np.zeros(0, np.int64)]
    found = longest_matches(queries, corpus)
    assert [one.tolist() for one in found] == [naive_matches(query, corpus) for query in queries]


class MadeUpDay:
    """Tokens without any order, in three parts."""

    def __init__(self, tokens=16384):
        random = np.random.default_rng(0)
        lengths = {"train": 9_000, "validation": 1_500, "test": 1_500}
        self.parts = {name: random.integers(0, tokens, n) for name, n in lengths.items()}

    def inputs_of(self, part):
        return np.stack([np.zeros_like(self.parts[part])] * 3 + [self.parts[part]], axis=1).astype(np.int32)


def told(rows):
    return {(row["quantity"], row["metric"]): row for row in rows}


def test_what_is_copied_from_the_training_part_is_found():
    day = MadeUpDay()
    pieces = memorisation.Pieces(day)
    assert len(pieces.late) == 3_000 and len(pieces.early) == 6_000
    new = [np.random.default_rng(i).integers(0, 16384, 1_024) for i in range(1, 5)]
    rows = told(memorisation.match_rows(pieces, new))
    gap = rows["longest_match", "train_less_held_out"]
    assert gap["low"] <= 0.02 and gap["value"] == pytest.approx(0, abs=0.05) and gap["n"] == 4_096
    for one in new:
        one[100:140] = day.parts["train"][-400:-360]
    rows = told(memorisation.match_rows(pieces, new))
    assert rows["longest_match", "largest_in_train"]["value"] == 40
    assert rows["longest_match", "largest_in_held_out"]["value"] < 4
    assert rows["longest_match", "train_less_held_out"]["low"] > 0


def test_extraction_is_the_product_of_probabilities_and_the_run_of_expected_events():
    nats = np.full(600, np.log(2.0))
    expected, nothing = np.zeros(600, bool), np.zeros(600, bool)
    expected[40:60] = True
    tokens = np.arange(600)
    scores = {"train": [EventScores(nats, expected)], "held_out": [EventScores(4 * nats, nothing)]}
    rows = told(memorisation.extraction_rows(scores, {"train": [tokens], "held_out": [tokens]}))
    for steps in memorisation.STEPS:
        for kind in ("sampled", "sampled_varied"):
            assert rows["extraction_train", f"{kind}_{steps}"]["value"] == pytest.approx(0.5**steps)
            assert rows["extraction_held_out", f"{kind}_{steps}"]["value"] == pytest.approx(0.5 ** (4 * steps))
        assert rows["extraction_train", f"greedy_{steps}"]["value"] == pytest.approx(max(0, 21 - steps) / (601 - steps))
    assert rows["extraction_train", "greedy_longest"]["value"] == 20
    assert rows["extraction_train", "greedy_longest_varied"]["value"] == 20
    assert rows["extraction_held_out", "greedy_longest"]["value"] == 0


def test_what_repeats_itself_is_no_memory():
    expected = np.zeros(100, bool)
    expected[20:60] = True
    flicker = np.tile([7, 9], 50)
    scores = {"train": [EventScores(np.full(100, 0.1), expected)]}
    rows = told(memorisation.extraction_rows(scores, {"train": [flicker]}))
    assert rows["extraction_train", "greedy_longest"]["value"] == 40
    assert rows["extraction_train", "greedy_longest_varied"]["value"] == 4  # of four tokens two differ
    assert rows["extraction_train", "greedy_8"]["value"] > 0.3
    assert (
        rows["extraction_train", "greedy_varied_8"]["value"]
        == rows["extraction_train", "sampled_varied_8"]["value"]
        == 0
    )


def events(seed, mean, n=6_400):
    nats = np.random.default_rng(seed).gamma(2.0, mean / 2, n)
    return EventScores(nats, np.zeros(n, bool))


def test_membership_sees_what_was_learned_by_heart_and_only_that():
    rows = told(memorisation.membership_rows(events(0, 4.0), events(1, 6.0), events(2, 6.0)))
    assert rows["membership", "auc"]["low"] > 0.99 and rows["membership", "auc_adjacent"]["low"] > 0.99
    assert rows["membership", "auc_control"]["value"] == pytest.approx(0.5, abs=0.12)
    rows = told(memorisation.membership_rows(events(0, 6.0), events(1, 6.0), events(2, 6.0)))
    assert rows["membership", "auc"]["value"] == pytest.approx(0.5, abs=0.12)


def test_a_chain_knows_neither_piece_better():
    rows = told(memorisation.chance_rows(_EncodedMadeUp(), paths=4, length=512))
    gap = rows["markov_longest_match", "train_less_held_out"]
    assert gap["low"] <= 0 <= gap["high"]
    assert {quantity for quantity, _ in rows} == {"real_longest_match", "markov_longest_match"}


class _EncodedMadeUp(MadeUpDay):
    """Few tokens, so that all of them come again."""

    def __init__(self):
        super().__init__(40)
