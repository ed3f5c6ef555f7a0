"""Depth over time as an image, painted with NumPy alone: price levels, own orders, trades, fills, mid and position."""

from collections.abc import Sequence

import numpy as np

from tradefm_gym.envs.depth_history import COLUMNS, Column

HEIGHT, WIDTH = 480, 640
_STEP = 5  # pixels of a column
_MAP = slice(0, 392)  # rows of the depth, and below them those of the inventory
_BELOW = slice(400, 476)
_RIGHT = COLUMNS * _STEP  # where the map ends
_LADDER = slice(_RIGHT + 8, WIDTH - 36)  # columns of the present book; prices stand behind it
_BINS = 98  # most rows of the map: four pixels each
_NEAR = 10  # levels a side that must be in sight

_GROUND, _PANEL, _LINE, _INK = (13, 16, 23), (20, 24, 33), (58, 65, 82), (206, 212, 224)
_OWN, _MID, _TRADE, _BOUGHT, _SOLD = (255, 200, 60), (236, 239, 244), (150, 160, 180), (80, 200, 255), (255, 110, 220)
_BID, _ASK = (38, 166, 124), (222, 82, 82)
_SHADES = 64
# Three by five dots a character, row by row from the top, most significant bit first.
_FONT = {
    "0": 0b111101101101111, "1": 0b010110010010111, "2": 0b111001111100111, "3": 0b111001111001111,
    "4": 0b101101111001001, "5": 0b111100111001111, "6": 0b111100111101111, "7": 0b111001001010010,
    "8": 0b111101111101111, "9": 0b111101111001111, "-": 0b000000111000000, "+": 0b000010111010000,
    ".": 0b000000000000010,
}  # fmt: skip


def _palette() -> np.ndarray:
    """Colours (2, _SHADES, 3) uint8 of a level by side and size; shade 0 is an empty one."""
    strength = np.linspace(0.12, 1.0, _SHADES)[:, None]
    shades = np.stack([np.array(_PANEL) * (1 - strength) + np.array(full) * strength for full in (_BID, _ASK)])
    shades[:, 0] = _PANEL
    return shades.astype(np.uint8)


_PALETTE = _palette()


