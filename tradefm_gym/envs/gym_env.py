"""The environments by name, one pair of classes for each role; their docstrings are their data sheets."""

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.single_env import SessionEnv
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.envs.vector_env import SessionVectorEnv


class ExecutionEnv(SessionEnv):
    """Buy or sell a parent order within 64 decisions at prices near the one at which you came.

    ## Action space
    ``Box(-1, 1, (2,), float32)``: ``[deviation, aggressiveness]``. The deviation multiplies this decision's
    slice of the TWAP schedule (-1 pauses, 0 keeps it, +1 asks for everything now; fractions of lots carry
    over). What the schedule wants is worked for one interval: at aggressiveness 0 it rests at the touch, above 0
    it goes that part of the spread towards the other side (+1 crosses), below 0 it rests that part of
    max(4, spread) ticks behind the touch. At the interval's end the rest crosses if the aggressiveness was
    not negative, else it stays. **The zero action is passive TWAP.** With ``discrete=True``: ``Discrete(20)``,
    the numbers of ``execution.DISCRETE_ACTIONS``; 0 is the zero action.

    ## Observation space
    ``Box(low, high, (41,), float32)``, the named blocks of ``observation.BLOCKS`` in their order, with their
    meaning, units and bounds; ``observation.block_slices()`` finds one. Clipped to the space. Own resting
    orders are taken out of the book before anything is measured, normalisers know the training part only. ``blocks``
    chooses some of them (and "limit"), ``recent_events=k`` adds the last k events of the tape, and with
    ``observation="dict"`` the space is a ``Dict`` of the blocks by name.

    ## Rewards
    Minus the growth of the implementation shortfall against the arrival mid, in basis points of the arrival
    notional: the sum of the terms ``spread``, ``timing``, ``fees`` and ``unfilled`` (``info["terms"]``).
    The integer account is its source; see ``ExecutionRole``. ``reward`` chooses other terms, which then are those of
    ``info``: ``shortfall`` (those four in one), ``twap_slippage``, ``vwap_slippage`` and ``pov_slippage`` (executions
    against averages of the episode, in the place of spread and timing), ``completion``, ``inventory_linear``,
    ``inventory_quadratic``, ``inventory_cvar`` and ``mean_variance`` (on the lots to do), ``cara`` and
    ``order_to_trade``; see ``reward_terms``.

    ## Starting state
    A start context of the flow (book, tape, clock) drawn from ``split``; side and context are drawn from the
    seed and the number of the episode, or by a ``sampler``. ``reset(options=...)`` fixes ``side``, ``quantity``,
    ``participation``, ``limit_bps`` or ``limit_price``, ``context`` and ``scenario``, a name of
    ``flow.scenarios.SCENARIOS`` or a dict of ``name`` and parameters.

    ## Episode end
    Terminates when the parent order is done, or at the deadline: there the rest crosses, and what the book
    cannot fill (or the limit price forbids) costs one spread more than its last visible level. Truncates if the flow
    ends before.

    ## Information
    With a sampler also regime, and with numbered actions action_mask (1 where one can be done as it says).
    At reset: flow, flow_version, context, scenario, side, quantity, decisions, reason (why the parent order is
    smaller than usual, or there are fewer decisions than asked for), arrival_mid. At each step: decision, executed,
    arrival_mid, mid, terms. At the end all of them, and shortfall_bps, shortfall_half_spreads, fill_rate, maker_share.

    Args:
        flow: background flow: "tradefm", "zero_intelligence", "hawkes", "replay", each also with ":PATH", or a
            ``FlowModel``.
        clock: what separates decisions: "events" of the background, "time" or traded "volume".
        interval: of the clock between two decisions: events, nanoseconds or lots; None: 16 events, or what they usually
            take or trade in the start context.
        decisions: decisions of an episode.
        side: "buy", "sell" (or 1, -1), None to draw it.
        quantity: parent order in lots; None: max(64, ``participation`` of what the horizon usually trades), less where
            that is fewer than 64 lots, see ``execution_parent.usual_parent``.
        schedule: what the zero action keeps to: "twap", "vwap" or "pov".
        participation: part of others' volume that POV takes, and of the usual volume that a usual order is.
        limit_bps: basis points beyond the arrival mid that no lot may cost more than; None for no limit.
        limit_price: the same as a price in ticks; one of the two.
        reward: list of terms: names, dicts such as ``{"term": "mean_variance", "aversion": 0.1, "weight": 2}``, or
            objects that are a ``reward.Term``; None for the four of the shortfall.
        observation: "flat" or "dict".
        blocks: names of the blocks that are seen; None for all of ``observation.BLOCKS``.
        recent_events: events of the tape that are seen besides, up to 256.
        context: id of a start context, None to draw one; or, for a TradeFM flow, the path from which it takes its
            start contexts: a context bank (``.npz``) as it is, or a recorded day (a saved day, a data folder or a
            LOBSTER message file) on which the model is warmed up.
        split: part of the contexts: "train", "validation", "test".
        seats: agents' seats in each market.
        engine_batch: rows of the model's batch; results of a TradeFM flow are compared at equal batches.
        maker_fee: 1/1000 ticks a lot; negative is a rebate.
        taker_fee: 1/1000 ticks a lot.
        maker_rate: parts per million of the notional, besides the fee; negative is a rebate.
        taker_rate: parts per million of the notional, besides the fee.
        order_latency_ns: how long orders are on their way: None, ns, or a distribution in a form that ``MarketConfig``
            takes (``{"median_ns": 200_000, "sigma": 0.5}``, ``{"quantiles_ns": [...]}``, ``{"samples_ns": [...]}``).
        data_latency_ns: how old the market is that is seen, likewise; rewards and infos are those of the market.
        sampler: an ``EpisodeSampler`` that draws start context, side, quantity and so on for each episode.
        counterfactual: run the market a second time without the agent (``counterfactual.Twin``), whose mid each step's
            info has (twin_mid); that of the end has the difference (impact_sample_bps, basis points of the arrival
            mid). It is a single sample, noise unless averaged over many seeds.
        discrete: number the actions.
        render_mode: None, "ansi" (the ladder as text) or "rgb_array" (the depth over time).

    Raises:
        TypeError: if there is no such argument.
        ValueError: if an argument is not allowed, or without a ``quantity`` the market trades too little for one.

    ## Version history
    v0: first version.
    """

    role_type = ExecutionRole


