"""Several events a row in one call, and draws that are corrected on the way: both engines."""

import importlib.util

import numpy as np
import pytest
from test_numba_engine import CONFIGS, assert_same_row, mask, random_bits, random_events, threads, weights_of

from tradefm_gym.model.corrections import KINDS, Moves, tilt_row
from tradefm_gym.model.engine_protocol import sample_integers
from tradefm_gym.model.numba_engine import NumbaEngine

BARE = importlib.util.find_spec("torch") is None
needs_torch = pytest.mark.skipif(BARE, reason="needs the torch extra")
ENGINES = ["numba", pytest.param("torch", marks=needs_torch), pytest.param("torch in two parts", marks=needs_torch)]
CONFIG, JOINT = CONFIGS["test"], CONFIGS["joint"]
each_engine = pytest.mark.parametrize("name", ENGINES)

__all__ = ["threads"]  # a fixture


def engine_of(name, config=CONFIG, batch=6):
    if name == "numba":
        return NumbaEngine(config, weights_of(config), batch)
    from tradefm_gym.model.engine import TorchEngine

    return TorchEngine(config, weights_of(config), batch, parts=1 if name == "torch" else 2)


def one_by_one(engine, inputs, counts):
    for j in range(inputs.shape[1]):
        engine.append(np.ascontiguousarray(inputs[:, j]), counts > j)


@each_engine
@pytest.mark.parametrize("config", [CONFIG, JOINT, CONFIGS["odd"]], ids=["factored", "joint", "odd"])
@pytest.mark.parametrize("counts", [[1, 1, 1, 1, 1, 1], [0, 3, 1, 0, 2, 7], [20, 0, 0, 9, 12, 8]], ids=str)
def test_several_events_are_those_appended_one_by_one(name, config, counts):
    generator, counts = np.random.default_rng(1), np.array(counts)
    if name != "numba" and config is CONFIGS["odd"]:
        pytest.skip("the torch engine's shapes do not depend on panels")
    one, other = engine_of(name, config), engine_of(name, config)
    inputs = random_events(generator, 6 * 20, config).reshape(6, 20, 4)
    prompts = [random_events(generator, size, config) for size in (5, 17, 1, 30, 2, 9)]
    for engine in (one, other):
        engine.prefill(np.arange(6), prompts)
    one.extend(inputs, counts)
    one_by_one(other, inputs, counts)
    assert one.lengths.tolist() == other.lengths.tolist()
    for row in range(6):
        for mine, theirs in zip(one.export_row(row), other.export_row(row), strict=True):
            if name == "numba":
                np.testing.assert_array_equal(mine, theirs)
            else:
                np.testing.assert_allclose(mine, theirs, atol=2e-5)


@each_engine
def test_a_row_does_not_depend_on_how_many_events_come_beside_it(name, threads):
    generator, rows = np.random.default_rng(2), []
    mine, prompt = random_events(generator, 12).reshape(3, 4, 4), random_events(generator, 20)
    for stranger, count in ((3, 1), (4, 2)):
        others = np.random.default_rng(stranger)
        threads(count)
        engine = engine_of(name)
        engine.prefill(np.arange(6), [random_events(others, others.integers(1, 30)) for _ in range(6)])
        engine.prefill(4, prompt)
        for events in mine:
            inputs, counts = random_events(others, 6 * 11).reshape(6, 11, 4), others.integers(0, 10, 6)
            inputs[4, :4], counts[4] = events, 3
            engine.extend(inputs, np.where(engine.lengths + counts <= engine.context, counts, 0))
        rows.append(engine.export_row(4))
    assert_same_row(*rows)


@each_engine
def test_many_rows_are_extended_in_several_tasks(name, threads):
    threads(2)
    generator, (one, other) = np.random.default_rng(3), (engine_of(name, batch=80) for _ in range(2))
    inputs, counts = random_events(generator, 80 * 5).reshape(80, 5, 4), generator.integers(0, 6, 80)
    one.extend(inputs, counts)
    one_by_one(other, inputs, counts)
    for row in np.flatnonzero(counts):
        np.testing.assert_allclose(one.export_row(row).hidden, other.export_row(row).hidden, atol=1e-5)
        np.testing.assert_array_equal(one.export_row(row).tokens, inputs[row, : counts[row], 3])


