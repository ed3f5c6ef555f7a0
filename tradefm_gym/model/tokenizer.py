"""The trade tokenizer: features of an order event <-> one of 16,384 tokens.

A token has five digits: action 2, side 2, depth 16, volume 16, time 16, and

    token = 8192 * action + 4096 * side + 256 * depth + 16 * volume + time       (arXiv 2602.23784)

Depth and price-level bins are equal-frequency, volume and time bins equal-width in log space. The
edges are calibrated once and then frozen for all assets. Depth and price level are calibrated on the
sample and its mirror image (buy <-> sell), so that the code has no direction built in.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.arguments import shortened
from tradefm_gym.market.features import FEATURES, MID_BOOK, MID_TOUCH, MID_VWAP, OPPOSITE_TOUCH
from tradefm_gym.model.config import VOCABULARY, ModelConfig
from tradefm_gym.model.strange_files import read_text

VERSION = 1
QUANTILES = 24  # entries a bin of the within-bin tables
DEPTHS, SIZES, TAKERS, TIMES = range(4)  # those tables of one asset; takers are those that the depth digit shows
SHORTEST_S = 1e-6
_AT_ONCE_S = 1e-10  # less than the clock tells: what an asset's own tables hold of waits of nothing

# Classes of the order-flow pressure, fast and slow: none, weak, strong and very strong on either side.
_PRESSURE_EDGES = ((-1.5, -0.6, -0.1, 0.1, 0.6, 1.5), (-5.0, -2.0, -0.5, 0.5, 2.0, 5.0))

# What a model is told of the book: the spread in ticks and, as logarithms to base 2, its ratio to the usual one and the
# lots at a touch in median sizes.
_SPREAD_EDGES = (0.5, 1.5, 2.5, 3.5, 5.5, 8.5, 12.5, 18.5, 26.5, 38.5, 54.5, 76.5, 110.5, 160.5, 240.5)
_WIDE_EDGES = (-2.0, -1.2, -0.6, -0.2, 0.2, 0.6, 1.2)
_TOUCH_EDGES = (-2.0, -0.5, 0.5, 1.5, 2.5, 3.5, 5.0)
_PACE_EDGES = (-1.75, -1.0, -0.5, -0.17, 0.17, 0.5, 1.0, 1.75)  # of the pace, in doublings of the usual one
_MOST_ASSETS = 255

MID_MODES = {"vwap": MID_VWAP, "book": MID_BOOK, "touch": MID_TOUCH}


class Edges(NamedTuple):
    """The edges of a tokenizer, as kernels take them."""

    depth: np.ndarray
    volume: np.ndarray
    time: np.ndarray
    level: np.ndarray
    pressure: np.ndarray
    spread: np.ndarray
    wide: np.ndarray
    touch: np.ndarray
    pace: np.ndarray
    assets: int  # how many are told apart


# What values can be at all; beyond, clocks and prices would overflow.
_TABLE_RANGES = {"depth_table": (-1e9, 1e9), "volume_table": (0.0, 40.0), "time_table": (-12.0, 7.0)}
_EDGE_COUNTS = {"depth_edges": 15, "volume_edges": 15, "time_edges": 15, "level_edges": 31}


def compose(action, side, depth, volume, time):
    """Token of five digits; works on numbers and on arrays."""
    return 8192 * action + 4096 * side + 256 * depth + 16 * volume + time


def decompose(token):
    """Digits (action, side, depth, volume, time) of a token; works on numbers and on arrays."""
    return token >> 13, (token >> 12) & 1, (token >> 8) & 15, (token >> 4) & 15, token & 15


@dataclass(frozen=True)
class TradeTokenizer:
    """Frozen bins. Edges split a line into bins: bin b holds ``edges[b - 1] <= x < edges[b]``.

    Attributes:
        depth_edges: (15,) basis points.
        volume_edges: (15,) log(1 + size / median size).
        time_edges: (15,) log10 seconds.
        level_edges: (31,) basis points.
        depth_table, volume_table, time_table: (16, 24) quantiles inside each bin, same units.
        mid: which mid estimate depth refers to, "vwap" (the paper's) or "book"; or "touch": then depth is no distance
            from a mid but a place relative to the touch (``features.touch_place``), and its edges are whole numbers.
        half_life_s: half-life of the VWAP in seconds.
        pressure_edges: (2, k) for the fast and the slow order-flow pressure; k = 0, the paper's way, tells the model
            nothing of it.
        spread_edges: (s,) ticks; s = 0, the paper's way, tells the model nothing of the book.
        wide_edges: (w,) logarithm (base 2) of the spread over the asset's usual one.
        touch_edges: (t,) logarithm (base 2) of the lots at a touch over the median size.
        pace_edges: (p,) logarithm (base 2) of the usual wait over that of late; p = 0 tells the model nothing of it.
        assets: names of the assets that the model is told apart, as ``asset_name`` makes them; of the others, and of
            all if there are none, it is told nothing.
        provenance: what it was calibrated on, and the realised occupancy of the bins.
    """

    depth_edges: np.ndarray
    volume_edges: np.ndarray
    time_edges: np.ndarray
    level_edges: np.ndarray
    depth_table: np.ndarray
    volume_table: np.ndarray
    time_table: np.ndarray
    mid: str = "vwap"
    half_life_s: float = 10.0
    pressure_edges: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))
    spread_edges: np.ndarray = field(default_factory=lambda: np.zeros(0))
    wide_edges: np.ndarray = field(default_factory=lambda: np.zeros(0))
    touch_edges: np.ndarray = field(default_factory=lambda: np.zeros(0))
    pace_edges: np.ndarray = field(default_factory=lambda: np.zeros(0))
    assets: tuple[str, ...] = ()
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.mid not in MID_MODES:
            raise ValueError(f"mid must be one of {sorted(MID_MODES)}, got {shortened(self.mid)}")
        if not 0 < self.half_life_s <= 1e9:
            raise ValueError(f"half_life_s must be positive and at most 1e9, got {shortened(self.half_life_s)}")
        if not isinstance(self.provenance, dict):
            raise ValueError(f"provenance must be an object, got {shortened(self.provenance)}")
        for name, count in _EDGE_COUNTS.items():
            edges = np.asarray(getattr(self, name), np.float64)
            if edges.shape != (count,) or not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
                raise ValueError(f"{name} must be {count} finite, non-decreasing numbers, got {shortened(edges)}")
            object.__setattr__(self, name, edges)
        for name in ("depth_table", "volume_table", "time_table"):
            table = np.asarray(getattr(self, name), np.float64)
            if table.shape != (16, QUANTILES) or not np.isfinite(table).all() or (np.diff(table, axis=1) < 0).any():
                raise ValueError(f"{name} must hold 16 x {QUANTILES} finite quantiles, ascending in each bin")
            low, high = _TABLE_RANGES[name]
            if not low <= table.min() <= table.max() <= high:
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {table.min()} to {table.max()}")
            object.__setattr__(self, name, table)
        edges = np.asarray(self.pressure_edges, np.float64)
        fits = edges.ndim == 2 and len(edges) == 2 and edges.shape[1] <= 63 and np.isfinite(edges).all()
        if not fits or (np.diff(edges, axis=1) < 0).any():
            said = "two rows of at most 63 finite, non-decreasing numbers"
            raise ValueError(f"pressure_edges must be {said}, got {shortened(edges)}")
        object.__setattr__(self, "pressure_edges", edges)
        for name in ("spread_edges", "wide_edges", "touch_edges", "pace_edges"):
            edges = np.asarray(getattr(self, name), np.float64)
            if edges.ndim != 1 or len(edges) > 63 or not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
                raise ValueError(f"{name} must be at most 63 finite, non-decreasing numbers, got {shortened(edges)}")
            object.__setattr__(self, name, edges)
        if len({len(self.spread_edges) > 0, len(self.touch_edges) > 0}) > 1:
            raise ValueError("spread_edges and touch_edges must both be given or both be empty")
        names = self.assets
        listed = isinstance(names, list | tuple) and all(isinstance(name, str) and name for name in names)
        if not listed or len(names) > _MOST_ASSETS or len(set(names)) < len(names):
            raise ValueError(f"assets must be at most {_MOST_ASSETS} different names, got {shortened(names)}")
        object.__setattr__(self, "assets", tuple(names))

    @property
    def pressures(self) -> int:
        """Classes of the order-flow pressure."""
        return (self.pressure_edges.shape[1] + 1) ** 2

    @property
    def spreads(self) -> int:
        """Classes of the spread in ticks; 1: it is not told."""
        return len(self.spread_edges) + 1

    @property
    def paces(self) -> int:
        """Classes of the pace; 1: it is not told."""
        return len(self.pace_edges) + 1

    def asset_of(self, name: str) -> int:
        """Class of an asset by its name, 0 where the model is not told it."""
        return self.assets.index(name) + 1 if name in self.assets else 0

    @property
    def books(self) -> int:
        """Classes of the touch (relative spread, lots on both sides); 0: the price level is told instead."""
        return (len(self.wide_edges) + 1) * (len(self.touch_edges) + 1) ** 2 if len(self.touch_edges) else 0

    @property
    def told(self) -> dict[str, int]:
        """Classes of what a model is told beside the paper's inputs, by their names in ``ModelConfig``."""
        return {
            "pressures": self.pressures, "spreads": self.spreads, "books": self.books, "paces": self.paces,
            "assets": len(self.assets) + 1,
        }  # fmt: skip

    def check_network(self, config: ModelConfig, folder: str | Path) -> None:
        """Refuses a network, of a checkpoint folder, that is told other classes than this tokenizer makes."""
        for name, classes in self.told.items():
            if getattr(config, name) != classes:
                raise ValueError(
                    f"model folder {str(folder)!r} has a tokenizer whose {name} are {classes} and a network of "
                    f"{getattr(config, name)}; the two must be equal"
                )

    @property
    def edges(self) -> Edges:
        """What ``encode_features`` takes after the features."""
        return Edges(
            self.depth_edges, self.volume_edges, self.time_edges, self.level_edges, self.pressure_edges,
            self.spread_edges, self.wide_edges, self.touch_edges, self.pace_edges, len(self.assets),
        )  # fmt: skip

    @property
    def tables(self) -> np.ndarray:
        """What lies inside the bins of no asset in particular, (4, 16, 24) float64: DEPTHS, SIZES, TAKERS, TIMES."""
        return np.stack([self.depth_table, self.volume_table, self.volume_table, self.time_table])

    @property
    def mid_mode(self) -> int:
        """The constant of ``market.features`` for ``mid``."""
        return MID_MODES[self.mid]

    # ---- calibration -------------------------------------------------------------------------

    @classmethod
    def calibrate(
        cls,
        samples: list[np.ndarray],
        mid: str = "vwap",
        half_life_s: float = 10.0,
        provenance: dict | None = None,
        pressure: bool = False,
        book: bool = False,
        pace: bool = False,
        assets: Sequence[str] = (),
    ) -> "TradeTokenizer":
        """Fit the edges to the pooled events of the training parts.

        Args:
            samples: one ``(n,) FEATURES`` array per asset-day.
            mid: mid estimate that the features were computed with.
            half_life_s: half-life that the features were computed with.
            provenance: free-form description, stored with the edges.
            pressure: whether inputs tell the order-flow pressure, in 49 classes.
            book: whether inputs tell the spread, in 16 classes beside the liquidity tier, and the touch, in 512 classes
                in place of the price level.
            pace: whether inputs tell the pace, in nine classes beside the liquidity tier.
            assets: names of the assets that inputs tell apart.

        Raises:
            ValueError: if there is no usable event.
        """
        usable = [s[s["valid"] == 1] for s in samples]
        usable = [s for s in usable if len(s)]
        if not usable:
            raise ValueError("samples must hold at least one event with a known mid, got none")
        events = np.concatenate(usable)
        depth, level = events["depth"], events["level"]
        seconds = np.log10(np.maximum(events["seconds"], SHORTEST_S))
        by_touch = mid == "touch"
        mirrored_depth = depth if by_touch else np.concatenate([depth, -depth])
        depth_edges = np.arange(1.0, 16.0) if by_touch else _equal_frequency(mirrored_depth, 14)
        level_edges = _equal_frequency(np.concatenate([level, -level]), 30)
        top = _quantiles(events["volume"], 0.99)
        volume_edges = np.linspace(0.0, top, 16)[1:]
        slow = _quantiles(seconds, 0.99)
        shortest = np.nextafter(np.log10(SHORTEST_S), 0.0)
        time_edges = np.concatenate([[shortest], np.linspace(np.log10(SHORTEST_S), slow, 15)[1:]])
        tokenizer = cls(
            depth_edges,
            volume_edges,
            time_edges,
            level_edges,
            _within_bins(mirrored_depth, depth_edges),
            _within_bins(events["volume"], volume_edges),
            _within_bins(seconds, time_edges),
            mid,
            half_life_s,
            np.array(_PRESSURE_EDGES) if pressure else np.zeros((2, 0)),
            *(np.array(edges) if book else np.zeros(0) for edges in (_SPREAD_EDGES, _WIDE_EDGES, _TOUCH_EDGES)),
            np.array(_PACE_EDGES) if pace else np.zeros(0),
            tuple(assets),
            dict(provenance or {}),
        )
        inputs = tokenizer.encode(events)
        digits = decompose(inputs[:, 3])
        occupancy = {
            name: [round(float((d == b).mean()), 5) for b in range(16)]
            for name, d in zip(("depth", "volume", "time"), digits[2:], strict=True)
        }
        tokenizer.provenance.update(events=len(events), sets=len(usable), occupancy=occupancy)
        return tokenizer

    def tables_of(self, features: np.ndarray) -> np.ndarray:
        """What lies inside the bins of one asset: its round lots and its clock are not those of others.

        Args:
            features: ``(n,) FEATURES`` of its training part.

        Returns:
            As ``tables``; a bin with fewer than 24 events is that of no asset in particular (one with few takers, that
            of all its orders).
        """
        events, tables = features[features["valid"] == 1], self.tables
        takers = events["volume"][(events["action"] == 0) & (events["depth"] < OPPOSITE_TOUCH + 1)]
        # Not shortened as for the bins: where every sixth event comes with the one before it, some shall do so.
        seconds = np.log10(np.maximum(events["seconds"], _AT_ONCE_S))
        by_touch, depth = self.mid_mode == MID_TOUCH, events["depth"]
        mirrored_depth = depth if by_touch else np.concatenate([depth, -depth])
        tables[DEPTHS] = _within_bins(mirrored_depth, self.depth_edges, tables[DEPTHS])
        tables[SIZES] = _within_bins(events["volume"], self.volume_edges, tables[SIZES])
        known = takers if by_touch else events["volume"]
        tables[TAKERS] = _within_bins(known, self.volume_edges, tables[SIZES])
        tables[TIMES] = _within_bins(seconds, self.time_edges, tables[TIMES])
        return tables

    # ---- events -> tokens --------------------------------------------------------------------

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Model inputs of events.

        Args:
            features: ``(n,) FEATURES``.

        Returns:
            ``(n, 4) int32``: liquidity tier, participant flag, price-level bin, trade token; what else the model is
            told stands beside the tier and the flag and in place of the level (see ``encode_features``).
        """
        if features.dtype != FEATURES:
            raise TypeError(f"features must have dtype FEATURES, got {features.dtype}")
        out = np.zeros((len(features), 4), np.int32)
        for i in range(0, len(features), 1 << 16):
            part = slice(i, i + (1 << 16))
            _encode_all(np.ascontiguousarray(features[part]), self.edges, out[part])
        return out

    # ---- tokens -> events --------------------------------------------------------------------

    def decode(
        self, tokens: np.ndarray, uniforms: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Values of tokens; inside a bin by the quantile tables.

        Args:
            tokens: ``(n,)`` integers in [0, 16384).
            uniforms: ``(n, 3)`` numbers in [0, 1) for depth, volume, time; None takes each bin's median.

        Returns:
            action (0 add, 1 cancel), side (0 buy, 1 sell), depth in basis points, size in median sizes,
            seconds; each ``(n,)``.

        Raises:
            ValueError: if a token is out of range.
        """
        tokens = np.asarray(tokens)
        if tokens.size and (tokens.min() < 0 or tokens.max() >= VOCABULARY):
            raise ValueError(f"tokens must lie in [0, {VOCABULARY}), got {tokens.min()} to {tokens.max()}")
        if uniforms is None:
            uniforms = np.full((len(tokens), 3), 0.5)
        depth, size, seconds = (np.zeros(len(tokens)) for _ in range(3))
        tables = self.tables
        for i in range(len(tokens)):
            depth[i], size[i], seconds[i] = decode_values(int(tokens[i]), uniforms[i], tables)
        digits = decompose(tokens)
        return digits[0], digits[1], depth, size, seconds

    # ---- state on disk -----------------------------------------------------------------------

    def to_json(self) -> str:
        """The whole state as JSON; floats are written exactly."""
        state = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}
        return json.dumps({"version": VERSION, "vocabulary": VOCABULARY, **state}, indent=1)

    @classmethod
    def from_json(cls, text: str, source: str = "tokenizer.json") -> "TradeTokenizer":
        """Read ``to_json``'s text.

        Raises:
            ValueError: for another version or inconsistent edges; the message names ``source``.
        """
        try:
            state = json.loads(text)
            version = state.pop("version")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{source} is not a tokenizer file: {type(error).__name__}: {error}") from None
        if version != VERSION or state.pop("vocabulary", None) != VOCABULARY:
            raise ValueError(f"{source} must be of tokenizer version {VERSION}, got version {shortened(version)}")
        try:
            return cls(**state)
        except (TypeError, ValueError, OverflowError) as error:  # an integer may be too large for a float
            raise ValueError(f"{source} is inconsistent: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> "TradeTokenizer":
        """Read ``tokenizer.json`` (or the checkpoint folder that holds it)."""
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"path must be a tokenizer.json or a folder that holds one, got {str(path)!r}")
        return cls.from_json(read_text(path), str(path))

    def save(self, path: str | Path) -> None:
        """Write the JSON file; a failed write leaves the old file."""
        path = Path(path)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(self.to_json())
        temporary.replace(path)


