"""Which rows of a feed stand out of the order of time, so that the fewest are left out."""

import numpy as np
from numba import njit

AHEAD = 64  # rows after one that say whether it or they are wrong
LATE, EARLY = 1, 2  # before a row that precedes it; after most of those that follow it


@njit(cache=True, nogil=True)
def judge(time_ns, latest, slack_ns, faults):
    """Says LATE or EARLY of the first len(faults) rows, 0 where time does not decrease; returns the latest good time.

    A row that most of the ``AHEAD`` rows after it come before is the wrong one, not they.

    Args:
        time_ns: (n,) int64, changed in place: a row less than ``slack_ns`` late gets the time before it.
        latest: time of the last good row before these.
        slack_ns: what a venue's own stamps may step back.
        faults: (k,) int8 out, k <= n; rows from k on are only looked at.
    """
    n = len(time_ns)
    for i in range(len(faults)):
        now = time_ns[i]
        if now < latest:
            if latest - now >= slack_ns:
                faults[i] = LATE
                continue
            time_ns[i] = now = latest
        following = min(AHEAD, n - i - 1)
        before, others = 0, 0
        for j in range(i + 1, i + 1 + following):
            if now > time_ns[j] and now - time_ns[j] >= slack_ns:
                before += 1
            else:
                others += 1
            if 2 * others >= following:
                break
        if 2 * before > following:
            faults[i] = EARLY
        else:
            latest = now
    return latest


def out_of_order(time_ns: np.ndarray) -> np.ndarray:
    """Which of the times (n,) of a whole feed stand out of order, (n,) bool."""
    faults = np.zeros(len(time_ns), np.int8)
    if (np.diff(time_ns) < 0).any():
        judge(time_ns.copy(), np.int64(-(2**62)), np.int64(1), faults)
    return faults != 0
