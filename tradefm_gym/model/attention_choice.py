"""Which of torch's attention kernels a GPU trains fastest with: it depends on the device, the shape and the version."""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tradefm_gym.model.config import ModelConfig

_REPEATS = 5


def fastest_attention(config: ModelConfig, windows: int, device: torch.device) -> list[SDPBackend]:
    """Kernels for training in bf16, the fastest first, by the time that both passes of one layer take.

    Args:
        config: the network's shape.
        windows: of a backward pass.
        device: a GPU.
    """
    heads, shared = ((windows, config.context, n, config.attention_width) for n in (config.heads, config.kv_heads))
    parts = [
        torch.randn(shape, device=device, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        for shape in (heads, shared, shared)
    ]
    times = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            times[backend] = _milliseconds(parts, backend)
        except RuntimeError:  # it does not know this shape, or this device
            continue
    return [*sorted(times, key=lambda backend: times[backend]), SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _milliseconds(parts: list[torch.Tensor], backend: SDPBackend) -> float:
    query, key, value = parts
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with sdpa_kernel(backend), torch.enable_grad():
        for repeat in range(2 + _REPEATS):
            if repeat == 2:
                start.record()
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            torch.autograd.grad(mixed, parts, torch.ones_like(mixed))
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / _REPEATS
