"""Checks an installed wheel, without torch and away from the source tree: ``python check_wheel.py README.md``."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

IMPORT = """
import time, sys
start = time.perf_counter()
import tradefm_gym
print(time.perf_counter() - start)
assert "torch" not in sys.modules, "importing tradefm_gym loads torch"
"""


def main(readme: str) -> None:
    """Raises where something is wrong."""
    assert importlib.util.find_spec("torch") is None, "this environment must not have torch"
    import tradefm_gym.agents

    import tradefm_gym

    package = Path(tradefm_gym.__file__).parent
    assert Path("site-packages") / "tradefm_gym" == Path(*package.parts[-2:]), f"{package} is not an installed wheel"
    assert Path(tradefm_gym.agents.__file__).parent == package / "agents"
    assert importlib.util.find_spec("agents") is None, "agents must not be installed as a top-level package"
    for folder, patterns in {
        package / "model" / "weights" / "mini-2": ("model.safetensors", "config.json", "tokenizer.json", "README.md"),
        package / "flow" / "contexts": ("mini-2.npz", "day.npz"),
    }.items():
        for pattern in patterns:
            assert (folder / pattern).is_file(), f"the wheel lacks {folder.relative_to(package) / pattern}"
    size = sum(path.stat().st_size for path in (package / "model" / "weights" / "mini-2").iterdir())
    assert size <= 6 * 2**20, f"the bundled model takes {size / 2**20:.1f} MiB; at most 6 are allowed"

    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", Path(readme).read_text(), re.M | re.S)):
        if "# needs extras" not in block:
            exec(compile(block, f"README.md, python block {number}", "exec"), {"__name__": "__main__"})
    assert "torch" not in sys.modules

    seconds = [float(subprocess.check_output([sys.executable, "-c", IMPORT], text=True)) for _ in range(5)]
    assert min(seconds) < 1, f"importing tradefm_gym takes {min(seconds):.2f} s; it must take less than 1 s"
    print(f"wheel {importlib.metadata.version('tradefm-gym')} is sound; importing it takes {min(seconds):.2f} s")


if __name__ == "__main__":
    main(sys.argv[1])
