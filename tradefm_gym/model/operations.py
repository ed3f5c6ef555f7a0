"""How many operations training takes, and how many a GPU could do."""

from tradefm_gym.model.config import ModelConfig

# FLOP/s in dense bf16 by the data sheets; the first name that is part of a device's decides.
_PEAKS = (
    ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("H200", 989e12), ("A100", 312e12),
    ("L40S", 362e12), ("B200", 2_250e12),
)  # fmt: skip


def step_flops(config: ModelConfig, windows: int) -> float:
    """Operations of a training step: 6 a weight of a product and event, and 6 L T H d an event for causal attention.

    The usual count (Chowdhery et al., 2022, appendix B) with half of the attention, since the rest is never computed.
    """
    weights = config.parameter_count() - sum(config.embedding_tables.values()) * config.embedding_width
    attention = config.layers * config.context * config.heads * config.attention_width
    return 6.0 * windows * config.context * (weights + attention)


def peak_flops(device: str) -> float | None:
    """Operations per second of a device by its name, ``None`` where it is not known."""
    return next((peak for name, peak in _PEAKS if name in device), None)
