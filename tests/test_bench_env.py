"""The suite "env": figures and targets, that each can be measured, and that less is better where it is time."""

from dataclasses import replace

import numpy as np
import pytest

from tradefm_gym import bench, bench_env, bench_learners, cli

STEPS, EVENTS, TIME = "steps/s", "events/s", "us"
# name -> (unit, target, whether it is a share of the reference, whether it is the most that may be)
EXPECTED = {
    "execution-make-n1": (STEPS, 20_000, False, False),
    "execution-n256": (STEPS, 500_000, False, False),
    "execution-n256-events": (EVENTS, 8e6, False, False),
    "execution-n256-random": (STEPS, None, False, False),
    "execution-100-events-n64": (STEPS, 100_000, False, False),
    "execution-n256-over-sync": (STEPS, 20.0, True, False),
    "execution-n256-over-async": (STEPS, None, False, False),
    "hawkes-market": (EVENTS, 1e6, False, False),
    "tradefm-n64-over-engine": (EVENTS, 0.8, True, False),
    "reset-zero_intelligence": (TIME, 200.0, False, True),
    "reset-hawkes": (TIME, 200.0, False, True),
    "reset-replay": (TIME, 200.0, False, True),
    "agents-16-execution": (TIME, 1.5, True, True),
    "agents-16-market_making": (TIME, 1.5, True, True),
    "agents-16-trading": (TIME, 1.5, True, True),
    "sb3-face-n256": (TIME, 1.15, True, True),
    "sb3-ppo-n8": (STEPS, 0.9, True, False),
    "sb3-ppo-n256": (STEPS, 0.9, True, False),
    "ppo-single-file": (STEPS, 40_000, False, False),
}
LEARNERS = ("sb3", "ppo")


@pytest.fixture
def small(monkeypatch):
    """The suite with four markets in the place of 256, two in the place of 64 and three agents in that of 16."""
    for module, name, value in (
        (bench_env, "MANY", 4),
        (bench_learners, "MANY", 4),
        (bench_env, "FEW", 2),
        (bench_env, "AGENTS", 3),
    ):
        monkeypatch.setattr(module, name, value)
    names = list(EXPECTED)
    return dict(zip(names, bench_env.env_benchmarks(), strict=True))


def test_every_figure_has_its_target_and_can_be_had_alone():
    found = bench.benchmarks(suite="env")
    assert {one.name: (one.unit, one.target, one.is_share, one.per_second is not None) for one in found} == EXPECTED
    assert [one.name for one in found] == list(EXPECTED)
    for name in EXPECTED:
        assert name in [one.name for one in bench.benchmarks(name, "env")]
    for one in found:
        assert one.is_share == (one.beside is not None)  # shares are of what is run in turn
        assert one.threads == (1 if one.name.startswith(("execution-make", "hawkes", "reset", "agents")) else 2)


@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.startswith(LEARNERS)])
def test_a_figure_of_an_environment_can_be_measured(small, name):
    check(small[name], name)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith(LEARNERS)])
def test_a_figure_of_a_learner_can_be_measured(small, name):
    torch = pytest.importorskip("torch")
    if name.startswith("sb3"):
        pytest.importorskip("stable_baselines3")
    threads = torch.get_num_threads()
    try:
        check(small[name], name)
    finally:
        torch.set_num_threads(threads)


def check(benchmark, name):
    measured = replace(benchmark, repeats=1).measure(True)
    row = measured.to_json()
    unit, target, is_share, _ = EXPECTED[name]
    assert row["value"] > 0 and row["unit"] == unit
    assert (row["met"] is None) == (target is None)
    assert (row["reference"] is not None) == (is_share or name.endswith("async"))
    if target and not is_share:
        assert row["target"] == target


def test_the_face_and_the_session_do_the_same_number_of_steps(small):
    pytest.importorskip("stable_baselines3")
    assert bench_learners.face_steps(4, True).run() == bench_learners.session_steps(4, True).run() == 4 * 64


def test_episodes_of_the_steps_that_are_measured_have_all_of_their_decisions():
    session = bench_env.TradingSession(2, bench_env.ExecutionRole(), "zero_intelligence")
    session.seed(np.ones(2, np.bool_), np.arange(2))
    session.reset()
    ends = [session.step(action).terminated for action in bench_learners.whole_episodes(2)]
    assert not np.any(ends[:-1]) and np.all(ends[-1])


@pytest.mark.parametrize("role", list(bench_env.ROLES))
def test_orders_of_agents_are_those_that_the_tape_has(monkeypatch, role):
    made, session = [], bench_env.TradingSession
    monkeypatch.setattr(bench_env, "TradingSession", lambda *given: made.append(session(*given)) or made[0])
    work = bench_env.agents_orders(role, 3, True)
    work.rewind()
    done = work.run()
    tape = made[0].market.tape
    assert tape.record_count[0] <= tape.records.shape[1]  # the ring holds the whole episode
    records = tape.records[0, : tape.record_count[0]]
    seen = np.isin(records["owner"], [0, 1, 2]).sum()
    assert done == seen > 100
    work.rewind()
    assert work.run() == done


def test_a_time_is_better_the_less_it_is():
    row = {"name": "x", "unit": "us", "hardware": {"threads": 1}, "is_time": True}
    assert bench.Measurement(value=199.0, target=200.0, **row).met is True
    assert bench.Measurement(value=201.0, target=200.0, **row).met is False
    assert bench.Measurement(value=9.0, reference=10.0, target=11.5, paired=1.2, share=1.15, **row).met is False
    assert bench.Measurement(value=9.0, reference=10.0, target=11.5, paired=1.1, share=1.15, **row).met is True
    assert bench.Measurement(value=9.0, **row).met is None


def test_times_are_those_of_a_piece_of_work():
    ticks = iter(range(10**6))  # each run takes one second

    def work(done):
        return lambda quick: bench.Work(lambda: done)

    one = bench.Benchmark("x", "us", 1, work(4), 250_000.0, clock=lambda: next(ticks), per_second=1e6)
    measured = one.measure(True)
    assert (measured.value, measured.reference, measured.ratio, measured.met) == (250_000.0, None, None, True)
    assert replace(one, target=249_999.0).measure(True).met is False
    beside = replace(one, target=1.5, is_share=True, beside=work(8)).measure(True)
    assert (beside.value, beside.reference, beside.ratio) == (250_000.0, 125_000.0, 2.0)
    assert (beside.target, beside.met) == (187_500.0, False)
    assert replace(one, target=2.0, is_share=True, beside=work(8)).measure(True).met is True


def test_a_table_for_a_page(capsys):
    assert cli.main(["bench", "env", "--quick", "--only", "reset-zero", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| name | value | unit | threads | reference | ratio | target | met |"
    assert lines[1].count("|") == lines[2].count("|") == 9
    assert lines[2].startswith("| reset-zero_intelligence | ") and "| 200 |" in lines[2]
    assert lines[4].startswith("cpu ")
    assert cli.markdown_table([]) == "\n".join(lines[:2])
