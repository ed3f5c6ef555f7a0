import numpy as np
import pytest

from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import BUY, CANCEL, LIMIT, RECORD, SELL
from tradefm_gym.realism.reaction import agent_response, taker_response


def test_response_to_recorded_takers_is_what_the_definition_says():
    records = np.zeros(60, RECORD)
    records["owner"], records["kind"], records["side"], records["mid2"] = -1, CANCEL, BUY, 2_000
    records["size"] = 10
    # A buyer takes 40 lots; the mid rises by 1 tick of 1,000 at once and by 3 after 16 events; one seller follows.
    records[20]["kind"], records[20]["filled"] = LIMIT, 40
    records["mid2"][20:] = 2_002
    records["mid2"][36:] = 2_006
    records[30]["kind"], records[30]["side"], records[30]["filled"] = LIMIT, SELL, 5
    records[40]["kind"], records[40]["side"], records[40]["filled"] = LIMIT, SELL, 45
    response = taker_response(records, 10.0, (30.0, 50.0), lags=(1, 16))
    assert len(response.mid) == 2  # the buyer of 40 and the seller of 45
    assert response.mid[0] == pytest.approx([10.0, 30.0])
    assert response.flow[0] == pytest.approx([0.0, -0.5])
    with pytest.raises(ValueError, match="takers"):
        taker_response(records, 10.0, (500.0, 900.0))


def test_zero_intelligence_answers_mechanically_and_sends_no_flow_after_an_agent():
    """Nobody looks at anything: the mid keeps what the order ate, and flow differs by noise only."""
    flow = ZeroIntelligenceFlow(256)
    contexts = np.arange(256) % len(flow.bank)
    size = np.full(256, 1_500)
    response = agent_response(flow, contexts, np.arange(256, dtype=np.uint64), size, lags=(1, 64))
    mid, flow_mean = response["both"].mean()
    mid_half, flow_half = response["both"].interval()
    assert mid[0] > 3 * mid_half[0] > 0
    assert abs(flow_mean[1]) < 1.5 * flow_half[1] + 0.5
    for side in ("buy", "sell"):
        assert response[side].mean()[0][0] > 0
