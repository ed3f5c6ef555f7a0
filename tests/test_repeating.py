"""How takers follow each other: what is counted, what a stream knows, and that a day's runs are found out."""

from dataclasses import replace

import numpy as np
import pytest
from small_tradefm import SHARES, even_bank, generated_day, write_checkpoint, written_down
from test_habits import records_of
from test_touch_places import touched_records

from tradefm_gym.flow.habits import Habits
from tradefm_gym.flow.repeating import GAPS, REPEATING, TURNING, pairs_of
from tradefm_gym.flow.stream_state import HABITS
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import BUY, CANCEL
from tradefm_gym.market.features import FEATURES, MID_TOUCH, mid_estimate, new_state, observe
from tradefm_gym.model.config import PRESETS, random_weights, save_checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism import habits_fit
from tradefm_gym.realism.habits_fit import HabitOptions, fit_habits
from tradefm_gym.realism.intervention import AgentMarkets


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def day():
    return generated_day(6_000)


def test_takers_on_the_side_of_the_one_before_are_counted_by_how_long_ago_it_came():
    """Buyers and sellers at events 0, 1, 3, 6, 106; an agent between them is nobody's."""
    events = np.zeros(107, FEATURES)
    events["taker"][[0, 1, 2, 3, 6, 106]], events["side"][[2, 6, 106]], events["flag"][2] = 1, 1, 1
    same, count, *_ = habits_fit._repeats([events], 4.0)
    assert count.tolist() == [1, 1, 1, 0, 0, 0, 0, 1] and same.tolist() == [1, 1, 0, 0, 0, 0, 0, 1]
    assert habits_fit._repeats([events[:2], events[3:]], 4.0)[1].tolist() == [1, 0, 1, 0, 0, 0, 0, 1]  # none across
    # The mid before the next event after a taker, and before the taker after it, in spreads of 4 on the first's way.
    events["mid"] = 100.0
    events["mid"][[3, 6, 7, 106]] = 98.0, 101.0, 102.0, 104.0
    assert pairs_of([events], 4.0)[2].tolist() == [0.0, -0.5, 0.25, -0.5]
    events["mid"][106] = 0.0  # not known
    assert pairs_of([events], 4.0)[2].tolist() == [0.0, -0.5, 0.25, 0.0]
    assert pairs_of([events], 0.5)[2].tolist() == [0.0, -1.0, 1.0, 0.0]  # at most one, and a spread is a tick at least


@pytest.mark.parametrize("slope", [0.0, 1.5])
def test_how_takers_turn_with_the_price_is_told_by_regression(slope):
    """Of takers drawn with known odds, within three standard errors."""
    generator, n = np.random.default_rng(3), 4_000
    events = np.zeros(3 * n, FEATURES)
    at = np.cumsum(generator.integers(2, 4, n))
    moved, gaps = generator.uniform(-1, 1, n), np.diff(at, prepend=-2)
    odds = np.where(gaps == 2, 1.0, 0.3) - slope * moved
    signs = np.cumprod(np.where(generator.random(n) < 1 / (1 + np.exp(-odds)), 1, -1))
    events["mid"], events["taker"][at], events["side"][at] = 100.0, 1, signs < 0
    events["mid"][at[1:]] += 4.0 * moved[1:] * signs[:-1]
    shares, count, turning, error = habits_fit._repeats([events[: at[-1] + 1]], 4.0)
    assert abs(turning - slope) < 3 * error < 0.3
    assert count.sum() == n - 1 and (shares[1] > shares[2]) == True  # noqa: E712


def test_a_stream_knows_its_last_taker():
    """Its side, and how many events ago it came; agents' takers are not the background's."""
    flow = TradeFMFlow(num_envs=1, placement="drawn")
    (records,) = records_of(flow, 600)
    state, side, ago, mid = new_state(1, 100.0, (0.1, 1.0)), 0, 0, 0.0
    records["owner"][1::7] = 0
    for record in records[records["price"] > 0]:
        observe(state, record.reshape(1))
        ago += 1
        if record["filled"] > 0 and record["kind"] != CANCEL and record["owner"] < 0:
            side, ago, mid = int(record["side"]), 1, mid_estimate(state[0])
        assert state["taker"][0] == side * ago and state["taker_mid"][0] == mid
    assert side != 0


def test_runs_of_takers_of_a_day_are_found_out(tmp_path, monkeypatch):
    """A day of a flow whose takers repeat, and the same network, which does not know."""
    touched = observe(new_state(1, 100.0, (0.1, 1.0), mid_mode=MID_TOUCH, usual_spread=8.0), touched_records(0))[0]
    tokenizer = TradeTokenizer.calibrate([touched], "touch", pressure=True, book=True)
    config = replace(PRESETS["test"], **tokenizer.told)
    save_checkpoint(tmp_path / "small", config, random_weights(config, 1))
    tokenizer.save(tmp_path / "small" / "tokenizer.json")
    monkeypatch.setattr(habits_fit, "_FEWEST", 40)  # the day is short
    repeating = np.array([2.0, 1.7, 1.4, 1.1, 0.8, 0.5, 0.2, 0.0, 1.5])
    flow = TradeFMFlow(
        tmp_path / "small", 1, bank=even_bank(SHARES), habits=Habits(np.zeros(HABITS), repeating=repeating)
    )
    day = written_down(flow, 12_000)
    habits = fit_habits(day, tmp_path / "small", HabitOptions(rounds=4, markets=64, events=448, burn_in=64))
    apart = np.array(habits.report["distances"], np.float64)[:, -1]
    assert apart[0] > 0.1 and apart[habits.report["kept"]] < 0.4 * apart[0]
    found = habits.repeating != 0.0
    assert found[:GAPS].sum() >= 3 and found[TURNING]
    np.testing.assert_allclose(habits.repeating[found], repeating[found], atol=0.6)
    told = habits.report["turning"]
    assert abs(told["flow"][habits.report["kept"]] - told["recorded"]) < 0.5 * abs(told["flow"][0] - told["recorded"])


def test_without_agents_quotes_both_mids_of_a_turn_are_others(model, day):
    """With anchor="background" a standing bid of an agent is no way that the price has gone on."""
    bank = recorded_bank(day, TradeTokenizer.load(model), (4, 0, 0))
    apart, habits = {}, Habits(np.zeros(HABITS), repeating=np.ones(REPEATING))
    for anchor in ("market", "background"):
        flow = TradeFMFlow(model, 4, bank=bank, habits=habits, anchor=anchor)
        markets = AgentMarkets(flow, np.arange(4), np.arange(4).astype(np.uint64), 512)
        after, differ = 0, 0.0
        for _ in range(200):
            bid, ask = markets.market.touch_excluding(None)
            markets.rest(np.full(4, BUY), np.where(ask - bid > 1, ask - 1, 0), np.full(4, 1))
            markets.run(1)
            states = flow._states
            last = (states["taker"] != 0) & (np.abs(states["taker"]) <= 2)  # the event before, and the agent's order
            after += last.sum()
            differ += np.abs(states["taker_mid"] - states["book_mid"])[last].sum()
        assert after > 10
        apart[anchor] = differ
    assert apart["background"] == 0.0 < apart["market"]
