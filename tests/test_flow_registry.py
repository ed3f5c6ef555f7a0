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


@pytest.mark.parametrize("name", ["hawkes", "", "replay:", "zero_intelligence:/data", "TradeFM"])
def test_unknown_names_say_what_is_allowed(name):
    with pytest.raises(ValueError, match="is not known; allowed are zero_intelligence, replay, replay:PATH, tradefm"):
        make_flow(name, 1)
    assert "tradefm:PATH" in allowed_flows()


def test_other_objects_and_counts_are_refused():
    with pytest.raises(ValueError, match="flow is a ndarray without"):
        make_flow(np.zeros(3), 1)
    with pytest.raises(ValueError, match="num_envs is 0"):
        make_flow("zero_intelligence", 0)
