"""What order-flow pressure and dense sides move, and the file that keeps how much."""

import json
import math

import numpy as np
import pytest
from small_tradefm import SHARES, even_bank, write_checkpoint

from tradefm_gym.flow.placement import PLACEMENT_WIDTH, density
from tradefm_gym.flow.repeating import REPEATING
from tradefm_gym.flow.stream_state import HABITS
from tradefm_gym.flow.tilting import Corrections
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.tradefm_kernels import prepare
from tradefm_gym.market.events import BUY, LIMIT, SELL
from tradefm_gym.market.features import FEATURE_STATE, INSIDE_FAR, MID_BOOK, MID_TOUCH, OPPOSITE_TOUCH, OWN_TOUCH
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.closed_loop import FILE, ClosedLoop
from tradefm_gym.model.corrections import Moves, tilt_row
from tradefm_gym.model.serving import model_hash


def book_of(lots=5, rows=1):
    """Books with that many lots at each of ten ticks on both sides of 1,000."""
    market = MarketSimulator(rows)
    for row in range(rows):
        for away in range(1, 11):
            for side in (BUY, SELL):
                market.send(LIMIT, side, 1_000 - side * away, lots, row=row)
    return market.book


def tilted(
    kinds,
    fast,
    slow,
    persistence,
    shares=SHARES,
    restoring=0.0,
    lots=5,
    agents=(0.0, 0.0, 0.0, 0.0),
    following=(0.0, 0.0),
    answering=0.0,
    mode=MID_BOOK,
    habits=0.0,
    taker=0,
    went=0.0,
    repeating=0.0,
):
    """Tilts and strengths of one row."""
    states = np.zeros(1, FEATURE_STATE)
    states["fast"], states["slow"], states["mid_mode"], states["taker"] = fast, slow, mode, taker
    states["book_mid"], states["taker_mid"], states["usual_spread"] = 1000.0 + went, 1000.0, 8.0
    placement = np.array([shares], np.float64)
    tilt, strength, dense = np.zeros((1, 64), np.float32), np.ones((1, 2)), np.zeros((1, 2))
    followed, own = np.array([following], np.float64), np.zeros((1, *HABITS)) + habits
    corrections = Corrections(
        np.array(persistence), followed, answering, restoring, own, np.zeros((1, REPEATING)) + repeating, np.zeros(1)
    )
    pressure, wanted, moves = np.array([agents], np.float64), np.ones(1, bool), Moves.none(1)
    asked(book_of(lots), corrections, dense, states, pressure, placement, wanted, moves)
    tilt_row(moves, 0, kinds.copy(), tilt[0], strength[0])
    return tilt[0], strength[0]


def asked(book, corrections, dense, states, pressure, placement, wanted, moves):
    """What the flow asks of the engine, to ``moves``."""
    n = len(wanted)
    seeds, episodes, words = np.zeros(n, np.uint64), np.zeros(n, np.uint32), np.zeros((n, 5), np.uint32)
    prepare(
        seeds, episodes, np.zeros(n, np.int64), wanted, words, book, corrections, dense, states, pressure, placement,
        moves,
    )  # fmt: skip


def takers(kinds, shares=SHARES):
    """Probability that the next event takes liquidity, by side."""
    shares, probability = np.array(shares[:16]), np.exp(kinds.astype(np.float64))
    return (probability[:16] * shares).sum(), (probability[16:32] * shares[::-1]).sum()


@pytest.fixture
def kinds():
    logits = np.random.default_rng(0).normal(0, 1.5, 64)
    return (logits - np.log(np.exp(logits).sum())).astype(np.float32)


@pytest.mark.parametrize(("fast", "slow"), [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0), (-0.5, -3.0), (1.0, -1.0)])
def test_pressure_moves_takers_from_one_side_to_the_other_by_as_much_as_said(kinds, fast, slow):
    tilt, strength = tilted(kinds, fast, slow, (0.004, 0.002))
    moved = 0.004 * fast + 0.002 * slow
    buy, sell = takers(kinds)
    # What a kind weighs beside the others, of which a share crosses: its odds of crossing rise by the strength.
    shares = np.array(SHARES[:16])
    weight = np.exp((kinds + tilt).astype(np.float64))
    assert weight.sum() == pytest.approx(1.0, abs=1e-5)  # takers change sides, nothing else changes
    crossing = shares * strength[0] / (1 + shares * (strength[0] - 1))
    assert (weight[:16] * crossing).sum() == pytest.approx(buy + moved, abs=1e-5)
    crossing = shares[::-1] * strength[1] / (1 + shares[::-1] * (strength[1] - 1))
    assert (weight[16:32] * crossing).sum() == pytest.approx(sell - moved, abs=1e-5)
    assert not tilt[32:].any()


