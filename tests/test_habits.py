"""An asset's habits: what a flow is told of them, how they are found, and that they bring its markets nearer."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib import recfunctions as rfn
from small_tradefm import SHARES, even_bank, everyone, generated_day, write_checkpoint, written_down
from test_touch_places import touched_records

from tradefm_gym import cli
from tradefm_gym.data.day import save_day
from tradefm_gym.flow.habits import ADDS, CANCELS, MOST, TAKER_SIZES, WAITS, Habits
from tradefm_gym.flow.repeating import REPEATING
from tradefm_gym.flow.stream_state import HABITS, MEETING
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import CANCEL
from tradefm_gym.market.features import EMPTY_SIZE, FEATURES, MID_TOUCH, new_state, observe, size_codes
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.config import PRESETS, random_weights, save_checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism import habits_fit
from tradefm_gym.realism.habits_fit import HabitOptions, fit_habits

SMALL = HabitOptions(rounds=4, markets=8, events=320, burn_in=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def day():
    return generated_day(6_000)


def odds(**rows):
    """Log-odds of some rows, by name of the constant."""
    values = np.zeros(HABITS)
    for name, value in rows.items():
        values[{"adds": ADDS, "cancels": CANCELS, "takers": TAKER_SIZES, "waits": WAITS}[name]] = value
    return values


def records_of(flow, events=128, rows=4):
    n = flow.num_envs
    market = MarketSimulator(n, flow.market_config())
    flow.reset(market, everyone(n), np.zeros(n, np.int64), np.arange(n).astype(np.uint64), np.zeros(n, np.uint32))
    start = market.tape.record_count.copy()
    while (wanted := market.advance(until_count=np.full(n, events))).any():
        market.feed(flow.next_events(market, wanted))
    return [market.tape.read_records(row, int(start[row])) for row in range(min(n, rows))]


def test_cancels_come_as_much_oftener_as_said(model, day):
    tokenizer = TradeTokenizer.load(model)
    bank = recorded_bank(day, tokenizer, (4, 0, 0))
    shares = {}
    for more in (-1.0, 0.0, 1.0):
        flow = TradeFMFlow(model, 4, bank=bank, habits=Habits(odds(cancels=more)), placement="drawn")
        tapes = records_of(flow, 512)
        shares[more] = np.mean([(tape["kind"] == CANCEL).mean() for tape in tapes])
    assert shares[-1.0] < shares[0.0] - 0.05 < shares[1.0] - 0.1
    # A random network has cancels as often as adds, and each of them twice; odds are what is multiplied.
    ratio = shares[1.0] / (1 - shares[1.0]) / (shares[0.0] / (1 - shares[0.0]))
    assert ratio == pytest.approx(np.e, rel=0.25)


def test_longer_waits_take_longer(model, day):
    bank = recorded_bank(day, TradeTokenizer.load(model), (4, 0, 0))
    slow = np.linspace(-1.0, 1.0, 16)
    ends = [
        np.mean([tape["time_ns"][-1] - tape["time_ns"][0] for tape in records_of(flow)])
        for flow in (TradeFMFlow(model, 4, bank=bank, habits=Habits(odds(waits=way * slow))) for way in (-1, 1))
    ]
    assert ends[0] < 0.7 * ends[1]


def test_a_pace_of_late_lasts_as_long_as_said(model, day):
    bank = recorded_bank(day, TradeTokenizer.load(model), (4, 0, 0))
    usual, took = bank.feature_state["stream"]["usual_wait"][0], {}
    tail = len(bank.state(0).records)  # read before the first proposal
    for times in (1.0, 4.0):
        states = bank.feature_state.copy()
        states["stream"]["long_wait"] = times * usual
        slowed = replace(bank, feature_state=states)
        for lasting in (0.0, 0.5):
            flow = TradeFMFlow(model, 4, bank=slowed, habits=Habits(np.zeros(HABITS), lasting))
            took[times, lasting] = np.mean([tape["time_ns"][-1] - tape["time_ns"][0] for tape in records_of(flow, 64)])
    assert took[4.0, 0.0] == took[1.0, 0.0]  # nothing else reads it
    slower = 1.0 + 3.0 * 0.5 ** (tail / 2048)  # what is left of it then
    assert took[4.0, 0.5] == pytest.approx(slower**0.5 * took[1.0, 0.5], rel=0.1)


def test_takers_beyond_the_touch_are_counted_in_features():
    """A buyer's size against the asks that the event before left, told to an eighth of a doubling."""
    sizes, asks, sides = [0, 150, 151, 170, 100, 900], [150, 150, 150, 100, 100, 0], [0, 0, 0, 0, 1, 0]
    events = np.zeros(6, FEATURES)
    events["volume"], events["side"], events["taker"], events["valid"] = np.log1p(np.array(sizes) / 50), sides, 1, 1
    events["ask"] = np.where(np.array(asks) > 0, 0.125 * (size_codes(np.array(asks)) - 1.0) - np.log2(50), EMPTY_SIZE)
    events["bid"] = 10.0
    # Those after the first: equal, alike, an eighth of a doubling more, a seller before many bids, 900 before 100.
    assert habits_fit._beyond([events], 50.0) == (2 / 5, 5)
    assert habits_fit._beyond([events[:4], events[4:]], 50.0) == (2 / 4, 4)  # the fifth follows no event
    events["ask"][3] = EMPTY_SIZE
    assert habits_fit._beyond([events[:5]], 50.0)[1] == 4
    assert habits_fit._beyond([events[3:]], 50.0) == (1 / 2, 2)


