import numpy as np
import pytest

from tradefm_gym.market.events import BUY, CANCEL, LIMIT, RECORD, SELL
from tradefm_gym.realism import quantities
from tradefm_gym.realism.distances import Sample
from tradefm_gym.realism.measured import Measured
from tradefm_gym.realism.path import FILL, MarketPath
from tradefm_gym.realism.sections import Subject, conditional_distances


def test_durations_are_relative_to_those_around_them():
    """Twice as slow in a second half changes nothing but there where it begins; spells do."""
    even = np.arange(1, 16 * 300 + 2, dtype=np.int64) * 1_000
    assert quantities._relative_durations(even) == pytest.approx(np.ones(300))
    slower = np.concatenate([even, even[-1] + 2 * even])
    told = quantities._relative_durations(slower)
    assert told[:268] == pytest.approx(np.ones(268)) and told[-268:] == pytest.approx(np.ones(268))
    spells = np.append(0, np.cumsum(np.repeat(np.tile([1_000, 3_000], 150), 16)))
    assert np.unique(quantities._relative_durations(spells)[40:-40].round(2)).tolist() == [0.5, 1.5]
    assert quantities._relative_durations(np.zeros(40, np.int64)).tolist() == [0.0, 0.0]


def path_of(records, mids):
    """A path of one level on either side, a tick from each of the mids; that before the first event is the first."""
    book = np.zeros((len(mids), 1, 4), np.int32)
    book[:, 0] = np.stack([mids + 1, np.full(len(mids), 5), mids - 1, np.full(len(mids), 5)], 1)
    scale = np.array((2.0,), [("median_size", np.float64)])[()]
    return MarketPath(records, book, np.zeros(0, FILL), 0, book[0], scale, end_ns=int(records["time_ns"][-1]))


def test_a_taker_s_response_is_the_move_towards_its_side_within_ten_events():
    records, mids = np.zeros(30, RECORD), np.full(30, 1_000)
    records["time_ns"], records["side"] = np.arange(30) * 1_000, BUY
    for at, side in ((5, BUY), (8, SELL), (25, BUY)):  # the last is too near to the end
        records["side"][at], records["filled"][at] = side, 4
    mids[15:] = 1_001
    found = quantities.samples([path_of(records, mids)])
    assert found["taker_side"].values.tolist() == [1, -1, 1] and found["taker_same_side"].values.tolist() == [0, 0]
    assert found["taker_response"].values == pytest.approx(1e4 * np.log(1.001) * np.array([1, -1]))


def test_lifetimes_do_not_depend_on_how_long_a_path_is():
    """Every order lives for 10 events, or for 400 or 2,000 of them, the last beyond what is watched."""
    n, rng = 8_192, np.random.default_rng(0)
    records = np.zeros(n, RECORD)
    records["time_ns"], records["side"], records["kind"], records["price"] = np.arange(n) * 10**9, BUY, LIMIT, 999
    records["order_id"] = np.arange(n)
    born = rng.permutation(n)[: n // 3]
    for first, life in zip(born, rng.choice([10, 400, 2_000], len(born)), strict=True):
        if first + life < n and records["kind"][first + life] == LIMIT and records["kind"][first] == LIMIT:
            records["kind"][first + life], records["order_id"][first + life] = CANCEL, first
    path = path_of(records, np.full(n, 1_000))
    shares = []
    for length in (n, 2_048, 1_024):
        pieces = [path.between(first, first + length) for first in range(0, n, length)]
        lifetimes = quantities.samples(pieces)["order_lifetime"].values
        assert set(lifetimes) == {10.0, 400.0}
        shares.append((lifetimes == 10).mean())
    assert shares == pytest.approx([shares[0]] * 3, abs=0.03)


def test_a_stretch_in_which_nothing_is_added_has_no_lifetimes():
    records = np.zeros(5, RECORD)
    records["time_ns"], records["side"], records["kind"], records["price"] = np.arange(5) * 1_000, BUY, CANCEL, 999
    found = quantities.samples([path_of(records, np.full(5, 1_000))])
    assert "order_lifetime" not in found and len(found["cancel_size"].values) == 5


def test_halves_with_nothing_in_common_have_no_conditional_distance():
    """Two takers, one in each half of the record, and of sizes far apart."""
    block = np.array([0, 1])
    pair = Sample(np.array([1.0, 9.0]), block), Sample(np.array([0.0, 1.0]), block)
    real = Measured(given={"taker_response|taker_size": pair})
    assert conditional_distances(Subject("day", "floor", real, real)) == []
