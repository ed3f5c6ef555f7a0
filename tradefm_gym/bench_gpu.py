"""The GPU's part of ``bench_engine``. Nothing here needs torch until it is run.

The roofline of decoding is memory: a step reads every weight but the embeddings' once, and every cached key and value
of every row once. Its time is those bytes over the measured bandwidth of a copy (bytes read and written).
"""

import gc
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.bench import Work, median_rate
from tradefm_gym.model.config import PRESETS, ModelConfig, load_weights, random_weights, save_checkpoint
from tradefm_gym.model.operations import step_flops
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint, make_engine

PEAK = 989e12  # FLOP/s, dense bf16 of an H100 or H200 SXM by its data sheet; other GPUs are measured against it as well
MFU = "% of 989 TFLOP/s"
_BYTES = 2  # bf16
_STEPS = 32  # of decoding, the last ones before a row is full


def accelerator() -> dict[str, Any]:
    """The GPU's name, and the versions of what runs on it."""
    import torch

    from tradefm_gym.bench import version

    return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} | {
        name: version(name) for name in ("triton", "transformers")
    }


def _fresh():
    """Torch, with a GPU whose memory is free; ``ValueError`` without one."""
    try:
        import torch
    except ImportError as error:
        raise ValueError("PyTorch is not installed") from error
    if not torch.cuda.is_available():
        raise ValueError("there is no CUDA device")
    gc.collect()
    torch.cuda.empty_cache()
    return torch


@lru_cache(maxsize=1)
def _network(name: str) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    if name == "mini":
        return load_weights(checkpoint(BUNDLED_MODEL)[0])
    return PRESETS[name], random_weights(PRESETS[name])


def _engine(name: str, batch: int):
    _fresh()
    return make_engine(*_network(name), batch, "torch", "cuda")


# --- Bandwidth and roofline --------------------------------------------------------------------------------


def copying(quick: bool) -> Work:
    """Copies of 4 GB, counted as read and as written."""
    torch = _fresh()
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)

    def run() -> float:
        for _ in range(10):
            target.copy_(source)
        torch.cuda.synchronize()
        return 10 * 2 * source.nbytes / 1e9

    return Work(run)


@lru_cache
def bandwidth() -> float:
    """Bytes per second of a copy."""
    return 1e9 * median_rate(copying(True), 3)


def step_bytes(config: ModelConfig, batch: int, length: float) -> float:
    """Bytes that one step must read: the weights of its products, and ``length`` keys and values a row."""
    tables = sum(config.embedding_tables.values()) * config.embedding_width
    cached = 2 * config.layers * config.kv_heads * config.attention_width
    return _BYTES * (config.parameter_count() - tables + batch * length * cached)


def roofline(name: str, batch: int, quick: bool) -> float:
    """Events per second of the steps that ``decoding`` measures, had they to move their bytes and nothing else."""
    config = PRESETS[name]
    _fresh()
    return batch * bandwidth() / step_bytes(config, batch, config.context - (_STEPS - 1) / 2)


# --- Decoding ----------------------------------------------------------------------------------------------


def decoding(name: str, batch: int, quick: bool) -> Work:
    """Draw and append in all rows, from ``_STEPS`` before the context's end to the end."""
    engine = _engine(name, batch)
    start, sizes, everyone = engine.context - _STEPS, engine.config.input_sizes, np.ones(batch, np.bool_)
    generator = np.random.default_rng(0)
    prompts = np.stack([generator.integers(0, size, (batch, start)) for size in sizes], -1).astype(np.int32)
    engine.prefill(np.arange(batch), list(prompts))
    words = generator.integers(0, 2**32, (_STEPS, batch, 5), np.uint32)
    inputs = np.ascontiguousarray(prompts[:, :_STEPS].swapaxes(0, 1))

    def rewind() -> None:
        engine.lengths[:] = start  # the cache still holds what was there

    def run() -> int:
        for step in range(_STEPS):
            inputs[step, :, 3] = engine.sample(words[step], everyone)
            engine.append(inputs[step], everyone)
        engine.sample(words[0], everyone)  # waits for the last one
        return _STEPS * batch

    return Work(run, rewind)


@lru_cache
def served_rate(name: str, batch: int, quick: bool) -> float:
    """Events per second of the engine alone, rows being filled again as they get full."""
    from tradefm_gym.bench_engine import serving

    return median_rate(serving(_engine(name, batch), 1), 1)


