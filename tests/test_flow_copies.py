"""What flows keep of their rows: they go on from it as the original does, to the last bit."""

import pickle

import numpy as np
import pytest
from played_sessions import FLOWS, flow_maker
from small_tradefm import everyone

from tradefm_gym.flow.row_state import RowState
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.simulator import MarketSimulator


@pytest.fixture(scope="module", name="make")
def _make(tmp_path_factory):
    return flow_maker(tmp_path_factory.mktemp("model") / "small")


class Loop:
    """A flow and its market, started on contexts and seeds that depend on the row only."""

    def __init__(self, flow):
        n = flow.num_envs
        self.flow, self.market = flow, MarketSimulator(n, flow.market_config())
        contexts, seeds = np.arange(n) % len(flow.bank), np.arange(n).astype(np.uint64)
        flow.reset(self.market, everyone(n), contexts, seeds, np.ones(n, np.uint32))

    def run(self, events):
        target = self.market.background_count + events
        while (starved := self.market.advance(until_count=target)).any():
            self.market.feed(self.flow.next_events(self.market, starved))
        return self


@pytest.mark.parametrize("num_envs", [1, 3, 64])
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_goes_on_from_what_it_kept(make, name, num_envs):
    loop, events = Loop(make(name, num_envs)), 150 if num_envs < 64 else 90
    loop.run(75)
    market, state = loop.market.snapshot(), pickle.loads(pickle.dumps(loop.flow.snapshot()))
    loop.run(events)
    other = Loop(loop.flow.for_markets(num_envs)).run(13)
    assert other.flow.version == loop.flow.version
    other.market.restore(market)
    other.flow.restore(state)
    other.run(events)
    assert other.market.snapshot() == loop.market.snapshot()
    for array, same in zip(other.flow.snapshot().arrays.values(), loop.flow.snapshot().arrays.values(), strict=True):
        if array.dtype != object:
            np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", FLOWS)
def test_rows_of_a_flow_change_places(make, name):
    loop = Loop(make(name, 3)).run(75)
    market, state = loop.market.snapshot([2, 0]), loop.flow.snapshot(np.array([2, 0]))
    loop.run(40)
    other = Loop(make(name, 4)).run(13)
    other.market.restore(market, [1, 3])
    other.flow.restore(state, np.array([1, 3]))
    alone = Loop(make(name, 4)).run(53)
    other.run(40)
    assert other.market.snapshot([1, 3]) == loop.market.snapshot([2, 0])
    assert other.market.snapshot([0, 2]) == alone.market.snapshot([0, 2])


def test_what_a_flow_keeps_cannot_be_written_and_does_not_change(make):
    for name in FLOWS:
        loop = Loop(make(name, 2)).run(20)
        state = loop.flow.snapshot()
        before = {key: array.tobytes() for key, array in state.arrays.items() if array.dtype != object}
        loop.run(100)
        for key, content in before.items():
            assert state.arrays[key].tobytes() == content
            with pytest.raises(ValueError, match="read-only"):
                state.arrays[key][0] = 1


def test_states_of_other_flows_are_refused_before_anything_changes(make):
    flow = make("zero_intelligence", 2)
    Loop(flow)
    kept = flow.snapshot()
    bank = make("zero_intelligence", 1).bank
    other = ZeroIntelligenceFlow(2, bank=bank, parameters=None)
    other.version = "other"
    arrays = dict(kept.arrays)
    clock = arrays.pop("clock_ns")
    for state, said in [
        (other.snapshot(), "state is one of flow 'zero_intelligence' of version 'other'; it must be one of flow"),
        (make("hawkes", 2).snapshot(), "state is one of flow 'hawkes'"),
        (flow.snapshot(np.array([0])), r"has seeds of uint64 \(1,\); it must be uint64 \(2,\)"),
        (RowState(kept.owner, arrays), r"differs in its arrays \(clock_ns\); it must have the same"),
        (RowState(kept.owner, {**arrays, "clock_ns": clock.astype(float)}), "has clock_ns of float64"),
        (None, "state is None; it must be a RowState"),
    ]:
        with pytest.raises(ValueError, match=said):
            flow.restore(state)
    for rows, said in (([0, 0], "names a market twice"), ([2], "rows reach from 2 to 2"), ("x", "rows is 'x'")):
        with pytest.raises(ValueError, match=said):
            flow.restore(flow.snapshot(), rows)
    with pytest.raises(ValueError, match="state is one of flow 'tradefm:"):
        make("tradefm", 1).restore(make("tradefm", 1, following=0.0).snapshot())
    for key, array in flow.snapshot().arrays.items():
        assert array.tobytes() == kept.arrays[key].tobytes()
