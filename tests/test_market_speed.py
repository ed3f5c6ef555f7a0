"""What makes the kernels fast, as far as a test can see it without a clock."""

import numpy as np
import pytest
from market_checks import JIT
from numba import njit, typeof, types

from tradefm_gym.market import kernels
from tradefm_gym.market.compiler import KERNEL
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator


@pytest.mark.skipif(not JIT, reason="there is nothing compiled to look at")
@pytest.mark.parametrize("name", ["_execute", "_advance", "_send"])
def test_hot_kernels_count_no_references(name):
    market = MarketSimulator(1)
    state = [typeof(market.book), typeof(market._ledger)]
    block, queue = EventBlock.empty(1, 1), typeof(market._flow_queue)
    arguments = {
        "_execute": [*state, typeof(block.events), types.int32, types.boolean, types.int64, types.int64],
        "_advance": [*state, queue, queue, *[types.int64] * 4],
        "_send": [typeof(market._book_memory), typeof(market._ledger_memory), *[types.int64] * 10],
    }[name]
    # What comes from the disk cache has no text to show, so it is compiled once more.
    fresh = njit(**{**KERNEL, "cache": False})(getattr(kernels, name).py_func)
    fresh.compile(tuple(arguments))
    (text,) = fresh.inspect_llvm().values()
    assert "define" in text and "NRT_incref" not in text and "NRT_decref" not in text


def test_a_market_without_its_tape_fits_the_nearest_caches():
    market = MarketSimulator(1)
    parts = [array for name, array in market._arrays().items() if name not in ("records", "fills")]
    tables = [market.book.slots, market.book.spilled, market.book.near, market.book.limits]
    assert sum(array.nbytes for array in (*parts, *tables)) <= 32 * 1024


def test_a_full_pool_is_an_error_in_replay_and_counted_in_training():
    market = MarketSimulator(2, MarketConfig(orders=3))
    block = EventBlock.empty(2, 5)
    block.events["size"], block.events["side"], block.events["price"] = 1, 1, 100
    block.events["order_id"] = np.arange(5)
    block.count[:] = 3, 5
    with pytest.raises(ValueError, match="event 3 of market 1 finds 3 orders resting; raise orders in MarketConfig"):
        market.execute(block, strict=True)
    assert market.tape.record_count.tolist() == [3, 4] and market.counters[:, 6].tolist() == [0, 1]
    market.reset()
    market.execute(block)
    assert market.tape.record_count.tolist() == [3, 5] and market.counters[:, 6].tolist() == [0, 2]


def test_events_that_mean_nothing_stop_there():
    market = MarketSimulator(1)
    block = EventBlock.empty(1, 2)
    block.events["size"], block.events["side"], block.events["price"] = 1, 1, 100
    block.count[0] = 2
    wrongs = ("owner", 1, "a seat, 0 to 0, or BACKGROUND"), ("kind", 9, "LIMIT"), ("anchor", 5, "ABSOLUTE")
    for field, value, message in wrongs:
        market.reset()
        wrong = EventBlock(block.events.copy(), block.count)
        wrong.events[0, 1][field] = value
        with pytest.raises(ValueError, match=f"market 0 has {field} {value} in event 1; allowed is {message}"):
            market.execute(wrong)
        assert market.tape.record_count[0] == 1
    for name, value in (("row", 1), ("owner", 1), ("kind", 9), ("anchor", 5)):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed is"):
            market.send(**{"kind": 0, "side": 1, "price": 5, "size": 1, name: value})
