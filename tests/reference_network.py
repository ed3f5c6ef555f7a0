"""The network in plain NumPy, float64, whole windows, no cache: the slow twin of the engines."""

import numpy as np

from tradefm_gym.model.config import DIGIT_SIZES, DIGIT_STRIDES, VOCABULARY
from tradefm_gym.model.engine_protocol import sample_integers


def forward(config, weights, events):
    """Normalised hidden states (S, D) of events (S, 4)."""
    weights = {name: values.astype(np.float64) for name, values in weights.items()}
    x = _embed(config, weights, events)
    for layer in range(config.layers):
        name = f"layers.{layer}."
        x = x + _attention(config, weights, name, _norm(config, x, weights[name + "attention_norm.weight"]))
        n = _norm(config, x, weights[name + "feed_norm.weight"])
        gate, up = n @ weights[name + "feed.gate.weight"].T, n @ weights[name + "feed.up.weight"].T
        x = x + (_silu(gate) * up) @ weights[name + "feed.down.weight"].T
    return _norm(config, x, weights["norm.weight"])


def log_probs(config, weights, hidden):
    """Log-probabilities (V,) of all tokens after one hidden state (D,)."""
    if config.head == "joint":
        return _log_softmax(weights["head.weight"].astype(np.float64) @ hidden)
    result = np.zeros(VOCABULARY)
    tokens = np.arange(VOCABULARY)
    for digit, (size, stride) in enumerate(zip(DIGIT_SIZES, DIGIT_STRIDES, strict=True)):
        prefixes = tokens[:: size * stride]
        logits = np.array([_digit_logits(config, weights, hidden, digit, prefix) for prefix in prefixes])
        result += np.repeat(_log_softmax(logits).ravel(), stride)
    return result


def sample(config, weights, hidden, bits, temperature=1.0):
    """One token after one hidden state (D,), by words (5,)."""
    if config.head == "joint":
        logits = weights["head.weight"].astype(np.float64) @ hidden
        return int(sample_integers(np.exp(_log_softmax(logits / temperature))[None], bits[:1])[0])
    token = 0
    for digit, stride in enumerate(DIGIT_STRIDES):
        logits = _digit_logits(config, weights, hidden, digit, token) / temperature
        token += int(sample_integers(np.exp(_log_softmax(logits))[None], bits[digit : digit + 1])[0]) * stride
    return token


def _digit_logits(config, weights, hidden, digit, token):
    units = config.head_width
    value = weights["head.hidden.weight"][digit * units : (digit + 1) * units].astype(np.float64) @ hidden
    for earlier in range(digit):
        chosen = token // DIGIT_STRIDES[earlier] % DIGIT_SIZES[earlier]
        value = value + weights[f"head.prefix.{digit}.{earlier}.weight"][chosen]
    return weights[f"head.output.{digit}.weight"] @ _silu(value)


def _embed(config, weights, events):
    liquidity, flag, level, token = events.T
    parts = [
        weights["embed.liquidity.weight"][liquidity],
        weights["embed.flag.weight"][flag],
        weights["embed.level.weight"][level],
        weights["embed.token.weight"][token],
    ]
    if config.digit_embeddings:
        for digit, (size, stride) in enumerate(zip(DIGIT_SIZES, DIGIT_STRIDES, strict=True)):
            parts.append(weights[f"embed.digits.{digit}.weight"][token // stride % size])
    return np.concatenate(parts, axis=1) @ weights["embed.project.weight"].T


def _attention(config, weights, name, x):
    count, width = len(x), config.attention_width
    group = config.heads // config.kv_heads
    query = _rotate(config, (x @ weights[name + "attention.query.weight"].T).reshape(count, config.heads, width))
    key = _rotate(config, (x @ weights[name + "attention.key.weight"].T).reshape(count, config.kv_heads, width))
    value = (x @ weights[name + "attention.value.weight"].T).reshape(count, config.kv_heads, width)
    future = np.triu(np.ones((count, count), bool), 1)
    mixed = np.empty_like(query)
    for head in range(config.heads):
        scores = query[:, head] @ key[:, head // group].T / np.sqrt(width)
        mixed[:, head] = np.exp(_log_softmax(np.where(future, -np.inf, scores))) @ value[:, head // group]
    return mixed.reshape(count, -1) @ weights[name + "attention.output.weight"].T


def _rotate(config, x):
    half = config.attention_width // 2
    angles = np.arange(len(x))[:, None] * config.rope_base ** (-np.arange(half) / half)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate(
        (x[..., :half] * cosine - x[..., half:] * sine, x[..., half:] * cosine + x[..., :half] * sine), axis=-1
    )


def _norm(config, x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * weight


def _silu(x):
    return x / (1 + np.exp(-x))


def _log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