def moves_of(generator, batch):
    """Every correction at work in some row and absent in another."""
    moves = Moves.none(batch)
    moves.shares[:] = generator.random((batch, 2, 16)) * (generator.random((batch, 2, 16)) < 0.4)
    moves.shares[0] = 0.0
    moves.moved[:] = generator.normal(0, 0.3, batch)
    moves.followed[:] = generator.normal(0, 2, batch) * (np.arange(batch) % 3 > 0)
    moves.repeating[:] = generator.normal(0, 1, batch) * (np.arange(batch) % 5 > 1)
    moves.answering[:] = 0.5 * (np.arange(batch) % 2)
    moves.restoring[:] = generator.normal(0, 1, (batch, 2))
    moves.kinds[:] = generator.normal(0, 1, (batch, KINDS)) * (np.arange(batch) % 4 > 1)[:, None]
    return moves


@each_engine
@pytest.mark.parametrize("config", [CONFIG, JOINT], ids=["factored", "joint"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_corrected_draw_is_a_draw_tilted_by_what_its_own_probabilities_give(name, config, temperature):
    generator, batch, alike = np.random.default_rng(4), 12, []
    engine, everyone = engine_of(name, config, batch), mask(batch, *range(1, batch))
    engine.prefill(np.arange(batch), [random_events(generator, 3 + row) for row in range(batch)])
    for _ in range(20):
        bits, moves = random_bits(generator, batch), moves_of(generator, batch)
        tokens, strength = engine.start_sample(bits, everyone, temperature, moves)()
        tilt, expected = np.zeros((batch, KINDS), np.float32), np.ones((batch, 2))
        kinds = engine.kind_log_prob(everyone, temperature)
        for row in range(1, batch):
            tilt_row(moves, row, kinds[row], tilt[row], expected[row])
        drawn = engine.sample(bits, everyone, temperature, tilt=tilt)
        assert tokens[0] == -1
        np.testing.assert_allclose(strength[1:], expected[1:], rtol=1e-9 if name == "numba" else 1e-4)
        alike.append((tokens == drawn).mean())
    assert np.mean(alike) == 1.0 if name == "numba" else np.mean(alike) > 0.99


@each_engine
@pytest.mark.parametrize("config", [CONFIG, JOINT], ids=["factored", "joint"])
def test_sizes_and_waits_are_tilted_by_whose_they_are(name, config):
    """Against the network's own log-probabilities of all tokens of a kind, drawn from by the definition of a draw."""
    generator, batch, states, alike = np.random.default_rng(7), 256, 4, []
    engine = engine_of(name, config, batch)
    engine.prefill(np.arange(states), [random_events(generator, 5 + row) for row in range(states)])
    engine.copy_rows(np.arange(states, batch) % states, np.arange(states, batch))
    tokens = np.arange(engine.vocabulary)
    asked = np.repeat(tokens, states).reshape(-1, batch)  # of many tokens at a time
    known = np.exp(np.concatenate([engine.log_prob(some).astype(np.float64) for some in asked])).reshape(-1, states).T
    bits, moves = random_bits(generator, batch), Moves.none(batch)
    moves.shares[:, 0, :5], moves.shares[:, 1, :5] = 1.0, 1.0
    moves.digits[:] = generator.normal(0, 1.5, (batch, 4, 16))
    drawn, _ = engine.start_sample(bits, mask(batch, *range(batch)), 1.0, moves)()
    for row in range(batch):
        kinds, own, usual = tokens >> 8, moves.digits[row], known[row % states]
        classes = np.where(kinds >= 32, 2, np.where(kinds % 16 < 5, 1, 0))
        sizes, waits = np.exp(own[classes, (tokens >> 4) & 15]), np.exp(own[3, tokens & 15])
        if config is JOINT:
            expected = one_of(usual * sizes * waits, bits[row, 0])
        else:
            kind = int(drawn[row]) >> 8  # nothing is asked of kinds
            assert kind == one_of(usual.reshape(KINDS, -1).sum(1), *bits[row, :3])
            inside = usual.reshape(KINDS, 16, 16)[kind]
            size = one_of(inside.sum(1) * sizes.reshape(KINDS, 16, 16)[kind, :, 0], bits[row, 3])
            wait = one_of(inside[size] * np.exp(own[3]), bits[row, 4])
            expected = 256 * kind + 16 * size + wait
        alike.append(drawn[row] == expected)
    assert np.mean(alike) > 0.95  # the network's probabilities are float32


def one_of(weights, *words):
    """A draw by one word, or of an action, a side and a depth by three."""
    if len(words) == 1:
        return int(sample_integers((weights / weights.sum())[None], np.array([words[0]], np.uint32))[0])
    chosen, shares = 0, weights.reshape(2, 2, 16)
    for word in words:
        digit = one_of(shares.reshape(len(shares), -1).sum(1), word)
        chosen, shares = chosen * len(shares) + digit, shares[digit]
    return chosen


@each_engine
def test_what_was_begun_is_not_changed_by_what_comes_after(name):
    """A result that is waited for late is that of the moment at which it was begun."""
    generator, batch = np.random.default_rng(5), 6
    engine = engine_of(name, batch=batch)
    engine.prefill(np.arange(batch), [random_events(generator, 9 + row) for row in range(batch)])
    bits, moves, first, second = random_bits(generator, batch), moves_of(generator, batch), mask(6, 0, 1, 2), mask(6, 4)
    expected = [engine.start_sample(bits, rows, 1.0, moves)() for rows in (first, second)]
    one, other = (engine.start_sample(bits, rows, 1.0, moves) for rows in (first, second))
    engine.append(random_events(generator, batch), ~second)
    for array in (bits, first, second, *moves):  # the caller's room to work
        array[:] = 0
    for wait, (tokens, strength) in zip((one, other), expected, strict=True):
        np.testing.assert_array_equal(wait()[0], tokens)
        np.testing.assert_array_equal(wait()[1], strength)


@pytest.mark.parametrize("name", ENGINES[:2])
def test_what_cannot_be_is_refused_and_changes_nothing(name):
    generator = np.random.default_rng(6)
    engine, events = engine_of(name, batch=3), random_events(generator, 12).reshape(3, 4, 4)
    engine.prefill([0, 1], [random_events(generator, 62), random_events(generator, 3)])
    before, wrong = engine.export_row(1), events.copy()
    wrong[1, 1, 2] = 99
    bits, some, moves = random_bits(generator, 3), mask(3, 0, 1), Moves.none(3)
    refused = [
        (
            lambda: engine.extend(events, [3, 1, 0]),
            "counts has 3 for row 0, which holds 62 of 64 tokens; allowed is at",
        ),
        (lambda: engine.extend(wrong, [0, 2, 0]), r"inputs of row 1 is \[.*99.*\]; allowed is below"),
        (lambda: engine.extend(events, [0, 5, 0]), r"counts is \[0, 5, 0\]; allowed are 3 integers in \[0, 4\]"),
        (lambda: engine.extend(events, [0, -1, 0]), r"counts is \[0, -1, 0\]; allowed are 3 integers"),
        (lambda: engine.extend(events, [0, 0.5, 0]), r"counts is \[0, 0.5, 0\]; allowed are 3 integers"),
        (lambda: engine.extend(events[:2], [1, 1, 1]), r"inputs has shape \(2, 4, 4\); allowed is \(3, K, 4\)"),
        (lambda: engine.start_sample(bits, ~some, 1.0, moves), "row 2, which is empty"),
        (lambda: engine.start_sample(bits, some, 1.0, Moves.none(2)), "moves is .*; allowed are Moves of 3 rows"),
        (lambda: engine.start_sample(bits, some, 1.0, None), "moves is None; allowed are Moves of 3 rows"),
        (lambda: engine.start_sample(bits, some, 0.0, moves), "temperature is 0.0"),
    ]
    for action, message in refused:
        with pytest.raises(ValueError, match=message):
            action()
    engine.extend(wrong, np.array([0, 1, 0], np.int8))  # what is wrong lies beyond the count
    engine.extend(events[:, :0], np.zeros(3, int))
    assert engine.lengths.tolist() == [62, 4, 0]
    assert_same_row(before[2:3], [engine.export_row(1).tokens[:3]])


@needs_torch
def test_parts_must_divide_the_batch():
    from tradefm_gym.model.engine import TorchEngine

    for parts, said in ((4, "parts is 4 for a batch of 6"), (0, "parts is 0"), (7, "parts is 7")):
        with pytest.raises(ValueError, match=said):
            TorchEngine(CONFIG, weights_of(CONFIG), 6, parts=parts)
