import dataclasses

import numpy as np
import pytest
import reference_network as reference

torch = pytest.importorskip("torch")

from tradefm_gym.model.config import (  # noqa: E402
    DIGIT_SIZES,
    DIGIT_STRIDES,
    PRESETS,
    VOCABULARY,
    parameter_shapes,
    random_weights,
)
from tradefm_gym.model.transformer import KeyValueCache, TradeFM, rotary, rotate, split_digits  # noqa: E402

FACTORED = PRESETS["test"]
JOINT = dataclasses.replace(FACTORED, head="joint", head_width=0, digit_embeddings=False, kv_heads=4)
CONFIGS = {"factored": FACTORED, "joint": JOINT}


def build(config, seed=0):
    """A network far from uniform, without gradients."""
    weights = {name: values * (4 if values.ndim > 1 else 1) for name, values in random_weights(config, seed).items()}
    return TradeFM.from_weights(config, weights).eval().requires_grad_(False)


def random_inputs(batch, length, seed=0):
    generator = np.random.default_rng(seed)
    columns = [generator.integers(0, size, (batch, length)) for size in (3, 2, 32, VOCABULARY)]
    return torch.tensor(np.stack(columns, -1))


@pytest.mark.parametrize("name", PRESETS)
def test_the_module_has_the_listed_weights(name):
    with torch.device("meta"):
        model = TradeFM(PRESETS[name])
    assert {n: tuple(p.shape) for n, p in model.state_dict().items()} == parameter_shapes(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == PRESETS[name].parameter_count()


def test_published_parameter_counts():
    for name, count in (("paper", 524_392_448), ("250m", 250_677_248)):
        with torch.device("meta"):
            assert sum(p.numel() for p in TradeFM(PRESETS[name]).parameters()) == count


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_weights_round_trip(config):
    weights = random_weights(config)
    back = TradeFM.from_weights(config, weights).weights()
    assert back.keys() == weights.keys()
    for name in weights:
        np.testing.assert_array_equal(back[name], weights[name])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_forward_is_the_plain_network(config):
    model, inputs = build(config), random_inputs(2, 40)
    hidden = model(inputs)
    for row in range(2):
        expected = reference.forward(config, model.weights(), inputs[row].numpy())
        np.testing.assert_allclose(hidden[row].numpy(), expected, atol=1e-4)
    logs = reference.log_probs(config, model.weights(), hidden[0, -1].double().numpy())
    np.testing.assert_allclose(model.head.joint_log_prob(hidden[:1, -1])[0].numpy(), logs, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_probabilities_sum_to_one_and_agree(config):
    model = build(config)
    hidden = model(random_inputs(1, 5))[:, -1]  # (1, D)
    tokens = torch.arange(VOCABULARY)
    chosen = model.log_prob(hidden.expand(VOCABULARY, -1), tokens)
    assert chosen.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    joint = model.head.joint_log_prob(hidden)[0]
    torch.testing.assert_close(joint, chosen, atol=1e-4, rtol=0)
    cool = model.head.joint_log_prob(hidden, 0.5)[0]
    assert cool.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    assert cool.max() > joint.max()


def test_digit_shares_add_up():
    model, tokens = build(FACTORED), torch.tensor([[6011, 0, VOCABULARY - 1]])
    hidden = model(random_inputs(1, 3))
    shares = model.head.digit_log_prob(hidden, tokens)
    assert shares.shape == (1, 3, 5)
    torch.testing.assert_close(shares.sum(-1), model.log_prob(hidden, tokens))


def test_digits_of_tokens():
    assert torch.stack(split_digits(torch.tensor([6011])), -1).tolist() == [[0, 1, 7, 7, 11]]
    tokens = torch.arange(VOCABULARY)
    digits = torch.stack(split_digits(tokens), -1)
    assert (digits * torch.tensor(DIGIT_STRIDES)).sum(-1).equal(tokens)
    assert (digits.amax(0) + 1).tolist() == list(DIGIT_SIZES)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_event_sees_a_later_one(config):
    model, inputs = build(config), random_inputs(1, 30)
    changed = inputs.clone()
    changed[:, 20:] = random_inputs(1, 10, seed=1)
    before, after = model(inputs), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 20], after[:, 20], atol=1e-3)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_cached_decoding_equals_the_full_pass(config):
    model, inputs = build(config), random_inputs(3, config.context)
    full = model(inputs)
    hidden, keys, values = model.prefill(inputs[:, :20])
    torch.testing.assert_close(hidden, full[:, :20], atol=1e-4, rtol=0)
    cache = KeyValueCache.empty(config, 3)
    cache.keys[:, :, :, :20], cache.values[:, :, :, :20] = keys, values
    # row m starts m events late, and idles every third step
    positions, rows = np.array([20, 19, 18]), np.arange(3)
    for step in range(3 * config.context):
        active = (positions < config.context) & ((step + rows) % 3 > 0)
        slots = torch.tensor(np.where(active, positions, config.context))
        events = inputs[rows, np.minimum(positions, config.context - 1)]
        result = model.decode(events, cache, slots)
        for row in rows[active]:
            torch.testing.assert_close(result[row], full[row, positions[row]], atol=1e-4, rtol=0)
        positions += active
    assert (positions == config.context).all()


def test_rotation_depends_on_distance_only():
    config = FACTORED
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(config.attention_width, generator=generator) for _ in range(2))

    def product(first, second):
        turned = [rotate(x, rotary(torch.tensor(p), config)) for x, p in ((query, first), (key, second))]
        return (turned[0] @ turned[1]).item()

    assert product(5, 2) == pytest.approx(product(55, 52), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)
    assert product(0, 0) == pytest.approx((query @ key).item(), abs=1e-5)


def test_rotation_is_the_half_split_form():
    config = FACTORED
    half = config.attention_width // 2
    unit = torch.zeros(config.attention_width)
    unit[1] = 1.0
    turned = rotate(unit, rotary(torch.tensor(3), config))
    angle = 3 * config.rope_base ** (-1 / half)
    assert turned[1].item() == pytest.approx(np.cos(angle), abs=1e-6)
    assert turned[1 + half].item() == pytest.approx(np.sin(angle), abs=1e-6)


def test_dropout_only_while_training():
    config = dataclasses.replace(FACTORED, dropout=0.5)
    model, inputs = build(config), random_inputs(1, 8)
    assert model(inputs).equal(model(inputs))
    model.train()
    assert not model(inputs).equal(model(inputs))
