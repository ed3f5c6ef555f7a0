from dataclasses import replace

import numpy as np
import pytest
from test_tokenizer import features_of

from tradefm_gym.market.features import day_features
from tradefm_gym.model.baselines import CopyPrevious, Markov, Unigram
from tradefm_gym.model.token_events import mirror
from tradefm_gym.model.tokenizer import TradeTokenizer, decompose
from tradefm_gym.model.windows import Augmentation, FlowWindows, reflag


@pytest.fixture(scope="module")
def segment():
    features = features_of(0)
    features["flag"] = 0
    return features


@pytest.fixture(scope="module")
def tokenizer(segment):
    return TradeTokenizer.calibrate([segment])


def test_unaugmented_windows_hold_every_event_once(segment, tokenizer):
    source = FlowWindows([segment, segment[:100]], tokenizer, context=64)
    tokens = [t[1:] for t in source.tokens()]
    for stride in (64, 32, 10):
        targets, scored = [], 0
        for inputs, target, weights in source.windows(batch=7, stride=stride):
            assert inputs.shape[1:] == (64, 4) and target.shape == weights.shape
            shifted = (inputs[:, 1:, 3] == target[:, :-1]) | (weights[:, :-1] == 0) | (weights[:, 1:] == 0)
            assert shifted.all()
            targets.append(target[weights > 0])
            scored += int(weights.sum())
        assert np.array_equal(np.concatenate(targets), np.concatenate(tokens))
        assert scored == sum(len(t) for t in tokens)


