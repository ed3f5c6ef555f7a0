"""Scores of single events: those of an engine, and those of the chain beside it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from test_features import random_records

from tradefm_gym.market.features import new_state, observe
from tradefm_gym.model.baselines import Markov
from tradefm_gym.model.config import PRESETS, random_weights, save_checkpoint
from tradefm_gym.model.likelihood import score_events
from tradefm_gym.model.numba_engine import NumbaEngine
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.model.windows import FlowWindows

CONFIG = replace(PRESETS["test"], context=16)


@pytest.fixture(scope="module")
def segments():
    return [observe(new_state(1, 100.0, (0.1, 1.0)), random_records(seed, n))[0] for seed, n in ((0, 150), (1, 40))]


@pytest.fixture(scope="module")
def windows(segments):
    return FlowWindows(segments, TradeTokenizer.calibrate(segments), CONFIG.context)


@pytest.fixture(scope="module")
def weights():
    # Larger than at the start of a training, so that tokens differ in what they cost.
    return {name: 3.0 * value if value.ndim > 1 else value for name, value in random_weights(CONFIG, 1).items()}


def test_scores_are_those_of_training(windows, weights, tmp_path):
    pytest.importorskip("torch")
    from tradefm_gym.model.training import score

    save_checkpoint(tmp_path / "model", CONFIG, weights)
    inputs = [segment["straight"].astype(np.int32) for segment in windows.segments]
    for batch in (5, 64):
        found = score_events(NumbaEngine(CONFIG, weights, batch), inputs)
        assert [len(one.nats) for one in found] == [len(one) - 1 for one in inputs]
        nats = np.concatenate([one.nats for one in found])
        wanted = score(tmp_path / "model", windows.windows(stride=CONFIG.context // 2))
        assert nats.mean() == pytest.approx(wanted, abs=1e-5)
        assert not np.concatenate([one.expected for one in found]).any()


def test_the_expected_event_is_the_likeliest_of_every_digit(windows, weights):
    inputs = windows.segments[1]["straight"][:12].astype(np.int32)
    engine = NumbaEngine(CONFIG, weights, 3)
    bits = np.full((3, 5), 1 << 31, np.uint32)
    for length in range(1, 8):  # put the greedy event in the place of the recorded one
        engine.prefill([0], [inputs[:length]])
        inputs[length, 3] = engine.sample(bits, np.array([True, False, False]), temperature=1e-3)[0]
    inputs[9, 3] = (inputs[9, 3] + 4096) % 16384
    (found,) = score_events(NumbaEngine(CONFIG, weights, 3), [inputs], greedy=True)
    assert found.expected[:7].all() and not found.expected[8]


def test_segments_too_short_to_score_have_no_scores(weights):
    found = score_events(NumbaEngine(CONFIG, weights, 2), [np.zeros((1, 4), np.int32), np.zeros((0, 4), np.int32)])
    assert [len(one.nats) for one in found] == [0, 0]


def test_the_chain_scores_each_event_and_goes_the_ways_that_it_has_counted():
    cycle = np.tile([7, 5, 16383, 0], 500)
    chain = Markov([cycle], [cycle])
    assert chain.event_nats(cycle).mean() == pytest.approx(chain.nats([cycle]), rel=1e-12)
    path = chain.draw(7, np.random.default_rng(0).random((400, 2)))
    follows = np.array([(a, b) in {(7, 5), (5, 16383), (16383, 0), (0, 7)} for a, b in pairwise(path.tolist())])
    assert follows.mean() > 0.98 and path[0] == 5
    even = Markov([np.array([1, 2, 1, 3] * 300)], [np.array([1, 2, 1, 3] * 300)])
    path = even.draw(1, np.random.default_rng(1).random((4_000, 2)))
    assert (path == 2).sum() / (path == 3).sum() == pytest.approx(1.0, abs=0.15)
