"""Whether the bundled model does what its indicators say, and how it bears stress, from its bundled start states.

Prints the tables of the realism card's probe ``control`` for flows that have start states of their own:

    python examples/measure_control.py --flow tradefm --seeds 64
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from tradefm_gym import make_flow
from tradefm_gym.cli_realism import probed_table
from tradefm_gym.realism.control import control_rows
from tradefm_gym.realism.probe_tables import probe_tables
from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.stress import stress_rows


def main() -> None:
    """Measures each flow and prints its tables."""
    parser = argparse.ArgumentParser(description="Measures control and stress.")
    parser.add_argument("--flow", default="tradefm", help="flows, with commas")
    parser.add_argument("--seeds", type=int, default=64, help="markets, spread over the start states")
    parser.add_argument("--out", type=Path, help="a file for the rows, as JSON")
    arguments = parser.parse_args()
    flows, rows = arguments.flow.split(","), []
    for name in flows:
        flow = make_flow(name, arguments.seeds)
        contexts = np.linspace(0, len(flow.bank) - 1, arguments.seeds).astype(np.int64)
        seeds = np.arange(arguments.seeds, dtype=np.uint64)
        found = [*control_rows(flow, contexts, seeds, name), *stress_rows(flow, contexts, seeds, name)]
        rows += [Row(set="start states", **one) for one in found]
    console = Console(width=220)
    for table in probe_tables(Rows(rows), "start states", flows):
        console.print(probed_table(table, "start states"))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