def test_takers_of_a_day_that_take_no_more_than_is_shown_are_found_out(tmp_path):
    """A day of a flow whose takers do, and the same network, which does not know."""
    touched = observe(new_state(1, 100.0, (0.1, 1.0), mid_mode=MID_TOUCH, usual_spread=8.0), touched_records(0))[0]
    tokenizer = TradeTokenizer.calibrate([touched], "touch", pressure=True, book=True)
    config = replace(PRESETS["test"], **tokenizer.told)
    save_checkpoint(tmp_path / "small", config, random_weights(config, 1))
    tokenizer.save(tmp_path / "small" / "tokenizer.json")
    flow = TradeFMFlow(tmp_path / "small", 1, bank=even_bank(SHARES), habits=Habits(np.zeros(HABITS), trimmed=0.95))
    day = written_down(flow, 6_000)
    habits = fit_habits(day, tmp_path / "small", HabitOptions(rounds=3, markets=24, events=320, burn_in=64))
    beyond = np.array(habits.report["distances"], np.float64)[:, -2]
    assert beyond[0] > 0.2 and beyond[habits.report["kept"]] < 0.5 * beyond[0]
    assert habits.trimmed > 0.5


def test_a_row_with_habits_does_not_depend_on_its_neighbours(model, day):
    bank = recorded_bank(day, TradeTokenizer.load(model), (4, 0, 0))
    habits = Habits(np.random.default_rng(0).normal(0, 0.5, HABITS), repeating=np.ones(REPEATING))
    flows = [TradeFMFlow(model, n, bank=bank, habits=habits) for n in (1, 5)]
    alone, beside = (records_of(flow, rows=1)[0] for flow in flows)
    np.testing.assert_array_equal(alone, beside)
    assert flows[0].version != TradeFMFlow(model, 1, bank=bank).version
    again = flows[0].for_markets(5)
    assert again.version == flows[0].version
    np.testing.assert_array_equal(records_of(again, rows=1)[0], alone)


def test_the_flow_comes_nearer_to_the_day(model, day):
    told = []
    habits = fit_habits(day, model, SMALL, lambda done, of: told.append((done, of)))
    rounds = np.array(habits.report["distances"], np.float64)[:, :-2]
    assert (
        [number for number, _ in told] == list(range(len(told)))
        and told[0] == (0, 8)
        and rounds.shape == (5, HABITS[0])
    )
    assert habits.report["kept"] > 0
    assert rounds[habits.report["kept"]].sum() < 0.6 * rounds[0].sum()
    # The same again, by the same seed.
    np.testing.assert_array_equal(fit_habits(day, model, SMALL).log_odds, habits.log_odds)