def test_no_side_loses_more_than_nine_of_ten_takers(kinds):
    _, strength = tilted(kinds, 50.0, 50.0, (1.0, 1.0))
    assert strength[1] == pytest.approx(0.1)
    buy, sell = takers(kinds)
    assert strength[0] == pytest.approx((buy + 0.9 * sell) / buy)


def test_buyers_and_sellers_are_treated_alike(kinds):
    mirrored = np.concatenate([kinds[16:32][::-1], kinds[:16][::-1], kinds[48:][::-1], kinds[32:48][::-1]])
    tilt, strength = tilted(kinds, 0.7, 1.3, (0.02, 0.01))
    other, weakness = tilted(mirrored, -0.7, -1.3, (0.02, 0.01))
    np.testing.assert_allclose(tilt[:16], other[16:32][::-1], atol=1e-6)
    np.testing.assert_allclose(strength, weakness[::-1], atol=1e-9)


def test_without_calibration_what_lies_beyond_the_mid_takes(kinds):
    tilt, _ = tilted(kinds, 1.0, 1.0, (0.05, 0.0), (-1.0,) * PLACEMENT_WIDTH)
    assert not tilt[:8].any() and (tilt[8:16] > 0).all()
    assert (tilt[16:24] < 0).all() and not tilt[24:].any()


