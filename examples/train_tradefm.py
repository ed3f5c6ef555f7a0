"""Train a TradeFM model on recorded order flow, and write it as a checkpoint with a model card.

    python examples/train_tradefm.py --preset test                    # the whole way on the bundled synthetic day
    python examples/train_tradefm.py --data FOLDER --out runs/mini-2

FOLDER holds token shards (``tradefm-gym data tokenize``), or one sub-folder per asset-day (``meta.json`` and
``events.parquet``). Each day is split by time into train, validation and test (70 / 15 / 15%, with a gap). The bundled
``mini-2`` was made with the default arguments; ``calibrate_closed_loop.py`` and ``build_contexts.py`` came after it.
It is the command ``tradefm-gym train model``; the functions behind it are in ``tradefm_gym/modelling.py``.
"""

import sys

from tradefm_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "model", *sys.argv[1:]]))
