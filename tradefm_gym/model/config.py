"""What a TradeFM network looks like, how large it is, and how it lies on disk. Needs no torch.

A checkpoint is a folder: ``model.safetensors`` (fp32), ``config.json``, ``tokenizer.json`` and a model
card ``README.md``. ``parameter_shapes`` is the one list of names and shapes that the torch module, the
Numba engine and the files on disk agree on.
"""

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tradefm_gym.arguments import shortened
from tradefm_gym.model import strange_files
from tradefm_gym.model.strange_files import check_size, check_weights, checksum_of, read_object

DIGIT_NAMES = ("action", "side", "depth", "volume", "time")
DIGIT_SIZES = (2, 2, 16, 16, 16)
DIGIT_STRIDES = (8192, 4096, 256, 16, 1)  # token = sum of digit x stride
VOCABULARY = 16384

# The four columns of an input step: (liquidity, flag, level, token). The flag's column carries the class of the
# order-flow pressure too where a model has classes, and that of the asset: flag + 2 x (pressure + pressures x asset);
# that of the liquidity tier likewise the classes of spread and pace, tier + 3 x (spread + spreads x pace). A model that
# is told the touch has its class in the place of the price level.
LIQUIDITIES, FLAGS, LEVELS = 3, 2, 32
INPUT_NAMES = ("liquidity", "flag", "level", "token")

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT_VERSION = 1

HEADS = ("joint", "factored")

# A stranger's config must not ask for more than anybody has; weights, besides, must fill what it asks for.
_LARGEST = {
    "layers": 512, "width": 32_768, "heads": 1_024, "kv_heads": 1_024, "feed_width": 131_072, "context": 131_072,
    "embedding_width": 32_768, "pressures": 4_096, "spreads": 64, "books": 262_144, "paces": 64, "assets": 256,
    "head_width": 32_768,
}  # fmt: skip
_LEAST = {"books": 0, "head_width": 0, "context": 2}  # 1 for the others; half a context is read anew once it is full


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # Compared, not converted: an integer may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _require(holds: bool, name: str, config: "ModelConfig", allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {shortened(getattr(config, name))}; allowed is {allowed}")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one network. Defaults are the paper's 524M-parameter model."""

    layers: int = 32
    width: int = 1024  # of the residual stream
    heads: int = 32  # query heads; each is width / heads wide
    kv_heads: int = 8  # key and value heads, each shared by heads / kv_heads query heads
    feed_width: int = 4096  # of the SwiGLU layer
    context: int = 1024  # events
    vocabulary: int = VOCABULARY
    head: str = "joint"  # one softmax over the vocabulary, or "factored": a chain of five over the digits
    embedding_width: int = 1024  # of each embedding table
    digit_embeddings: bool = False  # five tables for the token's digits beside the paper's four
    pressures: int = 1  # classes of the order-flow pressure that the model is told; 1: it is not
    spreads: int = 1  # classes of the spread that it is told beside the liquidity tier; 1: it is not
    books: int = 0  # classes of the touch that it is told in place of the price level; 0: it is not
    paces: int = 1  # classes of the pace that it is told beside the spread; 1: it is not
    assets: int = 1  # classes of the asset that it is told beside the pressure, one for all others; 1: it is not
    head_width: int = 0  # hidden units per digit of the factored head; 0 for the joint head
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    dropout: float = 0.0  # training only: on the embedding and on both branches of a layer

    def __post_init__(self) -> None:
        for name, most in _LARGEST.items():
            least = _LEAST.get(name, 1)
            value = getattr(self, name)
            _require(_is_integer(value) and least <= value <= most, name, self, f"an integer from {least} to {most}")
        _require(self.vocabulary == VOCABULARY, "vocabulary", self, f"{VOCABULARY}, the product of the digits")
        _require(self.head in HEADS, "head", self, " or ".join(HEADS))
        _require(isinstance(self.digit_embeddings, bool), "digit_embeddings", self, "true or false")
        _require(self.width % self.heads == 0, "heads", self, f"a divisor of the width {self.width}")
        _require(self.attention_width % 2 == 0, "heads", self, "such that width / heads is even (rotary pairs)")
        _require(self.heads % self.kv_heads == 0, "kv_heads", self, f"a divisor of the {self.heads} heads")
        _require(
            (self.head_width > 0) == (self.head == "factored"),
            "head_width",
            self,
            "positive for the factored head and 0 for the joint one",
        )
        base = _is_number(self.rope_base) and 1 < self.rope_base <= 1e12  # far beyond any in use
        _require(base, "rope_base", self, "a number above 1 and at most 1e12")
        _require(_is_number(self.norm_eps) and 0 < self.norm_eps < 1, "norm_eps", self, "in (0, 1)")
        _require(_is_number(self.dropout) and 0 <= self.dropout < 1, "dropout", self, "in [0, 1)")

    @property
    def attention_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def input_sizes(self) -> tuple[int, int, int, int]:
        """How many values each of the four input columns may take."""
        beside_tier, beside_flag = self.spreads * self.paces, self.pressures * self.assets
        return LIQUIDITIES * beside_tier, FLAGS * beside_flag, self.books or LEVELS, self.vocabulary

    @property
    def embedding_tables(self) -> dict[str, int]:
        """Rows of each embedding table, in the order in which they are concatenated."""
        tables: dict[str, int] = dict(zip(INPUT_NAMES, self.input_sizes, strict=True))
        if self.digit_embeddings:
            tables |= {f"digits.{digit}": size for digit, size in enumerate(DIGIT_SIZES)}
        return tables

    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in parameter_shapes(self).values())

    def to_json(self) -> dict:
        """A JSON-able dict that ``from_json`` reads back."""
        return {"format": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping) -> "ModelConfig":
        """Reads what ``to_json`` wrote; unknown or missing entries are errors."""
        values = dict(values)
        version = values.pop("format", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"format of the model configuration is {shortened(version)}; allowed is {FORMAT_VERSION}")
        for name in ("pressures", "spreads", "books", "paces", "assets"):  # older files do not name them
            values.setdefault(name, 0 if name == "books" else 1)
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
            raise ValueError(
                f"model configuration lacks {missing} and has unknown {shortened(unknown)}; all fields are required"
            )
        return cls(**values)


PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(),  # 524,392,448 parameters, the published size
    "250m": ModelConfig(layers=14),  # 250.7M, the size of the paper's earlier version
    "125m": ModelConfig(layers=12, width=768, heads=24, kv_heads=6, feed_width=2880, embedding_width=768),
    "20m": ModelConfig(
        layers=11,
        width=384,
        heads=12,
        kv_heads=4,
        feed_width=1024,
        head="factored",
        embedding_width=128,
        digit_embeddings=True,
        head_width=192,
    ),
    "mini": ModelConfig(
        layers=4,
        width=128,
        heads=4,
        kv_heads=2,
        feed_width=320,
        context=256,
        head="factored",
        embedding_width=32,
        digit_embeddings=True,
        pressures=49,
        head_width=64,
    ),
    "test": ModelConfig(
        layers=2,
        width=64,
        heads=4,
        kv_heads=2,
        feed_width=128,
        context=64,
        head="factored",
        embedding_width=16,
        digit_embeddings=True,
        head_width=32,
    ),
}


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight; matrices are (out, in)."""
    width, tables = config.width, config.embedding_tables
    shapes: dict[str, tuple[int, ...]] = {}
    for name, rows in tables.items():
        shapes[f"embed.{name}.weight"] = (rows, config.embedding_width)
    shapes["embed.project.weight"] = (width, len(tables) * config.embedding_width)
    query_width, key_width = width, config.kv_heads * config.attention_width
    layer = {
        "attention_norm": (width,),
        "attention.query": (query_width, width),
        "attention.key": (key_width, width),
        "attention.value": (key_width, width),
        "attention.output": (width, query_width),
        "feed_norm": (width,),
        "feed.gate": (config.feed_width, width),
        "feed.up": (config.feed_width, width),
        "feed.down": (width, config.feed_width),
    }
    for index in range(config.layers):
        shapes |= {f"layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    shapes["norm.weight"] = (width,)
    return shapes | _head_shapes(config)


def _head_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    if config.head == "joint":
        return {"head.weight": (config.vocabulary, config.width)}
    hidden = config.head_width
    shapes: dict[str, tuple[int, ...]] = {"head.hidden.weight": (len(DIGIT_SIZES) * hidden, config.width)}
    for digit, size in enumerate(DIGIT_SIZES):
        shapes[f"head.output.{digit}.weight"] = (size, hidden)
        for earlier in range(digit):
            shapes[f"head.prefix.{digit}.{earlier}.weight"] = (DIGIT_SIZES[earlier], hidden)
    return shapes


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Fresh fp32 weights under their names: norms are ones, all else is normal with deviation 0.02.

    The two matrices that write into the residual stream are smaller by the root of the number of such writes.
    """
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 1:
            weights[name] = np.ones(shape, np.float32)
            continue
        deviation = 0.02
        if name.endswith(("attention.output.weight", "feed.down.weight")):
            deviation /= math.sqrt(2 * config.layers)
        weights[name] = generator.standard_normal(shape, np.float32) * np.float32(deviation)
    return weights


