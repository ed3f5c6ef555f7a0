import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank

from tradefm_gym.market.events import BUY, LIMIT, MARKET, SELL
from tradefm_gym.realism.impact import exponent, participation_rows, run_schedule, size_rows

LADDER = quiet_bank([(999 - i, 10) for i in range(40)], [(1001 + i, 10) for i in range(40)])
CONTEXTS = np.arange(6) % 3
SEEDS = np.arange(6, dtype=np.uint64)


def by_name(rows):
    return {(row["quantity"], row["metric"]): row for row in rows}


def test_impact_in_a_book_of_equal_levels_is_linear_and_stays():
    """A slice of one median, which is a level's size, moves the touch by one tick and the mid by half of it."""
    rows = by_name(size_rows(QuietFlow(6, LADDER), CONTEXTS, SEEDS, sizes=(1, 2, 4, 8), after=(4, 16)))
    for size in (1, 2, 4, 8):
        assert rows[f"impact_of_{size}", "at_end"]["value"] == pytest.approx(0.5 * size / 1000 * 1e4)
        assert rows[f"impact_of_{size}", "kept_after_16"]["value"] == pytest.approx(1.0)
        assert rows[f"impact_of_{size}", "participation"]["value"] == pytest.approx(1.0)  # nobody else trades
    found = rows["impact_against_size", "exponent"]
    assert (found["value"], found["low"], found["high"]) == pytest.approx((1.0, 1.0, 1.0))
    assert found["n"] == found["seeds"] == 6


def test_impact_is_what_differs_from_the_market_without_the_agent():
    """The background sells ten levels in both arms; that is no impact."""
    flow = QuietFlow(6, LADDER, {2: (MARKET, SELL, 0, 100)})
    mid, executed = run_schedule(flow, CONTEXTS, SEEDS, np.zeros(6, np.int64), np.zeros(6, np.int64), (), 8)
    assert mid[0].tolist() == [1000.0] * 3 + [995.0] * 6
    assert executed[0].tolist() == [0] * 3 + [100] * 6
    rows = by_name(size_rows(flow, CONTEXTS, SEEDS, sizes=(1, 2), after=(4,)))
    assert rows["impact_of_2", "at_end"]["value"] == pytest.approx(10.0)


class RandomQuotes(QuietFlow):
    """Bids of a great size at random prices, drawn by seed and number: whatever agents take, the touch is theirs."""

    def reset(self, market, rows, contexts, seeds, episodes):
        super().reset(market, rows, contexts, seeds, episodes)
        for m in np.flatnonzero(rows):
            self.prices[m] = 900 + np.random.default_rng(int(seeds[m])).permutation(90)

    def next_events(self, market, wanted):
        first = self.made.copy()
        block = super().next_events(market, wanted)
        for m in np.flatnonzero(wanted):
            numbers = first[m] + np.arange(int(block.count[m]))
            quotes = block.events[m, : len(numbers)]
            quotes["kind"], quotes["side"], quotes["size"] = LIMIT, BUY, 10_000
            quotes["price"], quotes["order_id"] = self.prices[m][numbers % 90], 1000 + numbers
        return block

    def __init__(self, num_envs):
        super().__init__(num_envs, quiet_bank([(899, 10_000)], [(1001, 10_000)]))
        self.prices = np.zeros((num_envs, 90), np.int64)


def test_a_random_market_that_does_not_answer_has_no_impact_at_all():
    """Both arms meet the same random numbers, so all that the market does by itself cancels to the last digit."""
    flow, nobody = RandomQuotes(6), np.zeros(6, np.int64)
    mids, _ = run_schedule(flow, CONTEXTS, SEEDS, nobody, nobody, (), 32)
    others, _ = run_schedule(flow, CONTEXTS, SEEDS + np.uint64(100), nobody, nobody, (), 32)
    assert (np.abs(mids - others).max(axis=1) > 0).all()  # by other seeds it does something else
    rows = [
        *size_rows(flow, CONTEXTS, SEEDS, sizes=(1, 2, 4), after=(4, 16)),
        *participation_rows(flow, CONTEXTS, SEEDS, participation=(0.01, 0.2), events=32, slices=4),
    ]
    at_end = [row for row in rows if row["metric"] == "at_end"]
    assert len(at_end) == 5
    assert all(row["value"] == row["low"] == row["high"] == 0 for row in at_end)


def test_participation_sets_the_size():
    flow = QuietFlow(6, LADDER)  # usually 10 lots an event
    rows = by_name(participation_rows(flow, CONTEXTS, SEEDS, participation=(0.01, 0.2), events=16, slices=4))
    # 0.01 / 0.99 of 160 lots is 1.6: one order of 2 lots; a quarter of 160 is 40: four orders of a level each.
    assert rows["impact_at_1_percent", "at_end"]["value"] == 0.0
    assert rows["impact_at_20_percent", "at_end"]["value"] == pytest.approx(0.5 * 4 / 1000 * 1e4)


def test_exponent_of_a_power_law():
    sizes = np.array([1, 2, 4, 8, 16])
    assert exponent(sizes, np.stack([3.0 * sizes**0.5, 0.1 * sizes**0.8])) == pytest.approx([0.5, 0.8])
    assert np.isnan(exponent(sizes, np.array([[1.0, 2.0, -1.0, 3.0, 4.0]]))[0])


def test_wrong_arguments_are_named():
    flow = QuietFlow(6, LADDER)
    with pytest.raises(ValueError, match=r"participation is 1\.5"):
        size_rows(flow, CONTEXTS, SEEDS, participation=1.5)
    with pytest.raises(ValueError, match="participation is 0"):
        participation_rows(flow, CONTEXTS, SEEDS, participation=(0.1, 0))
    with pytest.raises(ValueError, match="contexts has shape"):
        size_rows(flow, CONTEXTS[:5], SEEDS)
    with pytest.raises(ValueError, match="seeds has shape"):
        size_rows(flow, CONTEXTS, SEEDS[:5])
