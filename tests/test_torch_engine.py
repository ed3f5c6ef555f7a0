import dataclasses

import numpy as np
import pytest
import reference_network as reference

torch = pytest.importorskip("torch")

from tradefm_gym.model.config import PRESETS, VOCABULARY, random_weights, save_checkpoint  # noqa: E402
from tradefm_gym.model.engine import TorchEngine  # noqa: E402
from tradefm_gym.model.engine_protocol import KINDS, Engine, sample_integers  # noqa: E402
from tradefm_gym.model.numba_engine import NumbaEngine  # noqa: E402
from tradefm_gym.model.sampling import draw  # noqa: E402

FACTORED = PRESETS["test"]
JOINT = dataclasses.replace(FACTORED, head="joint", head_width=0, digit_embeddings=False)
CONFIGS = {"factored": FACTORED, "joint": JOINT}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


def weights_of(config, seed=0):
    """Random weights far from uniform."""
    return {name: values * (4 if values.ndim > 1 else 1) for name, values in random_weights(config, seed).items()}


def random_events(generator, count):
    return np.stack([generator.integers(0, size, count) for size in (3, 2, 32, VOCABULARY)], 1).astype(np.int32)


def random_bits(generator, rows):
    return generator.integers(0, 2**32, (rows, 5), dtype=np.uint32)


def mask(batch, *rows):
    active = np.zeros(batch, bool)
    active[list(rows)] = True
    return active


def append_all(engine, row, events):
    inputs = np.zeros((engine.batch, 4), np.int32)
    for event in events:
        inputs[row] = event
        engine.append(inputs, mask(engine.batch, row))


def assert_same_row(first, second):
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


@each_config
@pytest.mark.parametrize("way", ["prefill", "append"])
def test_cached_decoding_equals_the_full_pass(config, way, device):
    weights, generator = weights_of(config), np.random.default_rng(1)
    engine = TorchEngine(config, weights, 2, device=device)
    events, tokens = random_events(generator, config.context), generator.integers(0, VOCABULARY, 2)
    expected = reference.forward(config, weights, events)
    for length in (1, 2, 17, 64):
        if way == "prefill":
            engine.prefill(1, events[:length])
        else:
            append_all(engine, 1, events[engine.lengths[1] : length])
        assert engine.lengths.tolist() == [0, length]
        np.testing.assert_allclose(engine.export_row(1).hidden, expected[length - 1], atol=2e-4)
        log_prob = reference.log_probs(config, weights, expected[length - 1])[tokens[1]]
        np.testing.assert_allclose(engine.log_prob(tokens)[1], log_prob, atol=2e-4)


@each_config
@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"repetition_penalty": 1.2}], ids=str)
def test_the_two_engines_draw_the_same(config, options, tilted):
    weights, generator, batch = weights_of(config), np.random.default_rng(2), 16
    if tilted:
        options = {**options, "tilt": generator.normal(0, 2, (batch, KINDS)).astype(np.float32)}
    engines = [kind(config, weights, batch) for kind in (TorchEngine, NumbaEngine)]
    prompts = [random_events(generator, size) for size in range(3, 3 + batch)]
    everyone, agreed = np.ones(batch, bool), []
    for engine in engines:
        engine.prefill(np.arange(batch), prompts)
    for _ in range(20):
        bits, inputs = random_bits(generator, batch), random_events(generator, batch)
        tokens = [engine.sample(bits, everyone, **options) for engine in engines]
        kinds = [engine.kind_log_prob(everyone, options.get("temperature", 1.0)) for engine in engines]
        np.testing.assert_allclose(kinds[0], kinds[1], atol=1e-3)
        agreed.append((tokens[0] == tokens[1]).mean())
        inputs[:, 3] = tokens[1]
        for engine in engines:
            engine.append(inputs, everyone)
    # a draw within rounding of an edge may fall to the other side; more edges lie close in a joint table
    assert np.mean(agreed) > 0.95