class ExecutionVectorEnv(SessionVectorEnv):
    """N execution tasks in N independent markets; row m equals ``ExecutionEnv`` seeded s + m.

    Arguments are those of ``SessionVectorEnv`` and of ``ExecutionEnv``.
    """

    role_type = ExecutionRole


class MarketMakingEnv(SessionEnv):
    """Quote on both sides of a market, earn the spread, and go home flat.

    ## Action space
    ``Box(-1, 1, (4,), float32)``: ``[bid distance, ask distance, skew, size]``. A distance of 0 is the touch, -1 the
    mid, +1 max(4, spread) ticks behind the touch; the skew moves both quotes up by that part of half of
    max(4, spread) ticks; the size is from nothing (-1) over half of ``size`` lots (0) to all of it (+1) on each side.
    Quotes are post-only and never carry the inventory beyond its limit; what rests at a wanted price keeps its place
    in the queue. **The zero action joins both touches.** With ``discrete=True``: ``Discrete(17)``, the numbers of
    ``market_making.MAKING_ACTIONS``; 0 is the zero action, 1 quotes nothing.

    ## Observation space
    ``Box(low, high, (45,), float32)``, the named blocks of ``position_observation.POSITION_BLOCKS`` in their order,
    with their meaning, units and bounds; ``observation.block_slices(POSITION_BLOCKS)`` finds one. Clipped to the space.
    Own resting orders are taken out of the book before anything is measured, normalisers know the training part only.
    ``blocks`` chooses some of them, ``recent_events=k`` adds the last k events of the tape, and with
    ``observation="dict"`` the space is a ``Dict`` of the blocks by name.

    ## Rewards
    The gain since the last decision, in basis points of ``inventory_limit`` lots at the arrival mid: the sum of the
    terms ``spread``, ``inventory``, ``fees``, ``liquidation``, ``unfilled`` and ``penalty`` (``info["terms"]``). The
    first four are the change of cash + inventory at the mid - fees, in integers; see ``MarketMakingRole``.
    ``reward`` chooses other terms, which then are those of ``info``: ``profit`` (those four in one), or what it is made
    of otherwise (``spread_captured``, ``adverse_selection``, ``holding``, ``fees``), ``inventory_linear``,
    ``inventory_quadratic``, ``inventory_cvar``, ``mean_variance``, ``cara``, ``order_to_trade``; see ``reward_terms``.

    ## Starting state
    Flat, in a start context of the flow (book, tape, clock) drawn from ``split`` by the seed and the number of the
    episode. ``reset(options=...)`` fixes ``size``, ``inventory_limit``, ``context`` and ``scenario`` (see
    ``ExecutionEnv``).

    ## Episode end
    Terminates after ``decisions`` decisions: there all own orders are cancelled and the position crosses, and what the
    book cannot take costs one spread more than all that was seen of it. Truncates if the flow ends before; the
    position then stays, marked to the mid.

    ## Information
    At reset: flow, flow_version, context, scenario, inventory_limit, size, decisions, arrival_mid, usual_spread,
    usual_move (of the context, ticks). At each step: decision, inventory, bought, sold, arrival_mid, mid, terms. At
    the end all of them, and profit_bps, traded, maker_share, peak.

    Args:
        interval: of the clock between two decisions, see ``ExecutionEnv``.
        decisions: decisions of an episode.
        size: largest quote on each side, lots; None: two usual orders of the start context.
        inventory_limit: lots held at most, of either sign; None: ten usual orders.
        inventory_penalty: 1/1000 ticks for each lot that is held after a decision, in the reward only.
        penalty_shape: "linear", or "quadratic": for inventory^2 / limit lots.
        discrete: number the actions.
        reward: list of terms, see ``ExecutionEnv``; None for the six above.
        observation: "flat" or "dict".
        blocks: names of the blocks that are seen; None for all of ``POSITION_BLOCKS``.
        recent_events: events of the tape that are seen besides, up to 256.
        **market: as in ``ExecutionEnv``: ``flow``, ``clock``, ``context``, ``split``, ``seats``, ``engine_batch``,
            ``maker_fee``, ``taker_fee``, ``maker_rate``, ``taker_rate``, ``order_latency_ns``, ``data_latency_ns``,
            ``sampler``, ``counterfactual``.
        render_mode: None, "ansi" (the ladder as text) or "rgb_array" (the depth over time).

    Raises:
        TypeError: if there is no such argument.
        ValueError: if an argument is not allowed.

    ## Version history
    v0: first version.
    """

    role_type = MarketMakingRole


