"""What market makers and traders do with an action, in a market in which nothing else happens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiet_flow import QuietFlow, quiet_bank
from test_execution import NO_ACTIONS
from test_roles_session import quiet

from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.observation import block_slices
from tradefm_gym.envs.position_ledger import STATE
from tradefm_gym.envs.position_observation import POSITION_BLOCKS
from tradefm_gym.envs.seat import RESTING, oldest_orders
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.market.events import BUY, LIMIT, MARKET, SELL

SLICES = block_slices(POSITION_BLOCKS)


def maker(**task):
    return MarketMakingRole(**({"size": 20, "inventory_limit": 100} | task))


def act(session, *action):
    return session.step(np.array([action], np.float32))


def own(session, row=0):
    """Own resting orders of the first role: (side, price, size) in order of arrival."""
    role = session.role
    return [
        (int(order["side"]), int(order["price"]), int(order["size"]))
        for order in role.resting[row, : role.state["own_count"][row]]
    ]


def test_the_zero_action_joins_both_touches_with_half_of_the_size():
    session = quiet(maker())
    session.reset()
    act(session, 0, 0, 0, 0)
    assert sorted(own(session)) == [(-1, 1002, 10), (1, 998, 10)]


@pytest.mark.parametrize(
    ("action", "bid", "ask"),
    [
        ((-0.5, -0.5, 0, 0), 999, 1001),  # half of the half-spread of 2
        ((-1, -1, 0, 0), 999, 1001),  # both at the mid: a tick away from it
        ((-1, 0, 0, 0), 1000, 1002),
        ((1, 1, 0, 0), 994, 1006),  # max(4, spread) behind
        ((0.5, 0.25, 0, 0), 996, 1003),
        ((0, 0, 1, 0), 1000, 1004),  # both up by max(4, spread) / 2
        ((0, 0, -0.25, 0), 997, 1002),  # half a tick down: away from the mid
        ((-1, -1, 1, 0), 1001, 1003),  # post-only: the bid stays below the ask of 1002
    ],
)
def test_quotes_are_where_the_action_says(action, bid, ask):
    session = quiet(maker())
    session.reset()
    act(session, *action)
    assert sorted(own(session)) == [(-1, ask, 10), (1, bid, 10)]


@pytest.mark.parametrize(("action", "bid", "ask"), [((1, 0.5, 0, 0), 995, 1003), ((0, 0, 0.5, 0), 1000, 1002)])
def test_distances_and_skews_reach_four_ticks_where_the_spread_is_less(action, bid, ask):
    session = TradingSession(1, maker(), QuietFlow(1, quiet_bank([(999, 100)], [(1001, 100)])))
    session.seed(np.ones(1, bool), np.zeros(1, np.uint64))
    session.reset()
    act(session, *action)
    assert sorted(own(session)) == [(-1, ask, 10), (1, bid, 10)]


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), st.integers(1, 30))
@settings(deadline=None)
def test_quotes_never_cross_and_are_mirror_images(action, spread):
    from tradefm_gym.envs.position_ledger import STATE
    from tradefm_gym.envs.position_orders import quote_prices

    bid_distance, ask_distance, skew = action
    state, sizes = np.zeros(1, STATE), np.full((2, 5), 10, np.int64)
    state["spread"], state["decision_mid2"] = spread, 20_000 + spread
    prices = np.array([10_000 - np.arange(5), 10_000 + spread + np.arange(5)])
    bid, ask = quote_prices(state[0], prices, sizes, bid_distance, ask_distance, skew)
    assert bid < ask
    assert bid < 10_000 + spread and ask > 10_000
    mirrored = np.array([40_000 - prices[1], 40_000 - prices[0]])
    state["decision_mid2"] = 80_000 - state["decision_mid2"]
    other = quote_prices(state[0], mirrored, sizes, ask_distance, bid_distance, -skew)
    if (np.abs(skew * max(4, spread)) + 0.5) % 1 > 1e-6:  # a half is rounded up on both sides of the mirror
        assert other == (40_000 - ask, 40_000 - bid)


def test_what_rests_at_a_wanted_price_keeps_its_place():
    session = quiet(maker(), script={3: (LIMIT, BUY, 998, 7)})
    session.reset()
    act(session, 0, 0, 0, 0)
    ids = session.role.resting[0]["order_id"][:2].tolist()
    act(session, 0, 0, 0, 0)
    assert session.role.resting[0]["order_id"][:2].tolist() == ids  # nothing was sent
    records = session.market.tape.read_records(0)
    assert (records["owner"] == 0).sum() == 2
    act(session, 0, 0, 0, 1)  # more: behind what is there
    assert sorted(own(session)) == [(-1, 1002, 10), (-1, 1002, 10), (1, 998, 10), (1, 998, 10)]
    assert session.market.queue_ahead(0, np.array([ids]))[0].tolist() == [100, 100]
    act(session, 0, 0, 0, 0.5)  # less: the newest gives way
    assert sorted(own(session)) == [(-1, 1002, 5), (-1, 1002, 10), (1, 998, 5), (1, 998, 10)]
    act(session, 0, 0.25, 0, 0.5)
    assert sorted(own(session)) == [(-1, 1003, 15), (1, 998, 5), (1, 998, 10)]
    act(session, 0, 0, 0, -1)
    assert own(session) == []


def test_many_additions_merge_into_the_newest_order():
    session = quiet(maker(size=100, inventory_limit=100, decisions=60))
    session.reset()
    for k in range(30):
        act(session, 0, 0, 0, -1 + 0.06 * (k + 1))
        sizes = [size for side, _, size in own(session) if side > 0]
        assert sum(sizes) == 3 * (k + 1)
        assert len(sizes) <= 8
    assert [size for side, _, size in own(session) if side > 0][:7] == [3] * 7  # the oldest stay


def test_quotes_keep_the_inventory_within_its_limit():
    # Takers hit the bid again and again.
    script = {16 * k + 8: (MARKET, SELL, 0, 25) for k in range(9)}
    session = quiet(maker(size=20, inventory_limit=25, decisions=10), script=script)
    session.reset()
    held = []
    for _ in range(9):
        act(session, -0.5, 0, 0, 1)
        held.append(int(session.role.state["inventory"][0]))
    assert held == [20] + [25] * 8
    assert session.role.state["peak"][0] == 25
    result = act(session, -0.5, 0, 0, 1)
    assert result.terminated[0]
    assert session.market.accounts["inventory"][0, 0] == 0


def test_the_end_liquidates_within_the_reward():
    session = quiet(maker(decisions=2), script={3: (MARKET, SELL, 0, 5)}, taker_fee=300, maker_fee=-100)
    session.reset()
    first = act(session, -0.5, -0.5, 0, 0)  # quotes of 10 at 999 and 1001: 5 are bought at 999
    assert first.terms[0].tolist() == [5_000, 0, 500, 0, 0, 0]
    last = act(session, 0, 0, 0, -1)
    assert last.terminated[0]
    assert last.terms[0].tolist() == [0, 0, -1_500, -10_000, 0, 0]  # 5 lots sold at 998
    np.testing.assert_allclose(first.reward + last.reward, 1e4 * (5_500 - 11_500) / (100 * 1000 * 1000))
    info = session.final_info()
    np.testing.assert_allclose(info["profit_bps"], first.reward + last.reward)
    assert (info["traded"][0], info["maker_share"][0], info["peak"][0]) == (10, 0.5, 0.05)
    assert own(session) == []


def test_what_the_book_cannot_take_at_the_end_costs_more_than_all_that_was_seen():
    # The trader buys 500 of 600 asks; then the bids go, but for 50.
    bids, asks = [(998, 30), (997, 20)], [(1002, 100), (1003, 200), (1004, 300)]
    flow = QuietFlow(1, quiet_bank(bids, asks))
    session = TradingSession(1, TradingRole(decisions=2, max_position=500), flow)
    session.seed(np.ones(1, bool), np.zeros(1, np.uint64))
    session.reset()
    act(session, 1, 1)
    result = act(session, 1, 1)
    assert session.market.accounts["inventory"][0, 0] == 450
    state = session.role.state[0]
    price = 997 - state["spread"]
    assert result.terms[0, 4] == 450 * (2 * price - state["decision_mid2"]) * 500
    assert result.terms[0, :4].sum() + result.terms[0, 4] <= result.terms[0, :4].sum()


def test_a_trader_follows_its_target():
    session = quiet(TradingRole(decisions=12, max_position=40))
    session.reset()
    for target, aggressiveness, held in ((0.5, 1, 20), (0.5, 0, 20), (-0.25, 0, -10), (-1, -0.5, -10), (0, 0, 0)):
        act(session, target, aggressiveness)
        assert session.role.state["inventory"][0] == held
        assert session.role.state["target"][0] == round(40 * target)
        if held == -10 and aggressiveness < 0:
            assert own(session) == [(-1, 1004, 30)]  # max(4, spread) / 2 behind; it waits
        else:
            assert own(session) == []


def test_a_traders_terms_tell_the_price_of_trading_from_that_of_holding():
    script = {20: (MARKET, BUY, 0, 300)}  # both asks go: the ask is 1004 afterwards
    session = quiet(TradingRole(decisions=4, max_position=50), script=script)
    session.reset()
    first = act(session, 1, 1)
    assert first.terms[0].tolist() == [-50 * 2 * 1000, 0, 0, 0, 0, 0]
    second = act(session, 1, 1)
    assert second.terms[0].tolist() == [0, 50 * 1000, 0, 0, 0, 0]  # the mid is 1001


def test_limits_come_from_the_usual_order():
    session = quiet([MarketMakingRole(), TradingRole(), MarketMakingRole(size=7), MarketMakingRole(inventory_limit=5)])
    session.reset_roles()
    made = [(int(role.state["limit"][0]), int(role.state["size"][0])) for role in session.roles]
    assert made == [(100, 20), (50, 50), (100, 7), (5, 5)]
    assert session.start_info(0)["inventory_limit"][0] == 100
    assert session.start_info(1)["max_position"][0] == 50


def test_options_fix_limits_for_an_episode():
    session = quiet([maker(), TradingRole()], 2)
    session.reset_roles(options={"inventory_limit": [30, 40], "max_position": 9})
    assert session.roles[0].state["limit"].tolist() == [30, 40]
    assert session.roles[1].state["limit"].tolist() == [9, 9]
    session.reset_roles()
    assert session.roles[0].state["limit"].tolist() == [100, 100]
    with pytest.raises(ValueError, match="size is 20; it must be at most inventory_limit, 10"):
        session.reset_roles(options={"inventory_limit": 10})
    with pytest.raises(ValueError, match="max_position is 0; it must be an integer from 1"):
        session.reset_roles(options={"max_position": 0})


def test_own_quotes_move_neither_the_mid_nor_what_is_seen_of_the_book():
    session = quiet(maker(decisions=8))
    seen = session.reset()[0]
    now = act(session, -0.5, -0.5, 0, 0).observation[0]
    assert session.market.touch()[0][0] == 999 and session.market.touch()[1][0] == 1001
    for name in ("spread", "touch", "imbalance", "depth_distance", "depth_size", "mid_move"):
        np.testing.assert_array_equal(now[SLICES[name]], seen[SLICES[name]])
    np.testing.assert_allclose(now[SLICES["own_orders"]], [0.1, 0.5, 0, 0.1, 0.5, 0])


def test_position_and_last_fill_are_seen():
    session = quiet(maker(decisions=8), script={3: (MARKET, SELL, 0, 5)})
    session.reset()
    seen = act(session, -0.5, -0.5, 0, 0).observation[0]
    np.testing.assert_allclose(seen[SLICES["inventory"]], 0.05)
    np.testing.assert_allclose(seen[SLICES["traded"]], [0.05, 0])
    np.testing.assert_allclose(seen[SLICES["last_fill"]], [0.05, -0.5, 1])
    np.testing.assert_allclose(seen[SLICES["profit"]], 5_000 / (1000 * 100) / 2)
    np.testing.assert_allclose(seen[SLICES["flow"]][0], -5 / 160)


def test_buying_and_selling_are_mirror_images():
    profits = []
    for sign, script_side in ((1, SELL), (-1, BUY)):
        session = quiet(TradingRole(decisions=4, max_position=200), script={5: (MARKET, script_side, 0, 130)})
        session.reset()
        for target, aggressiveness in ((0.5, 0.0), (0.3, -0.25), (-1.0, 0.5), (0.0, 1.0)):
            act(session, sign * target, aggressiveness)
        profits.append(int(session.role.state["profit"][0]))
    assert profits[0] == profits[1]


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (MarketMakingRole, {"size": 0}, "size is 0; it must be an integer from 1 to 1073741824"),
        (MarketMakingRole, {"size": 11, "inventory_limit": 10}, "size is 11; it must be at most inventory_limit, 10"),
        (MarketMakingRole, {"inventory_limit": 2.5}, "inventory_limit is 2.5; it must be an integer"),
        (MarketMakingRole, {"inventory_penalty": -1}, "inventory_penalty is -1; it must be an integer from 0"),
        (MarketMakingRole, {"penalty_shape": "cubic"}, "penalty_shape is 'cubic'; it must be one of 'linear', 'quad"),
        (MarketMakingRole, {"decisions": 0}, "decisions is 0"),
        (TradingRole, {"interval": "16"}, "interval is '16'"),
        (TradingRole, {"max_position": 2**31}, "max_position is 2147483648; it must be an integer from 1"),
        (TradingRole, {"discrete": 1}, "discrete is 1; it must be True or False"),
    ],
)
def test_wrong_arguments_are_named(make, arguments, said):
    with pytest.raises(ValueError, match=said):
        make(**arguments)


@pytest.mark.parametrize(
    ("role", "rule"),
    [
        (MarketMakingRole(), "four numbers from -1 to 1, distance of the bid and of the ask, skew and size"),
        (TradingRole(), "two numbers from -1 to 1, target and aggressiveness"),
        (MarketMakingRole(discrete=True), "an integer from 0 to 16"),
        (TradingRole(discrete=True), "an integer from 0 to 14"),
    ],
)
def test_wrong_actions_are_named_and_change_nothing(role, rule):
    session = quiet(role)
    session.reset()
    before = session.tape_hash(0), role.state.copy()
    width = role.presets.shape[1]
    wrong = [*NO_ACTIONS, np.full((1, width), np.nan), np.full((1, width), 1.5), [-1], [99], np.zeros((2, width))]
    for action in wrong:
        with pytest.raises(ValueError, match=f"^action is [^\n]*; it must be {rule}"):
            session.step(action)
    assert session.tape_hash(0) == before[0]
    np.testing.assert_array_equal(role.state, before[1])


def test_the_oldest_own_order_of_a_side_is_the_first_in_the_list():
    generator = np.random.default_rng(0)
    state, resting, found = np.zeros(40, STATE), np.zeros((40, 6), RESTING), np.empty((40, 2), np.int64)
    state["own_count"] = generator.integers(0, 7, 40)
    resting["side"], resting["order_id"] = generator.choice([1, -1], (40, 6)), generator.permutation(240).reshape(40, 6)
    oldest_orders(state, resting, found)
    for m, count in enumerate(state["own_count"]):
        mine = [(int(order["side"]), int(order["order_id"])) for order in resting[m, :count]]
        expected = [next((order_id for side, order_id in mine if side == wanted), -1) for wanted in (1, -1)]
        assert found[m].tolist() == expected
