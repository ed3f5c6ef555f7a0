"""Drawing tokens on a device by `engine_protocol.sample_integers`, from hidden states and random words."""

import torch
from torch import Tensor

from tradefm_gym.model.config import DIGIT_SIZES
from tradefm_gym.model.corrections import ANSWERS, DEPTHS, MOST_ANSWERED, MOST_MOVED
from tradefm_gym.model.engine_protocol import KINDS, PROBABILITY_ONE
from tradefm_gym.model.transformer import FactoredHead, JointHead


def draw(probabilities: Tensor, words: Tensor) -> Tensor:
    """`engine_protocol.sample_integers` on a device: (B, n) and words (B,) int64 -> (B,) int64 indices."""
    weights = (probabilities.double() * PROBABILITY_ONE + 0.5).floor().long()
    cumulative = weights.cumsum(-1)
    threshold = (words * cumulative[:, -1]) >> 32
    return torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]  # the first one above


def draw_joint(logits: Tensor, words: Tensor, temperature: Tensor, tilts: Tensor | None) -> Tensor:
    """Tokens (B,) from logits (B, V), words (B,) int64, temperature (B, 1) and what kinds are tilted by (B, 64)."""
    logits = logits.float() / temperature
    if tilts is not None:
        logits = (logits.unflatten(-1, (KINDS, -1)) + tilts[..., None]).flatten(1)
    return draw(logits.softmax(-1), words)


def draw_digits(head: FactoredHead, hidden: Tensor, words: Tensor, temperature: Tensor, tilts: Tensor | None) -> Tensor:
    """Tokens (B,) digit by digit, from hidden states (B, D) and words (B, 5) int64."""
    parts = head.digit_hidden(hidden)  # (B, 5, Hd)
    digits: list[Tensor] = []
    if tilts is not None:
        kinds = (head.kind_log_prob(hidden, temperature) + tilts).softmax(-1)  # (B, 64)
        for size in DIGIT_SIZES[:3]:
            shares = kinds.unflatten(-1, (size, -1))  # (B, n, kinds of each)
            totals = shares.sum(-1)
            digits.append(draw(totals / totals.sum(-1, keepdim=True), words[:, len(digits)]))
            kinds = shares.gather(1, digits[-1][:, None, None].expand(-1, 1, shares.shape[-1]))[:, 0]
    while len(digits) < len(DIGIT_SIZES):
        logits = head.digit_logits(parts, len(digits), digits).float() / temperature
        digits.append(draw(logits.softmax(-1), words[:, len(digits)]))
    tokens = digits[0]
    for size, digit in zip(DIGIT_SIZES[1:], digits[1:], strict=True):
        tokens = tokens * size + digit
    return tokens


def tilts(kinds: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """`corrections.tilt_row` on a device.

    Args:
        kinds: (B, 64) log-probabilities by the network.
        numbers: (B, 37), the parts of `corrections.Moves` side by side.

    Returns:
        What is added (B, 64), and strengths (B, 2).
    """
    shares, moved, followed, answering, restoring = numbers.split([2 * DEPTHS, 1, 1, 1, 2], 1)
    shares, chances = shares.unflatten(1, (2, DEPTHS)), kinds.exp().unflatten(1, (4, DEPTHS))  # (B, 2, 16), (B, 4, 16)
    taken = (chances[:, :2] * shares).sum(-1)  # (B, 2): buyers, sellers
    moved = torch.minimum(torch.maximum(moved, -MOST_MOVED * taken[:, :1]), MOST_MOVED * taken[:, 1:])
    moved, followed = torch.cat((moved, -moved), 1), torch.cat((followed, -followed), 1)
    strength = (taken + moved) / taken + followed.clamp(min=0.0)
    strength = torch.where(taken > 0.0, strength, torch.ones_like(taken))
    takers = torch.log1p(shares * (strength - 1.0)[..., None])  # (B, 2, 16)
    cancels = restoring[..., None].expand(-1, -1, DEPTHS)
    added = torch.cat((takers, cancels), 1)  # (B, 4, 16)
    usual = chances[:, :2, ANSWERS].sum(-1).flip(1)  # those who offer to buyers are sellers
    wanted = answering * followed.clamp(min=0.0) * taken
    more = torch.log1p((wanted / usual).clamp(max=MOST_ANSWERED))
    more = torch.where(usual > 0.0, more, torch.zeros_like(more))
    added[:, :2, ANSWERS] += more.flip(1)[..., None]
    return added.flatten(1), strength


def draw_moved(
    head: FactoredHead | JointHead, hidden: Tensor, words: Tensor, temperature: Tensor, numbers: Tensor, draw_joint
) -> Tensor:
    """Tokens, and strengths, side by side (B, 3) fp32: a draw tilted as `tilts` says, joint ones by ``draw_joint``."""
    if isinstance(head, JointHead):
        logits = head(hidden)
        logs = (logits.float() / temperature).log_softmax(-1)
        added, strength = tilts(logs.unflatten(-1, (KINDS, -1)).logsumexp(-1), numbers)
        tokens = draw_joint(logits, words[:, 0], temperature, added)
    else:
        added, strength = tilts(head.kind_log_prob(hidden, temperature).float(), numbers)
        tokens = draw_digits(head, hidden, words, temperature, added)
    return torch.cat((tokens[:, None].float(), strength), 1)


def penalised(head: FactoredHead | JointHead, hidden: Tensor, seen: Tensor, temperature: Tensor, penalty: Tensor):
    """Joint log-probabilities (B, V) with those of tokens ``seen`` (B, V) bool multiplied by ``penalty`` (B, 1)."""
    logs = head.joint_log_prob(hidden, temperature)
    return torch.where(seen, logs * penalty, logs)
