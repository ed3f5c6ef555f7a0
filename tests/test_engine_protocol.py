"""What both engines refuse, and with which words."""

import importlib.util

import numpy as np
import pytest

from tradefm_gym.model.config import PRESETS, VOCABULARY, random_weights
from tradefm_gym.model.corrections import Moves
from tradefm_gym.model.engine_protocol import KINDS, LEAST_TEMPERATURE, EngineLimits
from tradefm_gym.model.numba_engine import NumbaEngine

CONFIG = PRESETS["test"]
LIMITS = EngineLimits(3, CONFIG.context, CONFIG.input_sizes)
EVENTS, EVERYONE, BITS = np.zeros((3, 4), np.int32), np.ones(3, bool), np.zeros((3, 5), np.uint32)

# Looked for, not imported: a torch that is there but does not load fails, and is not taken for a bare install.
BARE = importlib.util.find_spec("torch") is None
ENGINES = ["numba", pytest.param("torch", marks=pytest.mark.skipif(BARE, reason="needs the torch extra"))]


def engine_of(name):
    if name == "numba":
        return NumbaEngine(CONFIG, random_weights(CONFIG, 0), 3)
    from tradefm_gym.model.engine import TorchEngine

    return TorchEngine(CONFIG, random_weights(CONFIG, 0), 3)


def with_value(value, row=1, column=2):
    events = EVENTS.copy()
    events[row, column] = value
    return events


def tilted(value, kinds=7, row=1):
    tilt = np.zeros((3, KINDS), np.float32)
    tilt[row, kinds] = value
    return tilt


