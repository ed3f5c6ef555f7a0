from dataclasses import replace

import numba
import numpy as np
import pytest
import reference_network as reference

from tradefm_gym.model import numba_matrix
from tradefm_gym.model.config import DIGIT_SIZES, PRESETS, VOCABULARY, random_weights, save_checkpoint
from tradefm_gym.model.engine_protocol import KINDS, Engine, sample_integers
from tradefm_gym.model.numba_engine import NumbaEngine

JOINT = replace(PRESETS["test"], head="joint", head_width=0, digit_embeddings=False)
# widths and a context that fill no whole panel, three query heads a key head, a factored head of odd width
ODD = replace(
    PRESETS["test"],
    width=96,
    heads=3,
    kv_heads=1,
    feed_width=88,
    context=70,
    pressures=9,
    spreads=5,
    books=75,
    head_width=24,
    norm_eps=1e-4,
)
slow_without_jit = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="minutes in plain Python")
CONFIGS = {"test": PRESETS["test"], "mini": PRESETS["mini"], "joint": JOINT, "odd": ODD}
NAMES = [pytest.param(name, marks=slow_without_jit) if name in ("mini", "joint") else name for name in CONFIGS]
HEADS = ["test", pytest.param("joint", marks=slow_without_jit)]


def weights_of(config, seed=0):
    """Random weights, larger than at the start of training, so that attention and heads are far from uniform."""
    generator = np.random.default_rng(seed)
    weights = random_weights(config, seed)
    for values in weights.values():
        if values.ndim == 1:
            values += 0.2 * generator.standard_normal(values.shape, np.float32)
        else:
            values *= np.float32(4)
    return weights


def random_events(generator, count, config=PRESETS["test"]):
    return np.stack([generator.integers(0, size, count) for size in config.input_sizes], 1).astype(np.int32)


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


def prefill_all(engine, events):
    """Gives every row the same events."""
    engine.prefill(0, events)
    others = np.arange(1, engine.batch)
    engine.copy_rows(np.zeros_like(others), others)


def assert_same_row(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture
def threads():
    """Sets the number of threads; the old number comes back after the test."""
    before = numba.get_num_threads()
    yield lambda count: numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["prefill", "append"])
def test_cached_decoding_equals_the_full_pass(name, way):
    config, generator = CONFIGS[name], np.random.default_rng(1)
    weights = weights_of(config)
    engine = NumbaEngine(config, weights, 2)
    events = random_events(generator, config.context, config)
    expected = reference.forward(config, weights, events)
    tokens = generator.integers(0, VOCABULARY, 2)
    for length in sorted({1, 2, 17, 64, config.context - 1, config.context}):
        if way == "prefill":
            engine.prefill(1, events[:length])
        else:
            append_all(engine, 1, events[engine.lengths[1] : length])
        np.testing.assert_allclose(engine.export_row(1).hidden, expected[length - 1], atol=1e-4)
        log_prob = reference.log_probs(config, weights, expected[length - 1])[tokens[1]]
        np.testing.assert_allclose(engine.log_prob(tokens)[1], log_prob, atol=1e-4)


