"""Rollouts of several actors are those of one."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "collect_with_ray.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("collect_with_ray", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["collect_with_ray"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(example):
    return example.Arguments(flow="zero_intelligence", actors=2, markets=3, decisions=4)


@pytest.fixture
def weights():
    return np.random.default_rng(0).normal(0, 0.1, (41, 2)).astype(np.float32)


def alone(example, arguments, weights):
    markets = arguments.actors * arguments.markets
    collector = example.Collector(arguments.flow, markets, arguments.decisions, arguments.seed)
    return collector.collect(weights)


def test_two_sessions_collect_what_one_does(example, arguments, weights):
    whole = alone(example, arguments, weights)
    assert whole["observations"].shape == (4, 6, 41) and whole["playing"][0].all()
    assert np.abs(whole["rewards"]).sum() > 0
    for part in range(2):
        first = arguments.seed + part * arguments.markets
        half = example.Collector(arguments.flow, arguments.markets, arguments.decisions, first).collect(weights)
        rows = slice(part * arguments.markets, (part + 1) * arguments.markets)
        assert all(np.array_equal(half[name], whole[name][: len(half[name]), rows]) for name in whole)


@pytest.mark.filterwarnings("ignore")  # of Ray's own making
def test_ray_actors_collect_what_one_session_does(example, arguments, weights):
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(example)  # the actors cannot import it
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        for settings in (arguments, replace(arguments, flow="tradefm", markets=1, decisions=2)):
            collected = example.collect(settings, weights)
            if settings.flow == "zero_intelligence":  # a network's rows are alike only in batches of one size
                whole = alone(example, settings, weights)
                assert all(np.array_equal(collected[name], whole[name]) for name in whole)
            else:
                one = example.Collector("tradefm", 1, 2, settings.seed + 1).collect(weights)
                assert all(np.array_equal(collected[name][: len(one[name]), 1:], one[name]) for name in one)
    finally:
        ray.shutdown()
