"""Quotes of agents that give something away, and who takes them."""

import numpy as np
import pytest
from small_tradefm import generated_day, write_checkpoint

from tradefm_gym.flow.followers import AGENT_PRESSURE
from tradefm_gym.flow.habits import Habits
from tradefm_gym.flow.leading import AGENT_MEMORY, led, remember_lead
from tradefm_gym.flow.stream_state import HABITS
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import BUY, LIMIT, SELL, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.intervention import AgentMarkets


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def day():
    return generated_day(6_000)


def test_who_quotes_beyond_the_mid_is_hit_more_often(model, day):
    """With habits, on the side that he quotes; and about as often as before where he joins the touch or leads a bit."""
    bank, hit = recorded_bank(day, TradeTokenizer.load(model), (16, 0, 0)), {}
    for name, habits in (("none", None), ("some", Habits(np.zeros(HABITS)))):
        for better in (0.0, 0.3, 0.9):
            flow = TradeFMFlow(model, 32, bank=bank, habits=habits)
            markets = AgentMarkets(flow, np.arange(32) % len(bank), np.arange(32).astype(np.uint64), 512)
            side, everywhere, last = np.repeat([BUY, SELL], 16), np.ones(32, np.bool_), -1
            for _ in range(24):
                if last >= 0:
                    markets.cancel(np.full(32, last), everywhere)
                bid, ask = markets.market.touch_excluding(None)
                price = np.where(side == BUY, bid, ask) + (better * (ask - bid)).astype(np.int64) * side
                last = markets.rest(side, price, np.full(32, 100))
                markets.run(1)
            hit[name, better] = (side * markets.inventory).mean()
    assert hit["some", 0.9] > 1.5 * hit["none", 0.9] > 0
    for better in (0.0, 0.3):
        assert hit["some", better] < 1.3 * hit["none", better]


def test_a_gift_is_what_lies_beyond_the_mid_of_others_less_what_agents_have_led_it():
    """Others at 1000 and 1040; an agent's bid at 1005, then at 1030, and others follow it up."""
    market = MarketSimulator(1, MarketConfig(seats=1))
    memory, proposal = np.zeros(AGENT_MEMORY), 0

    def order(owner, order_id, side, price, kind=LIMIT):
        block = EventBlock.empty(1, 1)
        block.events["owner"], block.events["order_id"], block.events["side"] = owner, order_id, side
        block.events["price"], block.events["size"], block.events["kind"] = price, 10, kind
        block.count[:] = 1
        (market.feed if owner < 0 else market.submit)(block)
        market.advance(until_count=market.background_count + (owner < 0))
        nonlocal proposal
        proposal += 1
        for _ in range(2):  # asked for again it counts once
            remember_lead(market.book, 0, memory, proposal)
        return led(memory, 40.0)

    assert order(-1, 0, BUY, 1000) == 0.0 and order(-1, 1, SELL, 1040) == 0.0
    assert order(0, 0, BUY, 1005) == 0.0  # on his own side of the mid
    assert order(0, 1, BUY, 1030) == -0.25  # ten ticks beyond 1020
    assert order(-1, 2, BUY, 1025) == pytest.approx(-(10.0 - 12.5 + 25.0) / 40.0)  # the mid is led by what they rose
    assert order(-1, 3, BUY, 1035) == 0.0  # he is no longer the best
    assert memory[AGENT_PRESSURE] == pytest.approx(25.0 * 0.5 ** (1 / 256) + 5.0)  # to his price at most
    assert order(0, 2, SELL, 1036) == 0.0  # worth less than anybody asks
