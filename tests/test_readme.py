import re
from dataclasses import fields
from pathlib import Path

import pytest

from tradefm_gym.cli import Reading
from tradefm_gym.envs.gym_env import ExecutionEnv
from tradefm_gym.model.serving import BUNDLED_MODEL

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)


BANK = ROOT / "tradefm_gym" / "flow" / "contexts" / f"{BUNDLED_MODEL}.npz"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_runs_as_written(number, capsys):
    if number == 0 and not BANK.is_file():
        pytest.skip(f"the bundled start states of {BUNDLED_MODEL} are not there")
    if "# needs extras" in BLOCKS[number]:
        pytest.importorskip("stable_baselines3")
    exec(compile(BLOCKS[number], f"README.md, python block {number}", "exec"), {"__name__": "__main__"})
    if number == 0:
        assert re.search(r"shortfall -?\d+\.\d\d bps, 100% filled", capsys.readouterr().out)


def test_the_quickstart_is_short():
    assert len(BLOCKS[0].strip().splitlines()) <= 15


def test_the_make_targets_it_names_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"`?make (\w+)", TEXT)) - {"train", "test"} <= set(targets)
    assert {"train", "test", "install", "lint", "bench", "clean"} <= set(targets)


def test_every_argument_of_the_environment_is_in_the_table():
    from tradefm_gym.envs.execution import ExecutionRole
    from tradefm_gym.envs.tasks import task_arguments

    for name in task_arguments(ExecutionRole):
        assert f"`{name}`" in TEXT, name


def test_every_option_of_reading_a_recorded_day_is_explained():
    words = TEXT.split("## Recorded days")[1].split("\n## ")[0]
    options = ["--" + field.name.replace("_", "-") for field in fields(Reading)]
    assert [option for option in options if option not in words] == []


def test_the_data_sheet_names_all_that_a_context_may_be():
    words = (ExecutionEnv.__doc__ or "").split("        context: ")[1].split("        split: ")[0]
    assert all(kind in words for kind in ("id of a start context", "None", "context bank", "recorded day"))


def test_every_flow_is_in_the_table():
    from tradefm_gym.flow.registry import allowed_flows

    for name in allowed_flows().split(", "):
        assert f"`{name}`" in TEXT, name
