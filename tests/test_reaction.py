import numpy as np
import pytest
from small_tradefm import generated_day

from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import BUY, CANCEL, LIMIT, RECORD, SELL
from tradefm_gym.model.serving import checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.reaction import agent_response, find_takers, replaced_response, taker_response


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
    takers = find_takers(records, (30.0, 50.0), longest=16)
    assert takers.tolist() == [20, 40]
    response = taker_response(records, 10.0, takers, lags=(1, 16))
    assert len(response.mid) == 2  # the buyer of 40 and the seller of 45
    assert response.mid[0] == pytest.approx([10.0, 30.0])
    assert response.flow[0] == pytest.approx([0.0, -0.5])
    with pytest.raises(ValueError, match="takers"):
        taker_response(records, 10.0, find_takers(records, (500.0, 900.0)))


def test_takers_in_a_run_are_those_with_others_of_their_side_before_them():
    records = np.zeros(400, RECORD)
    records["owner"], records["kind"], records["side"], records["mid2"] = -1, CANCEL, BUY, 2_000
    for at, side in ((20, BUY), (24, SELL), (26, BUY), (30, BUY), (60, BUY)):
        records[at]["kind"], records[at]["side"], records[at]["filled"] = LIMIT, side, 40
    assert find_takers(records, (30.0, 50.0)).tolist() == [20, 24, 26, 30, 60]
    assert find_takers(records, (30.0, 50.0), run=2).tolist() == [26, 30]
    assert find_takers(records, (30.0, 50.0), run=3, within=8).tolist() == []


def test_an_agent_in_the_place_of_takers_moves_a_market_that_does_not_answer_as_they_did():
    """Zero intelligence, with its own takers as the record: the mid jumps by the same order, and no flow follows."""
    day = generated_day(6_000)
    takers = find_takers(day.records, (1, 1e9), longest=64)
    takers = takers[takers > 2_000][:40]
    flow = ZeroIntelligenceFlow(80, bank=recorded_bank(day, TradeTokenizer.load(checkpoint("mini-2")[0]), at=takers))
    arms = replaced_response(flow, day.records, takers, np.arange(80, dtype=np.uint64), lags=(1, 16))
    assert arms["agent"].mid.shape == (40, 2)
    real = taker_response(day.records, flow.bank.scale["median_size"][0], takers, lags=(1, 16))
    jump = arms["agent"].mid[:, 0] - arms["nobody"].mid[:, 0]
    assert np.corrcoef(jump, real.mid[:, 0])[0, 1] > 0.5
    assert jump.mean() > 0


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
