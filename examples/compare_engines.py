"""Do all engines compute the same network? Logits against the reference forward, and draws by the same random words.

    python examples/compare_engines.py                    # the bundled model
    python examples/compare_engines.py --model FOLDER --events 4096 --engines numba eager

One engine draws a row of events, filled again from its last T/2 whenever it is full. Every engine is then given the
same events, its logits are compared with those of the full-context forward in torch, and it draws by the same words.
Where it draws another token than the reference, the word must lie closer to the edge between two candidates than the
probabilities may differ; the table counts those draws, and any that have no such excuse.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import tyro

from tradefm_gym.model import sampling
from tradefm_gym.model.config import DIGIT_SIZES, DIGIT_STRIDES, ModelConfig, load_weights
from tradefm_gym.model.engine import TorchEngine
from tradefm_gym.model.engine_protocol import Engine
from tradefm_gym.model.numba_engine import NumbaEngine
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint
from tradefm_gym.model.transformer import JointHead, TradeFM

Name = Literal["numba", "eager", "parts", "compiled", "fused", "graph"]
EVERY = 8  # events, the hidden state and the log-probability of the event itself are compared
LEAST = -30.0  # nats: kinds that are rarer do not count
NAMES: tuple[Name, ...] = ("numba", "eager", "parts", "compiled", "fused", "graph")


@dataclass(frozen=True)
class Settings:
    """What to compare."""

    model: str = BUNDLED_MODEL  # a bundled model's name, or a checkpoint folder
    events: int = 1_024
    batch: int = 4  # rows of the engines; the others hold strangers
    engines: tuple[Name, ...] = NAMES  # those that cannot run here are left out
    logit_tolerance: float = 2e-4  # nats, of a log-probability
    edge_tolerance: float = 2e-6  # probability, between a random word and the edge of a candidate
    seed: int = 0


@dataclass
class Agreement:
    """How one engine compares with the reference."""

    name: str
    events: int = 0
    logits: float = 0.0  # largest difference of a log-probability (of a kind of event, or of the token), nats
    hidden: float = 0.0  # largest difference of a hidden state's element
    other_tokens: int = 0  # draws of another token than the reference's
    unexplained: int = 0  # of them those whose word is not near an edge
    farthest: float = 0.0  # from a word to the edge that decided, among them
    places: list[int] = field(default_factory=list)  # events at which another token was drawn


@dataclass(frozen=True)
class Path:
    """One row of events, and what the reference says after each."""

    prompt: np.ndarray  # (S, 4) int32
    events: np.ndarray  # (E, 4) int32
    words: np.ndarray  # (E, 5) uint32, by which event e was drawn
    hidden: np.ndarray  # (E, D) float32, before event e
    tokens: np.ndarray  # (E,) int64, what the reference draws
    kinds: np.ndarray  # (E, 64) float32, log-probabilities
    chances: np.ndarray  # (E,) float32, log-probability of the event that came


def build(name: Name, config: ModelConfig, weights, batch: int) -> Engine | None:
    """An engine, None where this machine cannot run it."""
    on_gpu = torch.cuda.is_available()
    if name == "numba":
        return NumbaEngine(config, weights, batch) if config.attention_width % 16 == 0 else None
    if name in ("fused", "graph") and not (on_gpu and importlib.util.find_spec("triton")):
        return None
    device, parts = ("cuda" if on_gpu else "cpu"), 2 if name == "parts" and batch % 2 == 0 else 1
    decoder = name if name in ("compiled", "fused") else "eager"
    return TorchEngine(config, weights, batch, device, decoder=decoder, graph=name == "graph", parts=parts)


def path_of(config: ModelConfig, weights, settings: Settings) -> Path:
    """Events that an engine draws with all others at work beside it, and the reference's hidden states."""
    generator, half, row = np.random.default_rng(settings.seed), config.context // 2, settings.batch - 1
    prompt = _random_events(generator, half, config)
    words = generator.integers(0, 2**32, (settings.events, 5), np.uint32)
    events = _random_events(generator, settings.events, config)
    engine = build("numba", config, weights, settings.batch) or build("eager", config, weights, settings.batch)
    assert engine is not None
    history, hidden, model = prompt, [], TradeFM.from_weights(config, weights).eval()
    start = 0

    def read() -> None:
        """The reference reads what the cache has held since it was filled."""
        with torch.inference_mode():
            states = model(torch.from_numpy(history.astype(np.int64))[None])[0].numpy()
        hidden.append(states[half - 1 :])

    def draw(index: int, engine: Engine) -> None:
        active = np.zeros(settings.batch, np.bool_)
        active[row] = True
        events[index, 3] = engine.sample(np.tile(words[index], (settings.batch, 1)), active)[row]

    def refill(last: np.ndarray, index: int) -> None:
        nonlocal history
        if index > start:
            read()
        history = last

    for index, _ in _walk(engine, row, prompt, events, draw, refill):
        history = np.concatenate((history, events[index : index + 1]))
    read()
    states, drawn = (
        torch.from_numpy(np.concatenate(hidden)[: settings.events]),
        torch.from_numpy(words.astype(np.int64)),
    )
    with torch.inference_mode():
        head, heat = model.head, torch.ones((len(states), 1))
        if isinstance(head, JointHead):
            tokens = sampling.draw_joint(head(states), drawn[:, 0], heat, None)
        else:
            tokens = sampling.draw_digits(head, states, drawn, heat, None)
        chances = model.log_prob(states, torch.from_numpy(events[:, 3].astype(np.int64))).numpy()
        kinds = head.kind_log_prob(states).numpy()
    return Path(prompt, events, words, states.numpy(), tokens.numpy(), kinds, chances)


