import dataclasses
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported: they then run on the CPU
pytest.importorskip("triton", reason="needs Triton, which runs its kernels on a CPU too, interpreted")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from test_torch_engine import FACTORED, JOINT, append_all, mask, random_bits, random_events, weights_of  # noqa: E402

from tradefm_gym.model import decoding_kernels  # noqa: E402
from tradefm_gym.model.engine import TorchEngine  # noqa: E402
from tradefm_gym.model.engine_protocol import KINDS, sample_integers  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIGS = {
    "factored": FACTORED,
    "joint": JOINT,
    "odd": dataclasses.replace(JOINT, width=96, heads=6, kv_heads=2, feed_width=100, context=200),
}

pytestmark = pytest.mark.filterwarnings("ignore")  # of the interpreter


@triton.jit
def _add_up(out, count):
    total = 0
    for number in range(count):
        total += number
    tl.store(out, total)


@pytest.fixture(scope="module", autouse=True)
def interpreter():
    """Triton 3.6 has one that takes no bound of a loop from an argument where NumPy is new."""
    if DEVICE == "cuda":
        return
    out = torch.zeros(1, dtype=torch.int32)
    try:
        _add_up[(1,)](out, 4)
    except Exception as error:
        pytest.skip(f"Triton {triton.__version__} does not interpret kernels beside NumPy {np.__version__}: {error}")
    assert out.item() == 6


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("keys", [16, 64])
def test_fused_decoding_and_prompts_equal_eager_ones(config, keys, monkeypatch):
    monkeypatch.setattr(decoding_kernels, "_KEYS", keys)  # few keys at a time make many splits and loops
    weights, generator, batch = weights_of(config), np.random.default_rng(0), 3
    engines = [
        TorchEngine(config, weights, batch, DEVICE, prefill_batch=2, decoder=name, graph=False)
        for name in ("eager", "fused")
    ]
    prompts = [random_events(generator, size) for size in (1 if keys == 16 else 17, 20, 60)]
    for engine in engines:
        engine.prefill(np.arange(batch), prompts)
    for active in (mask(3, 0, 1, 2), mask(3, 0, 2), mask(3, 1), mask(3, 0, 1, 2)):
        inputs, bits = random_events(generator, batch), random_bits(generator, batch)
        tilt = generator.normal(0, 2, (batch, KINDS)).astype(np.float32)
        for engine in engines:
            engine.append(inputs, active)
        eager, fused = engines
        for row in range(batch):
            for one, other in zip(eager.export_row(row), fused.export_row(row), strict=True):
                np.testing.assert_allclose(one, other, atol=2e-4)
        for options in ({}, {"tilt": tilt, "temperature": 0.7}, {"repetition_penalty": 1.3}):
            drawn = [engine.sample(bits, mask(3, 0, 1, 2), **options) for engine in engines]
            np.testing.assert_array_equal(*drawn)


def test_a_row_does_not_depend_on_the_lengths_beside_it():
    weights, generator = weights_of(JOINT), np.random.default_rng(1)
    prompt, more = random_events(generator, 30), random_events(generator, 5)
    rows = []
    for size in (2, 50):
        engine = TorchEngine(JOINT, weights, 2, DEVICE, decoder="fused", graph=False)
        engine.prefill([0, 1], [random_events(generator, size), prompt])
        append_all(engine, 1, more)
        rows.append(engine.export_row(1))
    for one, other in zip(*rows, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("concentration", [1e-3, 0.3, 100.0])
def test_joint_draws_are_those_of_the_definition(concentration):
    generator = np.random.default_rng(2)
    logits = np.log(generator.dirichlet(np.full(16384, concentration), 20) + 1e-30).astype(np.float32)
    bits = generator.integers(0, 2**32, 20, dtype=np.uint32)
    bits[:2] = 0, 2**32 - 1
    parts = [torch.from_numpy(logits), torch.from_numpy(bits.astype(np.int64)), torch.ones(20, 1)]
    drawn = decoding_kernels.draw_joint(*(part.to(DEVICE) for part in parts), None).cpu().numpy()
    expected = sample_integers(torch.from_numpy(logits).softmax(-1).numpy(), bits)
    assert (drawn == expected).mean() > 0.8  # sums in another order: a draw on an edge may fall to the other side
    probabilities = np.exp(logits.astype(np.float64))
    between = [row[min(a, b) : max(a, b) + 1].sum() for row, a, b in zip(probabilities, drawn, expected, strict=True)]
    assert np.all((drawn == expected) | (np.array(between) < 1e-3))