class _Scale:
    """Which prices are in sight, and at which pixels."""

    def __init__(self, columns: Sequence[Column]):
        last = columns[-1]
        mids = [column.mid2 for column in columns if column.mid2]
        middle = (mids[-1] if mids else 2) // 2
        near = last.prices[:, :_NEAR][last.sizes[:, :_NEAR] > 0]
        reach = max(6, int(np.abs(near - middle).max(initial=0)))
        reach = max(reach, max((abs(mid // 2 - middle) for mid in mids), default=0) + reach // 4)
        self.step = -(-(2 * reach + 1) // _BINS)  # ticks of one row
        self.bins = -(-(2 * reach + 1) // self.step)
        self.top = middle + reach

    def bin(self, price: np.ndarray) -> np.ndarray:
        """Row of the map of prices; those out of sight are below 0 or not below ``bins``."""
        return (self.top - np.asarray(price)) // self.step

    def pixel(self, price: float) -> int:
        """The pixel in the middle of a price; it may be out of sight."""
        return int((self.top - price + 0.5) * (_MAP.stop - _MAP.start) / (self.step * self.bins))


def depth_picture(columns: Sequence[Column]) -> np.ndarray:
    """The decisions of ``columns`` from left to right and the present book beside them.

    Green are bids, red asks, brighter where more lots rest; gold own orders, the line the mid, dots trades of others,
    diamonds own fills (blue bought, pink sold). Below is the position. Numbers are prices in ticks and lots.

    Returns:
        (HEIGHT, WIDTH, 3) uint8.
    """
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = _GROUND
    if not columns:
        return picture
    scale = _Scale(columns)
    most = max(2.0, float(np.quantile(np.concatenate([c.sizes[c.sizes > 0] for c in columns] or [[1]]), 0.98)))
    _paint_map(picture, columns, scale, most)
    for i, column in enumerate(columns, COLUMNS - len(columns)):
        _paint_column(picture, column, scale, i * _STEP)
    _paint_ladder(picture, columns[-1], scale)
    _paint_position(picture, columns)
    return picture


def _paint_map(picture: np.ndarray, columns: Sequence[Column], scale: _Scale, most: float) -> None:
    prices, sizes = (np.stack([getattr(c, name) for c in columns]) for name in ("prices", "sizes"))  # (T, 2, K)
    rows = scale.bin(prices)
    at, side, level = np.nonzero((sizes > 0) & (rows >= 0) & (rows < scale.bins))
    lots = sizes[at, side, level]
    shade = 1 + np.minimum(np.log1p(lots) / np.log1p(most), 1.0) * (_SHADES - 2)
    shades = np.zeros((scale.bins, COLUMNS), np.int64)
    code = side * _SHADES + shade.astype(np.int64)
    order = np.argsort(shade, kind="stable")  # where levels share a row of the map the largest is seen
    shades[rows[at, side, level][order], (at + COLUMNS - len(columns))[order]] = code[order]
    height = _MAP.stop - _MAP.start
    stretched = shades[np.arange(height) * scale.bins // height]
    picture[_MAP, :_RIGHT] = np.repeat(_PALETTE.reshape(-1, 3)[stretched], _STEP, axis=1)


def _paint_column(picture: np.ndarray, column: Column, scale: _Scale, x: int) -> None:
    for price in column.own:
        _box(picture, scale.pixel(price) - 1, x, 3, _STEP, _OWN)
    if column.mid2:
        _box(picture, scale.pixel(column.mid2 / 2), x, 1, _STEP, _MID)
    for price, _, side in column.trades.tolist():
        if side == 0:
            _box(picture, scale.pixel(price) - 1, x + 1, 2, 2, _TRADE)
    for price, _, side in column.trades.tolist():
        if side:
            _diamond(picture, scale.pixel(price), x + _STEP // 2, _BOUGHT if side > 0 else _SOLD)


def _paint_ladder(picture: np.ndarray, column: Column, scale: _Scale) -> None:
    picture[_MAP, _LADDER] = _PANEL
    width, shown = _LADDER.stop - _LADDER.start, scale.bin(column.prices)
    seen = (column.sizes > 0) & (shown >= 0) & (shown < scale.bins)
    widest = max(1, int(column.sizes[seen].max(initial=1)))
    thick = max(2, (_MAP.stop - _MAP.start) // scale.bins - 1)
    for side, level in zip(*np.nonzero(seen), strict=True):
        price, lots = int(column.prices[side, level]), int(column.sizes[side, level])
        y = scale.pixel(price) - thick // 2
        _box(picture, y, _LADDER.start, thick, max(1, lots * width // widest), (_BID, _ASK)[side])
        own = min(lots, column.own.get(price, 0))
        if own:
            _box(picture, y, _LADDER.start, thick, max(3, own * width // widest), _OWN)
    low = scale.top - scale.step * scale.bins + 1
    for price in np.linspace(scale.top - (scale.top - low) // 16, low + (scale.top - low) // 16, 7).astype(int):
        _write(picture, scale.pixel(price) - 2, _LADDER.stop + 4, str(price), 1)


def _paint_position(picture: np.ndarray, columns: Sequence[Column]) -> None:
    picture[_BELOW, :_RIGHT] = _PANEL
    held = np.stack([column.inventories for column in columns])  # (T, A)
    low, high = min(0, int(held.min())), max(0, int(held.max()))
    height, span = _BELOW.stop - _BELOW.start - 12, max(1, high - low)
    pixels = _BELOW.start + 6 + (high - held) * height // span
    zero = _BELOW.start + 6 + high * height // span
    picture[zero, :_RIGHT] = _LINE
    for i, row in enumerate(pixels.tolist(), COLUMNS - len(columns)):
        for y in row:
            top, bottom = min(y, zero), max(y, zero)
            colour = _BOUGHT if y < zero else _SOLD
            _box(picture, top, i * _STEP, bottom - top, _STEP - 1, tuple(part // 2 for part in colour))
            _box(picture, y - 1, i * _STEP, 2, _STEP, colour)
    _write(picture, _BELOW.start + 4, _RIGHT + 10, f"{high:+d}", 2)
    _write(picture, _BELOW.stop - 14, _RIGHT + 10, f"{low:+d}" if low else "0", 2)
    _write(picture, _BELOW.start + 34, _RIGHT + 10, " ".join(f"{lots:+d}" for lots in held[-1].tolist())[:11], 3)


def _box(picture: np.ndarray, y: int, x: int, height: int, width: int, colour: tuple) -> None:
    """A filled box; what of it is out of the picture is left out."""
    picture[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = colour


def _diamond(picture: np.ndarray, y: int, x: int, colour: tuple) -> None:
    for reach, shade in ((6, _GROUND), (4, colour)):
        for dy in range(-reach, reach + 1):
            _box(picture, y + dy, x - reach + abs(dy), 1, 2 * (reach - abs(dy)) + 1, shade)


def _write(picture: np.ndarray, y: int, x: int, text: str, size: int) -> None:
    for i, letter in enumerate(text):
        dots = np.array([int(bit) for bit in f"{_FONT.get(letter, 0):015b}"], bool).reshape(5, 3)
        dots = np.repeat(np.repeat(dots, size, axis=0), size, axis=1)
        left = x + i * 4 * size
        place = picture[y : y + 5 * size, left : left + 3 * size]
        if place.shape[:2] == dots.shape:
            place[dots] = _INK
