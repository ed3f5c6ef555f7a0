"""Threads that take tasks from one counter."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from importlib import metadata

import numba
import numpy as np
import pytest
from numba import njit
from numba.core import config

from tradefm_gym import threads
from tradefm_gym.threads import has_patient_loops, loops_in_one_thread, take, thread_count, together


@njit(nogil=True)
def take_all(counter, tasks, taken, thread):
    while True:
        task = take(counter)
        if task >= tasks:
            return
        taken[task] += 1 + 100 * thread
        for i in range(20_000):
            taken[tasks + thread] += i % 3


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(threads, "_PATIENCE", 1e9)
    monkeypatch.setitem(threads._alone, "calls", 0)
    monkeypatch.setitem(threads._alone, "next", 2)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_task_is_done_once(count):
    for _ in range(20):
        counter, taken = np.zeros(1, np.int64), np.zeros(50 + count, np.int64)
        together(lambda thread, c=counter, t=taken: take_all(c, 50, t, thread), count)
        assert (taken[:50] % 100 == 1).all()


def test_nobody_waits_for_a_helper_that_has_not_begun():
    hold, begun = threading.Event(), threading.Event()

    def wait():
        begun.set()
        hold.wait(60)

    busy = [threads._pool().submit(wait) for _ in range(threads._pool()._max_workers)]
    assert begun.wait(60)
    called = []
    together(called.append, 2)  # would never end if it waited
    hold.set()
    assert called == [0]
    for one in busy:
        one.result()
    time.sleep(0.05)
    assert called == [0]  # called off


def test_what_fails_in_a_helper_is_told(monkeypatch):
    begun = threading.Event()

    def fails(thread):
        if thread:
            begun.set()
            raise ValueError("a fault")
        begun.wait(60)

    with pytest.raises(ValueError, match="a fault"):
        together(fails, 2)


def test_a_caller_that_was_kept_waiting_goes_on_alone(monkeypatch):
    monkeypatch.setattr(threads, "_PATIENCE", 0.5)
    begun, called = threading.Event(), []

    def slow(thread):
        called.append(thread)
        if thread:
            begun.set()
            time.sleep(0.2)
        else:
            begun.wait(60)
            time.sleep(0.01)

    together(slow, 2)
    together(slow, 2)
    assert sorted(called) == [0, 0, 1] and threads._alone["calls"] > 0


def test_who_is_late_again_and_again_stays_away_longer(monkeypatch):
    """Twice as many calls alone each time, and few again after a helper was in time."""
    monkeypatch.setattr(threads, "_PATIENCE", -1.0)  # every helper is late
    met, alone = [], []

    def work(thread, begun):
        met[-1].append(thread)
        if thread:
            begun.set()
        elif threads._alone["calls"] == 0:
            begun.wait(60)

    def call():
        begun = threading.Event()
        if threads._alone["calls"] > 0:  # nobody will come
            begun.set()
        met.append([])
        together(lambda thread: work(thread, begun), 2)
        alone.append(sorted(met[-1]) == [0])

    for _ in range(16):
        call()
    assert alone == [False, *[True] * 2, False, *[True] * 4, False, *[True] * 7]
    monkeypatch.setitem(threads._alone, "calls", 0)
    monkeypatch.setattr(threads, "_PATIENCE", 1e9)
    call()
    assert threads._alone == {"calls": 0, "next": 2}


def test_loops_stay_in_one_thread_and_helpers_do_not():
    before = numba.get_num_threads()
    with loops_in_one_thread():
        assert (numba.get_num_threads(), thread_count()) == (1, before)
        with loops_in_one_thread():
            assert thread_count() == before
    assert (numba.get_num_threads(), thread_count()) == (before, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_helpers_are_there_after_a_fork():
    together(lambda thread: None, 2)
    child = os.fork()
    if child == 0:
        counter, taken = np.zeros(1, np.int64), np.zeros(10, np.int64)
        together(lambda thread: take_all(counter, 8, taken, thread), 2)
        os._exit(0 if (taken[:8] % 100 == 1).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


_LOOPS = """
import sys
import numba
import numpy as np
from tradefm_gym.envs.gym_env import ExecutionVectorEnv

env = ExecutionVectorEnv(80, flow="zero_intelligence")
env.reset(seed=0)
env.step(np.zeros((80, 2), np.float32))
print(numba.threading_layer())
"""
_FORK = """
from gymnasium.vector import AsyncVectorEnv
from tradefm_gym.envs.gym_env import ExecutionEnv

env.reset(seed=3)
expected = env.step(np.full((80, 2), 0.5, np.float32))[1][:2]
children = AsyncVectorEnv([lambda: ExecutionEnv(flow="zero_intelligence")] * 2, context="fork")
children.reset(seed=3)
rewards = children.step(np.full((2, 2), 0.5, np.float32))[1]
children.close()
assert (rewards == expected).all(), (rewards, expected)
print("forked")
"""


def run_alone(script, **more):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_THREADING")} | more
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(config.DISABLE_JIT, reason="loops over threads need the compiler")
@pytest.mark.skipif(not any(one.name == "tbb" for one in metadata.distributions()), reason="no TBB beside the package")
def test_loops_are_those_of_tbb_and_such_a_process_can_be_forked():
    assert run_alone(_LOOPS) == ["tbb"]
    if "fork" in multiprocessing.get_all_start_methods():
        assert run_alone(_LOOPS + _FORK) == ["tbb", "forked"]


@pytest.mark.skipif(config.DISABLE_JIT, reason="loops over threads need the compiler")
def test_whoever_wants_other_loops_gets_them():
    script = _LOOPS.replace("80", "9") + "print(env.session._in_threads)"
    for name, value in (
        ("NUMBA_THREADING_LAYER", "workqueue"),
        ("NUMBA_THREADING_LAYER_PRIORITY", "workqueue omp tbb"),
    ):
        assert run_alone(script, **{name: value}) == ["workqueue", "False"]


@pytest.mark.skipif(config.DISABLE_JIT, reason="loops over threads need the compiler")
def test_a_loop_of_somebody_else_that_came_first_is_noticed():
    first = """
import numba
import numpy as np

@numba.njit(parallel=True)
def mine(array):
    for i in numba.prange(len(array)):
        array[i] += 1

mine(np.zeros(10))
before = numba.threading_layer()
from tradefm_gym.threads import has_patient_loops
print(has_patient_loops() == (before == "tbb") and numba.threading_layer() == before)
"""
    assert run_alone(first) == ["True"]


def test_this_process_knows_its_loops():
    assert has_patient_loops() == (numba.threading_layer() == "tbb")
