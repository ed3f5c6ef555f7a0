"""What roles that hold a position see: named blocks of one flat vector and the kernel that fills them.

The market's blocks are those of ``observation.MARKET_BLOCKS`` as a buyer sees them: "own" is the side of the bids,
positive is up.
"""

from numba import njit, prange

from tradefm_gym.envs.observation import MARKET_BLOCKS, MARKET_SIZE, Block, clip, fill_market, log_lots, ratio
from tradefm_gym.envs.seat import HALF_TICK
from tradefm_gym.market.compiler import ROW

POSITION_BLOCKS = (
    *MARKET_BLOCKS,
    Block("inventory", 1, -1.0, 1.0, "lots held / limit"),
    Block("target", 1, -1.0, 1.0, "the position that was last asked for / limit; 0 for a market maker"),
    Block("profit", 1, -10.0, 10.0, "profit so far / (limit x usual spread)"),
    Block("own_orders", 6, -10.0, 10.0, "bid, ask: lots / limit, ticks inside the touch / usual spread, log queue"),
    Block("traded", 2, 0.0, 10.0, "lots bought and sold in the last interval / limit"),
    Block("last_fill", 3, -10.0, 10.0, "signed lots / limit, price above the mid / usual spread, 1 maker or -1 taker"),
)


@njit(**ROW)
def fill_row(state, resting, scale, prices, sizes, clock_ns, ahead, out):
    """Writes one row (obs,) float32; the order of the lines is the order of POSITION_BLOCKS."""
    fill_market(state, scale, prices, sizes, clock_ns, 1, out, 0)
    limit, spread, mid = float(state["limit"]), scale["spread"], 0.5 * state["decision_mid2"]
    out[MARKET_SIZE] = state["inventory"] / limit
    out[MARKET_SIZE + 1] = state["target"] / limit
    out[MARKET_SIZE + 2] = ratio(state["profit"] / (2.0 * HALF_TICK * limit), spread)
    at = MARKET_SIZE + 3
    for which in range(2):
        side = 1 - 2 * which
        lots, price = 0, 0
        for i in range(state["own_count"]):
            if resting[i]["side"] == side:
                lots += resting[i]["size"]
                price = resting[i]["price"]
        best = float(prices[which, 0]) if sizes[which, 0] > 0 else mid
        out[at] = lots / limit
        out[at + 1] = ratio(side * (price - best), spread) if lots > 0 else 0.0
        out[at + 2] = log_lots(float(ahead[which]), scale["touch_size"]) if lots > 0 else 0.0
        at += 3
    out[at] = state["bought"] / limit
    out[at + 1] = state["sold"] / limit
    filled = state["fill_size"] > 0
    out[at + 2] = state["fill_side"] * state["fill_size"] / limit
    out[at + 3] = ratio(state["fill_price"] - mid, spread) if filled else 0.0
    out[at + 4] = state["fill_role"] if filled else 0.0


@njit(cache=True, nogil=True, parallel=True)
def fill_observations(state, resting, scale, prices, sizes, clock_ns, ahead, low, high, out):
    """Writes the observations of all rows, clipped to the space.

    Args:
        state: (N,) the role's STATE.
        resting: (N, .) RESTING.
        scale: (N,) SCALE.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots, 0 where there is no level.
        clock_ns: (N,) int64.
        ahead: (N, 2) int64 lots ahead of the oldest own bid and ask.
        low: (obs,) float32.
        high: (obs,) float32.
        out: (N, obs) float32.
    """
    for m in prange(state.shape[0]):
        fill_row(state[m], resting[m], scale[m], prices[m], sizes[m], clock_ns[m], ahead[m], out[m])
        clip(low, high, out[m])