@lru_cache
def generate_rate(name: str, batch: int, quick: bool) -> float:
    """Events per second of Hugging Face's ``generate``, as it comes, with a Llama of this shape in bf16.

    The time of a call that draws one token is subtracted: it reads the prompt.
    """
    torch = _fresh()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = PRESETS[name]
    shape = LlamaConfig(
        vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.feed_width,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.context + 1, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
        pad_token_id=None,
    )  # fmt: skip
    with torch.device("cuda"):
        model = LlamaForCausalLM(shape).to(torch.bfloat16).eval()
    prompt = torch.randint(0, config.vocabulary, (batch, config.context - _STEPS), device="cuda")

    def seconds(tokens: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=0, max_new_tokens=tokens,
            min_new_tokens=tokens,
        )  # fmt: skip
        torch.cuda.synchronize()
        return time.perf_counter() - start

    steps = _STEPS // 2
    seconds(2)
    return batch * steps / (seconds(1 + steps) - seconds(1))


# --- The closed loop ---------------------------------------------------------------------------------------


def closed_loop(name: str, batch: int, parts: int, quick: bool) -> Work:
    """``TradeFMFlow`` on the GPU with as many markets, in so many parts, and no agents; as many events as T/2 + 1."""
    _fresh()
    from dataclasses import replace

    from tradefm_gym.bench_cpu import going_on
    from tradefm_gym.flow.tradefm import TradeFMFlow

    with tempfile.TemporaryDirectory() as folder:
        model = BUNDLED_MODEL if name == "mini" else _paper_folder(Path(folder), name)
        flow = TradeFMFlow(model, batch, backend="torch", device="cuda", parts=parts)
    work = going_on(flow, replace(flow.market_config(0), tape=1024, fills=1024, flow_ids=16384))
    work.run()  # from the start's T/2 events to the first refill
    return work


def _paper_folder(folder: Path, name: str) -> Path:
    """A checkpoint of random weights, and a tokenizer calibrated on the bundled start states."""
    from tradefm_gym.flow.protocol import ContextBank
    from tradefm_gym.flow.tradefm import _CONTEXTS
    from tradefm_gym.market.features import new_state, observe
    from tradefm_gym.model.tokenizer import TradeTokenizer

    bank = ContextBank.load(_CONTEXTS / f"{BUNDLED_MODEL}.npz")
    states = [bank.state(number) for number in range(16)]
    scales = [(float(state.scale["median_size"]), float(state.scale["spread"])) for state in states]
    features = [
        observe(new_state(1, size, (0.0, 0.0), usual_spread=spread), state.records)[0]
        for state, (size, spread) in zip(states, scales, strict=True)
    ]
    save_checkpoint(folder, *_network(name))
    TradeTokenizer.calibrate(features).save(folder / "tokenizer.json")
    return folder


def learning(markets: int, quick: bool) -> Work:
    """Decisions of ``agents/cleanrl_ppo.py`` on the bundled model, network, learner and markets on one machine."""
    _fresh()
    from tradefm_gym.agents.cleanrl_ppo import Arguments, Learner

    arguments = Arguments(flow="tradefm", device="cuda", num_envs=markets, rollout=16 if quick else 32)
    learner = Learner(arguments)

    def run() -> int:
        learner.improve(arguments.learning_rate)
        return arguments.rollout * markets

    return Work(run)


# --- Training ----------------------------------------------------------------------------------------------


class _RandomWindows:
    """A ``WindowSource`` of noise."""

    def __init__(self, config: ModelConfig):
        self._config = config

    def sample(self, batch: int, rng: np.random.Generator):
        shape = (batch, self._config.context)
        columns = [rng.integers(0, size, shape, np.int32) for size in self._config.input_sizes]
        return np.stack(columns, -1), columns[-1], np.ones(shape, np.float32)

    def windows(self):
        yield self.sample(1, np.random.default_rng(0))


def training(preset: str, batch: int, micro_batch: int, quick: bool) -> Work:
    """Whole steps of the training run: windows to the device, both passes, clipping, AdamW; as a share of the peak."""
    torch = _fresh()
    from tradefm_gym.model.training import TrainingRun
    from tradefm_gym.model.training_config import TrainingConfig

    config, steps = PRESETS[preset], 3 if quick else 10
    settings = TrainingConfig(
        steps=1_000, batch=batch, micro_batch=micro_batch, precision="bf16", compile=True, device="cuda",
        progress=False, resume=False,
    )  # fmt: skip
    whole, source = TrainingRun(config, settings, Path("unused")), _RandomWindows(config)

    def run() -> float:
        for _ in range(steps):
            whole.step(source)
            whole.result.step += 1
        torch.cuda.synchronize()
        return 100.0 * steps * step_flops(config, batch) / PEAK

    return Work(run)
