"""What appends one event a row, what reads prompts and what draws from joint logits: as written, compiled or fused."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from tradefm_gym.arguments import shortened
from tradefm_gym.model import sampling
from tradefm_gym.model.transformer import KeyValueCache, TradeFM

DECODERS = ("eager", "compiled", "fused")


def decoder_of(
    model: TradeFM, name: str | None, device: torch.device, rows: int
) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]:
    """``TradeFM.decode`` for so many rows, ``FusedDecoder.prefill`` and ``sampling.draw_joint``, or their like.

    Args:
        model: the network.
        name: one of DECODERS; None: fused on a GPU where Triton's kernels can do the network, else eager.
        device: where it is.
        rows: how many decode together.
    """
    if name is None and device.type == "cuda" and find_spec("triton") is not None:
        from tradefm_gym.model.fused import FusedDecoder

        name = "fused" if FusedDecoder.fits(model.config) else "eager"
    if name != "fused":
        decode = torch.compile(model.decode, dynamic=False) if name == "compiled" else model.decode

        def prefill(events: Tensor, rows: Tensor, last: Tensor, cache: KeyValueCache) -> Tensor:
            hidden, keys, values = model.prefill(events)
            cache.keys[:, rows, :, : events.shape[1]] = keys
            cache.values[:, rows, :, : events.shape[1]] = values
            return hidden[torch.arange(len(last), device=last.device), last]

        return decode, prefill, sampling.draw_joint
    try:
        from tradefm_gym.model import decoding_kernels, fused
    except ImportError as error:
        raise ImportError('decoder "fused" needs Triton: pip install triton') from error
    if not fused.FusedDecoder.fits(model.config):
        width = model.config.attention_width
        raise ValueError(f"decoder is 'fused' for heads {width} wide; allowed are powers of two from 16 on")
    decoder = fused.FusedDecoder(model, rows)
    return decoder.decode, decoder.prefill, decoding_kernels.draw_joint


def device_of(name: str) -> torch.device:
    """A device by torch's name for it, if it is there."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device is {shortened(name)}; allowed is one that torch finds here, such as 'cpu'")
    return device
