"""Two market makers in one market: a fixed spread beside Avellaneda and Stoikov, with two scripted traders.

    python examples/two_makers.py --flow hawkes --markets 64

Prints what each earned, as a mean over the markets with its standard error. All four meet in every market, so the
makers' difference is paired; whose orders come first is drawn for each instant.
"""

from dataclasses import dataclass

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from tradefm_gym.agents import AvellanedaStoikov, FixedSpread, Momentum, Noise

from tradefm_gym import MarketMakingRole, TradingRole, TradingSession


@dataclass
class Arguments:
    """What to run."""

    flow: str = "hawkes"
    markets: int = 64
    decisions: int = 64
    risk_aversion: float = 0.05
    maker_fee: int = 0
    taker_fee: int = 0
    seed: int = 0


def play(arguments: Arguments) -> dict[str, dict[str, np.ndarray]]:
    """One episode in every market; for each policy the columns (markets,) of its ``final_info``."""
    policies = [FixedSpread(), AvellanedaStoikov(arguments.risk_aversion), Momentum(), Noise()]
    roles = [*(MarketMakingRole(decisions=arguments.decisions) for _ in range(2))]
    roles += [*(TradingRole(decisions=arguments.decisions) for _ in range(2))]
    session = TradingSession(
        arguments.markets, roles, arguments.flow, maker_fee=arguments.maker_fee, taker_fee=arguments.taker_fee
    )
    everyone = np.ones(arguments.markets, bool)
    session.seed(everyone, np.arange(arguments.seed, arguments.seed + arguments.markets))
    seen, decision = session.reset_roles(), np.zeros(arguments.markets, np.int64)
    starts = [session.start_info(seat) for seat in range(len(roles))]
    while session.running.any():
        infos = [{"seed": session.seeds, "decision": decision, **start} for start in starts]
        actions = [policy.act(one, info) for policy, one, info in zip(policies, seen, infos, strict=True)]
        seen = [result.observation for result in session.step_roles(actions)]
        decision = decision + 1
    return {policy.name: session.final_info(seat) for seat, policy in enumerate(policies)}


def main(arguments: Arguments) -> None:
    """Plays and prints."""
    results = play(arguments)
    table = Table(title=f"{arguments.markets} markets of {arguments.flow}")
    for name in ("policy", "profit, bps of the limit", "lots", "as maker", "largest position"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for name, final in results.items():
        profit = final["profit_bps"]
        error = profit.std(ddof=1) / np.sqrt(len(profit)) if len(profit) > 1 else float("nan")
        shares = f"{final['maker_share'].mean():.0%}", f"{final['peak'].mean():.0%} of limit"
        table.add_row(name, f"{profit.mean():+.3f} ±{error:.3f}", f"{final['traded'].mean():.0f}", *shares)
    Console(width=100).print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
