"""Every example, also one whose libraries are not installed, compiles and asks the package for what it has."""

import ast
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_compiles_and_finds_what_it_imports_of_ours(path):
    source = path.read_text()
    compile(source, str(path), "exec")
    ours = [
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tradefm_gym"
        for alias in node.names
    ]
    for module, name in ours:
        # A module of a package is no attribute of it before somebody imports it.
        known = hasattr(found := import_module(module), name) or (
            hasattr(found, "__path__") and find_spec(f"{module}.{name}")
        )
        assert known, f"{path.name} imports {name} from {module}"
    assert ours or "tradefm_gym" in source


def test_the_example_that_needs_ray_says_so(monkeypatch):
    pytest.importorskip("tyro")
    spec = spec_from_file_location("collect_with_ray", EXAMPLES[0].with_name("collect_with_ray.py"))
    assert spec is not None and spec.loader is not None
    example = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "collect_with_ray", example)  # where its dataclass looks for itself
    spec.loader.exec_module(example)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match="needs Ray: pip install ray"):
        example.main(example.Arguments())
