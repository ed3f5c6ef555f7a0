"""What a network is told besides the trades themselves, and how a caller changes it: the control indicators.

An input of a network is (liquidity, flag, level, trade): the first three carry, in classes, what ``INDICATORS`` names.
They are computed from the tape; where a caller tells otherwise, every input carries what was told instead.
"""

from numba import njit

from tradefm_gym.market.compiler import KERNEL, SERIAL

# The trailing traded rate; the spread in ticks; order-flow pressure, fast and slow; the price against the opening; the
# spread against the usual one; lots at both touches; the pace against the usual one.
INDICATORS = ("liquidity", "spread", "fast", "slow", "level", "wide", "bid", "ask", "pace")
LIQUIDITY, SPREAD, FAST, SLOW, LEVEL, WIDE, BID, ASK, PACE = range(9)
TIERS = 3  # classes of the liquidity
LEVELS = 32  # classes of the price level
UNTOLD = -1


@njit(**SERIAL)
def tell(inputs, count, classes, fixed, shift, history, seen):
    """Puts told indicators into the inputs that were just queued, and into the ring that remembers them.

    Args:
        inputs: (N, K, 4) int32, of which row m has ``count[m]`` new ones.
        count: (N,) int64.
        classes: (9,) int64, how many classes each of ``INDICATORS`` has; 1 where a network is not told it.
        fixed: (N, 9) int64, a class that is told instead, or UNTOLD.
        shift: (N, 9) int64, classes that are added where nothing is fixed.
        history: (N, H, 4) int32, the ring of all inputs.
        seen: (N,) int64, how many ever came, the new ones included.
    """
    for m in range(inputs.shape[0]):
        if _is_told(fixed, shift, m):
            for j in range(count[m]):
                _tell_input(inputs[m, j], classes, fixed[m], shift[m])
                place = (seen[m] - count[m] + j) % history.shape[1]
                history[m, place, :3] = inputs[m, j, :3]


@njit(**KERNEL)
def _is_told(fixed, shift, m):
    for i in range(fixed.shape[1]):
        if fixed[m, i] != UNTOLD or shift[m, i] != 0:
            return True
    return False


@njit(**KERNEL)
def _told(value, classes, fixed, shift, i):
    return fixed[i] if fixed[i] != UNTOLD else min(max(value + shift[i], 0), classes[i] - 1)


@njit(**KERNEL)
def _tell_input(inputs, classes, fixed, shift):
    liquidity = _told(inputs[0] % TIERS, classes, fixed, shift, LIQUIDITY)
    spread = _told(inputs[0] // TIERS % classes[SPREAD], classes, fixed, shift, SPREAD)
    pace = _told(inputs[0] // (TIERS * classes[SPREAD]), classes, fixed, shift, PACE)
    inputs[0] = liquidity + TIERS * (spread + classes[SPREAD] * pace)
    flag, pressures = inputs[1] % 2, classes[FAST] * classes[SLOW]
    asset, pressure = inputs[1] // (2 * pressures), inputs[1] // 2 % pressures
    fast = _told(pressure // classes[SLOW], classes, fixed, shift, FAST)
    slow = _told(pressure % classes[SLOW], classes, fixed, shift, SLOW)
    inputs[1] = flag + 2 * (fast * classes[SLOW] + slow + pressures * asset)
    if classes[WIDE] > 1:
        bid = _told(inputs[2] // classes[ASK] % classes[BID], classes, fixed, shift, BID)
        wide = _told(inputs[2] // (classes[ASK] * classes[BID]), classes, fixed, shift, WIDE)
        ask = _told(inputs[2] % classes[ASK], classes, fixed, shift, ASK)
        inputs[2] = (wide * classes[BID] + bid) * classes[ASK] + ask
    else:
        inputs[2] = _told(inputs[2], classes, fixed, shift, LEVEL)