# ---- calibration helpers -------------------------------------------------------------------------


def _quantiles(values, probabilities):
    # Observed values, never between them: ticks and round sizes stay what they are.
    return np.quantile(values, probabilities, method="inverted_cdf")


def _equal_frequency(values, inner: int) -> np.ndarray:
    """Edges of 1 low outlier + ``inner`` equal-frequency + 1 high outlier bins, symmetric about 0.

    Equal edges (ticks, many values at once) leave empty bins between them: merged, in effect.
    """
    probabilities = 0.01 + 0.98 * np.linspace(0.0, 1.0, inner + 1)
    upper = _quantiles(values, probabilities[probabilities > 0.5 + 1e-9])
    return np.concatenate([-upper[::-1], [0.0], upper])


def _within_bins(values, edges, others=None) -> np.ndarray:
    """Quantiles inside each bin; one with too few values has those of ``others``, if there are."""
    bins = np.searchsorted(edges, values, side="right")
    probabilities = (np.arange(QUANTILES) + 0.5) / QUANTILES
    table = np.repeat(edges[np.maximum(np.arange(16) - 1, 0), None], QUANTILES, 1) if others is None else others.copy()
    for b in range(16):
        inside = bins == b
        if np.count_nonzero(inside) >= (1 if others is None else QUANTILES):
            table[b] = _quantiles(values[inside], probabilities)
    return table


