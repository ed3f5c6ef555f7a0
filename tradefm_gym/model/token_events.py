"""Events as a model is trained on them: their tokens, as they are and mirrored, and what augmentation counts with.

What mirrors an event is done once, before its values become classes; what is drawn anew for each window (who is a
participant, hence waiting times and flags; the opening price) is left to ``windows``. 48 bytes an event.
"""

import numpy as np

from tradefm_gym.model.tokenizer import TradeTokenizer

TOKENS = np.dtype(
    [
        ("time_ns", np.int64),
        ("seconds", np.float64),  # since the previous background event
        ("level", np.float64),  # basis points from the opening price
        ("order_id", np.int32),
        ("straight", np.uint16, (4,)),  # columns liquidity, flag, level, token; no event is a participant's
        ("mirrored", np.uint16, (4,)),  # the same with buy and sell exchanged
        ("action", np.uint8),
        ("side", np.uint8),
        ("taker", np.uint8),
        ("flag", np.uint8),  # 1: a participant's
    ],
    align=True,
)
_MOST = 1 << 16  # classes of a column


def tokenize(features: np.ndarray, tokenizer: TradeTokenizer, asset: int | None = None) -> np.ndarray:
    """Events with a known mid as ``(k,) TOKENS``.

    Args:
        features: ``(n,) FEATURES`` of background events, contiguous in one day.
        tokenizer: frozen bins.
        asset: class of the asset; default what the features say.

    Raises:
        ValueError: if the tokenizer has more classes, or the day more orders, than the columns hold.
    """
    check_classes(tokenizer)
    features = features[features["valid"] == 1]
    if asset is not None:
        features["asset"] = asset
    if len(features) and not 0 <= features["order_id"].min() <= features["order_id"].max() < 2**31:
        raise ValueError("order_id of a day must lie in [0, 2^31); a loader numbers orders by first appearance")
    tokens = np.zeros(len(features), TOKENS)
    for name in ("time_ns", "seconds", "level", "order_id", "action", "side", "taker", "flag"):
        tokens[name] = features[name]
    tokens["straight"] = tokenizer.encode(features)
    tokens["mirrored"] = tokenizer.encode(mirror(features, tokenizer.mid))
    return tokens


def mirror(features: np.ndarray, mid: str) -> np.ndarray:
    """A copy of ``(n,) FEATURES`` with buy and sell exchanged; ``mid`` is the tokenizer's."""
    mirrored = features.copy()
    mirrored["side"] = 1 - features["side"]
    if mid != "touch":  # which counts from the order's own side
        mirrored["depth"] *= -1.0
    mirrored["bid"], mirrored["ask"] = features["ask"], features["bid"]
    for signed in ("level", "fast", "slow"):
        mirrored[signed] *= -1.0
    return mirrored


def check_classes(tokenizer: TradeTokenizer) -> None:
    """Refuses a tokenizer whose classes need more than 16 bits a column."""
    counts = {
        "spreads and paces": 3 * tokenizer.spreads * tokenizer.paces,
        "pressures and assets": 2 * tokenizer.pressures * (len(tokenizer.assets) + 1),
        "books": tokenizer.books,
    }
    for name, count in counts.items():
        if count > _MOST:
            raise ValueError(f"{name} of the tokenizer make {count} classes; allowed are {_MOST} in a column")