def test_followers_of_a_buyer_come_in_addition(kinds):
    """At a unit of fast pressure buyers are thrice as likely beside everything else, at a unit of selling sellers."""
    shares = np.array(SHARES[:16])
    buy, sell = takers(kinds)
    for side in (1, -1):
        tilt, strength = tilted(kinds, 0.0, 0.0, (0.0, 0.0), agents=(side, 0.0, 0.0, 0.0), following=(2.0, 0.0))
        assert strength[(1 - side) // 2] == pytest.approx(3.0) and strength[(1 + side) // 2] == 1.0
        weight = np.exp((kinds + tilt).astype(np.float64))
        assert weight.sum() == pytest.approx(1.0 + 2.0 * (buy if side > 0 else sell), abs=1e-5)
        own = shares if side > 0 else shares[::-1]
        crossing = own * 3.0 / (1 + own * 2.0)
        added = slice(0, 16) if side > 0 else slice(16, 32)
        assert (weight[added] * crossing).sum() == pytest.approx(3.0 * (buy if side > 0 else sell), abs=1e-5)


@pytest.mark.parametrize(("lots", "expected"), [(9, 0.0), (18, math.log(2)), (3, -math.log(3)), (900, 1.0), (1, -1.0)])
def test_cancels_grow_likelier_with_the_lots_that_rest_near_the_mid(kinds, lots, expected):
    """Ninety lots are usual within ten ticks of the mid."""
    shares = (*SHARES[:-2], 10.0, 90.0)
    tilt, _ = tilted(kinds, 0.0, 0.0, (0.0, 0.0), shares, restoring=0.5, lots=lots)
    assert not tilt[:32].any()
    np.testing.assert_allclose(tilt[32:], 0.5 * max(expected, -1.0), atol=1e-6)
    assert density(book_of(lots), 0, 0, np.array(shares)) == pytest.approx(max(expected, -1.0))


@pytest.mark.parametrize("pressure", [1.0, -1.0])
def test_those_who_follow_agents_are_answered_by_offers_at_the_touch_or_better(kinds, pressure):
    """For each taker that follows half an order more is offered, on the side that is taken from, and nowhere else."""
    said = {"agents": (0.0, pressure, 0.0, 0.0), "following": (0.0, 2.0), "mode": MID_TOUCH}
    alone, _ = tilted(kinds, 0.0, 0.0, (0.0, 0.0), **said)
    tilt, _ = tilted(kinds, 0.0, 0.0, (0.0, 0.0), answering=0.5, **said)
    probability, first = np.exp(kinds.astype(np.float64)), 0 if pressure > 0 else 16  # kind of the takers' side
    offers = 16 - first + np.arange(INSIDE_FAR, OWN_TOUCH + 1)
    more = (probability * np.exp(tilt) - probability)[offers].sum()
    assert more == pytest.approx(0.5 * 2.0 * probability[first : first + OPPOSITE_TOUCH + 1].sum(), rel=1e-5)
    np.testing.assert_allclose(tilt[offers], tilt[offers[0]], rtol=1e-6)
    np.testing.assert_array_equal(np.delete(tilt, offers), np.delete(alone, offers))
    said["agents"] = (0.0, 0.0, 3.0, 3.0)
    np.testing.assert_array_equal(tilted(kinds, 0.0, 0.0, (0.0, 0.0), answering=0.5, **said)[0], 0.0)


@pytest.mark.parametrize("mode", [MID_BOOK, MID_TOUCH])
def test_habits_are_the_same_for_both_sides_and_come_before_all_else(kinds, mode):
    habits = np.random.default_rng(1).normal(0, 1, HABITS)
    tilt, _ = tilted(kinds, 0.0, 0.0, (0.0, 0.0), mode=mode, habits=habits)
    sells = slice(None) if mode == MID_TOUCH else slice(None, None, -1)  # depths count from the mid, or are places
    expected = np.stack([habits[0], habits[0][sells], habits[1], habits[1][sells]])
    np.testing.assert_allclose(tilt.reshape(4, 16), expected, rtol=1e-6)
    pressed, strength = tilted(kinds, 1.0, 1.0, (0.02, 0.03), mode=mode, habits=habits)
    with_habits = kinds + tilt
    with_habits -= np.log(np.exp(with_habits.astype(np.float64)).sum()).astype(np.float32)
    alone, alone_strength = tilted(with_habits, 1.0, 1.0, (0.02, 0.03), mode=mode)
    np.testing.assert_allclose(pressed - tilt, alone, atol=2e-5)
    np.testing.assert_allclose(strength, alone_strength, rtol=1e-5)


def test_rows_that_are_not_wanted_are_left_alone():
    states, placement = np.zeros(2, FEATURE_STATE), np.array([SHARES, SHARES])
    own, wanted, repeating = np.full((2, *HABITS), 0.5), np.array([False, True]), np.ones((2, REPEATING))
    states["taker"] = 3
    corrections = Corrections(np.ones(2), np.zeros((2, 2)), 0.0, 1.0, own, repeating, np.zeros(2))
    dense, moves = np.full((2, 2), 7.0), Moves(*(array + 7.0 for array in Moves.none(2)))
    asked(book_of(5, rows=2), corrections, dense, states, np.ones((2, 4)), placement, wanted, moves)
    for array in (dense, *moves):
        assert (array[0] == 7.0).all() and (array[1] != 7.0).all()


@pytest.mark.parametrize("mode", [MID_BOOK, MID_TOUCH])
def test_a_taker_is_likelier_on_the_side_of_the_one_before(kinds, mode):
    """By the odds of the gap between them, as many takers in all, and cancels as before."""

    def sides(tilt):
        shown = np.exp((kinds + tilt).astype(np.float64))
        if mode == MID_BOOK:
            return takers(np.log(shown))
        return shown[:2].sum(), shown[16:18].sum()

    usual = sides(tilted(kinds, 0.0, 0.0, (0.0, 0.0), mode=mode)[0])
    for taker, gap in ((1, 0), (-2, 1), (5, 3), (-8, 3), (64, 6), (-65, 7), (10_000, 7)):
        for more in (0.8, -0.4):
            by_gap = np.where(np.arange(REPEATING) == gap, more, 9.0)
            tilt, strength = tilted(kinds, 0.0, 0.0, (0.0, 0.0), mode=mode, taker=taker, repeating=by_gap)
            buy, sell = usual[0] * strength[0], usual[1] * strength[1]
            assert buy + sell == pytest.approx(sum(usual), rel=1e-6)
            wanted = more if taker > 0 else -more
            assert math.log(buy / sell) == pytest.approx(math.log(usual[0] / usual[1]) + wanted, abs=1e-6)
            if mode == MID_TOUCH:
                assert sides(tilt) == pytest.approx((buy, sell), rel=1e-5)
                assert not tilt[32:].any()
    assert sides(tilted(kinds, 0.0, 0.0, (0.0, 0.0), mode=mode, repeating=1.0)[0]) == pytest.approx(
        usual
    )  # nobody has taken yet


@pytest.mark.parametrize("taker", [5, -5])
def test_a_run_of_takers_turns_where_the_price_has_gone_on(kinds, taker):
    """By as much for each usual spread, one at most; where it has come back it goes on, and persistence is told."""
    bought = 1 if taker > 0 else -1
    repeating = np.array([0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 2.0])
    alone = tilted(kinds, 0.0, 0.0, (0.0, 0.0), mode=MID_TOUCH)[0]
    usual = math.log(np.exp((kinds + alone)[:2]).sum() / np.exp((kinds + alone)[16:18]).sum())
    for went, more in ((0.0, 0.5), (4.0, -0.5), (-2.0, 1.0), (8.0, -1.5), (80.0, -1.5), (-80.0, 2.5)):
        tilt = tilted(
            kinds, 5.0, 5.0, (0.1, 0.1), mode=MID_TOUCH, taker=taker, went=bought * went, repeating=repeating
        )[0]
        odds = math.log(np.exp((kinds + tilt)[:2]).sum() / np.exp((kinds + tilt)[16:18]).sum())
        assert odds == pytest.approx(usual + bought * more, abs=1e-5)


def test_a_network_without_takers_of_a_side_stays_as_it_is():
    certain = np.full(64, -200.0, np.float32)
    certain[40] = 0.0
    tilt, strength = tilted(certain, 1.0, 1.0, (0.1, 0.1))
    assert np.isfinite(tilt).all() and np.isfinite(strength).all()
    assert math.isclose(np.exp((certain + tilt).astype(np.float64)).sum(), 1.0, abs_tol=1e-6)


def test_the_file_is_part_of_the_model(tmp_path):
    folder = write_checkpoint(tmp_path / "small")
    before, bank = model_hash(folder), even_bank()
    assert ClosedLoop.load(folder) == ClosedLoop() and TradeFMFlow(folder, bank=bank).persistence == (0.0, 0.0)
    ClosedLoop((0.01, 0.002), 0.25, 2.0, 1.0, {"assets": ["A"]}).save(folder)
    assert ClosedLoop.load(folder) == ClosedLoop((0.01, 0.002), 0.25, 2.0, 1.0, {"assets": ["A"]})
    assert TradeFMFlow(folder, bank=bank).following == 0.25 and TradeFMFlow(folder, bank=bank).answering == 2.0
    assert TradeFMFlow(folder, bank=bank, following=0.0).following == 0.0
    assert model_hash(folder) != before
    assert TradeFMFlow(folder, bank=bank).persistence == (0.01, 0.002)
    assert TradeFMFlow(folder, bank=bank, persistence=(0.0, 0.0)).persistence == (0.0, 0.0)
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "holds no closed-loop corrections"),
        ("[1]", "holds no closed-loop corrections; allowed are"),
        ("null", "holds no closed-loop corrections; allowed are"),
        ("[" * 100_000, "holds no closed-loop corrections: it is no JSON"),
        (json.dumps({"format": True}), "format is True; allowed is 1"),
        (json.dumps({"format": 2, "persistence": [0, 0]}), "format is 2; allowed is 1"),
        (json.dumps({"format": 1, "persistence": [0]}), "persistence is .*two numbers"),
        (json.dumps({"format": 1, "persistence": [0, True]}), "persistence is .*two numbers"),
        (json.dumps({"format": 1, "persistence": [0, float("nan")]}), "persistence is .*two numbers"),
        (json.dumps({"format": 1, "persistence": [0, 10**400]}), "persistence is .*two numbers"),
        (json.dumps({"format": 1, "following": 10**400}), "following is 1000.*allowed is a number"),
        ("9" * 5_000, "it is no JSON file"),
        (json.dumps({"format": 1, "strange": 1}), "strange"),
        (json.dumps({"format": 1, "following": 1.5}), r"following is 1.5; allowed is a number in \[0, 1\]"),
        (json.dumps({"format": 1, "answering": 5}), r"answering is 5; allowed is a number in \[0, 4\]"),
        (json.dumps({"format": 1, "restoring": -1}), "restoring is -1; allowed is a number"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        ClosedLoop.load(tmp_path)
    assert FILE in str(error.value)


def test_a_file_without_end_is_not_read(tmp_path):
    (tmp_path / FILE).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"it is no JSON file .*is no regular file"):
        ClosedLoop.load(tmp_path)


def test_a_folder_in_the_file_s_place_is_no_absence(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(ValueError, match="it is no JSON file"):
        ClosedLoop.load(tmp_path)