# ---- kernels ---------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def bin_of(edges, value) -> int:
    """Number of edges that are <= value."""
    count = 0
    for i in range(edges.shape[0]):
        count += 1 if edges[i] <= value else 0
    return count


@njit(cache=True, nogil=True)
def time_bin(edges, seconds) -> int:
    """Time digit of an inter-arrival in seconds."""
    return bin_of(edges, np.log10(max(seconds, SHORTEST_S)))


@njit(cache=True, nogil=True)
def encode_features(features, edges, out):
    """Write (liquidity, flag, level, token) of one FEATURES record to ``out (4,) int32``; ``edges`` is Edges.

    The liquidity tier carries the classes of the spread and of the pace too, the flag those of the pressure and of the
    asset; the touch takes the place of the price level. An asset beyond those that are told apart is nobody's: start
    states may have been made for a tokenizer that knows more.
    """
    depth = bin_of(edges.depth, features["depth"])
    volume = bin_of(edges.volume, features["volume"])
    time = time_bin(edges.time, features["seconds"])
    spread = bin_of(edges.spread, features["spread"])
    out[0] = features["liquidity"] + 3 * (spread + (edges.spread.shape[0] + 1) * bin_of(edges.pace, features["pace"]))
    fast, slow = bin_of(edges.pressure[0], features["fast"]), bin_of(edges.pressure[1], features["slow"])
    kinds = edges.pressure.shape[1] + 1
    asset = np.int64(features["asset"]) if features["asset"] <= edges.assets else 0
    out[1] = features["flag"] + 2 * (fast * kinds + slow + kinds * kinds * asset)
    if edges.touch.shape[0] > 0:
        bid, ask = bin_of(edges.touch, features["bid"]), bin_of(edges.touch, features["ask"])
        sizes = edges.touch.shape[0] + 1
        out[2] = (bin_of(edges.wide, features["wide"]) * sizes + bid) * sizes + ask
    else:
        out[2] = bin_of(edges.level, features["level"])
    out[3] = 8192 * np.int64(features["action"]) + 4096 * np.int64(features["side"]) + 256 * depth + 16 * volume + time