def load_config(folder: str | Path) -> ModelConfig:
    """Reads ``config.json`` of a checkpoint folder."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a checkpoint folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    return ModelConfig.from_json(read_object(path, "a model configuration"))


def load_weights(folder: str | Path) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Reads a checkpoint folder; names, shapes and types are checked against the config before any data is read.

    Returns:
        The config and the weights by name, fp32 and C-contiguous.
    """
    config = load_config(folder)
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a checkpoint folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    check_size(path, strange_files.LARGEST_WEIGHTS)
    expected = parameter_shapes(config)
    try:
        with safe_open(path, framework="numpy") as file:
            _check_header(path, expected, file)
            weights = {name: np.ascontiguousarray(file.get_tensor(name)) for name in expected}
            checksum = (file.metadata() or {}).get("crc32")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    check_weights(path, weights, checksum)
    return config, weights


def _check_header(path: Path, expected: dict[str, tuple[int, ...]], file) -> None:
    found = set(file.keys())
    if found != expected.keys():
        missing, unknown = sorted(expected.keys() - found), sorted(found - expected.keys())
        raise ValueError(f"{path} lacks {missing[:4]} and has unknown {unknown[:4]}; names must be those of its config")
    for name, shape in expected.items():
        header = file.get_slice(name)
        if tuple(header.get_shape()) != shape or header.get_dtype() != "F32":
            raise ValueError(
                f"{name} in {path} is {header.get_dtype()} {tuple(header.get_shape())}; its config wants F32 {shape}"
            )


def save_checkpoint(
    folder: str | Path,
    config: ModelConfig,
    weights: Mapping[str, np.ndarray],
    files: Mapping[str, str | bytes] | None = None,
) -> Path:
    """Writes a checkpoint folder so that a reader never sees half a file.

    A new folder appears in one move; in an existing one each file is replaced in one move and others stay.

    Args:
        folder: Where to.
        config: The network's shape.
        weights: Every weight of ``parameter_shapes``, fp32.
        files: Further files by name, such as ``tokenizer.json`` and ``README.md``.

    Returns:
        The folder.
    """
    folder = Path(folder)
    expected = parameter_shapes(config)
    if {name: np.shape(values) for name, values in weights.items()} != expected:
        raise ValueError("weights do not have the names and shapes of the config; see parameter_shapes(config)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Always of the same name: what a killed process left is replaced, not kept for ever.
    temporary = folder / ".saving" if folder.exists() else folder.with_name(f".{folder.name}.saving")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        arrays = {name: np.ascontiguousarray(weights[name], np.float32) for name in expected}
        # One entry only: the order of several is random, and the file's bytes name the model.
        save_file(arrays, temporary / WEIGHTS_FILE, metadata={"crc32": checksum_of(arrays)})
        (temporary / WEIGHTS_FILE).chmod(0o644)  # it is written as private
        (temporary / CONFIG_FILE).write_text(json.dumps(config.to_json(), indent=2) + "\n", encoding="utf-8")
        for name, content in (files or {}).items():
            (temporary / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        if folder.exists():
            for path in sorted(temporary.iterdir()):  # the config before the weights, which it describes
                os.replace(path, folder / path.name)
        else:
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
