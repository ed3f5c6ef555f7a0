"""What the Numba engine takes in, and how it divides that into tiles, and those into tasks for threads."""

import numpy as np
from numba import njit
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


def read_plan(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Tiles of rows that read `counts` (k,) events each: tasks of a long row alone, or of neighbours that read few.

    Returns:
        Tiles (n, 3) and `starts` as `run_tiles` has them, and the first row of each task, with k at the end.
    """
    few = counts[counts <= _MOST]
    share = -(-int(few.sum()) // (4 * tasks_of(int(few.sum())))) * 4
    most = counts.size + int(counts.sum()) // TILE + 1
    tiles, starts, firsts = np.empty((most, 3), np.int64), np.zeros(most + 1, np.int64), np.zeros(most + 1, np.int64)
    tasks = _plan_reads(counts, _MOST, share, tiles, starts, firsts)
    return tiles, starts[: tasks + 1], firsts[: tasks + 1]


@njit(cache=True, nogil=True)
def _plan_reads(counts, few, share, tiles, starts, firsts):
    begin, row, task, tile = 0, 0, 0, 0
    while row < counts.size:
        stop, last_only = begin + counts[row], 1 if counts[row] > few else 0
        row += 1
        while last_only == 0 and stop - begin < share and row < counts.size and counts[row] <= few:
            stop += counts[row]
            row += 1
        while begin < stop:
            size = min(TILE, stop - begin)
            tiles[tile, 0], tiles[tile, 1] = begin, size
            tiles[tile, 2] = last_only if begin + size >= stop or last_only == 0 else 2
            begin += size
            tile += 1
        task += 1
        starts[task], firsts[task] = tile, row
    return task


@njit(cache=True, nogil=True)
def admit(inputs, sizes, counts, lengths, context, seen, sources, rows, positions):
    """Lists the events to append and counts them in, if all of them can be appended.

    Args:
        inputs: (B, K, 4) int32, of which row r has counts[r].
        sizes: (4,) int64, values of each column.
        counts: (B,) int64, 0 to K.
        lengths: (B,) int32, counted up.
        context: events that a row has room for.
        seen: (B, T) int32, the tokens in each row's cache; written.
        sources: (B K,) int64, written: the place of each event among the B K of `inputs`, a row's events in order.
        rows: (B K,) int64, written: its row.
        positions: (B K,) int64, written: its position there.

    Returns:
        Number of events; or -1 - row for a row without room; or -1 - B - row for a row with an event out of range.
    """
    for row in range(counts.size):
        if counts[row] > 0 and lengths[row] + counts[row] > context:
            return -1 - row
        for j in range(counts[row]):
            for column in range(4):
                if inputs[row, j, column] < 0 or inputs[row, j, column] >= sizes[column]:
                    return -1 - counts.size - row
    total = 0
    for row in range(counts.size):
        for j in range(counts[row]):
            sources[total], rows[total], positions[total] = row * inputs.shape[1] + j, row, lengths[row]
            seen[row, lengths[row]] = inputs[row, j, 3]
            lengths[row] += 1
            total += 1
    return total


@njit(cache=True, nogil=True)
def admit_reads(events, sizes, rows, begins, counts, lengths, context, seen, places):
    """Counts in what rows are to read from given positions on, if all of it can be read.

    Args:
        events: (n, 4) int32, those of the first row, then those of the second, and so on.
        sizes: (4,) int64, values of each column.
        rows: (k,) int64, all different.
        begins: (k,) int64, the position of each row's first event, at most its length.
        counts: (k,) int64, how many events each row reads.
        lengths: (B,) int32, written.
        context: events that a row has room for.
        seen: (B, T) int32, the tokens in each row's cache; written.
        places: (3, n or more) int64, written: source, row and position of each event.

    Returns:
        Number of events; or -1 - row for a row without room; or -1 - B - row for a row with an event out of range; or
        -1 - 2 B - row for a row that holds nothing then.
    """
    total = 0
    for i in range(rows.size):
        if begins[i] + counts[i] > context:
            return -1 - rows[i]
        for j in range(total, total + counts[i]):
            for column in range(4):
                if events[j, column] < 0 or events[j, column] >= sizes[column]:
                    return -1 - lengths.size - rows[i]
        if begins[i] + counts[i] == 0:
            return -1 - 2 * lengths.size - rows[i]
        total += counts[i]
    total = 0
    for i in range(rows.size):
        row = rows[i]
        for position in range(begins[i], begins[i] + counts[i]):
            places[0, total], places[1, total], places[2, total] = total, row, position
            seen[row, position] = events[total, 3]
            total += 1
        lengths[row] = begins[i] + counts[i]
    return total