@pytest.mark.parametrize("name", ENGINES)
def test_the_coldest_draw_and_the_hardest_tilt_are_drawn(name):
    engine, active = engine_of(name), np.array([True, False, True])
    engine.prefill([0, 1, 2], [EVENTS] * 3)
    bits = np.full((3, 5), 2**31, np.uint32)
    coldest = engine.sample(bits, active, LEAST_TEMPERATURE)
    assert (coldest == engine.sample(bits[:, ::-1] // 3, active, LEAST_TEMPERATURE)).all()  # whatever the words
    only = np.full((3, KINDS), -np.inf, np.float32)
    only[[0, 2], [9, 40]] = 0.0
    only[1] = np.nan  # of a row that is not drawn
    assert (engine.sample(bits, active, tilt=only)[[0, 2]] >> 8).tolist() == [9, 40]
    assert (engine.sample(bits, active, 1.0, 1.5, tilt=only)[[0, 2]] >> 8).tolist() == [9, 40]


@pytest.mark.parametrize("name", ENGINES)
def test_engines_refuse_the_same_with_the_same_words(name):
    engine = engine_of(name)
    engine.prefill([0, 1, 2], [EVENTS] * 3)
    before = [engine.export_row(row) for row in range(3)]
    refused = [
        (lambda: engine.reset([0, 1]), "rows is int64 (2,); allowed is bool (3,)"),
        (lambda: engine.prefill("x", EVENTS), "rows is 'x'; allowed are different integers in [0, 3)"),
        (lambda: engine.prefill(0.5, EVENTS), "rows is 0.5; allowed are different integers in [0, 3)"),
        (lambda: engine.prefill([[0]], [EVENTS]), "rows is [[0]]; allowed are different integers in [0, 3)"),
        (lambda: engine.prefill(-1, EVENTS), "rows is -1; allowed are different integers in [0, 3)"),
        (lambda: engine.prefill(0, EVENTS.astype(float)), "; allowed are integers"),
        (lambda: engine.prefill(0, [[0, 0, 0], [0]]), "inputs is [[0, 0, 0], [0]]; allowed are integers"),
        (lambda: engine.prefill(0, with_value(99)), "inputs is out of range, event 1 being [0, 0, 99, 0]; allowed is"),
        (lambda: engine.prefill([0, 1], None), "inputs is None; allowed is one array (S, 4) a row"),
        (lambda: engine.prefill([0, 1], np.array(3)), "inputs is array(3); allowed is one array (S, 4) a row"),
        (lambda: engine.prefill([0, 1], [None, EVENTS]), "inputs is None; allowed are integers"),
        (lambda: engine.prefill(0, None), "inputs is None; allowed are integers"),
        (lambda: engine.append(EVENTS.astype(float), EVERYONE), "; allowed are integers"),
        (lambda: engine.append(with_value(-1), EVERYONE), "inputs of row 1 is [0, 0, -1, 0]; allowed is below"),
        (lambda: engine.append(EVENTS, np.ones(3)), "active is float64 (3,); allowed is bool (3,)"),
        (lambda: engine.sample(BITS.astype(np.int64), EVERYONE), "bits has dtype int64; allowed is uint32"),
        (lambda: engine.sample(BITS, EVERYONE, temperature="x"), "temperature is 'x'; allowed is a positive number"),
        (lambda: engine.sample(BITS, EVERYONE, temperature=True), "temperature is True; allowed is a positive number"),
        (lambda: engine.sample(BITS, EVERYONE, np.nan), "temperature is nan; allowed is a positive number"),
        (lambda: engine.sample(BITS, EVERYONE, 1.0, None), "repetition_penalty is None; allowed is 1 or more"),
        (lambda: engine.sample(BITS, EVERYONE, tilt=np.zeros((3, 64))), "tilt is float64 (3, 64); allowed is float32"),
        (lambda: engine.sample(BITS, EVERYONE, tilt=[[0.0]]), "tilt is float64 (1, 1); allowed is float32 (3, 64)"),
        (lambda: engine.sample(BITS, EVERYONE, 1e-300), "temperature is 1e-300; allowed is a positive number of at "),
        (
            lambda: engine.sample(BITS, EVERYONE, 1e-45),
            "temperature is 1e-45; allowed is a positive number of at least",
        ),
        (lambda: engine.sample(BITS, EVERYONE, 10**400), "allowed is a positive number of at least 1e-06 and finite"),
        (lambda: engine.sample(BITS, EVERYONE, tilt=tilted(np.nan)), "tilt of row 1 is an array of shape (64,)"),
        (lambda: engine.sample(BITS, EVERYONE, tilt=tilted(np.inf)), "of which 63 are finite; allowed are finite numb"),
        (lambda: engine.sample(BITS, EVERYONE, tilt=tilted(-np.inf, slice(None))), "of which 0 are finite; allowed"),
        (lambda: engine.kind_log_prob(EVERYONE, 1e-45), "temperature is 1e-45; allowed is a positive number of at "),
        (lambda: engine.start_sample(BITS, EVERYONE, 1e-45, Moves.none(3)), "temperature is 1e-45; allowed is a"),
        (lambda: engine.kind_log_prob([True]), "active is bool (1,); allowed is bool (3,)"),
        (lambda: engine.kind_log_prob(EVERYONE, 0), "temperature is 0; allowed is a positive number"),
        (lambda: engine.log_prob([0.5, 1, 1]), f"tokens is [0.5, 1, 1]; allowed are 3 integers in [0, {VOCABULARY})"),
        (lambda: engine.log_prob([0, -1, 1]), "tokens is [0, -1, 1]; allowed are 3 integers"),
        (lambda: engine.copy_rows([0], [0, 1]), "sources is [0]; allowed is one row for each target"),
        (lambda: engine.copy_rows(["a"], [1]), "sources is ['a']; allowed is one row for each target"),
        (lambda: engine.copy_rows([7], [1]), "sources is array([7]); allowed are different integers in [0, 3)"),
        (lambda: engine.copy_rows([0], [1.5]), "targets is [1.5]; allowed are different integers in [0, 3)"),
        (lambda: engine.export_row("x"), "row is 'x'; allowed are different integers in [0, 3)"),
    ]
    for action, said in refused:
        with pytest.raises(ValueError) as error:
            action()
        assert said in str(error.value)
    for row in range(3):
        for one, two in zip(engine.export_row(row), before[row], strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("value", [2**32 + 5, 2**63 + 5])
def test_what_a_narrower_type_would_wrap_is_out_of_range(name, value):
    engine, wide = engine_of(name), EVENTS.astype(np.uint64 if value >= 2**63 else np.int64)
    wide[1, 3] = value
    said = rf"inputs of row 1 is \[0, 0, 0, {value}\]; allowed is below liquidity 3"
    with pytest.raises(ValueError, match=said):
        engine.append(wide, EVERYONE)
    with pytest.raises(ValueError, match=said):
        engine.extend(wide[:, None], np.ones(3, np.int64))
    assert not engine.lengths.any()
    engine.append(wide, np.array([True, False, True]))  # what is not read may hold anything
    engine.extend(wide[:, None], np.array([1, 0, 1]))
    assert engine.lengths.tolist() == [2, 0, 2]


@pytest.mark.parametrize("name", ENGINES)
def test_a_row_that_does_not_fit_is_refused_and_nothing_changes(name):
    engine = engine_of(name)
    engine.prefill([0, 1], [EVENTS] * 2)
    good, nan = engine.export_row(0), np.full(CONFIG.width, np.nan, np.float32)
    refused = [
        (None, "cache is None; allowed is a RowCache"),
        (good._replace(tokens=np.array([0, 2**31 - 1, 0], np.int32)), "cache has tokens array([ 0, 2147483647, 0]"),
        (good._replace(tokens=np.array([0, -1, 0])), "integers (length,) in [0, 16384)"),
        (good._replace(tokens=np.zeros(3)), "integers (length,) in [0, 16384)"),
        (good._replace(tokens=np.zeros((3, 1), int)), "integers (length,) in [0, 16384)"),
        (good._replace(tokens=None), "cache has tokens None"),
        (good._replace(keys=good.keys[:1]), "cache has keys of shape (1, 2, 3, 16) and values of shape (2, 2, 3, 16)"),
        (good._replace(values=good.values[:, :, :2]), "and values of shape (2, 2, 2, 16) for 3 tokens"),
        (good._replace(values=None), "and values of shape () for 3 tokens"),
        (good._replace(hidden=good.hidden[:1]), "cache has a hidden state of shape (1,); allowed is (64,)"),
        (good._replace(hidden=nan), "cache has hidden that are no finite"),
        (good._replace(hidden=good.hidden.astype(int)), "cache has hidden that are no finite"),
        (good._replace(hidden=np.full(64, 1e300)), "cache has hidden that are no finite"),
        (good._replace(keys=good.keys + np.float32(np.inf)), "cache has keys that are no finite"),
    ]
    for cache, said in refused:
        with pytest.raises(ValueError) as error:
            engine.import_row(1, cache)
        assert said in str(error.value)
        for one, two in zip(engine.export_row(1), good, strict=True):
            np.testing.assert_array_equal(one, two)


def test_what_is_in_order_comes_back_as_kernels_read_it():
    assert LIMITS.rows("rows", 2).tolist() == [2]
    assert LIMITS.rows("rows", []).tolist() == []
    assert LIMITS.rows("rows", np.array([2, 0], np.uint8)).dtype == np.int64
    assert LIMITS.prompts([], [])[1] == []
    assert LIMITS.mask("rows", EVERYONE[::-1]).flags.c_contiguous
    assert LIMITS.draws(np.zeros((5, 3), np.uint32).T, EVERYONE, np.ones(3, np.int32), 0.5, 1).flags.c_contiguous
    assert LIMITS.tokens([0, 1, 2]).dtype == np.int64
    LIMITS.in_range(with_value(99), np.array([True, False, True]))
    LIMITS.has_room(np.array([True, False, True]), np.array([0, CONFIG.context, 0], np.int32))


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", None, True])
def test_wrong_batches_are_named(batch):
    with pytest.raises(ValueError, match=r"batch is .*; allowed is a positive integer"):
        NumbaEngine(CONFIG, random_weights(CONFIG, 0), batch)
