"""All engines compute one network: logits within a tolerance, the same draws but where a word lies on an edge.

Over 1,024 events on the CPU in float32, with strangers in the other rows.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_numba_engine import weights_of  # noqa: E402

from tradefm_gym.model.config import PRESETS  # noqa: E402
from tradefm_gym.model.engine import TorchEngine  # noqa: E402
from tradefm_gym.model.numba_engine import NumbaEngine  # noqa: E402
from tradefm_gym.model.transformer import TradeFM  # noqa: E402

EXAMPLE = Path(__file__).parents[1] / "examples" / "compare_engines.py"
CONFIGS = {
    "factored": PRESETS["test"],
    "joint": replace(PRESETS["test"], head="joint", head_width=0, digit_embeddings=False),
}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("compare_engines", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_engines"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=CONFIGS)
def case(request, example):
    config = CONFIGS[request.param]
    weights, settings = weights_of(config), example.Settings(batch=4)
    return config, weights, TradeFM.from_weights(config, weights).eval(), settings, example.path_of(
        config, weights, settings
    )  # fmt: skip


@pytest.mark.parametrize("name", ["numba", "eager", "parts", "fused", "graph"])
def test_engines_agree_over_1024_events(example, case, name):
    config, weights, model, settings, path = case
    engine = example.build(name, config, weights, settings.batch)
    if engine is None:
        pytest.skip("needs a GPU")
    found = example.compare(name, engine, model, path, settings)
    assert found.events == 1_024
    assert found.logits < settings.logit_tolerance and found.hidden < settings.logit_tolerance
    assert found.unexplained == 0, f"draws of other tokens at {found.places}, {found.farthest} from an edge"
    assert found.other_tokens <= 4  # of them all on an edge: about as many as the tolerance has words
    print(f"{name}: {found.other_tokens} of {found.events} draws on an edge, logits within {found.logits:.1e}")


@pytest.mark.filterwarnings("ignore")  # of the compiler's own parts
def test_compiled_decoding_agrees(example):
    """Compiling takes most of the time, so fewer events."""
    config = CONFIGS["factored"]
    weights, settings = weights_of(config), example.Settings(batch=2, events=80)
    path, model = example.path_of(config, weights, settings), TradeFM.from_weights(config, weights).eval()
    engine = example.build("compiled", config, weights, settings.batch)
    found = example.compare("compiled", engine, model, path, settings)
    assert found.events == 80 and found.unexplained == 0 and found.logits < settings.logit_tolerance


def test_another_network_does_not_agree(example, case):
    """What the comparison is worth: weights that differ in the fourth digit are found out."""
    config, weights, model, settings, path = case
    other = {name: values * np.float32(1.0005) for name, values in weights.items()}
    found = example.compare("numba", NumbaEngine(config, other, settings.batch), model, path, settings)
    assert found.logits > settings.logit_tolerance
    assert found.unexplained > 0  # nor are its draws all on an edge


def test_an_edge_is_measured_from_the_word(example, case):
    config, weights, model, _, path = case
    state = torch.from_numpy(path.hidden[5])
    wanted, edge = example.reference_draw(model, state, path.words[5], int(path.tokens[5]))
    assert wanted == path.tokens[5] and edge == 0.0
    other = (int(path.tokens[5]) + 5_000) % config.vocabulary
    assert example.reference_draw(model, state, path.words[5], other)[1] > 1e-4
    assert isinstance(example.build("eager", config, weights, 2), TorchEngine)