def compare(name: Name, engine: Engine, model: TradeFM, path: Path, settings: Settings) -> Agreement:
    """One engine on the path, with strangers in its other rows."""
    batch, row = settings.batch, settings.batch - 1
    found, strangers = Agreement(name), np.random.default_rng(settings.seed + 1)
    everyone = np.ones(batch, np.bool_)
    for other in range(row):
        engine.prefill(other, _random_events(strangers, 3 + other, model.config))

    def look(index: int, engine: Engine) -> None:
        differences = np.abs(engine.kind_log_prob(everyone)[row] - path.kinds[index])
        found.logits = max(found.logits, float(differences[path.kinds[index] > LEAST].max()))
        if index % EVERY == 0:
            own = engine.log_prob(np.full(batch, path.events[index, 3]))[row] - path.chances[index]
            found.logits = max(found.logits, abs(float(own)))
            away = np.abs(engine.export_row(row).hidden - path.hidden[index]).max()
            found.hidden = max(found.hidden, float(away))
        bits = strangers.integers(0, 2**32, (batch, 5), np.uint32)
        bits[row] = path.words[index]
        drawn, found.events = int(engine.sample(bits, everyone)[row]), found.events + 1
        if drawn != path.tokens[index]:
            _, edge = reference_draw(model, torch.from_numpy(path.hidden[index]), path.words[index], drawn)
            found.other_tokens += 1
            found.places.append(index)
            found.farthest = max(found.farthest, edge)
            found.unexplained += edge > settings.edge_tolerance

    for _ in _walk(engine, row, path.prompt, path.events, look, lambda *_: None):
        pass
    return found


def reference_draw(model: TradeFM, state: torch.Tensor, words: np.ndarray, drawn: int) -> tuple[int, float]:
    """The token that the words draw from exact probabilities; how far a word lies from where ``drawn`` begins or ends.

    The probabilities are those of the reference's hidden state (D,), in float64; of digits the first that differs
    counts.
    """
    head = model.head
    with torch.inference_mode():
        if isinstance(head, JointHead):
            return _by_edges(head(state).double().softmax(-1).numpy(), words[0], drawn)
        token = 0
        parts = head.digit_hidden(state[None])
        for digit, (size, stride) in enumerate(zip(DIGIT_SIZES, DIGIT_STRIDES, strict=True)):
            earlier = [torch.tensor([token // s % n]) for s, n in zip(DIGIT_STRIDES, DIGIT_SIZES, strict=True)]
            shares = head.digit_logits(parts, digit, earlier)[0].double().softmax(-1).numpy()
            wanted, edge = _by_edges(shares, words[digit], drawn // stride % size)
            if wanted != drawn // stride % size:
                return token + wanted * stride, edge
            token += wanted * stride
    return token, 0.0


def _by_edges(shares: np.ndarray, word: int, drawn: int) -> tuple[int, float]:
    edges, place = np.concatenate(([0.0], np.cumsum(shares))), (int(word) + 0.5) / 2**32 * shares.sum()
    wanted = min(int(np.searchsorted(edges[1:], place, side="right")), len(shares) - 1)
    return wanted, max(0.0, float(edges[drawn] - place), float(place - edges[drawn + 1]))


def _walk(engine: Engine, row: int, prompt, events, before: Callable, refill: Callable):
    """Appends all events to a row, which is filled again when full; ``before`` each, ``refill`` at each refill."""
    half, whole = engine.context // 2, np.concatenate((prompt, events))
    active, inputs = np.zeros(engine.batch, np.bool_), np.zeros((engine.batch, 4), np.int32)
    active[row] = True
    engine.prefill(row, prompt)
    for index in range(len(events)):
        before(index, engine)
        if engine.lengths[row] == engine.context:
            whole[len(prompt) + index] = events[index]
            last = whole[len(prompt) + index + 1 - half : len(prompt) + index + 1]
            refill(last, index)
            engine.prefill(row, last)
        else:
            whole[len(prompt) + index] = inputs[row] = events[index]
            engine.append(inputs, active)
            yield index, events[index]


def _random_events(generator: np.random.Generator, count: int, config: ModelConfig) -> np.ndarray:
    return np.stack([generator.integers(0, size, count) for size in config.input_sizes], 1).astype(np.int32)


def main(settings: Settings) -> list[Agreement]:
    """Compares all engines that run here, and prints the table."""
    config, weights = load_weights(checkpoint(settings.model)[0])
    model, path = TradeFM.from_weights(config, weights).eval(), path_of(config, weights, settings)
    found = []
    print(f"{'engine':10}{'events':>8}{'logits':>10}{'hidden':>10}{'other tokens':>14}{'unexplained':>13}")
    for name in settings.engines:
        engine = build(name, config, weights, settings.batch)
        if engine is None:
            print(f"{name:10} cannot run here")
            continue
        one = compare(name, engine, model, path, settings)
        found.append(one)
        print(
            f"{name:10}{one.events:8}{one.logits:10.1e}{one.hidden:10.1e}{one.other_tokens:14}{one.unexplained:13}",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main(tyro.cli(Settings))