@pytest.mark.parametrize("further", [9.0, -9.0])
def test_a_pace_lasts_as_forecasts_the_validation_part_best_unless_waits_stray(model, day, monkeypatch, further):
    """With errors that fall as the exponent grows, the largest is chosen, and none if all let waits stray too far."""
    monkeypatch.setattr(habits_fit, "_HORIZONS", (64, 128))  # the day is short
    monkeypatch.setattr(habits_fit, "_FURTHER", further)
    usual = habits_fit._pace_error

    def falling(model, bank, times, habits, *rest):
        error = usual(model, bank, times, habits, *rest)
        return error if error is None else error + 1.0 - habits.lasting

    monkeypatch.setattr(habits_fit, "_pace_error", falling)
    habits = fit_habits(day, model, HabitOptions(rounds=1, markets=8, events=320, burn_in=64))
    errors, strayed = habits.report["pace_error"], habits.report["strayed"]
    assert list(errors) == ["0.0", "0.35", "0.7"]
    allowed = [lasting for lasting in strayed if strayed[lasting] <= further]
    assert habits.lasting == float(min(allowed, key=errors.get, default="0.0"))
    assert habits.lasting == (0.7 if further > 0 else 0.0)


def test_a_day_that_is_too_short_has_no_habits(model):
    with pytest.raises(ValueError, match=r"ZERO, 2026-01-01, has \d+ events in its training part.*at least 1000"):
        fit_habits(generated_day(1_000), model, SMALL)