def test_samples_are_a_function_of_the_generator(segment, tokenizer):
    source = FlowWindows([segment], tokenizer, 64, Augmentation())
    first, second = (source.sample(5, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    other = source.sample(5, np.random.default_rng(4))
    assert not np.array_equal(first[0], other[0])


def slow_sample(segments, tokenizer, context, settings, batch, rng):
    """The twin of ``FlowWindows.sample``: a window's values are changed first and made tokens then."""
    segments = [s[s["valid"] == 1] for s in segments]
    lengths = np.array([len(s) for s in segments], np.float64)
    rows, weights = np.zeros((batch, context + 1, 4), np.int32), np.zeros((batch, context), np.float32)
    for b, s in enumerate(rng.choice(len(segments), batch, p=lengths / lengths.sum())):
        start = int(rng.integers(0, max(len(segments[s]) - context, 1)))
        window = segments[s][start : start + context + 1].copy()
        if settings.mirror and rng.random() < 0.5:
            window = mirror(window, tokenizer.mid)
        if settings.level_shift_bps > 0:
            window["level"] += settings.level_shift_bps * rng.standard_normal()
        reflag(window, settings.reflag, rng, settings.takers)
        rows[b, : len(window)] = tokenizer.encode(window)
        weights[b, : len(window) - 1] = window["flag"][1:] == 0
    return rows[:, :-1], rows[:, 1:, 3], weights


@pytest.mark.parametrize(
    "told", [{}, {"mid": "book", "pressure": True}, {"mid": "touch", "pressure": True, "book": True}], ids=str
)
def test_windows_of_tokens_are_those_of_values(segment, told):
    tokenizer = TradeTokenizer.calibrate([segment], **told)
    segments = [segment[:1_500], segment[1_500:1_540], segment[2_000:]]
    source = FlowWindows(segments, tokenizer, 64, Augmentation())
    for seed in range(3):
        fast = source.sample(16, np.random.default_rng(seed))
        slow = slow_sample(segments, tokenizer, 64, Augmentation(), 16, np.random.default_rng(seed))
        assert all(np.array_equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_flagged_events_carry_no_loss_and_all_others_do(segment, tokenizer):
    source = FlowWindows([segment], tokenizer, 64, Augmentation(reflag=0.9))
    inputs, _, weights = source.sample(40, np.random.default_rng(0))
    flags = inputs[:, 1:, 1]
    assert 0.05 < flags.mean() < 0.6
    assert np.array_equal(weights[:, :-1] > 0, flags == 0)


def test_cancels_follow_the_orders_that_they_cancel(segment):
    window = segment[100:400].copy()
    reflag(window, 0.9, np.random.default_rng(1))
    assert window["flag"].sum() > 20
    last: dict[int, int] = {}
    for event in window:
        if event["action"] == 0:
            last[int(event["order_id"])] = int(event["flag"])
        else:
            assert event["flag"] == last.get(int(event["order_id"]), 0)


def test_reflagging_recounts_time_as_a_rollout_does(segment):
    window = segment[100:400].copy()
    reflag(window, 0.9, np.random.default_rng(1))
    for i in range(50, 300):
        if window[i]["flag"]:
            previous = window[i - 1]["time_ns"]
        else:
            background = np.flatnonzero(window["flag"][:i] == 0)
            previous = window["time_ns"][background[-1]]
        assert window[i]["seconds"] == pytest.approx((window[i]["time_ns"] - previous) * 1e-9)


def test_mirror_exchanges_sides_and_nothing_else(segment, tokenizer):
    source = FlowWindows([segment[:65]], tokenizer, 64, Augmentation(0.0, 0.0, True, 0.0))
    straight = FlowWindows([segment[:65]], tokenizer, 64).sample(1, np.random.default_rng(0))[0][0, :, 3]
    seen = {tuple(source.sample(1, np.random.default_rng(s))[0][0, :, 3]) for s in range(20)}
    assert len(seen) == 2 and tuple(straight) in seen
    mirrored = np.array(next(t for t in seen if t != tuple(straight)))
    a, b = decompose(straight), decompose(mirrored)
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], 1 - b[1])
    assert (a[2] + b[2] == 15).mean() > 0.98  # values on an edge belong to the upper bin on both sides
    assert np.array_equal(a[3], b[3]) and np.array_equal(a[4], b[4])


def test_day_features_take_terciles_from_the_calibration_part_only():
    from test_features import random_records

    records = random_records(2, 2_000)
    records["owner"] = -1
    calibration = range(0, 1_000)
    _, _, start = day_features(records, calibration, 100.0)
    changed = records.copy()
    changed["filled"][1_000:] *= 50
    features, index, same = day_features(changed, calibration, 100.0)
    assert start == same
    inside = features["liquidity"][index < 1_000]
    assert np.bincount(inside, minlength=3).min() > 0.3 * len(inside)


def test_segments_without_events_are_refused(tokenizer, segment):
    with pytest.raises(ValueError, match="segments"):
        FlowWindows([segment[:1]], tokenizer, 64)


def chain(seed: int, count: int) -> np.ndarray:
    """A first-order chain over five tokens that mostly steps by one."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0, 1, 2], count, p=[0.2, 0.7, 0.1])
    return np.cumsum(steps) % 5 * 1_000


def test_baselines_reach_the_entropy_of_their_own_model_class():
    train, validation, test = [chain(0, 60_000)], [chain(1, 5_000)], [chain(2, 20_000)]
    entropy = -(0.2 * np.log(0.2) + 0.7 * np.log(0.7) + 0.1 * np.log(0.1))
    markov = Markov(train, validation)
    assert markov.nats(test) == pytest.approx(entropy, abs=0.02)
    assert Unigram(train).nats(test) == pytest.approx(np.log(5), abs=0.05)
    assert markov.nats(test) < CopyPrevious(train, validation).nats(test) <= Unigram(train).nats(test) + 1e-3


def test_baselines_give_unseen_tokens_a_finite_price():
    train, validation = [chain(0, 1_000)], [chain(1, 1_000)]
    unseen = [np.array([1, 2, 3])]
    for baseline in (Unigram(train), CopyPrevious(train, validation), Markov(train, validation)):
        assert 5 < baseline.nats(unseen) < 30


def test_a_share_of_the_windows_does_not_say_whose_they_are(tokenizer, segment):
    told = replace(tokenizer, assets=("one", "another"))
    known = segment.copy()
    known["asset"] = told.asset_of("another")

    def assets(share):
        augmentation = Augmentation(0.0, 0.0, False, 0.0, share)
        inputs = FlowWindows([known], told, 64, augmentation).sample(64, np.random.default_rng(5))[0]
        found = inputs[..., 1] // (2 * told.pressures)
        assert (found == found[:, :1]).all()
        return found[:, 0]

    assert (assets(0.0) == 2).all()
    assert 8 <= (assets(0.25) == 0).sum() <= 26 and set(assets(0.25)) == {0, 2}
