import numpy as np
import pytest

from tradefm_gym.market.events import BUY, CANCEL, LIMIT, PRINT, RECORD, REJECTED, RESTED, SELL
from tradefm_gym.market.features import MID_BOOK, MID_VWAP, WAIT_DECAY, new_state, observe


def random_records(seed: int, count: int = 500, price_scale: int = 1, size_scale: int = 1) -> np.ndarray:
    """A plausible stream: executions, cancels, prints, refusals, ties in time, a participant."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, RECORD)
    records["time_ns"] = np.cumsum(rng.choice([0, 900, 10**6, 3 * 10**8, 10**10], count)) + 10**12
    records["kind"] = rng.choice([LIMIT, CANCEL, PRINT], count, p=[0.55, 0.4, 0.05])
    records["side"] = rng.choice([BUY, SELL], count)
    records["price"] = (10_000 + rng.integers(-40, 41, count)) * price_scale
    records["size"] = rng.integers(1, 500, count) * size_scale
    records["status"] = rng.choice([RESTED, REJECTED], count, p=[0.97, 0.03])
    records["owner"] = rng.choice([-1, 0], count, p=[0.9, 0.1])
    records["order_id"] = rng.integers(0, 300, count)
    executed = (records["kind"] != CANCEL) & (rng.random(count) < 0.2)
    records["filled"] = np.where(executed, rng.integers(1, 100, count) * size_scale, 0)
    records["notional"] = records["filled"].astype(np.int64) * records["price"]
    records["mid2"] = (20_000 + rng.integers(-9, 10, count)) * price_scale
    return records


@pytest.mark.parametrize("mid_mode", [MID_VWAP, MID_BOOK])
@pytest.mark.parametrize("seed", range(3))
def test_features_of_a_prefix_do_not_change_when_events_follow(seed, mid_mode):
    records = random_records(seed)
    whole, index = observe(new_state(1, 100.0, (0.1, 1.0), mid_mode=mid_mode), records)
    for end in (1, 2, 57, 250, 499):
        prefix, prefix_index = observe(new_state(1, 100.0, (0.1, 1.0), mid_mode=mid_mode), records[:end])
        assert np.array_equal(prefix, whole[: len(prefix)])
        assert np.array_equal(prefix_index, index[: len(prefix)])
        assert len(prefix) == np.count_nonzero(index < end)


def test_a_stream_may_come_in_pieces():
    records = random_records(5)
    whole, _ = observe(new_state(1, 100.0), records)
    state = new_state(1, 100.0)
    pieces = [observe(state, part)[0] for part in np.array_split(records, 17)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_an_event_does_not_see_its_own_execution():
    records = random_records(1, 3)
    records["kind"], records["status"], records["owner"], records["filled"] = LIMIT, RESTED, -1, 0
    records["mid2"] = 20_000
    records[1]["filled"], records[1]["notional"], records[1]["price"] = 10, 10 * 10_050, 10_050
    features, _ = observe(new_state(1, 100.0), records)
    assert features["valid"].tolist() == [0, 1, 1]  # before the first record there is no mid at all
    assert features["mid"].tolist() == [0.0, 10_000.0, 10_050.0]
    assert features[1]["depth"] == pytest.approx(50.0)


def test_pressure_remembers_takers_of_either_side_for_a_while():
    """A taker of 3 median sizes counts log2(4) = 2; half of it is left after 4 events, in the slow sum after 64."""
    records = np.zeros(70, RECORD)
    records["kind"], records["status"], records["owner"], records["mid2"] = CANCEL, RESTED, -1, 20_000
    records["price"], records["size"] = 10_000, 10
    for at, side in ((1, SELL), (65, BUY)):
        records[at]["kind"], records[at]["side"], records[at]["filled"] = LIMIT, side, 300
        records[at]["notional"] = 300 * 10_000
    features, _ = observe(new_state(1, 100.0), records)
    assert features["taker"].nonzero()[0].tolist() == [1, 65]
    assert features["fast"][[0, 1, 5, 9]] == pytest.approx([0.0, -2.0, -1.0, -0.5])
    assert features["slow"][[0, 1, 65]] == pytest.approx([0.0, -2.0, -1.0 + 2.0])
    assert features["fast"][65] == pytest.approx(2.0 - 2.0 * 0.5**16)


def test_vwap_halves_its_memory_after_a_half_life():
    records = np.zeros(3, RECORD)
    records["status"], records["owner"], records["size"] = RESTED, -1, 10
    records["price"] = [100, 200, 150]
    records["time_ns"] = [0, 10 * 10**9, 10 * 10**9]
    records["filled"][:2] = [30, 30]
    records["notional"][:2] = [3_000, 6_000]
    features, _ = observe(new_state(1, 10.0, half_life_s=10.0), records)
    # 30 lots at 100 count half when 30 lots at 200 are added in full.
    assert features[2]["mid"] == pytest.approx((15 * 100 + 30 * 200) / 45)


def test_background_inter_arrival_ignores_participants():
    records = np.zeros(4, RECORD)
    records["status"], records["size"], records["price"], records["mid2"] = RESTED, 10, 100, 200
    records["owner"] = [-1, 0, 0, -1]
    records["time_ns"] = [0, 1_000_000_000, 1_500_000_000, 2_000_000_000]
    features, _ = observe(new_state(1, 10.0), records)
    assert features["seconds"].tolist() == pytest.approx([0.0, 1.0, 0.5, 2.0])
    assert features["flag"].tolist() == [0, 1, 1, 0]


def test_prints_move_the_mid_but_are_no_events():
    records = np.zeros(2, RECORD)
    records["kind"] = [PRINT, LIMIT]
    records["status"], records["owner"], records["size"], records["price"] = RESTED, -1, 10, [105, 100]
    records["filled"], records["notional"] = [10, 0], [1_050, 0]
    features, index = observe(new_state(1, 10.0), records)
    assert index.tolist() == [1]
    assert features[0]["mid"] == 105.0


@pytest.mark.parametrize(("argument", "value"), [("median_size", 0.0), ("half_life_s", -1.0)])
def test_bad_constants_are_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        new_state(**{"count": 1, "median_size": 1.0, argument: value})


def test_records_of_another_dtype_are_refused():
    with pytest.raises(TypeError, match="records"):
        observe(new_state(1, 1.0), np.zeros(3))


def test_the_pace_is_the_usual_wait_over_that_of_late():
    records = random_records(3, 600)
    records["time_ns"] = np.arange(1, 601) * 500_000_000  # two a second, whoever sends them
    state = new_state(1, 100.0, usual_wait=1.0)
    features, index = observe(state, records)
    waits, last = [1.0], None
    for at in index.tolist():
        now = int(records["time_ns"][at])
        waits.append(waits[-1] + (1.0 - WAIT_DECAY) * ((now - last) * 1e-9 - waits[-1]) if last else waits[-1])
        last = now
    np.testing.assert_allclose(features["pace"], -np.log2(waits[1:]), rtol=1e-12)
    assert features["pace"][-1] > 0.3
    assert not observe(new_state(1, 100.0), records)[0]["pace"].any()  # where the usual wait is not known
