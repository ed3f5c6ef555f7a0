"""Pictures of one market: the ladder as text, and as an image that needs no plotting library."""

import numpy as np

from tradefm_gym.envs.session import TradingSession

LADDER = 10  # levels a side
_WIDTH, _ROW = 320, 16  # pixels
_BACKGROUND = (18, 20, 26)
_BID, _ASK, _OWN, _MARK = (46, 125, 92), (168, 64, 64), (240, 190, 60), (90, 96, 110)


def ladder_text(session: TradingSession, row: int) -> str:
    """The best ten levels a side, asks above bids, with what agents have resting (marked ``*``)."""
    prices, sizes = session.market.depth(LADDER)
    own = _own(session, row)
    lines = [*(role.headline(row) for role in session.roles), f"{'bid':>10} {'price':>10} {'ask':<10}"]
    for level in range(LADDER - 1, -1, -1):
        if sizes[row, 1, level]:
            price = int(prices[row, 1, level])
            lines.append(f"{'':>10} {price:>10} {int(sizes[row, 1, level]):<10}{_star(own, price)}")
    lines.append(f"{'':>10} {'-' * 10:>10}")
    for level in range(LADDER):
        if sizes[row, 0, level]:
            price = int(prices[row, 0, level])
            lines.append(f"{int(sizes[row, 0, level]):>10} {price:>10} {'':<10}{_star(own, price)}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def ladder_picture(session: TradingSession, row: int) -> np.ndarray:
    """The same ladder as bars, (H, W, 3) uint8: bids green to the left, asks red to the right, own orders gold."""
    prices, sizes = session.market.depth(LADDER)
    own = _own(session, row)
    picture = np.empty(((2 * LADDER + 1) * _ROW, _WIDTH, 3), np.uint8)
    picture[:] = _BACKGROUND
    middle, widest = _WIDTH // 2, max(1, int(sizes[row].max()))
    picture[LADDER * _ROW + _ROW // 2 - 1 : LADDER * _ROW + _ROW // 2 + 1] = _MARK
    for side, colour in ((0, _BID), (1, _ASK)):
        for level in range(LADDER):
            lots = int(sizes[row, side, level])
            if lots == 0:
                continue
            line = LADDER + 1 + level if side == 0 else LADDER - 1 - level
            band = slice(line * _ROW + 1, (line + 1) * _ROW - 1)
            _bar(picture, band, side, lots, widest, middle, colour)
            _bar(picture, band, side, min(lots, own.get(int(prices[row, side, level]), 0)), widest, middle, _OWN)
    return picture


def _own(session: TradingSession, row: int) -> dict[int, int]:
    """Resting lots of all roles by price."""
    own: dict[int, int] = {}
    for role in session.roles:
        for price, lots in role.resting_orders(row).items():
            own[price] = own.get(price, 0) + lots
    return own


def _bar(picture: np.ndarray, band: slice, side: int, lots: int, widest: int, middle: int, colour: tuple) -> None:
    length = lots * (middle - 2) // widest
    columns = slice(middle - length, middle) if side == 0 else slice(middle, middle + length)
    picture[band, columns] = colour


def _star(own: dict[int, int], price: int) -> str:
    return f" * {own[price]}" if price in own else ""
