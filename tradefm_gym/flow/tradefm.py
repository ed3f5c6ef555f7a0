"""TradeFM as background flow: it reads the tape, agents' events included, and proposes the next event.

One call advances every wanted row by one event. The rows share one batch of the engine:

    tape -> features -> inputs -> engine cache -> token -> (price, size, time) -> proposal

The cache is a function of the tape: a row that is full is filled again from its last T/2 events.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import flag, numbers, one_of, row_numbers, shortened, whole
from tradefm_gym.flow import tilting
from tradefm_gym.flow import tradefm_kernels as kernels
from tradefm_gym.flow.cancels import YOUNGEST
from tradefm_gym.flow.habits import Habits
from tradefm_gym.flow.indicators import INDICATORS, LEVELS, TIERS, UNTOLD, tell
from tradefm_gym.flow.leading import AGENT_MEMORY
from tradefm_gym.flow.placement import PLACEMENT_WIDTH
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.flow.repeating import REPEATING
from tradefm_gym.flow.row_state import RowState, checked_state, owner_of_flow
from tradefm_gym.flow.stream_state import HABITS, stream_states
from tradefm_gym.flow.warmup import bank_of, stream_before
from tradefm_gym.market.events import CANCEL_NEAREST, CANCEL_WHOLE, EventBlock
from tradefm_gym.market.features import FEATURE_STATE, FEATURES, observe
from tradefm_gym.market.readings import FEW
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.model.closed_loop import ClosedLoop, check_number, check_persistence
from tradefm_gym.model.config import load_weights
from tradefm_gym.model.corrections import Moves
from tradefm_gym.model.engine_protocol import LEAST_TEMPERATURE
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint, make_engine, model_name
from tradefm_gym.model.tokenizer import TradeTokenizer

_CONTEXTS = Path(__file__).parent / "contexts"
_QUEUE = 128  # events a row that one pass over the tape takes in

CANCEL_POLICIES = {"matched": CANCEL_WHOLE, "whole": CANCEL_WHOLE, "nearest": CANCEL_NEAREST}
PLACEMENTS = ("book", "drawn")
ANCHORS = ("market", "background")


class TradeFMFlow:
    """A TradeFM network in a closed loop with N markets. Satisfies ``FlowModel``.

    Args:
        model: name of a bundled model, path of a checkpoint folder, or ``hf://organisation/name[@revision]`` on the
            Hugging Face Hub; ``@`` and the model's hash may follow, and then anything else is refused.
        num_envs: N.
        engine_batch: rows of the engine's batch, at least N (default N).
        backend: "numba" (small models, no torch), "torch", or "auto" by size.
        device: device of the torch backend.
        bank: start states; default the bundled ones.
        context: path of a context bank (.npz), or of a recorded day to warm up from (see ``warmup.bank_of``).
        temperature: of sampling, at least 1e-6.
        cancel: what a generated cancel, which has no id, removes: "matched" = an order of its size in its depth bin
            (see ``cancels``), and where none lies there "whole" or, on a thin side, nothing; "whole" = the one order
            of the nearest level whose size is nearest; "nearest" = newest first, spilling until the size is used up.
        placement: "book" lets the book decide where in its depth bin an order lies (see ``placement``); "drawn" is the
            paper's decoding, blind to the book.
        flag_agents: whether agents' events carry the participant flag (false is an ablation arm).
        deterministic: decode the median of each bin instead of a draw.
        anchor: which mid a price counts from, where it counts from the book's: "market" = with everybody's orders,
            "background" = without the agents' (an arm that shows how far the market follows an agent's quotes).
        persistence: how much order-flow pressure moves the side of takers (see ``model.closed_loop``); default what the
            checkpoint says, (0, 0) is the network as it was trained. Habits that tell how takers repeat replace it.
        following: share of what follows real takers that follows agents' (likewise, and see ``followers``); without
            ``flag_agents`` there is none.
        answering: how much is offered to those who follow agents (likewise).
        restoring: how much a dense side makes its cancels likelier (likewise); 0 is the network as it was trained.
        habits: of the asset that all start states are of, or the path of a file of them (``tradefm-gym fit tradefm``),
            found with this very network; default what the start states say.
        staggered: whether rows are filled again at different events, so that a step has about as many refills as any
            other: the first refill of an episode comes between T/2 and T inputs, by the row's own seed. Default: on a
            GPU, where all markets would wait for it.
        parts: ranges of rows that a torch engine decodes each by itself, 2 for ``halves``.
    """

    block = 1
    follows_tape = True

    def __init__(
        self,
        model: str | Path = BUNDLED_MODEL,
        num_envs: int = 1,
        *,
        engine_batch: int | None = None,
        backend: str = "auto",
        device: str = "cpu",
        bank: ContextBank | None = None,
        context: str | Path | None = None,
        temperature: float = 1.0,
        cancel: str = "matched",
        placement: str = "book",
        flag_agents: bool = True,
        deterministic: bool = False,
        anchor: str = "market",
        persistence: tuple[float, float] | None = None,
        following: float | None = None,
        answering: float | None = None,
        restoring: float | None = None,
        habits: Habits | str | Path | None = None,
        staggered: bool | None = None,
        parts: int = 1,
    ):
        num_envs, self.parts = whole("num_envs", num_envs, 1), whole("parts", parts, 1)
        least = num_envs + -num_envs % self.parts
        engine_batch = whole("engine_batch", least if engine_batch is None else engine_batch, num_envs)
        one_of("cancel", cancel, tuple(CANCEL_POLICIES))
        one_of("placement", placement, PLACEMENTS)
        one_of("anchor", anchor, ANCHORS)
        flag_agents, deterministic = flag("flag_agents", flag_agents), flag("deterministic", deterministic)
        self.staggered = device != "cpu" if staggered is None else flag("staggered", staggered)
        heat = numbers(temperature)
        if heat is None or heat.shape != () or not LEAST_TEMPERATURE <= heat <= np.finfo(np.float32).max:
            said = f"a positive number of at least {LEAST_TEMPERATURE:g} and finite in float32"
            raise ValueError(f"temperature is {shortened(temperature)}; it must be {said}")
        if bank is not None and not isinstance(bank, ContextBank):
            raise ValueError(f"bank is {shortened(bank)}; it must be a ContextBank or None")
        if context is not None and not isinstance(context, (str, Path)):
            raise ValueError(f"context is {shortened(context)}; it must be a path or None")
        folder, self.model_hash = checkpoint(model)
        self.name = f"tradefm:{model_name(folder)}@{self.model_hash}"
        self.num_envs = num_envs
        self.tokenizer = TradeTokenizer.load(folder)
        self.config, weights = load_weights(folder)
        self.tokenizer.check_network(self.config, folder)
        closed_loop = ClosedLoop.load(folder)
        self.persistence = closed_loop.persistence if persistence is None else check_persistence(persistence)
        self._persistence = np.array(self.persistence)
        self.following = closed_loop.following if following is None else check_number("following", following, 1)
        self.answering = closed_loop.answering if answering is None else check_number("answering", answering, 4)
        self.restoring = closed_loop.restoring if restoring is None else check_number("restoring", restoring, 10)
        if bank is not None and context is not None:
            raise ValueError(f"context {str(context)!r} was given beside a bank; only one of the two is allowed")
        if bank is None and context is not None:
            bank = bank_of(context, self.tokenizer)
        if bank is None:
            own = _CONTEXTS / f"{folder.name}.npz"  # a bundled model's
            bank = ContextBank.load(own if own.exists() else _CONTEXTS / f"{BUNDLED_MODEL}.npz")
        if habits is not None and not isinstance(habits, (Habits, str, Path)):
            raise ValueError(f"habits is {shortened(habits)}; it must be Habits, a path or None")
        self.habits = Habits.load(habits) if isinstance(habits, (str, Path)) else habits
        if self.habits is not None:
            self.habits.check_model(self.model_hash)
        self.bank = bank = bank if self.habits is None else self.habits.told(bank)
        # As many rows are filled again at a step as come to it when they are spread; larger groups would read padding.
        prefill = max(1, engine_batch // (self.config.context // 2)) if self.staggered else None
        self.engine = make_engine(self.config, weights, engine_batch, backend, device, parts, prefill)
        self.temperature, self.cancel, self.placement, self.anchor = temperature, cancel, placement, anchor
        self.flag_agents, self.deterministic = flag_agents, deterministic
        self._served = {"model": folder, "backend": backend, "device": device, "parts": parts}
        arms = f"{temperature} {cancel} {placement} {flag_agents} {deterministic} {self.persistence} {self.restoring}"
        arms += "" if anchor == "market" else f" {anchor}"
        arms += f" {self.following}" if self.following else ""
        arms += f" {self.answering}" if self.answering else ""
        arms += " staggered" if self.staggered else ""
        self.version = hashlib.sha256(f"{self.model_hash} {self.bank.digest()} {arms}".encode()).hexdigest()[:12]

        n, t = num_envs, self.config.context
        self._tables = np.tile(self.tokenizer.tables, (n, 1, 1, 1))
        self._lasting, self._trimmed = np.zeros(n), np.zeros(n)
        self._decoding = kernels.Decoding(
            self._tables, anchor == "market", self._lasting, self._trimmed, self.tokenizer.depth_edges,
            self.tokenizer.volume_edges, CANCEL_POLICIES[cancel], cancel == "matched", placement == "book",
            deterministic,
        )  # fmt: skip
        self._classes = _indicator_classes(self.tokenizer)
        self._states = np.zeros(n, FEATURE_STATE)
        self._placement = np.full((n, PLACEMENT_WIDTH), -1.0)
        self._agents = np.zeros((n, AGENT_MEMORY))
        self._followers = np.zeros((n, 2))
        self._habits, self._repeating, self._meeting = np.zeros((n, *HABITS)), np.zeros((n, REPEATING)), np.zeros(n)
        self._cursor = np.zeros(n, np.int64)
        self._history = np.zeros((n, max(t, t // 2 + _QUEUE), 4), np.int32)  # ring of the last inputs
        self._seen = np.zeros(n, np.int64)
        self._queue = np.zeros((n, _QUEUE, 4), np.int32)
        self._fixed = np.full((n, len(INDICATORS)), UNTOLD, np.int64)
        self._shift = np.zeros((n, len(INDICATORS)), np.int64)
        self._scratch = np.zeros((n, 1), FEATURES)
        self._seeds = np.zeros(n, np.uint64)
        self._episodes = np.zeros(n, np.uint32)
        self._proposals = np.zeros(n, np.int64)
        self._bits = np.zeros((engine_batch, 5), np.uint32)
        self._inputs = np.zeros((engine_batch, _QUEUE, 4), np.int32)
        self._counts, self._ends = np.zeros(engine_batch, np.int64), np.zeros(n, np.int64)
        self._first = np.full(n, t, np.int64)  # the length at which a row is filled again for the first time
        self._active = np.zeros(engine_batch, np.bool_)
        self._moves, self._unmoved = Moves.none(engine_batch), np.ones((engine_batch, 2))
        self._begun: list[tuple[np.ndarray, Callable]] = []  # rows, and what waits for their tokens and strengths
        self._dense = np.zeros((n, 2))  # of bids and asks
        self._uniforms, self._youngest = np.zeros((n, 5)), np.zeros((n, 2, YOUNGEST), np.int64)
        # Of all start states, not of those in rows just now: no row's draw may depend on its neighbours.
        stored = self.bank.feature_state
        names = set() if stored is None else set(stored.dtype.names or ())
        has_habits = stored is not None and any(
            stored[name].any() for name in {"habits", "repeating", "meeting"} & names
        )
        self._is_moved = bool(self._persistence.any() or self.following or self.restoring or has_habits)
        # The Numba engine's threads may go on with a row that it has read; a device has all rows drawn at once.
        self._by_rows = hasattr(self.engine, "read")
        self._tokens, self._strength = np.zeros(n, np.int32), np.ones((n, 2))
        self._reads, self._events = np.zeros((3, n), np.int64), np.empty((n * t, 4), np.int32)
        self._starts: dict[int, tuple[np.ndarray, np.ndarray, Any]] = {}

    def market_config(self, seats: int = 1) -> MarketConfig:
        """Capacities of a market for this flow and ``seats`` agents."""
        return MarketConfig(seats=seats)

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Load start states into rows: book, tape and cache. Arguments as in ``FlowModel.reset``."""
        chosen = np.flatnonzero(rows)
        self._begun = []
        self.bank.load_into(market, chosen, contexts[chosen])
        self._prepare(chosen, contexts)
        for context in np.unique(contexts[chosen]).tolist():
            same = chosen[contexts[chosen] == context]
            state, inputs, cache = self._starts[context]
            self._states[same], self._placement[same] = state["stream"], state["placement"]
            self._followers[same], self._habits[same] = state["followers"], state["habits"]
            self._repeating[same], self._meeting[same] = state["repeating"], state["meeting"]
            self._tables[same] = np.where(np.isnan(state["tables"]), self.tokenizer.tables, state["tables"])
            self._lasting[same], self._trimmed[same] = state["lasting"], state["trimmed"]
            self._history[same, : len(inputs)] = inputs
            self._seen[same] = len(inputs)
            self.engine.import_row(int(same[0]), cache)
            self.engine.copy_rows(np.repeat(same[:1], len(same) - 1), same[1:])
        self._seeds[chosen] = seeds[chosen]
        self._episodes[chosen] = episodes[chosen]
        self._proposals[chosen] = 0
        if self.staggered:
            kernels.first_refills(self._seeds, self._episodes, chosen, self.config.context, self._first)
        self._agents[chosen] = 0.0
        self._fixed[chosen], self._shift[chosen] = UNTOLD, 0
        self._cursor[chosen] = market.tape.record_count[chosen]

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """One proposal for each wanted row."""
        block = EventBlock.empty(self.num_envs, 1)
        if not wanted.any():
            return block
        if self._by_rows and not self._begun:
            self._draw_by_rows(market, wanted, block)
            return block
        tokens, strength = self._drawn(market, wanted)
        _over(kernels, "propose", self.num_envs)(
            tokens, wanted, self._states, self._placement, self._seeds, self._episodes, self._proposals,
            market.clock_ns, market.book, self._dense, strength, self._decoding, block.events, block.count,
            self._uniforms, self._youngest,
        )  # fmt: skip
        return block

    def begin(self, market: MarketSimulator, wanted: np.ndarray) -> None:
        """Begins what ``next_events`` does for wanted rows; it may be left out.

        Where the engine is on a GPU this returns while the device still works, and the markets of other rows can go on
        meanwhile (see ``halves``). Nothing may happen in the rows until ``next_events`` is called for them.
        """
        if not wanted.any():
            return
        self._absorb(market, wanted)
        self._active[: self.num_envs] = wanted
        _over(kernels, "prepare", self.num_envs)(
            self._seeds, self._episodes, self._proposals, wanted, self._bits, market.book, self._corrections(),
            self._dense, self._states, self._agents, self._placement, self._moves,
        )  # fmt: skip
        if self._is_moved:
            result = self.engine.start_sample(self._bits, self._active, self.temperature, self._moves)
        else:
            drawn = self.engine.sample(self._bits, self._active, temperature=self.temperature), self._unmoved
            result = lambda: drawn  # noqa: E731
        self._begun.append((wanted.copy(), result))

    def _draw_by_rows(self, market: MarketSimulator, wanted: np.ndarray, block: EventBlock) -> None:
        """What ``next_events`` proposes, each row's as soon as the engine has read what is new, in its threads."""
        draw, scale, corrections = self.engine.draw, np.float32(1 / self.temperature), self._corrections()
        own, now = (self._seeds, self._episodes, self._proposals, self._bits), market.clock_ns

        def propose(rows: np.ndarray) -> None:
            kernels.draw_rows(
                rows, wanted, draw, scale, self._is_moved, *own, corrections, self._agents, self._moves, self._tokens,
                self._states, self._placement, now, market.book, self._dense, self._strength, self._decoding,
                block.events, block.count, self._uniforms, self._youngest,
            )  # fmt: skip

        self._absorb(market, wanted, propose)

    def _corrections(self) -> tilting.Corrections:
        followers = self.following * self._followers
        asset = self._habits, self._repeating, self._meeting
        return tilting.Corrections(self._persistence, followers, self.answering, self.restoring, *asset)

    def _drawn(self, market: MarketSimulator, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and strengths of wanted rows: what was begun for them, or what is begun now."""
        mine = [one for one in self._begun if (one[0] & wanted).any()]
        covered = np.zeros(self.num_envs, np.bool_)
        for rows, _ in mine:
            covered |= rows
        if (wanted & ~covered).any() or (market.tape.record_count != self._cursor)[wanted].any():
            self._begun = []
            self.begin(market, wanted)
            mine = self._begun
        self._begun = [one for one in self._begun if not any(one is used for used in mine)]
        tokens, strength = mine[0][1]()
        for rows, result in mine[1:]:
            others, their_strength = result()
            tokens[: self.num_envs][rows] = others[: self.num_envs][rows]
            strength[: self.num_envs][rows] = their_strength[: self.num_envs][rows]
        return tokens, strength

    @property
    def indicators(self) -> dict[str, int]:
        """The control indicators that this network is told, and how many classes each has."""
        return {name: int(count) for name, count in zip(INDICATORS, self._classes, strict=True) if count > 1}

    def set_indicators(self, rows: np.ndarray, fixed: np.ndarray, shift: np.ndarray) -> None:
        """Has rows told other classes of the indicators than their tapes show, from the next event to the next reset.

        Args:
            rows: (k,) integers, all different.
            fixed: (k, 9) int64 in the order of ``INDICATORS``, a class that is told instead, or UNTOLD.
            shift: (k, 8) int64, classes that are added where nothing is fixed; what comes out is clipped.
        """
        self._begun = []
        self._fixed[rows], self._shift[rows] = fixed, shift

    def feature_state(self, row: int) -> np.ndarray:
        """``() STREAM_STATE`` of a row: what its stream has accumulated up to the last event read; a copy."""
        placement, followers = tuple(self._placement[row]), tuple(self._followers[row])
        names = ("tables", "habits", "lasting", "trimmed", "repeating", "meeting")
        asset = {name: getattr(self, f"_{name}")[row] for name in names}
        return stream_states(self._states[row : row + 1], placement, followers, **asset)[0]

    @property
    def records_read(self) -> np.ndarray:
        """Tape records (N,) int64 that the streams have taken in; a copy."""
        return self._cursor.copy()

    # ---- copies --------------------------------------------------------------------------------

    def for_markets(self, num_envs: int) -> "TradeFMFlow":
        """Another flow of the same settings, its engine's batch no smaller (see ``FlowModel.for_markets``)."""
        least = num_envs + -num_envs % self.parts
        return TradeFMFlow(
            **self._served, num_envs=num_envs, engine_batch=max(least, self.engine.batch), bank=self.bank,
            temperature=self.temperature, cancel=self.cancel, placement=self.placement, flag_agents=self.flag_agents,
            deterministic=self.deterministic, anchor=self.anchor, persistence=self.persistence,
            following=self.following, answering=self.answering, restoring=self.restoring, habits=self.habits,
            staggered=self.staggered,
        )  # fmt: skip

    def snapshot(self, rows: np.ndarray | None = None) -> RowState:
        """What is remembered of rows, their caches included (see ``FlowModel.snapshot``).

        A cache is copied, not made anew from the inputs: what a prefill makes may differ in its last bits from what
        came event by event. With the torch engine a row goes on bit for bit in the same row of an equal batch only.
        """
        rows = row_numbers(rows, self.num_envs, repeats=True)
        caches = {row: self.engine.export_row(row) for row in set(rows.tolist())}
        column = np.empty(len(rows), object)
        for i, row in enumerate(rows.tolist()):
            column[i] = caches[row]
        kept = RowState.of(self._owner(), self._kept(), rows)
        column.flags.writeable = False
        return RowState(kept.owner, {**kept.arrays, "cache": column})

    def restore(self, state: RowState, rows: np.ndarray | None = None) -> None:
        """Puts a snapshot into rows (see ``FlowModel.restore``)."""
        rows = row_numbers(rows, self.num_envs)
        checked_state(state).check(self.snapshot(rows[:0]), len(rows))
        self._begun = []
        state.put(self._kept(), rows)
        for row, cache in zip(rows.tolist(), state.arrays["cache"], strict=True):
            self.engine.import_row(row, cache)

    def _owner(self) -> str:
        return f"{owner_of_flow(self)} on {type(self.engine).__name__} ({self._served['device']})"

    def _kept(self) -> dict[str, np.ndarray]:
        """What is remembered of each row besides its cache; all other arrays are room to work."""
        names = (
            "states", "placement", "agents", "followers", "habits", "lasting", "trimmed", "repeating", "meeting",
            "tables", "cursor", "history", "seen", "fixed", "shift", "first", "seeds", "episodes", "proposals",
        )  # fmt: skip
        return {name: getattr(self, f"_{name}") for name in names}

    # ---- the tape -> the cache ---------------------------------------------------------------

    def _absorb(self, market: MarketSimulator, wanted: np.ndarray, then: Callable | None = None) -> None:
        """Bring the caches of wanted rows up to the end of their tapes; ``then`` is as ``NumbaEngine.read`` has it."""
        tape = market.tape
        ring = tape.records.shape[1]
        if (tape.record_count - self._cursor)[wanted].max(initial=0) > ring:
            raise RuntimeError(f"the tape of {ring} records was overrun before the flow read it; use a longer tape")
        queued = np.zeros(self.num_envs, np.int64)
        longest = _QUEUE
        while longest == _QUEUE:
            _over(kernels, "read_tape", self.num_envs)(
                tape.records, tape.record_count, self._cursor, wanted, self._states, self._agents, self._scratch,
                self.tokenizer.edges, self.flag_agents, self._queue, queued, self._history, self._seen,
            )  # fmt: skip
            tell(self._queue, queued, self._classes, self._fixed, self._shift, self._history, self._seen)
            longest = int(queued.max(initial=0))
            if longest < _QUEUE and self.anchor == "background":
                mid, age = 0.5 * market.mid2_excluding(None), np.abs(self._states["taker"])
                came = wanted & (age > 0) & (age <= queued)  # a taker among what was just read
                self._states["book_mid"][wanted], self._states["taker_mid"][came] = mid[wanted], mid[came]
            if longest < _QUEUE and then is not None:
                self._read(queued, wanted, then)
            elif longest:
                self._append(queued)

    def _read(self, queued: np.ndarray, wanted: np.ndarray, then: Callable[[np.ndarray], None]) -> None:
        """Has wanted rows read what is queued (N,), as ``_append`` does, all in one go with what follows."""
        context, lengths, counts = self.config.context, self.engine.lengths, self._counts[: self.num_envs]
        kernels.plan_appends(self._queue, queued, lengths, self._seen, context, self._first, counts, self._ends)
        count = kernels.list_reads(
            wanted, self._history, self._seen, counts, self._ends, lengths, context, *self._reads, self._events
        )
        self.engine.read(*self._reads[:, :count], self._events, then)

    def _append(self, queued: np.ndarray) -> None:
        """Appends what is queued (N,) in each row; one that gets full is filled again from its last T/2 inputs."""
        n, half, counts, ends = self.num_envs, self.config.context // 2, self._counts[: self.num_envs], self._ends
        kernels.plan_appends(
            self._queue, queued, self.engine.lengths, self._seen, self.config.context, self._first, counts, ends
        )
        refilled = np.flatnonzero(ends)
        if len(refilled):
            last = np.empty((len(refilled), half, 4), np.int32)
            _over(kernels, "recall", len(refilled))(self._history, refilled, ends[refilled], last)
            self.engine.prefill(refilled, list(last))
        if longest := int(counts.max(initial=0)):
            self._inputs[:n, :longest] = self._queue[:, :longest]
            self.engine.extend(self._inputs[:, :longest], self._counts)

    # ---- start states ------------------------------------------------------------------------

    def _prepare(self, rows: np.ndarray, contexts: np.ndarray) -> None:
        """Compute what resets to these contexts copy: feature state, inputs and cache."""
        fresh = {int(contexts[row]): int(row) for row in rows.tolist() if int(contexts[row]) not in self._starts}
        if not fresh:
            return
        inputs = {}
        for context in fresh:
            start = self.bank.state(context)
            state = stream_before(start, self.tokenizer.half_life_s, self.tokenizer.mid_mode)
            stream = state["stream"].astype(FEATURE_STATE)
            features, _ = observe(stream, start.records)
            state["stream"] = stream
            features = features[features["valid"] == 1]
            if not len(features):
                raise ValueError(f"context {context} holds no event with a known mid; TradeFM needs at least one")
            inputs[context] = self.tokenizer.encode(features[-(self.config.context // 2) :])
            self._starts[context] = (state[0].copy(), inputs[context], None)
        borrowed = np.array(list(fresh.values()))
        self.engine.prefill(borrowed, [inputs[c] for c in fresh])
        for context, row in fresh.items():
            state, tokens, _ = self._starts[context]
            self._starts[context] = (state, tokens, self.engine.export_row(row))


def _indicator_classes(tokenizer: TradeTokenizer) -> np.ndarray:
    """Classes (9,) int64 of each of ``INDICATORS``; 1 where the network is not told it."""
    pressures, wide, touch = (
        tokenizer.pressure_edges.shape[1] + 1, len(tokenizer.wide_edges) + 1, len(tokenizer.touch_edges) + 1,
    )  # fmt: skip
    level = 1 if tokenizer.books else LEVELS
    classes = [TIERS, tokenizer.spreads, pressures, pressures, level, wide, touch, touch, tokenizer.paces]
    return np.array(classes, np.int64)


def _over(module, name: str, count: int):
    """A kernel's loop over so many rows, in this thread or over all."""
    return getattr(module, name if count < FEW else f"{name}_parallel")
