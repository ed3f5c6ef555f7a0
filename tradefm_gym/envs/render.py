"""One market as text: the ladder with what agents have resting."""

from tradefm_gym.envs.depth_history import resting
from tradefm_gym.envs.session import TradingSession

LADDER = 10  # levels a side


def ladder_text(session: TradingSession, row: int) -> str:
    """The best ten levels a side, asks above bids, with what agents have resting (marked ``*``)."""
    prices, sizes = session.market.depth(LADDER)
    own = resting(session, row)
    lines = [*(role.headline(row) for role in session.roles), f"{'bid':>10} {'price':>10} {'ask':<10}"]
    for level in range(LADDER - 1, -1, -1):
        if sizes[row, 1, level]:
            price = int(prices[row, 1, level])
            lines.append(f"{'':>10} {price:>10} {int(sizes[row, 1, level]):<10}{_star(own, price)}")
    lines.append(f"{'':>10} {'-' * 10:>10}")
    for level in range(LADDER):
        if sizes[row, 0, level]:
            price = int(prices[row, 0, level])
            lines.append(f"{int(sizes[row, 0, level]):>10} {price:>10} {'':<10}{_star(own, price)}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _star(own: dict[int, int], price: int) -> str:
    return f" * {own[price]}" if price in own else ""