@njit(cache=True, nogil=True)
def _encode_all(features, edges, out):
    for i in range(features.shape[0]):
        encode_features(features[i], edges, out[i])


@njit(cache=True, nogil=True)
def _interpolate(table, uniform) -> float:
    position = uniform * QUANTILES - 0.5
    position = min(max(position, 0.0), QUANTILES - 1.0)
    low = min(int(position), QUANTILES - 2)
    return table[low] + (position - low) * (table[low + 1] - table[low])


@njit(cache=True, nogil=True)
def decode_values(token, uniforms, tables):
    """Depth in basis points, size in median sizes, seconds, of one token; ``tables`` (4, 16, 24) of its asset.

    Depth and time interpolate the quantiles; volume takes one of them, because sizes are
    concentrated on round numbers that interpolation would smear.
    """
    digit = (token >> 8) & 15
    depth = _interpolate(tables[DEPTHS, digit], uniforms[0])
    sizes = TAKERS if token >> 13 == 0 and digit <= OPPOSITE_TOUCH else SIZES
    volume = tables[sizes, (token >> 4) & 15, min(int(uniforms[1] * QUANTILES), QUANTILES - 1)]
    seconds = 10.0 ** _interpolate(tables[TIMES, token & 15], uniforms[2])
    return depth, np.expm1(volume), seconds
