"""``python -m tradefm_gym`` is the command ``tradefm-gym``."""

import sys

from tradefm_gym.cli import main

if __name__ == "__main__":
    sys.exit(main())