@slow_without_jit
def test_the_torch_network_agrees():
    torch = pytest.importorskip("torch")
    from tradefm_gym.model.transformer import TradeFM

    config, generator = PRESETS["mini"], np.random.default_rng(2)
    weights = weights_of(config)
    events, token = random_events(generator, 200, config), 6011
    with torch.inference_mode():
        model = TradeFM.from_weights(config, weights)
        hidden = model(torch.tensor(events, dtype=torch.int64)[None])[:, -1]
        log_prob = model.log_prob(hidden, torch.tensor([token])).numpy()
    engine = NumbaEngine(config, weights, 1)
    engine.prefill(0, events)
    np.testing.assert_allclose(engine.export_row(0).hidden, hidden[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(engine.log_prob(np.array([token])), log_prob, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 63, 65, 70])
def test_prefill_equals_appends_bit_for_bit(name, count):
    config = CONFIGS[name]
    count = min(count, config.context)
    events = random_events(np.random.default_rng(count), count)
    engine = NumbaEngine(config, weights_of(config), 2)
    engine.prefill(0, events)
    append_all(engine, 1, events)
    assert_same_row(engine.export_row(0), engine.export_row(1))


def rollout(config, weights, batch, events, words, places):
    """Prompts rows `places` of a batch by `events` (row, S, 4), then samples and appends; the others do otherwise."""
    generator = np.random.default_rng(batch)
    engine = NumbaEngine(config, weights, batch)
    for row in range(batch):
        if row not in places:
            engine.prefill(row, random_events(generator, generator.integers(1, config.context // 2)))
    engine.prefill(places, list(events))
    drawn = []
    for step in range(len(words)):
        bits, active = random_bits(generator, batch), generator.random(batch) < 0.7
        bits[places], active[places] = words[step], True
        active &= engine.lengths > 0
        tokens = engine.sample(bits, active)
        inputs = random_events(generator, batch)
        inputs[places, :3] = 1
        inputs[places, 3] = tokens[places]
        engine.append(inputs, active & (engine.lengths < config.context))
        drawn.append(tokens[places])
    return np.array(drawn), [engine.export_row(row) for row in places]


@slow_without_jit
@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_depends_neither_on_the_batch_nor_its_neighbours_nor_the_threads(name, threads):
    config, generator = CONFIGS[name], np.random.default_rng(3)
    weights = weights_of(config)
    events = [random_events(generator, size) for size in (30, 5, 21)]
    words = np.stack([random_bits(generator, 3) for _ in range(12)])
    threads(1)
    alone = [rollout(config, weights, 1, events[i : i + 1], words[:, i : i + 1], [0]) for i in range(3)]
    for batch, places in ((3, [2, 0, 1]), (7, [1, 3, 6]), (64, [63, 10, 40])):
        for count in (1, 2):
            threads(count)
            tokens, rows = rollout(config, weights, batch, events, words, places)
            for i in range(3):
                np.testing.assert_array_equal(tokens[:, i], alone[i][0][:, 0])
                assert_same_row(rows[i], alone[i][1][0])


def test_the_register_tile_does_not_matter():
    generator = np.random.default_rng(4)
    depth, stride = 37, 70
    x = generator.standard_normal(4 * depth).astype(np.float32)
    panel = generator.standard_normal(depth * numba_matrix.PANEL).astype(np.float32)
    start = generator.standard_normal(4 * stride).astype(np.float32)
    results = []
    for kernel in (numba_matrix.multiply_four_wide, numba_matrix.multiply_four_narrow):
        out = start.copy()
        kernel(x, 0, depth, panel, 0, depth, out, 0, stride)
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1])
    product = x.reshape(4, depth) @ panel.reshape(depth, -1) + start.reshape(4, stride)[:, : numba_matrix.PANEL]
    np.testing.assert_allclose(results[0].reshape(4, stride)[:, : numba_matrix.PANEL], product, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_follow_the_shared_definition(name, temperature):
    config, generator = CONFIGS[name], np.random.default_rng(5)
    weights = weights_of(config)
    engine = NumbaEngine(config, weights, 64)
    events = random_events(generator, 9)
    prefill_all(engine, events)
    hidden = engine.export_row(0).hidden
    bits = random_bits(generator, 64)
    tokens = engine.sample(bits, np.ones(64, bool), temperature=temperature)
    expected = [reference.sample(config, weights, hidden, bits[row], temperature) for row in range(64)]
    # a draw within rounding of an edge may fall to the other side
    assert (tokens == expected).mean() > 0.95


@slow_without_jit
def test_draws_have_the_model_s_frequencies():
    config = PRESETS["test"]
    weights, generator = weights_of(config), np.random.default_rng(6)
    engine = NumbaEngine(config, weights, 64)
    prefill_all(engine, random_events(generator, 3))
    tokens = np.concatenate([engine.sample(random_bits(generator, 64), np.ones(64, bool)) for _ in range(300)])
    probabilities = np.exp(reference.log_probs(config, weights, engine.export_row(0).hidden))
    for stride, size in ((8192, 2), (4096, 2), (256, 16), (16, 16), (1, 16)):
        expected = np.bincount(np.arange(VOCABULARY) // stride % size, probabilities, size)
        counts = np.bincount(tokens // stride % size, minlength=size)
        error = np.sqrt(expected * (1 - expected) * tokens.size) + 1
        assert (np.abs(counts - expected * tokens.size) < 5 * error).all()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_kinds_of_event_and_their_tilt(name, temperature):
    """The joint distribution of action, side and depth; tilted draws have its weights, and no tilt changes no draw."""
    config, generator = CONFIGS[name], np.random.default_rng(12)
    weights, batch = weights_of(config), 4 if numba.config.DISABLE_JIT else 64
    everyone = np.ones(batch, bool)
    engine = NumbaEngine(config, weights, batch)
    prefill_all(engine, random_events(generator, 9))
    kinds = engine.kind_log_prob(everyone, temperature)
    np.testing.assert_allclose(np.exp(kinds).sum(1), 1.0, atol=1e-5)
    if temperature == 1.0:
        logs = reference.log_probs(config, weights, engine.export_row(0).hidden)
        np.testing.assert_allclose(np.exp(kinds[0]), np.exp(logs).reshape(KINDS, -1).sum(1), atol=1e-5)
    bits = random_bits(generator, batch)
    nothing = np.zeros((batch, KINDS), np.float32)
    plain = engine.sample(bits, everyone, temperature)
    assert (plain == engine.sample(bits, everyone, temperature, tilt=nothing)).mean() > 0.95  # but for rounding
    forced = np.full((batch, KINDS), -60.0, np.float32)
    chosen = np.arange(batch) % KINDS
    forced[np.arange(batch), chosen] = 0.0
    assert (engine.sample(bits, everyone, temperature, tilt=forced) >> 8).tolist() == chosen.tolist()


@slow_without_jit
def test_tilted_draws_have_the_tilted_frequencies():
    config, generator = PRESETS["test"], np.random.default_rng(13)
    engine = NumbaEngine(config, weights_of(config), 64)
    prefill_all(engine, random_events(generator, 3))
    everyone, tilt = np.ones(64, bool), np.tile(generator.normal(0, 1, KINDS).astype(np.float32), (64, 1))
    tokens = np.concatenate([engine.sample(random_bits(generator, 64), everyone, tilt=tilt) for _ in range(300)])
    expected = np.exp(engine.kind_log_prob(everyone)[0] + tilt[0])
    expected /= expected.sum()
    counts = np.bincount(tokens >> 8, minlength=KINDS)
    error = np.sqrt(expected * (1 - expected) * tokens.size) + 1
    assert (np.abs(counts - expected * tokens.size) < 5 * error).all()


@pytest.mark.parametrize("name", HEADS)
def test_repetition_penalty(name):
    config, generator = CONFIGS[name], np.random.default_rng(7)
    weights = weights_of(config)
    batch = 4 if numba.config.DISABLE_JIT else 32
    engine = NumbaEngine(config, weights, batch)
    events = random_events(generator, 20)
    events[:10, 3] = events[10:, 3]  # a token seen twice is punished once
    prefill_all(engine, events)
    logs = reference.log_probs(config, weights, engine.export_row(0).hidden)
    logs[np.unique(events[:, 3])] *= 1.2
    probabilities = np.exp(logs) / np.exp(logs).sum()
    bits = random_bits(generator, batch)
    tokens = engine.sample(bits, np.ones(batch, bool), repetition_penalty=1.2)
    expected = sample_integers(np.tile(probabilities, (batch, 1)), bits[:, 0])
    # the rounding of 16,384 small weights moves the edges: a draw may land a few tokens away
    cumulative = np.cumsum(probabilities)
    assert np.abs(cumulative[tokens] - cumulative[expected]).max() < 1e-3
    strong = engine.sample(bits, np.ones(batch, bool), repetition_penalty=1e6)
    assert not np.isin(strong, events[:, 3]).any()


def test_sample_integers_by_hand():
    probabilities = np.array([[0.25, 0.0, 0.75]] * 4, np.float32)
    bits = np.array([0, 2**30 - 1, 2**30, 2**32 - 1], np.uint32)
    assert sample_integers(probabilities, bits).tolist() == [0, 0, 2, 2]


@slow_without_jit
def test_exported_rows_continue_bit_for_bit():
    config, generator = PRESETS["mini"], np.random.default_rng(8)
    weights = weights_of(config)
    source, target = NumbaEngine(config, weights, 2), NumbaEngine(config, weights, 5)
    target.prefill(np.arange(5), [random_events(generator, 200) for _ in range(5)])
    source.prefill(1, random_events(generator, 70))
    target.import_row(3, source.export_row(1))
    target.copy_rows(np.array([3]), np.array([0]))
    more, bits = random_events(generator, 80), random_bits(generator, 1)
    tokens = source.sample(np.tile(bits, (2, 1)), mask(2, 1))[1]
    assert target.sample(np.tile(bits, (5, 1)), mask(5, 0, 3))[[0, 3]].tolist() == [tokens, tokens]
    append_all(source, 1, more)
    append_all(target, 3, more)
    append_all(target, 0, more)
    assert_same_row(source.export_row(1), target.export_row(3))
    assert_same_row(source.export_row(1), target.export_row(0))


def test_a_used_row_starts_anew():
    config, generator = PRESETS["test"], np.random.default_rng(9)
    weights = weights_of(config)
    used, fresh = NumbaEngine(config, weights, 2), NumbaEngine(config, weights, 2)
    used.prefill([0, 1], [random_events(generator, config.context)] * 2)
    used.reset(mask(2, 0))
    assert used.lengths.tolist() == [0, config.context]
    events = random_events(generator, 5)
    append_all(used, 0, events)
    append_all(fresh, 0, events)
    assert_same_row(used.export_row(0), fresh.export_row(0))


def test_the_checkpoint_and_the_protocol(tmp_path):
    config = PRESETS["test"]
    weights = weights_of(config)
    save_checkpoint(tmp_path / "model", config, weights)
    engine: Engine = NumbaEngine.from_checkpoint(tmp_path / "model", 2)
    direct = NumbaEngine(config, weights, 2)
    events = random_events(np.random.default_rng(10), 12)
    for one in (engine, direct):
        one.prefill(0, events)
    assert_same_row(engine.export_row(0), direct.export_row(0))
    assert (engine.batch, engine.context, engine.vocabulary) == (2, config.context, VOCABULARY)


def test_bad_input_is_refused_and_changes_nothing():
    config, generator = PRESETS["test"], np.random.default_rng(11)
    weights = weights_of(config)
    engine = NumbaEngine(config, weights, 3)
    engine.prefill([0, 1], [random_events(generator, config.context), random_events(generator, 3)])
    before = engine.export_row(1)
    good, everyone = random_events(generator, 3), np.ones(3, bool)
    wrong = good.copy()
    wrong[1, 2] = 32
    bits = random_bits(generator, 3)
    empty = before._replace(keys=before.keys[:, :, :1])
    refused = [
        (lambda: engine.append(good, everyone), r"row 0, which is full \(64 tokens\)"),
        (lambda: engine.append(wrong, mask(3, 1)), r"inputs of row 1 is .* allowed is below .*level 32"),
        (lambda: engine.append(good[:2], everyone), "inputs has shape"),
        (lambda: engine.append(good, everyone[:2]), "active is"),
        (lambda: engine.prefill(3, good), "rows is"),
        (lambda: engine.prefill([1, 1], [good, good]), "rows is"),
        (lambda: engine.prefill([1], [good, good]), "2 prompts for 1 rows"),
        (lambda: engine.prefill(1, good[:0]), "inputs has shape"),
        (lambda: engine.prefill(1, wrong), "inputs is out of range"),
        (lambda: engine.sample(bits, everyone), "row 2, which is empty"),
        (lambda: engine.sample(bits[:, :4], mask(3, 1)), "bits has shape"),
        (lambda: engine.sample(bits, mask(3, 1), temperature=0.0), "temperature is 0.0"),
        (lambda: engine.sample(bits, mask(3, 1), repetition_penalty=0.5), "repetition_penalty is 0.5"),
        (lambda: engine.log_prob(np.full(3, VOCABULARY)), "tokens is"),
        (lambda: engine.copy_rows(np.array([0]), np.array([0])), "sources is"),
        (lambda: engine.import_row(1, empty), "cache has keys of shape"),
        (lambda: engine.export_row(3), "row is"),
        (lambda: NumbaEngine(config, weights, 0), "batch is 0"),
        (lambda: NumbaEngine(config, {}, 1), "weights do not have"),
        (lambda: NumbaEngine(replace(config, heads=8), weights, 1), "width / heads is 8"),
    ]
    for action, message in refused:
        with pytest.raises(ValueError, match=message):
            action()
    assert_same_row(engine.export_row(1), before)
    assert engine.lengths.tolist() == [config.context, 3, 0]


def test_inactive_rows_return_minus_one():
    engine = NumbaEngine(PRESETS["test"], weights_of(PRESETS["test"]), 3)
    engine.prefill(1, random_events(np.random.default_rng(12), 4))
    tokens = engine.sample(random_bits(np.random.default_rng(13), 3), mask(3, 1))
    assert tokens[0] == tokens[2] == -1
    assert 0 <= tokens[1] < VOCABULARY
    assert np.prod(DIGIT_SIZES) == VOCABULARY


@pytest.mark.parametrize("threads", [1, 2])
def test_reading_comes_to_what_prefill_and_append_do(threads, monkeypatch):
    """Rows that read anew, rows that go on, one that reads nothing: what follows comes once for each, in time."""
    monkeypatch.setattr("tradefm_gym.model.numba_engine.thread_count", lambda: threads)
    monkeypatch.setattr("tradefm_gym.model.numba_plans.thread_count", lambda: threads)
    config, generator = PRESETS["test"], np.random.default_rng(3)
    weights, batch = weights_of(config), 30
    expected, engine = (NumbaEngine(config, weights, batch) for _ in range(2))
    first = random_events(generator, 20)
    for one in (expected, engine):
        prefill_all(one, first)
    rows = np.array([7, 3, *range(8, 28), 29], np.int64)
    counts = np.array([40, 64, *generator.integers(0, 4, 20), 0], np.int64)
    begins = np.where(counts >= 40, 0, 20)
    events = random_events(generator, int(counts.sum()))
    parts = np.split(events, np.cumsum(counts)[:-1])
    heard, width = [], engine._state.head.size // batch
    engine.read(rows, begins, counts, events, lambda some: heard.extend(
        (row, engine._state.head.reshape(batch, width)[row].copy()) for row in some.tolist()))  # fmt: skip
    for row, begin, part in zip(rows.tolist(), begins.tolist(), parts, strict=True):
        if begin == 0:
            expected.prefill(row, part)
        else:
            append_all(expected, row, part)
    assert sorted(row for row, _ in heard) == sorted(rows.tolist())
    for row, outputs in heard:
        np.testing.assert_array_equal(outputs, expected._state.head.reshape(batch, width)[row])
    np.testing.assert_array_equal(engine.lengths, expected.lengths)
    np.testing.assert_array_equal(engine._seen, expected._seen)
    tokens = engine.sample(random_bits(np.random.default_rng(4), batch), np.ones(batch, bool))
    assert np.array_equal(tokens, expected.sample(random_bits(np.random.default_rng(4), batch), np.ones(batch, bool)))


def test_what_cannot_be_read_is_refused_and_nothing_changes():
    config = PRESETS["test"]
    engine, nothing = NumbaEngine(config, weights_of(config), 3), lambda rows: pytest.fail("nothing was read")
    good = random_events(np.random.default_rng(0), config.context + 1)
    bad = good.copy()
    bad[2, 3] = VOCABULARY
    for row, count, events, message in (
        (1, config.context + 1, good, "row 1, which needs more room"),
        (2, 3, bad, "row 2, which has an event out of range"),
        (0, 0, good, "row 0, which is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.read(np.array([row]), np.array([0]), np.array([count]), events, nothing)
    assert not engine.lengths.any()
