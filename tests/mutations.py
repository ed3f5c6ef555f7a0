"""Is the suite awake? Some three dozen one-line faults in the kernels, one at a time; each has to fail it.

Run by hand, from the root of the checkout: ``python tests/mutations.py``. It works in a copy and takes minutes.
The tests run with the compiler off first, as they also do in continuous integration: nothing has to be compiled then.
Words behind it choose faults: those in files whose names have one of the words in them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE = ("tests/test_book.py", *sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("test_order_*.py")))
COPIES = ("tests/test_snapshots.py", "tests/test_snapshot_bytes.py")
WAYS = ("tests/test_costs.py", "tests/test_latency.py", "tests/test_delayed_view.py")
OTHERS = ("tests/test_simulator.py", "tests/test_differential.py")
# Which tests come first for a file's faults; the rest only where those let it pass.
FIRST = {"snapshot": COPIES, "delays": WAYS, "transit": WAYS, "readings": WAYS, "ledger": WAYS}

# File, the line as it is, and the fault.
FAULTS = (
    ("matching.py", "if (price - limit) * side > 0:", "if (price - limit) * side >= 0:"),
    ("matching.py", "lots = min(remaining, np.int64(order[\"size\"]))", "lots = np.int64(order[\"size\"])"),
    ("matching.py", "if rule == CANCEL_OLDEST:", "if rule >= CANCEL_OLDEST:"),
    ("matching.py", "if price == old_price and size <= old_size:", "if price == old_price:"),
    ("matching.py", "elif kind == POST_ONLY and crosses:", "elif kind == POST_ONLY and price == opposite:"),
    ("matching.py", "if _executable(book, ledger, m, s, price, size, owner) < size:",
     "if _executable(book, ledger, m, s, price, size, owner) < 1:"),
    ("matching.py", "resting = min(remaining, max_rest)", "resting = remaining"),
    ("matching.py", "and clocks[m, HALTED] == 0:", "and clocks[m, HALTED] <= 1:"),
    ("book.py", "book.levels[m, at][\"depth\"] -= size", "book.levels[m, at][\"depth\"] -= left"),
    ("book.py", "row[m, BEST + s] = price if (price - best) * (1 - 2 * s) > 0 else best", "row[m, BEST + s] = price"),
    ("book.py", "level[\"head\"] = head if depth > 0 else slot", "level[\"head\"] = head if depth > 1 else slot"),
    ("book.py", "level[\"tail\"] = tail if later >= 0 else max(earlier, np.int64(0))", "level[\"tail\"] = tail"),
    ("book.py", "row[m, IDLE + s] = 0", "row[m, IDLE + s] = row[m, IDLE + s]"),
    ("prices.py", "if before >= 0 and before != page:", "if before > 0 and before == page:"),
    ("prices.py", "price = (page << 6) - 1  # this one is idle", "break"),
    ("prices.py", "larger = word & ((_ALL << np.uint64(digit)) << _ONE)",
     "larger = word & (_ALL << np.uint64(digit))"),
    ("ids.py", "if (place - home) & last >= (place - hole) & last:",
     "if (place - home) & last > (place - hole) & last:"),
    ("ids.py", "if order[\"order_id\"] == order_id and order[\"owner\"] == owner:",
     "if order[\"order_id\"] == order_id:"),
    ("ledger.py", "fill[\"wait_ns\"] = now - since_ns", "fill[\"wait_ns\"] = now"),
    ("ledger.py", "provider[\"fees\"] += rules[0, MAKER_FEE] * size", "provider[\"fees\"] += size"),
    ("resolve.py", "price = (mid2 + 1) >> 1", "price = mid2 >> 1"),
    ("resolve.py", "return max(price, own) if s == 0", "return price if s == 0"),
    ("cancels.py", "lots = min(lots, size)", "lots = max(lots, size)"),
    ("snapshot_kernels.py", "level[\"depth\"] = head, last, depth", "level[\"depth\"] = head, head, depth"),
    ("snapshot_kernels.py", "if queued + dead != count:", "if queued + dead > count:"),
    ("snapshot_kernels.py", "or other[\"price\"] != order[\"price\"]:", "or other[\"price\"] == 0:"),
    ("snapshot_parts.py", "_ROW_STATE = (FREE, HIGH_WATER, NEXT_ID, ", "_ROW_STATE = (HIGH_WATER, NEXT_ID, "),
    ("snapshot_parts.py", "\"flow_queue\": (clocks[:, FLOW_HEAD],", "\"flow_queue\": (0 * clocks[:, FLOW_HEAD],"),
    ("snapshot_parts.py", "\"log\": (forgotten, row", "\"log\": (0 * forgotten, row"),
    ("snapshot_parts.py", "arrived[arrived <= earliest(clocks)] = 0", "arrived[:] = 0"),
    ("snapshot_checks.py", "(seen > ends[:, None]).any(axis=1)", "(seen < 0).any(axis=1)"),
    ("delays.py", "arrived[m, seat] = max(leaves + took, arrived[m, seat])", "arrived[m, seat] = leaves + took"),
    ("delays.py", "return own < others or", "return own > others or"),
    ("delays.py", "last[m] = place", "last[m] = min(place + 1, row[m, LOG_END])"),
    ("ledger.py", "thousands * rate - (-rest * rate // 1000)", "thousands * rate + rest * rate // 1000"),
    ("readings.py", "events_of(self._agent_queue, clocks[:, AGENT_HEAD],",
     "events_of(self._agent_queue, clocks[:, AGENT_HEAD] - 1,"),
)  # fmt: skip


NOT_COPIED = (".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "runs")


def suite_fails(folder: Path, name: str) -> bool:
    """Whether the copy's tests notice a fault in a file of that name."""
    first = next((files for word, files in FIRST.items() if name.startswith(word)), SUITE)
    rest = [file for file in (*SUITE, *COPIES, *WAYS, *OTHERS) if file not in first]
    for files, compiler_off in ((first, "1"), (rest, "1"), (first, "0"), (rest, "0")):
        shutil.rmtree(folder / "cache", ignore_errors=True)
        environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
        environment["NUMBA_DISABLE_JIT"] = compiler_off
        call = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        try:
            result = subprocess.run(call, cwd=folder, env=environment, capture_output=True, timeout=900)
        except subprocess.TimeoutExpired:
            return True  # a loop without an end is noticed as well
        if result.returncode:
            return True
    return False


def main() -> int:
    """Tries each fault; 1 if the suite sleeps through any."""
    words = sys.argv[1:]
    faults = [fault for fault in FAULTS if not words or any(word in fault[0] for word in words)]
    slept = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "copy"
        for number, (name, line, fault) in enumerate(faults, 1):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
            path = folder / "tradefm_gym" / "market" / name
            text = path.read_text()
            if text.count(line) < 1:
                raise SystemExit(f"fault {number}: {name} has no line {line!r}")
            path.write_text(text.replace(line, fault, 1))
            noticed = suite_fails(folder, name)
            slept += not noticed
            print(f"{number:2} {'caught' if noticed else 'MISSED'}  {name}: {line}  ->  {fault}", flush=True)
    print(f"{len(faults) - slept} of {len(faults)} caught")
    return int(slept > 0)


if __name__ == "__main__":
    sys.exit(main())
