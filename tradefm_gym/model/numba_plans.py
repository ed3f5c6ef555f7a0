"""How the Numba engine divides events into tiles, and those into tasks for threads."""

import numpy as np
from numpy.typing import NDArray

from tradefm_gym.model.numba_kernels import TILE
from tradefm_gym.threads import thread_count

# So few stay in the calling thread: waking a helper would take longer than it saves.
SERIAL_EVENTS = 8
_LEAST, _MOST = 8, 32  # events of a task: fewer read the weights too often, more leave a thread waiting for another


def tasks_of(count: int) -> int:
    """Tasks that so many events to append are divided into."""
    threads = thread_count()
    if threads == 1 or count <= SERIAL_EVENTS:
        return 1
    return min(max(threads, -(-count // _MOST)), -(-count // _LEAST))


def append_plan(count: int, tasks: int, starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tiles of `count` tokens for `run_tiles`, in about equal shares of whole register tiles.

    `starts` are the first tokens of rows: where a row has several, they stay in order in one task.
    """
    share = -(-count // (4 * tasks)) * 4
    edges = np.append(starts, count)
    tiles: list[tuple[int, int, int]] = []
    ends, begin = [0], 0
    for task in range(1, tasks + 1):
        stop = int(edges[np.searchsorted(edges, min(count, task * share))])
        tiles += [(first, min(TILE, stop - first), 0) for first in range(begin, stop, TILE)]
        ends.append(len(tiles))
        begin = stop
    return np.array(tiles, np.int64).reshape(-1, 3), np.array(ends, np.int64)


def prefill_plan(prompts: NDArray[np.int64], threads: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tiles of prompts that begin at `prompts[:-1]` for `run_tiles`: a prompt's tiles stay in order in one task."""
    count = prompts.size - 1
    tasks = 1 if threads == 1 else count  # one each: whoever is free takes the next
    tiles: list[tuple[int, int, int]] = []
    starts = np.zeros(tasks + 1, np.int64)
    for prompt in range(count):
        stop = int(prompts[prompt + 1])
        for begin in range(int(prompts[prompt]), stop, TILE):
            tiles.append((begin, min(TILE, stop - begin), 1 if begin + TILE >= stop else 2))
        # the task in whose equal share of all tokens the prompt's middle lies
        task = int(prompts[prompt] + stop) * tasks // int(2 * prompts[-1])
        starts[task + 1 :] = len(tiles)
    return np.array(tiles, np.int64), starts