class MarketMakingVectorEnv(SessionVectorEnv):
    """N market makers in N independent markets; row m equals ``MarketMakingEnv`` seeded s + m.

    Arguments are those of ``SessionVectorEnv`` and of ``MarketMakingEnv``.
    """

    role_type = MarketMakingRole


class TradingEnv(SessionEnv):
    """Hold the position that you believe in, pay little for getting there, and go home flat.

    ## Action space
    ``Box(-1, 1, (2,), float32)``: ``[target, aggressiveness]``. The target is the position wanted, as part of
    ``max_position`` (negative: short). What is missing to it is worked for one interval: at aggressiveness 0 it rests
    at the touch, above 0 it goes that part of the spread towards the other side (+1 crosses), below 0 it rests that
    part of max(4, spread) ticks behind the touch. At the interval's end the rest crosses if the aggressiveness was not
    negative, else it stays. **The zero action gets flat.** With ``discrete=True``: ``Discrete(15)``, the numbers of
    ``trading.TRADING_ACTIONS``; 0 is the zero action.

    ## Observation space
    ``Box(low, high, (45,), float32)``, the named blocks of ``position_observation.POSITION_BLOCKS`` in their order,
    with their meaning, units and bounds; ``observation.block_slices(POSITION_BLOCKS)`` finds one. Clipped to the space.
    Own resting orders are taken out of the book before anything is measured, normalisers know the training part only.
    ``blocks`` chooses some of them, ``recent_events=k`` adds the last k events of the tape, and with
    ``observation="dict"`` the space is a ``Dict`` of the blocks by name.

    ## Rewards
    The gain since the last decision, in basis points of ``max_position`` lots at the arrival mid: the sum of the terms
    ``trading``, ``mark_to_market``, ``fees``, ``liquidation``, ``unfilled`` and ``penalty`` (``info["terms"]``). The
    first four are the change of cash + inventory at the mid - fees, in integers; see ``TradingRole``.
    ``reward`` chooses other terms, which then are those of ``info``: ``profit`` (those four in one), or what it is made
    of otherwise (``spread_captured``, ``adverse_selection``, ``holding``, ``fees``), ``inventory_linear``,
    ``inventory_quadratic``, ``inventory_cvar``, ``mean_variance``, ``cara``, ``order_to_trade``; see ``reward_terms``.

    ## Starting state
    Flat, in a start context of the flow (book, tape, clock) drawn from ``split`` by the seed and the number of the
    episode. ``reset(options=...)`` fixes ``max_position``, ``context`` and ``scenario`` (see ``ExecutionEnv``).

    ## Episode end
    Terminates after ``decisions`` decisions: there all own orders are cancelled and the position crosses, and what the
    book cannot take costs one spread more than all that was seen of it. Truncates if the flow ends before; the
    position then stays, marked to the mid.

    ## Information
    At reset: flow, flow_version, context, scenario, max_position, decisions, arrival_mid, usual_spread, usual_move (of
    the context, ticks). At each step: decision, inventory, bought, sold, arrival_mid, mid, terms. At the end all of
    them, and profit_bps, traded, maker_share, peak.

    Args:
        interval: of the clock between two decisions, see ``ExecutionEnv``.
        decisions: decisions of an episode.
        max_position: lots held at most, of either sign; None: five usual orders of the start context.
        inventory_penalty: 1/1000 ticks for each lot that is held after a decision, in the reward only.
        penalty_shape: "linear", or "quadratic": for inventory^2 / limit lots.
        discrete: number the actions.
        reward: list of terms, see ``ExecutionEnv``; None for the six above.
        observation: "flat" or "dict".
        blocks: names of the blocks that are seen; None for all of ``POSITION_BLOCKS``.
        recent_events: events of the tape that are seen besides, up to 256.
        **market: as in ``ExecutionEnv``: ``flow``, ``clock``, ``context``, ``split``, ``seats``, ``engine_batch``,
            ``maker_fee``, ``taker_fee``, ``maker_rate``, ``taker_rate``, ``order_latency_ns``, ``data_latency_ns``,
            ``sampler``, ``counterfactual``.
        render_mode: None, "ansi" (the ladder as text) or "rgb_array" (the depth over time).

    Raises:
        TypeError: if there is no such argument.
        ValueError: if an argument is not allowed.

    ## Version history
    v0: first version.
    """

    role_type = TradingRole


class TradingVectorEnv(SessionVectorEnv):
    """N traders in N independent markets; row m equals ``TradingEnv`` seeded s + m.

    Arguments are those of ``SessionVectorEnv`` and of ``TradingEnv``.
    """

    role_type = TradingRole
