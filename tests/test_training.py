import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file  # noqa: E402

from tradefm_gym.model.config import PRESETS, load_weights  # noqa: E402
from tradefm_gym.model.operations import peak_flops, step_flops  # noqa: E402
from tradefm_gym.model.processes import Processes  # noqa: E402
from tradefm_gym.model.training import evaluate, score, train  # noqa: E402
from tradefm_gym.model.training_config import TrainingConfig  # noqa: E402
from tradefm_gym.model.training_report import TrainingReport  # noqa: E402
from tradefm_gym.model.transformer import TradeFM  # noqa: E402

CONFIG = dataclasses.replace(PRESETS["test"], context=16, dropout=0.1)
SETTINGS = TrainingConfig(
    steps=12, batch=4, learning_rate=3e-3, evaluate_every=3, save_every=2, average=0.9, threads=1, progress=False
)


class CyclingWindows:
    """Tokens that count upwards from a random start: the next one is known once the last is."""

    def __init__(self, period=8, context=16):
        self.tokens = (np.arange(period) * 1999 + 7) % 16384
        self.context = context

    def sample(self, batch, rng):
        phase = rng.integers(0, len(self.tokens), batch)
        rows = self.tokens[(phase[:, None] + np.arange(self.context + 1)) % len(self.tokens)]
        inputs = np.zeros((batch, self.context, 4), np.int32)
        inputs[..., 3] = rows[:, :-1]
        weights = np.ones((batch, self.context), np.float32)
        weights[:, 0] = 0.0
        return inputs, rows[:, 1:].astype(np.int32), weights

    def windows(self):
        for seed in range(2):
            yield self.sample(3, np.random.default_rng(seed))


def same_weights(first, second):
    first, second = load_weights(first)[1], load_weights(second)[1]
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_training_learns_and_keeps_the_best(tmp_path):
    source = CyclingWindows()
    settings = dataclasses.replace(SETTINGS, steps=80, evaluate_every=20)
    result = train(CONFIG, source, source, tmp_path / "run", settings)
    assert result.step == 80
    assert [entry["step"] for entry in result.history] == [20, 40, 60, 80]
    assert result.history[0]["validation"] < np.log(16384)
    assert result.best_nats < 4.0
    assert result.best_nats == min(entry["validation"] for entry in result.history)
    assert score(tmp_path / "run", source.windows()) == pytest.approx(result.best_nats, abs=1e-6)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json",
        "model.safetensors",
        "training.safetensors",
    ]


def test_resumed_run_is_the_uninterrupted_run(tmp_path):
    source = CyclingWindows()
    whole = train(CONFIG, source, source, tmp_path / "whole", SETTINGS)

    class Stopped(Exception):
        pass

    def stop(result):
        if result.step == 9:  # state was last saved at step 8
            raise Stopped

    with pytest.raises(Stopped):
        train(CONFIG, source, source, tmp_path / "parts", SETTINGS, stop)
    resumed = train(CONFIG, source, source, tmp_path / "parts", SETTINGS)
    assert resumed.step == whole.step == 12
    told = [[(e["step"], e["train"], e["validation"]) for e in run.history] for run in (resumed, whole)]
    assert told[0] == told[1]
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    again = train(CONFIG, source, source, tmp_path / "parts", SETTINGS)  # finished: nothing is left to do
    assert again.history == resumed.history


def test_another_run_is_not_continued(tmp_path):
    source = CyclingWindows()
    train(CONFIG, source, source, tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="steps is 99 but"):
        train(CONFIG, source, source, tmp_path, dataclasses.replace(SETTINGS, steps=99))
    with pytest.raises(ValueError, match="another model"):
        train(dataclasses.replace(CONFIG, layers=1), source, source, tmp_path, SETTINGS)
    fresh = dataclasses.replace(SETTINGS, steps=3, resume=False)
    assert train(CONFIG, source, source, tmp_path, fresh).step == 3


def test_micro_batches_give_the_gradient_of_the_batch(tmp_path):
    source, config = CyclingWindows(), dataclasses.replace(CONFIG, dropout=0.0)
    for name, micro in (("whole", 0), ("pieces", 2)):
        settings = dataclasses.replace(SETTINGS, steps=2, evaluate_every=2, micro_batch=micro)
        train(config, source, source, tmp_path / name, settings)
    whole, pieces = load_weights(tmp_path / "whole")[1], load_weights(tmp_path / "pieces")[1]
    for name, values in whole.items():
        # Adam divides by the root of the squared gradient: only where that is tiny do last bits show.
        assert np.mean(np.abs(values - pieces[name]) < 1e-5) > 0.99


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_activations_give_the_same_weights(tmp_path, precision):
    source = CyclingWindows()
    for name, recompute in (("kept", False), ("again", True)):
        settings = dataclasses.replace(SETTINGS, steps=3, recompute=recompute, precision=precision)
        train(CONFIG, source, source, tmp_path / name, settings)
    assert same_weights(tmp_path / "kept", tmp_path / "again")