def test_habits_are_kept_as_they_are(model, day, tmp_path):
    bank, path = recorded_bank(day, TradeTokenizer.load(model), (4, 0, 0)), tmp_path / "habits.json"
    habits = Habits(
        np.random.default_rng(0).normal(0, 0.5, HABITS), 0.25, 0.75, np.linspace(-1, 1, REPEATING), {"kept": 3}
    )
    habits.save(path)
    loaded = Habits.load(path)
    np.testing.assert_array_equal(loaded.log_odds, habits.log_odds)
    np.testing.assert_array_equal(loaded.repeating, habits.repeating)
    assert (
        loaded.lasting == 0.25
        and (TradeFMFlow(model, bank=bank, habits=path).bank.feature_state["lasting"] == 0.25).all()
    )
    assert loaded.report == {"kept": 3} and loaded.digest == habits.digest
    assert TradeFMFlow(model, bank=bank, habits=path).version == TradeFMFlow(model, bank=bank, habits=habits).version
    state = TradeFMFlow(model, bank=bank, habits=path).bank.feature_state
    assert state is not None
    assert (state["lasting"] == 0.25).all() and (state["trimmed"] == 0.75).all()
    np.testing.assert_array_equal(state["habits"], np.tile(habits.log_odds, (len(bank), 1, 1)))
    np.testing.assert_array_equal(state["repeating"], np.tile(habits.repeating, (len(bank), 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_odds": [[0.0] * 16] * 5}, r"log_odds is of shape \(5, 16\); it must be \(6, 16\) numbers in"),
        ({"log_odds": [[MOST + 1] + [0.0] * 15] * 6}, r"log_odds has 4; it must be \(6, 16\) numbers in \[-3, 3\]"),
        ({"log_odds": "many"}, "it must be"),
        ({"lasting": 1.0}, r"lasting is 1.0; allowed is a number in \[0, 0.9\]"),
        ({"trimmed": -0.5}, r"trimmed is -0.5; allowed is a number in \[0, 1\]"),
        ({"repeating": [0.0] * 7}, r"repeating is of shape \(7,\); it must be \(9,\) numbers in \[-3, 3\]"),
        ({"repeating": "often"}, "repeating is 'often'; it must be a list of numbers"),
        ({"report": [1]}, r"habits.json'?: report is \[1\]; it must be a dict, or an object in a file"),
        ({"kind": "something"}, "'habits of an asset' is needed"),
        ({"format": 2}, "this version reads format 1"),
    ],
)
def test_a_file_that_holds_no_habits_is_refused(tmp_path, change, message):
    path = tmp_path / "habits.json"
    Habits(np.zeros(HABITS)).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        Habits.load(path)


def test_start_states_of_an_earlier_version_can_be_told_habits(model, day):
    """Made before takers were trimmed, or before there were habits; and what was told then keeps its protection."""
    bank = recorded_bank(day, TradeTokenizer.load(model), (4, 0, 0))
    habits = Habits(np.random.default_rng(0).normal(0, 0.5, HABITS), 0.25, 0.75, np.linspace(-1, 1, REPEATING))
    whole = habits.told(bank)

    def without(told, *fields):
        return replace(told, feature_state=rfn.drop_fields(told.feature_state, fields))

    for fields in (
        ("repeating",),
        ("trimmed", "repeating", "meeting"),
        ("habits", "lasting", "trimmed", "repeating", "meeting"),
    ):
        again = habits.told(without(bank, *fields))
        np.testing.assert_array_equal(again.feature_state, whole.feature_state)
    for told in (habits, replace(habits, trimmed=0.0)):
        flow = TradeFMFlow(model, 4, bank=without(told.told(bank), "meeting"))
        records_of(flow)
        assert (flow._meeting == MEETING).all()
    flow = TradeFMFlow(model, 4, bank=without(bank, "meeting"))
    records_of(flow)
    assert not flow._meeting.any()
    with pytest.raises(ValueError, match="start states that have none"):
        habits.told(replace(bank, feature_state=None))


def test_habits_of_another_network_are_refused(model, tmp_path):
    own = TradeFMFlow(model, bank=even_bank()).model_hash
    for report in ({}, {"model": own}):
        assert TradeFMFlow(model, bank=even_bank(), habits=Habits(np.zeros(HABITS), report=report)).habits is not None
    other = Habits(np.zeros(HABITS), report={"model": "0123456789ab"})
    other.save(tmp_path / "habits.json")
    for habits in (other, tmp_path / "habits.json"):
        with pytest.raises(ValueError, match=f"fitted with model '0123456789ab', and the flow's is '{own}'; they must"):
            TradeFMFlow(model, bank=even_bank(), habits=habits)


def test_what_cannot_be_is_refused(model, day):
    with pytest.raises(ValueError, match="habits is 3; it must be Habits, a path or None"):
        TradeFMFlow(model, bank=even_bank(), habits=3)
    stateless = even_bank()
    object.__setattr__(stateless, "feature_state", None)
    with pytest.raises(ValueError, match="start states that have none; allowed are those of a recorded day"):
        TradeFMFlow(model, bank=stateless, habits=Habits(np.zeros(HABITS)))
    with pytest.raises(ValueError, match="events is 100; "):
        fit_habits(day, model, HabitOptions(events=100))


def test_the_command_writes_habits_and_says_how_near_the_markets_come(model, day, tmp_path, capsys):
    save_day(tmp_path / "day.npz", day)
    out = tmp_path / "habits.json"
    asked = ["--data", str(tmp_path / "day.npz"), "--out", str(out), "--model", str(model), "--rounds", "1"]
    assert cli.main(["fit", "tradefm", *asked, "--markets", "4", "--events", "300"]) == 0
    said = capsys.readouterr().out
    assert "ZERO, made up, 2026-01-01" in said and "taker sizes" in said and "waits" in said
    assert "the validation part is too short" in said  # of 6,000 events
    flow = TradeFMFlow(model, 2, context=tmp_path / "day.npz", habits=out)
    bank = tmp_path / "bank.npz"
    asked[3] = str(bank)
    assert cli.main(["fit", "tradefm", *asked, "--markets", "4", "--events", "300"]) == 0
    told = TradeFMFlow(model, 2, context=bank)
    assert told.bank.feature_state["habits"].any() and told.bank.digest() == flow.bank.digest()
    np.testing.assert_array_equal(records_of(told, 64)[0], records_of(flow, 64)[0])
