import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiet_flow import STEP_NS, QuietFlow, quiet_bank

from tradefm_gym.envs import observation
from tradefm_gym.envs.execution import DISCRETE_ACTIONS, ExecutionRole
from tradefm_gym.envs.execution_parent import LEAST_PARENT, least_volume, usual_parent
from tradefm_gym.envs.seat import HALF_TICK, MAX_RESTING
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.market.events import (
    ABSOLUTE,
    BUY,
    CANCEL,
    LIMIT,
    MARKET,
    NO_LIMIT,
    SELL,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig

# What no environment can take for an action, whatever its space.
NO_ACTIONS = (
    "buy", b"x", None, 1j, [1j, 0], [["a", "b"]], [[None, None]], {}, {"a": 1}, set(), ..., [[True, False]],
    [1, [2, 3]], [[10**400, 0]], np.array([["0.1", "0.2"]]), np.array([[0.1, 0.2]], object),
    np.zeros((1, 2), "datetime64[s]"), np.zeros((1, 2), [("a", float)]), np.zeros((1, 2, 1)), 5.0,
)  # fmt: skip

BIDS = [(998, 100), (997, 200), (996, 300)]
ASKS = [(1002, 100), (1003, 200), (1004, 300)]
SLICES = observation.block_slices()


def zero_intelligence(num_envs, seed=0, role=None, **options):
    session = TradingSession(num_envs, role or ExecutionRole(), "zero_intelligence", **options)
    session.seed(np.ones(num_envs, bool), np.arange(seed, seed + num_envs))
    return session


def quiet(role, script=None, bids=BIDS, asks=ASKS, last=10**9, lots_per_event=10.0, num_envs=1, **options):
    flow = QuietFlow(num_envs, quiet_bank(bids, asks, lots_per_event), script, last)
    session = TradingSession(num_envs, role, flow, **options)
    session.seed(np.ones(num_envs, bool), np.arange(num_envs))
    return session


def act(session, deviation, aggressiveness):
    return session.step(np.tile(np.array([deviation, aggressiveness], np.float32), (session.num_envs, 1)))


def fills_of(session, row, owner=0):
    tape = session.market.tape
    fills = tape.fills[row, : tape.fill_count[row]]
    assert tape.fill_count[row] <= tape.fills.shape[1]
    return fills[(fills["maker"] == owner) | (fills["taker"] == owner)]


def order(block, m, kind, side, order_id, price, size, time_ns):
    event = block.events[m, block.count[m]]
    event["kind"], event["side"], event["order_id"], event["price"] = kind, side, order_id, price
    event["size"], event["time_ns"], event["owner"], event["max_rest"] = size, time_ns, 0, NO_LIMIT
    event["anchor"] = ABSOLUTE
    block.count[m] += 1


def scripted_passive_twap(session, decisions, interval):
    """Passive TWAP as a human would send it: post the slice at the touch, cross what is left at its end."""
    session.reset()
    market = session.market
    n, everyone = session.num_envs, np.ones(session.num_envs, bool)
    info = session.start_info()
    side, quantity = info["side"], info["quantity"]
    for k in range(decisions):
        bid, ask = market.touch()
        opening, target = EventBlock.empty(n, 2), (k + 1) * quantity // decisions
        for m in range(n):
            wanted = int(target[m] - side[m] * market.accounts["inventory"][m, 0])
            if wanted:
                order(opening, m, LIMIT, side[m], 2 * k, (bid if side[m] > 0 else ask)[m], wanted, market.clock_ns[m])
        session.submit(opening)
        session.advance(everyone, interval)
        closing = EventBlock.empty(n, 2)
        for m in range(n):
            left = int(target[m] - side[m] * market.accounts["inventory"][m, 0])
            if left:
                order(closing, m, CANCEL, side[m], 2 * k, 0, 0, market.clock_ns[m])
                order(closing, m, MARKET, side[m], 2 * k + 1, 0, left, market.clock_ns[m])
        session.submit(closing)
        session.advance(everyone, 0)


def test_zero_action_is_passive_twap_bit_for_bit():
    n, decisions = 8, 64
    by_role, by_hand = zero_intelligence(n, 5), zero_intelligence(n, 5)
    by_role.reset()
    for _ in range(decisions):
        act(by_role, 0.0, 0.0)
    assert not by_role.running.any()
    scripted_passive_twap(by_hand, decisions, 16)
    np.testing.assert_array_equal(by_role.market.accounts, by_hand.market.accounts)
    assert [by_role.tape_hash(m) for m in range(n)] == [by_hand.tape_hash(m) for m in range(n)]


@given(quantity=st.integers(1, 2**31 - 1), decisions=st.integers(1, 2048))
@settings(max_examples=30, deadline=None)
def test_schedule_without_deviation_is_exact(quantity, decisions):
    from tradefm_gym.envs.execution_ledger import STATE
    from tradefm_gym.envs.execution_orders import raise_target

    state = np.zeros(1, STATE)
    state["quantity"], state["decisions"] = quantity, decisions
    for k in range(1, decisions + 1):
        raise_target(state[0], 0.0)
        assert state["target"][0] == k * quantity // decisions


def test_schedule_follows_deviations():
    session = quiet(ExecutionRole(decisions=10, side="buy", quantity=25))
    session.reset()
    targets = []
    for deviation in (-1.0, 0.0, -0.5, 0.0, 1.0):
        act(session, deviation, -1.0)
        targets.append(int(session.role.state["target"][0]))
    assert targets == [0, 2, 3, 6, 25]  # slices of 2.5: 0, 2.5, 3.75, 6.25, all


@pytest.mark.parametrize("fees", [(0, 0), (-200, 300)])
def test_terms_reconcile_with_the_account_at_every_step(fees):
    n = 16
    session = zero_intelligence(n, 11, maker_fee=fees[0], taker_fee=fees[1])
    session.reset()
    role, accounts = session.role, session.market.accounts
    arrival = role.state["arrival_mid2"].copy()
    generator = np.random.default_rng(3)
    total, reward = np.zeros((n, 4), np.int64), np.zeros(n)
    while session.running.any():
        before = session.running.copy()
        result = session.step(generator.uniform(-1, 1, (n, 2)).astype(np.float32))
        assert not result.terms[~before].any()
        assert not result.reward[~before].any()
        total += result.terms
        reward += result.reward
        mine = accounts[:, 0]
        loss = -mine["cash"] - mine["inventory"] * arrival * HALF_TICK + mine["fees"]
        np.testing.assert_array_equal(total[:, :3].sum(axis=1), loss)
        np.testing.assert_array_equal(role.state["executed"], role.state["side"] * mine["inventory"])
        np.testing.assert_array_equal(role.state["cost"], total.sum(axis=1))
    info = session.final_info()
    np.testing.assert_allclose(reward, -info["shortfall_bps"], rtol=1e-9, atol=1e-9)
    for m in range(n):
        fills = fills_of(session, m)
        side = info["side"][m]
        assert fills["size"].sum() == role.state["executed"][m]
        assert fills["size"][fills["maker"] == 0].sum() == role.state["made"][m]
        paid = side * (2 * fills["price"].astype(np.int64) - arrival[m]) * HALF_TICK * fills["size"]
        assert paid.sum() == total[m, :2].sum()
        assert total[m, 2] == (np.where(fills["maker"] == 0, *fees) * fills["size"]).sum()


def test_unfilled_never_beats_crossing():
    for side in ("buy", "sell"):
        costs = {}
        for policy, (deviation, aggressiveness) in {"cross": (1.0, 1.0), "wait": (-1.0, -1.0)}.items():
            session = quiet(ExecutionRole(decisions=4, side=side, quantity=1000))  # the book holds 600
            session.reset()
            worst = 1004 if side == "buy" else 996
            for _ in range(4):
                result = act(session, deviation, aggressiveness)
            assert result.terminated.all()
            assert session.role.state["executed"][0] == 600
            one_spread_beyond = abs(worst - 1000) + 4
            assert result.terms[0, 3] == 400 * one_spread_beyond * 1000
            costs[policy] = int(session.role.state["cost"][0])
        assert costs["cross"] == costs["wait"]


def test_an_empty_opposite_side_is_charged_beyond_its_last_visible_level():
    script = {0: (MARKET, BUY, 0, 600)}  # somebody else takes all asks
    session = quiet(ExecutionRole(decisions=2, side="buy", quantity=10), script)
    session.reset()
    act(session, -1.0, -1.0)
    result = act(session, -1.0, -1.0)
    assert session.role.state["executed"][0] == 0
    assert result.terms[0, 3] >= 10 * (1004 + 4 - 1000) * 1000


def test_own_orders_move_neither_mid_nor_depth():
    session = quiet(ExecutionRole(decisions=8, interval=4, side="buy", quantity=80))
    seen = session.reset()
    market, role = session.market, session.role
    block = role.orders(np.array([True]), np.array([[0.0, 0.5]], np.float32))
    session.submit(block)
    session.advance(np.array([True]), 4)
    assert market.touch()[0][0] == 1000  # half of the spread of 4 improved: the book's own mid has moved
    assert market.mid2[0] == 2002
    role.closing(np.array([False]))  # nothing crosses
    role.settle(np.array([True]))
    assert role.step_info()["mid"][0] == 1000.0
    assert market.mid2_excluding(0)[0] == 2000
    now = role.observe()
    for name in ("spread", "touch", "imbalance", "depth_distance", "depth_size", "mid_move"):
        np.testing.assert_array_equal(now[0, SLICES[name]], seen[0, SLICES[name]])
    own = now[0, SLICES["own_order"]]
    np.testing.assert_allclose(own, [1.0, 2 / 2, 1.0, 0.0])  # 2 ticks inside, spread 2, one slice, alone


def test_own_excluded_mid_agrees_with_the_market():
    n = 16
    session = zero_intelligence(n, 2)
    session.reset()
    generator = np.random.default_rng(1)
    for _ in range(40):
        session.step(np.stack([generator.uniform(-1, 1, n), generator.uniform(-1, -0.01, n)], 1).astype(np.float32))
        both = (session.role.sizes[:, :, 0] > 0).all(axis=1) & session.running
        np.testing.assert_array_equal(session.role.state["decision_mid2"][both], session.market.mid2_excluding(0)[both])


def test_patient_orders_keep_their_place_and_carry_over():
    script = {20: (LIMIT, BUY, 994, 7)}
    session = quiet(ExecutionRole(decisions=20, interval=16, side="buy", quantity=200), script)
    session.reset()
    for _ in range(3):
        act(session, 0.0, -1.0)  # 4 ticks behind 998: each slice adds an order at 994
    state = session.role.state[0]
    assert (state["resting"], state["own_count"]) == (30, 3)
    assert session.role.resting[0]["price"][:3].tolist() == [994] * 3
    assert session.role.resting[0]["order_id"][:3].tolist() == [0, 2, 4]
    assert session.market.queue_ahead(0, np.array([0]))[0] == 0
    assert session.market.queue_ahead(0, np.array([4]))[0] == 27  # 10 + 10 own, 7 of the background
    for _ in range(15):
        act(session, 0.0, -1.0)
    state = session.role.state[0]
    assert state["own_count"] == MAX_RESTING
    assert state["resting"] == 180
    assert session.role.resting[0]["size"][-1] == 30  # merged with the newest, the older ones stay
    act(session, 0.0, -0.5)
    assert session.role.resting[0]["price"][0] == 996
    assert session.role.state[0]["own_count"] == 1
    result = act(session, 0.0, -1.0)
    assert result.terminated[0]  # at the deadline the rest crosses
    assert session.role.state[0]["executed"] == 200


def test_aggressiveness_one_crosses_at_once():
    session = quiet(ExecutionRole(decisions=4, side="sell", quantity=40))
    session.reset()
    act(session, 0.0, 1.0)
    fills = fills_of(session, 0)
    assert fills["time_ns"].tolist() == [0]
    assert fills["price"].tolist() == [998]
    assert session.role.state[0]["fill_role"] == -1


def test_completion_terminates_early():
    session = quiet(ExecutionRole(decisions=64, side="buy", quantity=100))
    session.reset()
    result = act(session, 1.0, 1.0)
    assert result.terminated[0]
    assert not result.truncated[0]
    info = session.final_info()
    assert info["fill_rate"][0] == 1.0
    assert info["maker_share"][0] == 0.0
    assert info["shortfall_half_spreads"][0] == 2.0  # 2 ticks a lot, half of the usual spread of 2 is 1
    np.testing.assert_allclose(info["shortfall_bps"][0], 20.0)


def test_parent_order_follows_the_usual_volume():
    busy = quiet(ExecutionRole(), lots_per_event=10.0)
    busy.reset()
    info = busy.start_info()
    assert (info["quantity"][0], info["decisions"][0], info["reason"][0]) == (1024, 64, "")
    middling = quiet(ExecutionRole(), lots_per_event=0.2)
    middling.reset()
    assert middling.start_info()["quantity"][0] == 64
    short = quiet(ExecutionRole(decisions=8), lots_per_event=0.4)
    short.reset()
    info = short.start_info()
    assert (info["quantity"][0], info["decisions"][0]) == (51, 8)
    assert "trades 51 lots within 8 decisions of 16 events, fewer than 64: the parent order is all" in info["reason"][0]


def test_a_thin_market_gets_fewer_decisions_and_says_so_once():
    with pytest.warns(
        UserWarning, match="1 of 1 start contexts of 'quiet' are thin, such as 0: .* 49 decisions"
    ) as warned:
        thin = quiet(ExecutionRole(), lots_per_event=0.048, num_envs=3)
        thin.reset(), thin.reset()
    assert len(warned) == 1
    info = thin.start_info()
    # 49 decisions usually bring 37.6 lots: half of that
    assert (info["quantity"].tolist(), info["decisions"].tolist()) == ([18] * 3, [49] * 3)
    assert "usually trades 49 lots within 64 decisions of 16 events, fewer than 64" in info["reason"][0]
    while thin.running.any():
        act(thin, 0.0, 0.0)
    np.testing.assert_array_equal(thin.final_info()["fill_rate"], 1.0)


@pytest.mark.parametrize("lots_per_event", [0.0, 0.015, np.nan, np.inf])
def test_a_market_without_a_sensible_parent_order_is_refused(lots_per_event):
    said = (
        r"quantity is None, but the context usually trades \d+ lots .* needs at least 16 \(start context 0 of 'quiet'\)"
    )
    with pytest.raises(ValueError, match=said):
        quiet(ExecutionRole(), lots_per_event=lots_per_event)
    session = quiet(ExecutionRole(quantity=5), lots_per_event=lots_per_event)  # the caller knows better
    session.reset()
    assert session.start_info()["quantity"][0] == 5


def test_a_fixed_start_context_is_checked_before_anything_changes():
    bank = quiet_bank(BIDS, ASKS)
    bank.scale["lots_per_event"][1] = 0.0  # validation: never drawn
    session = TradingSession(1, ExecutionRole(), QuietFlow(1, bank))
    session.reset()
    before = session.tape_hash(0), session.episodes.copy()
    with pytest.raises(ValueError, match=r"usually trades 0 lots .*start context 1"):
        session.reset(options={"context": 1})
    assert (session.tape_hash(0), session.episodes.tolist()) == (before[0], before[1].tolist())
    session.reset(options={"context": 1, "quantity": 9})
    assert session.start_info()["quantity"][0] == 9


def test_usual_parents():
    for decisions in (1, 2, 3, 8, 16, 64, 256, 1024, 2048):
        least = least_volume(decisions)
        for lots in (*range(1, 70), 640, 10_000):
            parent = usual_parent(lots / (16 * decisions), 16, decisions)
            assert (parent.quantity > 0) == (lots >= least)
            assert parent.decisions <= decisions
            if lots >= LEAST_PARENT:
                assert parent == (max(64, lots // 10), decisions, "", False)
            elif parent.quantity:
                assert parent.quantity <= lots * parent.decisions / decisions  # never more than those decisions bring
                assert parent.thin == (lots < decisions)
                assert parent.reason


def test_an_order_of_the_role_always_has_a_price_that_the_market_takes():
    # The bids go, and a new ask is nearer to 0 than the last spread was wide.
    script = {3: (MARKET, SELL, 0, 5), 4: (LIMIT, SELL, 5, 100)}
    session = quiet(ExecutionRole(side="sell", quantity=10, decisions=3), script, bids=[(1, 5)], asks=[(40, 100)])
    session.reset()
    act(session, -1.0, -1.0)
    act(session, 1.0, 1.0)
    records = session.market.tape.read_records(0)
    assert records["price"][records["owner"] == 0][0] == 1
    assert session.market.counters[0, 5] == 0


def test_start_contexts_with_more_orders_than_the_market_holds_are_refused():
    flow = QuietFlow(1, quiet_bank(BIDS, ASKS))
    flow.market_config = lambda seats=1: MarketConfig(seats=seats, orders=4)
    with pytest.raises(ValueError, match=r"start context 0 of 'quiet' has 6 resting orders; .* has room for 4"):
        TradingSession(1, ExecutionRole(), flow)


def test_discrete_zero_is_the_zero_action_and_numbers_are_distinct():
    assert DISCRETE_ACTIONS[0].tolist() == [0.0, 0.0]
    assert len({tuple(pair) for pair in DISCRETE_ACTIONS.tolist()}) == len(DISCRETE_ACTIONS) == 20
    box, numbered = zero_intelligence(2, 1), zero_intelligence(2, 1, ExecutionRole(discrete=True))
    for session, zero in ((box, np.zeros((2, 2), np.float32)), (numbered, np.zeros(2, np.int64))):
        session.reset()
        for _ in range(8):
            session.step(zero)
    assert box.tape_hash(1) == numbered.tape_hash(1)


def test_last_fill_and_elapsed_time_are_seen():
    script = {3: (MARKET, SELL, 0, 105)}
    session = quiet(ExecutionRole(decisions=4, interval=16, side="buy", quantity=40), script)
    session.reset()
    seen = act(session, 0.0, 0.0).observation[0]
    # 10 lots at 998 behind 100: 5 are met as maker, the other 5 cross at 1002 at the end of the interval
    np.testing.assert_allclose(seen[SLICES["last_fill"]], [0.5, 2.5 / 2, -1.0])  # 998 is gone: the mid is 999.5
    np.testing.assert_allclose(seen[SLICES["elapsed"]], 16 * STEP_NS / (16 * 4 * STEP_NS))
    np.testing.assert_allclose(seen[SLICES["schedule"]], [0.25, 0.25])
    np.testing.assert_allclose(seen[SLICES["flow"]][0], -105 / 160)
    assert session.role.state[0]["made"] == 5


def test_nothing_later_than_now_reaches_the_observation():
    # Two futures that part after the third decision: until then not a bit may differ, although the events
    # of the other future lie in the queue already (blocks of 8 against intervals of 4).
    role = {"decisions": 10, "interval": 4, "side": "buy", "quantity": 100}
    future = {12: (MARKET, BUY, 0, 250), 13: (CANCEL, BUY, 998, 100), 14: (LIMIT, SELL, 1000, 10)}
    calm, wild = quiet(ExecutionRole(**role)), quiet(ExecutionRole(**role), future)
    np.testing.assert_array_equal(calm.reset(), wild.reset())
    parted = []
    for _ in range(6):
        one, other = act(calm, 0.0, -0.5), act(wild, 0.0, -0.5)
        parted.append(not np.array_equal(one.observation, other.observation))
    assert parted[:3] == [False] * 3
    assert parted[3]


def test_normalisers_come_from_the_start_context_only():
    session = zero_intelligence(4, 9)
    session.reset()
    before = session.role.scale.copy()
    for _ in range(10):
        act(session, 0.0, 0.0)
    np.testing.assert_array_equal(session.role.scale, before)
    np.testing.assert_array_equal(before, session.flow.bank.scale[session.context_of])


def test_observations_stay_in_the_space_and_name_their_blocks():
    assert sum(block.size for block in observation.BLOCKS) == observation.SIZE
    session = zero_intelligence(8, 4, ExecutionRole(interval=64))
    space = session.role.observation_space
    seen = session.reset()
    generator = np.random.default_rng(0)
    while session.running.any():
        assert all(row in space for row in seen)
        seen = session.step(generator.uniform(-1, 1, (8, 2)).astype(np.float32)).observation
    assert seen.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"decisions": 0}, "decisions is 0; it must be an integer from 1 to 2048"),
        ({"decisions": 64.0}, "decisions is 64.0"),
        ({"interval": 0}, "interval is 0; it must be an integer from 1"),
        ({"side": "long"}, "side is 'long'; it must be 'buy', 'sell', 1, -1 or None"),
        ({"side": True}, "side is True"),
        ({"quantity": -5}, "quantity is -5; it must be an integer from 1"),
        ({"interval": 2**50}, "interval is 1125899906842624; it must be an integer from 1 to 86400000000000"),
        ({"discrete": "yes"}, "discrete is 'yes'; it must be True or False"),
        ({"discrete": 1}, "discrete is 1; it must be True or False"),
        ({"discrete": None}, "discrete is None"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        ExecutionRole(**arguments)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ([[np.nan, 0.0]], r"action is \[nan, 0.0\]; it must be two numbers from -1 to 1, deviation and aggressiv"),
        ([[0.0, 1.5]], r"action is \[0.0, 1.5\]; it must be"),
        ([[np.inf, 0.0]], r"action is \[inf, 0.0\]; it must be"),
        ([[1e300, 0.0]], r"action is \[inf, 0.0\]; it must be"),
        ([[0.0]], r"action is \[\[0.0\]\]; .*, for each of 1 markets, as an array of shape \(1, 2\)"),
        (np.zeros((9, 2)), r"action is an array of shape \(9, 2\) and dtype .*float64.*; it must be"),
        *[(action, "action is .*; it must be two numbers from -1 to 1") for action in NO_ACTIONS],
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_actions_are_named(action, said):
    session = quiet(ExecutionRole())
    session.reset()
    before = session.tape_hash(0), session.role.state.copy()
    with pytest.raises(ValueError, match=said):
        session.step(action)
    assert before[0] == session.tape_hash(0)
    np.testing.assert_array_equal(before[1], session.role.state)


def test_wrong_discrete_actions_are_named():
    session = quiet(ExecutionRole(discrete=True))
    session.reset()
    for action, said in (
        (np.array([20]), "action is 20; it must be an integer from 0 to 19"),
        (np.array([-1]), "action is -1; it must be an integer from 0 to 19"),
        *[
            (action, "action is .*; it must be an integer from 0 to 19, for each of 1")
            for action in ([0.5], *NO_ACTIONS)
        ],
    ):
        with pytest.raises(ValueError, match=said):
            session.step(action)


def test_buying_and_selling_are_mirror_images():
    costs = []
    for side, script_side in (("buy", SELL), ("sell", BUY)):
        session = quiet(ExecutionRole(decisions=4, side=side, quantity=200), {5: (MARKET, script_side, 0, 130)})
        seen = session.reset()
        for deviation, aggressiveness in ((0.0, 0.0), (0.3, -0.25), (-1.0, 0.5), (0.0, 1.0)):
            seen = np.concatenate([seen, act(session, deviation, aggressiveness).observation])
        costs.append((session.role.state["cost"][0], seen))
    assert costs[0][0] == costs[1][0]
    np.testing.assert_array_equal(costs[0][1], costs[1][1])


def test_a_long_interval_gets_a_longer_tape_and_an_overrun_is_an_error():
    session = quiet(ExecutionRole(decisions=2, interval=4000, side="buy", quantity=10))
    assert session.market.config.tape == session.market.config.fills == 16_000
    session.reset()
    session.market.tape.fill_count[0] += 16_001
    with pytest.raises(RuntimeError, match="fills of one interval overran the tape of 16000"):
        session.role.closing(np.array([True]))
