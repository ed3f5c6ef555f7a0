from types import SimpleNamespace

import numpy as np
import pytest

from tradefm_gym.flow.registry import allowed_flows, make_flow
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.flow.zero_intelligence_parameters import ZeroIntelligenceParameters


def test_a_flow_is_made_by_name_with_its_options():
    parameters = ZeroIntelligenceParameters()
    flow = make_flow("zero_intelligence", 3, parameters=parameters)
    assert isinstance(flow, ZeroIntelligenceFlow)
    assert flow.num_envs == 3 and flow.parameters is parameters
    assert flow.market_config(2).seats == 2


def test_an_object_is_taken_as_it_is():
    flow = ZeroIntelligenceFlow(2)
    assert make_flow(flow, 2) is flow
    with pytest.raises(ValueError, match="made for 2 markets; it must be made for num_envs, 5"):
        make_flow(flow, 5)
    with pytest.raises(ValueError, match=r"options \['parameters'\] were given beside a FlowModel object"):
        make_flow(flow, 2, parameters=None)


@pytest.mark.parametrize("name", ["poisson", "", "replay:", "hawkes:", "TradeFM"])
def test_unknown_names_say_what_is_allowed(name):
    with pytest.raises(
        ValueError, match="is not known; allowed are zero_intelligence, zero_intelligence:PATH, hawkes, hawkes:"
    ):
        make_flow(name, 1)
    assert "tradefm:PATH" in allowed_flows()


def test_other_objects_and_counts_are_refused():
    for other in (np.zeros(3), None, 7, b"replay", ["replay"]):
        with pytest.raises(
            ValueError, match=r"flow is .*; allowed are zero_intelligence, .*replay, .*or a FlowModel object"
        ):
            make_flow(other, 1)
    partial = SimpleNamespace(name="mine", version="0", num_envs=1, bank=None, reset=None, next_events=None)
    with pytest.raises(ValueError, match="flow is without market_config: namespace"):
        make_flow(partial, 1)
    for num_envs in (0, -1, 1.5, "2", None, True):
        for name in ("zero_intelligence", "hawkes", "replay", "tradefm"):
            with pytest.raises(ValueError, match=r"num_envs is .*; it must be an integer of at least 1"):
                make_flow(name, num_envs)


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        (
            "zero_intelligence",
            "foo",
            "flow 'zero_intelligence' has no argument 'foo'; allowed are parameters, bank, block$",
        ),
        ("zero_intelligence", "parameter", "did you mean 'parameters'"),
        ("hawkes", "foo", "flow 'hawkes' has no argument 'foo'; allowed are parameters, bank, block$"),
        ("replay", "foo", "flow 'replay' has no argument 'foo'; allowed are source, contexts, horizon$"),
        ("replay", "num_env", "flow 'replay' has no argument 'num_env'"),
        ("replay:day.npz", "context", "flow 'replay' has no argument 'context'; .* did you mean 'contexts'"),
        ("tradefm", "temprature", "flow 'tradefm' has no argument 'temprature'; .*; did you mean 'temperature'"),
        ("tradefm:mini-1", "foo", "flow 'tradefm' has no argument 'foo'; allowed are model, engine_batch, .*"),
    ],
)
def test_unknown_options_say_what_is_allowed(name, option, said):
    with pytest.raises(TypeError, match=said):
        make_flow(name, 1, **{option: 1})


def test_a_path_is_given_once():
    with pytest.raises(ValueError, match="source is 'b', but flow 'replay:a' names one; only one is allowed"):
        make_flow("replay:a", 1, source="b")
    with pytest.raises(ValueError, match="model is 'mini-1', but flow 'tradefm:x' names one"):
        make_flow("tradefm:x", 1, model="mini-1")
    with pytest.raises(FileNotFoundError, match="replay path 'b' does not exist"):
        make_flow("replay", 1, source="b")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "zero_intelligence",
            {"parameters": 3},
            "parameters is 3; it must be a ZeroIntelligenceParameters, a path or None",
        ),
        ("zero_intelligence", {"bank": "x"}, "bank is 'x'; it must be a ContextBank or None"),
        ("replay", {"contexts": 3}, "contexts is 3; it must hold three counts of which the first is positive"),
        ("replay", {"contexts": (1, 2)}, r"contexts is \(1, 2\); it must"),
        ("replay", {"contexts": ("a", 1, 1)}, "contexts is .*; it must"),
        ("replay", {"contexts": (1.5, 1, 1)}, "contexts is .*; it must"),
        ("replay", {"horizon": 1.5}, "horizon is 1.5; it must be an integer of at least 64"),
        ("replay", {"horizon": 63}, "horizon is 63; it must be an integer of at least 64"),
        ("replay", {"horizon": "x"}, "horizon is 'x'"),
        ("replay", {"source": 3}, "source is 3; it must be a RecordedFlow, a path or None"),
    ],
)
def test_wrong_options_are_named(name, options, said):
    with pytest.raises(ValueError, match=said):
        make_flow(name, 1, **options)
