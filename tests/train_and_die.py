"""Trains a small model and is killed in the middle of a step: python train_and_die.py FOLDER STEP."""

import os
import signal
import sys
from dataclasses import replace

from test_training import CONFIG, SETTINGS, CyclingWindows

from tradefm_gym.model.training import train

LIVES = replace(SETTINGS, steps=24, evaluate_every=4, save_every=3)


class Deadly(CyclingWindows):
    """Windows whose drawing for one step nobody survives."""

    def __init__(self, step: int):
        super().__init__()
        self.left = step

    def sample(self, batch, rng):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().sample(batch, rng)


if __name__ == "__main__":
    train(CONFIG, Deadly(int(sys.argv[2])), CyclingWindows(), sys.argv[1], LIVES)