def rollout(config, weights, device, events, words, places, stranger):
    """Prompts rows `places` of a batch of 8 by `events`, samples and appends; all else comes from `stranger`."""
    generator = np.random.default_rng(stranger)
    engine = TorchEngine(config, weights, 8, device=device)
    for row in range(8):
        if row not in places:
            engine.prefill(row, random_events(generator, generator.integers(1, config.context // 2)))
    engine.prefill(places, events)
    drawn = []
    for step in range(len(words)):
        bits, active = random_bits(generator, 8), generator.random(8) < 0.7
        bits[places], active[places] = words[step], True
        tokens = engine.sample(bits, active)
        inputs = random_events(generator, 8)
        inputs[places, :3], inputs[places, 3] = 1, tokens[places]
        engine.append(inputs, active)
        drawn.append(tokens[places])
    return np.array(drawn), [engine.export_row(row) for row in places]


@each_config
def test_a_row_does_not_depend_on_its_neighbours(config, device):
    weights, generator = weights_of(config), np.random.default_rng(3)
    events = [random_events(generator, size) for size in (30, 5)]
    words = np.stack([random_bits(generator, 2) for _ in range(12)])
    tokens, rows = rollout(config, weights, device, events, words, [2, 5], 0)
    again, others = rollout(config, weights, device, events, words, [2, 5], 1)
    np.testing.assert_array_equal(tokens, again)
    for one, other in zip(rows, others, strict=True):
        assert_same_row(one, other)


@pytest.mark.parametrize("size", [2, 16, VOCABULARY])
def test_draws_are_those_of_the_definition(size):
    generator = np.random.default_rng(4)
    probabilities = generator.dirichlet(np.full(size, 0.3), 200).astype(np.float32)
    bits = generator.integers(0, 2**32, 200, dtype=np.uint32)
    bits[:2] = 0, 2**32 - 1
    drawn = draw(torch.from_numpy(probabilities), torch.from_numpy(bits.astype(np.int64)))
    np.testing.assert_array_equal(drawn.numpy(), sample_integers(probabilities, bits))


def test_a_strong_penalty_forbids_what_was_seen():
    generator = np.random.default_rng(5)
    engine = TorchEngine(FACTORED, weights_of(FACTORED), 16)
    events = random_events(generator, 30)
    engine.prefill(np.arange(16), [events] * 16)
    tokens = engine.sample(random_bits(generator, 16), np.ones(16, bool), repetition_penalty=1e6)
    assert not np.isin(tokens, events[:, 3]).any()


def test_exported_rows_continue_bit_for_bit_in_their_place_and_closely_elsewhere(device):
    weights, generator = weights_of(FACTORED), np.random.default_rng(6)
    source, target = (TorchEngine(FACTORED, weights, 4, device=device) for _ in range(2))
    target.prefill(np.arange(4), [random_events(generator, 60) for _ in range(4)])
    source.prefill(1, random_events(generator, 20))
    target.import_row(1, source.export_row(1))
    target.copy_rows(np.array([1]), np.array([3]))
    assert_same_row(source.export_row(1), target.export_row(3))
    append_all(source, 1, more := random_events(generator, 30))
    append_all(target, 1, more)
    append_all(target, 3, more)
    assert_same_row(source.export_row(1), target.export_row(1))
    # A matrix product may treat the rows of a batch differently: some processors' libraries do.
    for one, other in zip(source.export_row(1), target.export_row(3), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_rows_cross_to_the_other_engine():
    weights, generator = weights_of(FACTORED), np.random.default_rng(7)
    one, other = TorchEngine(FACTORED, weights, 2), NumbaEngine(FACTORED, weights, 1)
    one.prefill(1, random_events(generator, 20))
    other.import_row(0, one.export_row(1))
    append_all(one, 1, more := random_events(generator, 9))
    append_all(other, 0, more)
    np.testing.assert_allclose(one.export_row(1).hidden, other.export_row(0).hidden, atol=2e-4)


def test_a_used_row_starts_anew():
    weights, generator = weights_of(FACTORED), np.random.default_rng(8)
    used, fresh = (TorchEngine(FACTORED, weights, 2) for _ in range(2))
    used.prefill([0, 1], [random_events(generator, 64)] * 2)
    used.reset(mask(2, 0))
    assert used.lengths.tolist() == [0, 64]
    append_all(used, 0, events := random_events(generator, 5))
    append_all(fresh, 0, events)
    assert_same_row(used.export_row(0), fresh.export_row(0))


def test_bf16_is_near_fp32(device):
    weights, generator = random_weights(FACTORED), np.random.default_rng(9)
    engines = [TorchEngine(FACTORED, weights, 2, device=device, precision=p) for p in ("fp32", "bf16")]
    prompt, more = random_events(generator, 20), random_events(generator, 10)
    for engine in engines:
        engine.prefill(0, prompt)
        append_all(engine, 0, more)
        assert engine.sample(random_bits(generator, 2), mask(2, 0))[1] == -1
    tokens = generator.integers(0, VOCABULARY, 2)
    np.testing.assert_allclose(engines[0].log_prob(tokens)[0], engines[1].log_prob(tokens)[0], atol=0.05)


def roll_out(engine, events, words, **options):
    """Prompts all rows, then draws and appends, a third of the rows now and then idle: tokens and final rows."""
    engine.prefill(np.arange(engine.batch), events)
    drawn, rows = [], np.arange(engine.batch)
    for step, bits in enumerate(words):
        active = (rows + step) % 3 > 0 if step % 4 == 3 else np.ones(engine.batch, bool)
        tokens = engine.sample(bits, active, **options)
        inputs = np.full((engine.batch, 4), 1, np.int32)
        inputs[:, 3] = np.maximum(tokens, 0)
        engine.append(inputs, active)
        drawn.append(tokens)
    return np.array(drawn), [engine.export_row(row) for row in rows]


@pytest.mark.gpu
@each_config
@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"repetition_penalty": 1.2}], ids=str)
@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_step_gives_the_same_bits(config, options, tilted, precision):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator, batch = np.random.default_rng(12), 6
    if tilted:
        options = {**options, "tilt": generator.normal(0, 2, (batch, KINDS)).astype(np.float32)}
    events = [random_events(generator, size) for size in range(2, 2 + batch)]
    words = [random_bits(generator, batch) for _ in range(40)]
    for decoder in ("eager", "fused"):
        engines = [
            TorchEngine(config, weights_of(config), batch, "cuda", precision, decoder=decoder, graph=graph)
            for graph in (False, True)
        ]
        (tokens, rows), (again, others) = (roll_out(engine, events, words, **options) for engine in engines)
        np.testing.assert_array_equal(tokens, again)
        for one, other in zip(rows, others, strict=True):
            assert_same_row(one, other)


@pytest.mark.gpu
@each_config
@pytest.mark.parametrize("decoder", ["compiled", "fused"])
def test_faster_decoding_equals_eager_decoding(config, decoder):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator, batch = np.random.default_rng(10), 8
    events = [random_events(generator, 3 + size) for size in range(batch)]
    words = [random_bits(generator, batch) for _ in range(40)]
    engines = [TorchEngine(config, weights_of(config), batch, "cuda", decoder=name) for name in ("eager", decoder)]
    (tokens, rows), (others, again) = (roll_out(engine, events, words) for engine in engines)
    alike = (tokens == others).all(0)  # a row in which one draw fell to the other side of an edge goes another way
    assert alike.mean() >= 0.75
    for row in np.flatnonzero(alike):
        np.testing.assert_allclose(rows[row].hidden, again[row].hidden, atol=2e-4)
        np.testing.assert_allclose(rows[row].keys, again[row].keys, atol=2e-4)


def test_the_checkpoint_and_the_protocol(tmp_path):
    weights = weights_of(FACTORED)
    save_checkpoint(tmp_path / "model", FACTORED, weights)
    engine: Engine = TorchEngine.from_checkpoint(tmp_path / "model", 2, device="cpu")
    assert (engine.batch, engine.context, engine.vocabulary) == (2, 64, VOCABULARY)


def test_bad_input_is_refused_and_changes_nothing():
    weights, generator = weights_of(FACTORED), np.random.default_rng(11)
    engine = TorchEngine(FACTORED, weights, 3)
    engine.prefill([0, 1], [random_events(generator, 64), random_events(generator, 3)])
    before, everyone = engine.export_row(1), np.ones(3, bool)
    good, bits = random_events(generator, 3), random_bits(generator, 3)
    wrong = good.copy()
    wrong[1, 2] = 32
    refused = [
        (lambda: engine.append(good, everyone), r"row 0, which is full \(64 tokens\)"),
        (lambda: engine.append(wrong, mask(3, 1)), "inputs of row 1 is .* allowed is below .*level 32"),
        (lambda: engine.append(good[:2], everyone), "inputs has shape"),
        (lambda: engine.append(good, everyone[:2]), "active is"),
        (lambda: engine.prefill(3, good), "rows is"),
        (lambda: engine.prefill([1, 1], [good, good]), "rows is"),
        (lambda: engine.prefill([1], [good, good]), "2 prompts for 1 rows"),
        (lambda: engine.prefill(1, good[:0]), "inputs has shape"),
        (lambda: engine.prefill(1, wrong), "inputs is out of range"),
        (lambda: engine.sample(bits, everyone), "row 2, which is empty"),
        (lambda: engine.sample(bits[:, :4], mask(3, 1)), "bits has shape"),
        (lambda: engine.sample(bits, mask(3, 1), temperature=0.0), "temperature is"),
        (lambda: engine.sample(bits, mask(3, 1), repetition_penalty=0.5), "repetition_penalty is"),
        (lambda: engine.log_prob(np.full(3, VOCABULARY)), "tokens is"),
        (lambda: engine.copy_rows(np.array([0]), np.array([0])), "sources is"),
        (lambda: engine.import_row(1, before._replace(keys=before.keys[:, :, :1])), "cache has keys"),
        (lambda: engine.export_row(3), "row is"),
        (lambda: TorchEngine(FACTORED, weights, 0), "batch is 0"),
        (lambda: TorchEngine(FACTORED, weights, 1, precision="fp8"), "precision is"),
        (lambda: TorchEngine(FACTORED, weights, 1, prefill_batch=0.5), "prefill_batch is 0.5"),
        (lambda: TorchEngine(FACTORED, weights, 1, decoder="yes"), "decoder is 'yes'"),
        (lambda: TorchEngine(FACTORED, weights, 1, device="abacus"), "device is 'abacus'; allowed is one that torch f"),
        (lambda: TorchEngine(FACTORED, weights, 1, graph=True), "graph is True on device 'cpu'"),
        (lambda: TorchEngine(FACTORED, {}, 1), "weights do not have"),
    ]
    for action, message in refused:
        with pytest.raises(ValueError, match=message):
            action()
    assert_same_row(engine.export_row(1), before)
    assert engine.lengths.tolist() == [64, 3, 0]
