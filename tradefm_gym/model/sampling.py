"""Drawing tokens on a device by `engine_protocol.sample_integers`, from hidden states and random words."""

from typing import NamedTuple

import torch
from torch import Tensor

from tradefm_gym.model.config import DIGIT_SIZES
from tradefm_gym.model.corrections import ANSWERS, DEPTHS, KINDS, MOST_ANSWERED, MOST_MOVED
from tradefm_gym.model.engine_protocol import PROBABILITY_ONE
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


def draw_digits(
    head: FactoredHead,
    hidden: Tensor,
    words: Tensor,
    temperature: Tensor,
    tilts: Tensor | None,
    more: "Digits | None" = None,
) -> Tensor:
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
        if more is not None:
            logits = logits + (more.waits if len(digits) > 3 else more.sizes_of(digits))
        digits.append(draw(logits.softmax(-1), words[:, len(digits)]))
    tokens = digits[0]
    for size, digit in zip(DIGIT_SIZES[1:], digits[1:], strict=True):
        tokens = tokens * size + digit
    return tokens


class Digits(NamedTuple):
    """What is added to the logits of sizes and waits, as `corrections.Moves` has it."""

    sizes: Tensor  # (B, 3, 16): of adds that rest, of takers, of cancels
    waits: Tensor  # (B, 16)
    classes: Tensor  # (B, 64) int64, whose sizes those of each kind are

    def sizes_of(self, digits: list[Tensor]) -> Tensor:
        """(B, 16) for the kinds that three digits say."""
        kinds = (digits[0] * DIGIT_SIZES[1] + digits[1]) * DIGIT_SIZES[2] + digits[2]
        chosen = self.classes.gather(1, kinds[:, None])
        return self.sizes.gather(1, chosen[..., None].expand(-1, 1, DEPTHS))[:, 0]

    def of_tokens(self) -> Tensor:
        """(B, V) for all tokens."""
        sizes = self.sizes.gather(1, self.classes[..., None].expand(-1, -1, DEPTHS))  # (B, 64, 16)
        return (sizes[..., None] + self.waits[:, None, None]).flatten(1)


def tilts(kinds: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Digits]:
    """`corrections.tilt_row` on a device.

    Args:
        kinds: (B, 64) log-probabilities by the network.
        numbers: (B, 166), the parts of `corrections.Moves` side by side.

    Returns:
        What is added (B, 64), strengths (B, 2), and what is added to the other digits.
    """
    parts = [2 * DEPTHS, 1, 1, 1, 1, 2, KINDS, 3 * DEPTHS, DEPTHS]
    shares, moved, repeating, followed, answering, restoring, own, sizes, waits = numbers.split(parts, 1)
    # Where nothing is added they stay what they are: a sum of shares is 1 up to rounding only.
    kinds = torch.where((own != 0.0).any(1, keepdim=True), (kinds + own).log_softmax(-1), kinds)
    classes = torch.cat(((shares > 0.5).long(), torch.full_like(shares, 2, dtype=torch.long)), 1)
    shares, chances = shares.unflatten(1, (2, DEPTHS)), kinds.exp().unflatten(1, (4, DEPTHS))  # (B, 2, 16), (B, 4, 16)
    taken = (chances[:, :2] * shares).sum(-1)  # (B, 2): buyers, sellers
    (buy, sell), odds = taken.split(1, 1), repeating.exp()
    repeats = buy * sell * (odds - 1.0) / (buy * odds + sell)
    moved = moved + torch.where((buy > 0.0) & (sell > 0.0), repeats, torch.zeros_like(repeats))
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
    return added.flatten(1) + own, strength, Digits(sizes.unflatten(1, (3, DEPTHS)), waits, classes)


def draw_moved(
    head: FactoredHead | JointHead, hidden: Tensor, words: Tensor, temperature: Tensor, numbers: Tensor, draw_joint
) -> Tensor:
    """Tokens, and strengths, side by side (B, 3) fp32: a draw tilted as `tilts` says, joint ones by ``draw_joint``."""
    if isinstance(head, JointHead):
        logits = head(hidden)
        logs = (logits.float() / temperature).log_softmax(-1)
        added, strength, more = tilts(logs.unflatten(-1, (KINDS, -1)).logsumexp(-1), numbers)
        tokens = draw_joint(logits.float() + temperature * more.of_tokens(), words[:, 0], temperature, added)
    else:
        added, strength, more = tilts(head.kind_log_prob(hidden, temperature).float(), numbers)
        tokens = draw_digits(head, hidden, words, temperature, added, more)
    return torch.cat((tokens[:, None].float(), strength), 1)


def penalised(head: FactoredHead | JointHead, hidden: Tensor, seen: Tensor, temperature: Tensor, penalty: Tensor):
    """Joint log-probabilities (B, V) with those of tokens ``seen`` (B, V) bool multiplied by ``penalty`` (B, 1)."""
    logs = head.joint_log_prob(hidden, temperature)
    return torch.where(seen, logs * penalty, logs)