def test_a_run_that_gets_no_better_ends_and_stays_ended(tmp_path):
    source = CyclingWindows()
    settings = dataclasses.replace(SETTINGS, steps=40, evaluate_every=2, patience=3, learning_rate=1e-12, average=0.0)

    class Worse(CyclingWindows):
        calls = 0

        def windows(self):
            self.calls += 1
            for inputs, targets, weights in super().windows():
                yield inputs, (targets + 5 * (self.calls > 2)) % 16384, weights  # never met in training

    result = train(CONFIG, Worse(), Worse(), tmp_path, settings)
    assert result.step < 40 and result.step == result.best_step + 6
    again = train(CONFIG, source, source, tmp_path, settings)
    assert (again.step, again.history) == (result.step, result.history)
    longer = train(CONFIG, source, source, tmp_path, dataclasses.replace(settings, patience=0))
    assert longer.step == 40


def test_tensorboard_gets_the_figures(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    source = CyclingWindows()
    result = train(CONFIG, source, source, tmp_path, dataclasses.replace(SETTINGS, steps=4, tensorboard=True))
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("train/nats")] == [1, 2, 3, 4]
    assert events.Scalars("train/events_per_second")[0].value > 0
    assert [s.value for s in events.Scalars("validation/nats")] == pytest.approx(
        [entry["validation"] for entry in result.history]
    )


def test_bf16_autocast_stays_near_fp32(tmp_path):
    source = CyclingWindows()
    results = {
        precision: train(
            CONFIG,
            source,
            source,
            tmp_path / precision,
            dataclasses.replace(SETTINGS, steps=6, evaluate_every=6, precision=precision),
        )
        for precision in ("fp32", "bf16")
    }
    assert results["bf16"].best_nats == pytest.approx(results["fp32"].best_nats, abs=0.05)


def test_events_without_weight_are_not_scored():
    model = TradeFM(CONFIG)
    inputs, targets, weights = CyclingWindows().sample(2, np.random.default_rng(0))
    before = evaluate(model, [(inputs, targets, weights)])
    targets[:, 0] = 5  # weight 0
    assert evaluate(model, [(inputs, targets, weights)]) == before
    with pytest.raises(ValueError, match="no weight"):
        evaluate(model, [(inputs, targets, 0 * weights)])


def test_operations_are_those_of_the_page():
    assert step_flops(PRESETS["paper"], 1) / 1024 == pytest.approx(3.25e9, rel=0.002)  # docs/serving.md
    assert step_flops(CONFIG, 6) == 6 * step_flops(CONFIG, 1)
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12 > peak_flops("NVIDIA H100 PCIe")
    assert peak_flops("a processor") is None


def test_the_share_of_the_peak_is_told_where_that_is_known(tmp_path, monkeypatch):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = dataclasses.replace(SETTINGS, precision="bf16", tensorboard=True)
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    with TrainingReport(CONFIG, settings, tmp_path, 0, Processes("ddp", device, 0, 2)) as report:
        report.step(1, 5.0, 1e-3)
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rate, share = (events.Scalars(f"train/{name}")[0].value for name in ("events_per_second", "mfu"))
    flops = step_flops(CONFIG, settings.batch) / (settings.batch * CONFIG.context)  # of an event
    assert share == pytest.approx(rate * flops / (2 * 989e12), rel=1e-5)


def test_rate_schedule():
    settings = TrainingConfig(steps=100, warmup=0.1)
    rates = [settings.rate(step, 1_000_000) for step in range(100)]
    assert rates[0] == pytest.approx(6e-5)
    assert max(rates) == rates[9] == pytest.approx(6e-4)
    assert rates[-1] == pytest.approx(6e-5)
    assert np.diff(np.diff(rates[9:])) == pytest.approx(0, abs=1e-12)  # linear
    assert max(settings.rate(step, 10**9) for step in range(100)) == pytest.approx(3e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"precision": "fp8"},
        {"average": 1.0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"weight_decay": float("nan")},
        {"weight_decay": -0.1},
        {"clip": 0.0},
        {"clip": float("inf")},
        {"betas": (0.9, float("nan"))},
        {"betas": 0.9},
        {"warmup": float("nan")},
        {"average": float("nan")},
        {"seed": -1},
        {"seed": 0.5},
        {"batch": 2.5},
        {"patience": -1},
        {"parallel": "tensor"},
    ],
)
def test_bad_settings_are_named(change):
    with pytest.raises(ValueError, match=r" is .*; allowed is "):
        TrainingConfig(**change)


@pytest.mark.parametrize(("save_every", "evaluate_every"), [(1, 100), (100, 1), (100, 100)])
def test_a_run_that_diverges_ends_in_one_sentence_and_keeps_no_such_weights(tmp_path, save_every, evaluate_every):
    settings = dataclasses.replace(
        SETTINGS, learning_rate=1e38, save_every=save_every, evaluate_every=evaluate_every, average=0.0
    )
    source = CyclingWindows()
    with pytest.raises(FloatingPointError, match=r"^the .* is (nan|inf) after \d+ steps at a learning_rate of up to"):
        train(CONFIG, source, source, tmp_path, settings)
    for path in tmp_path.glob("*.safetensors"):
        assert all(np.isfinite(array).all() for array in load_file(path).values())
