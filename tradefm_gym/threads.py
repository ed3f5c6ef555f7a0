"""How loops over threads wait, and threads that lend a hand with a kernel's tasks and for which nobody waits.

**Numba's loops** are some ten to hundred microseconds long here, a few of them a step, and at the end of each somebody
waits. OpenMP's threads wait at full speed, which costs a machine with other programs its cores (a step of 256 markets
took twenty times as long), or sleep and come late (a third longer). TBB's take what is left to do, and the caller does
it alone where nobody comes. So TBB comes with the package where there is one; Numba, which looks for it by name only,
finds it once it is loaded.

**Helpers** take numbered tasks from one counter until none is left, and so does the caller: one that is late finds
nothing to do, and one that never came is called off.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic


def _load_tbb() -> bool:
    """Loads the TBB that was installed beside the package, unless the user wants other loops; whether it did."""
    first, wanted = config.THREADING_LAYER_PRIORITY[0], config.THREADING_LAYER.lower()
    name = {"linux": "libtbb.so.12", "win32": "tbb12.dll"}.get(sys.platform)
    if wanted in ("omp", "workqueue") or (wanted == "default" and first != "tbb"):
        return False
    with suppress(metadata.PackageNotFoundError, OSError):
        for file in metadata.files("tbb") or ():
            if file.name == name:
                ctypes.CDLL(str(Path(str(file.locate())).resolve()))  # for as long as the process lives
                return True
    return False


if not _load_tbb():
    # GNU's OpenMP lets go of a core after waiting for as long as such a loop takes, unless the user says something
    # else; it reads this when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@cache
def loops_layer() -> str:
    """What runs the loops over threads in this process: "tbb", "omp" or "workqueue", as Numba calls them.

    It is not the TBB of the package where a loop of somebody else's came first, before the package was imported.
    """
    numba.get_num_threads()  # settles it
    return numba.threading_layer()  # pyright: ignore[reportPrivateImportUsage]


def has_patient_loops() -> bool:
    """Whether loops over threads go well beside other programs."""
    return loops_layer() == "tbb"


_PATIENCE = 0.5  # of its own work's time a caller waits for helpers
_FEWEST_ALONE, _MOST_ALONE = 2, 256  # calls that follow without helpers if it took longer, more each time in a row

_set_aside = threading.local()
_alone = {"calls": 0, "next": _FEWEST_ALONE}  # left to do without helpers; and how many after the next late one
_pools: dict[int, ThreadPoolExecutor] = {}  # by process: threads do not survive a fork


def thread_count() -> int:
    """Threads that helpers may use, the caller's among them."""
    return getattr(_set_aside, "threads", None) or numba.get_num_threads()


@contextmanager
def loops_in_one_thread() -> Iterator[None]:
    """Keeps Numba's parallel loops to the calling thread; helpers may still use as many threads as before."""
    before, outer = numba.get_num_threads(), getattr(_set_aside, "threads", None)
    _set_aside.threads = outer or before
    if before > 1:
        numba.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            numba.set_num_threads(before)
        _set_aside.threads = outer


def together(work: Callable[[int], None], threads: int) -> None:
    """Calls ``work(0)`` here and ``work(1)`` to ``work(threads - 1)`` in helpers; returns when all that began ended.

    ``work`` must take its tasks from a counter, see ``take``, and release the interpreter's lock. Where a helper kept
    the caller waiting, because another process has its core, the next calls do without, and the more of them the more
    often in a row that happens.
    """
    if threads > 1 and _alone["calls"] > 0:
        _alone["calls"] -= 1
        threads = 1
    if threads <= 1:
        work(0)
        return
    waiting = [_pool().submit(work, number) for number in range(1, threads)]
    begin = time.perf_counter()
    try:
        work(0)
    finally:
        end = time.perf_counter()
        begun = [one for one in waiting if not one.cancel()]
        for one in begun:
            one.exception()  # waits: nobody may still write when the caller goes on
    for one in begun:
        one.result()
    if time.perf_counter() - end > _PATIENCE * (end - begin):
        _alone["calls"], _alone["next"] = _alone["next"], min(2 * _alone["next"], _MOST_ALONE)
    else:
        _alone["next"] = _FEWEST_ALONE


def _pool() -> ThreadPoolExecutor:
    process = os.getpid()
    if process not in _pools:
        _pools.clear()
        _pools[process] = ThreadPoolExecutor(max(1, config.NUMBA_NUM_THREADS - 1), "tradefm-gym")
    return _pools[process]


@intrinsic
def _take(_, counter):
    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


def _take_plainly(counter: np.ndarray) -> int:
    counter[0] += 1
    return int(counter[0]) - 1


# ``take(counter)`` within a kernel: the next number of a counter (1,) int64, each to one thread only.
take = _take_plainly if config.DISABLE_JIT else _take
