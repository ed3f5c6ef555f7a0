import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tradefm_gym"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Rooms, and the rooms that each may import from. Rows of the house's picture, lowest first; "foundation"
# stands for what knows nothing of ours.
FOUNDATION = {"rng", "arguments", "threads", "market.events"}
ARROWS = {
    "market": {"foundation", "market"},
    "model": {"foundation", "market.features", "model"},
    "data": {"foundation", "market.features", "data"},
    "flow": {"foundation", "market", "model", "data", "flow"},
    "envs": {"foundation", "market", "flow", "envs"},
    "realism": {"foundation", "market", "model", "data", "flow", "envs", "realism"},
}

# Third parties, and the only places that may import them.
ONLY = {
    "torch": (
        "model/transformer.py",
        "model/engine.py",
        "model/decoders.py",
        "model/device_steps.py",
        "model/fused.py",
        "model/decoding_kernels.py",
        "model/sampling.py",
        "model/attention_choice.py",
        "model/training.py",
        "model/training_report.py",
        "model/processes.py",
        "flow/tradefm.py",
        "bench_gpu.py",
        "bench_learners.py",
    ),
    "triton": ("model/decoding_kernels.py",),
    "transformers": ("bench_gpu.py",),
    "huggingface_hub": ("model/hub.py",),
    "tensorboard": (),
    "gymnasium": ("envs/", "__init__.py", "bench_env.py", "bench_learners.py"),
    "pettingzoo": ("envs/parallel_env.py", "envs/parallel_recorder.py", "envs/torchrl.py"),
    "torchrl": (),
    "ray": (),
    "stable_baselines3": ("envs/sb3.py", "bench_learners.py"),
}


def imports(path):
    """Absolute names that a file imports, also within functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            if node.module == "tradefm_gym":
                names += [f"tradefm_gym.{alias.name}" for alias in node.names]
            else:
                names.append(node.module)
    return names


def room(module):
    """The room of a dotted name below the package: "foundation", a folder or "root"."""
    if module in FOUNDATION:
        return "foundation"
    head = module.split(".")[0]
    return head if head in ARROWS else "root"


def test_every_source_is_in_a_known_room():
    known = {*ARROWS, "agents"}
    folders = {path.relative_to(PACKAGE).parts[0] for path in SOURCES if len(path.relative_to(PACKAGE).parts) > 1}
    assert folders <= known


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    own = room(module)
    for name in imports(path):
        if not name.startswith("tradefm_gym"):
            continue
        target = name.removeprefix("tradefm_gym").lstrip(".")
        known = module in ("bench_learners", "bench_gpu") and target == "agents.cleanrl_ppo"  # which they measure
        said = f"{module} imports {name}: agents are built on the public interface"
        assert known or not target.startswith("agents"), said
        if own == "foundation":
            assert room(target) == "foundation", f"{module} imports {name}; it may know nothing of ours"
        elif own in ARROWS:
            allowed = ARROWS[own]
            assert room(target) in allowed or target in allowed, f"{module} imports {name}; allowed: {sorted(allowed)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_stay_in_their_rooms(path):
    place = str(path.relative_to(PACKAGE))
    for name in imports(path):
        allowed = ONLY.get(name.split(".")[0])
        assert allowed is None or place.startswith(allowed), f"{place} imports {name}; only {allowed} may"


def test_agents_and_examples_use_the_public_interface():
    for path in [*sorted((ROOT / "agents").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]:
        for name in imports(path):
            assert not any(part.startswith("_") for part in name.split(".")), f"{path.name} imports {name}"


def test_only_flow_tradefm_knows_the_model():
    # Also the registry names flows only; a model reaches a market through that file and its kernels.
    for path in sorted((PACKAGE / "flow").glob("*.py")):
        if path.name not in ("tradefm.py", "tradefm_kernels.py"):
            assert not any(name.startswith("tradefm_gym.model") for name in imports(path)), path.name


def test_public_names_are_sorted_and_exist():
    import tradefm_gym

    assert tradefm_gym.__all__ == sorted(tradefm_gym.__all__)
    for name in tradefm_gym.__all__:
        assert getattr(tradefm_gym, name) is not None
        assert name in dir(tradefm_gym)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = tradefm_gym.Nothing
