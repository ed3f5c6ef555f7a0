"""A Gymnasium wrapper that records episodes, for ``tradefm-gym view`` and for studies of one's own."""

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tradefm_gym.arguments import shortened
from tradefm_gym.envs.episode import LEVELS, Episode
from tradefm_gym.envs.single_env import SessionEnv
from tradefm_gym.market.events import CANCEL, CANCELLED, PRINT, RESTED


class EpisodeRecorder(gymnasium.Wrapper):
    """Records what happens in a single environment; nothing of what is seen or paid changes.

    Wrappers around it may change actions and rewards; recorded is what reaches the environment and comes from it.

    Args:
        env: ``TradeFM/Execution-v0`` or another one of a single agent.
        folder: where each finished episode is written as ``SEED-EPISODE.npz``; None: only where ``save`` says.

    Raises:
        ValueError: if it is another environment.
    """

    def __init__(self, env: gymnasium.Env, folder: str | os.PathLike | None = None):
        super().__init__(env)
        if not isinstance(env.unwrapped, SessionEnv):
            raise ValueError(f"env is {shortened(env)}; it must be one of TradeFM's environments of a single agent")
        self.session = env.unwrapped.session
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._looks: list[dict[str, Any]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, and forgets the one before."""
        observation, info = self.env.reset(seed=seed, options=options)
        tape = self.session.market.tape
        role: Any = self.session.role
        self._records, self._fills = int(tape.record_count[0]), int(tape.fill_count[0])
        self._first, self._lost = self._records, 0
        self._looks, self._steps, self._own = [], [], []
        self._tape, self._trades = [tape.records[0, :0].copy()], [tape.fills[0, :0].copy()]
        self._about = {
            "environment": type(self.env.unwrapped).__name__, "terms": list(role.term_names),
            "sign": int(getattr(role, "sign", 1)), "basis_point": float(role.notional(role.state)[0]) / 10_000.0,
            "seed": int(self.session.seeds[0]), "episode": int(self.session.episodes[0]),
            "start": _plain(info), "final": {},
        }  # fmt: skip
        self._look(info["arrival_mid"], np.nan if self.session.twin is None else info["arrival_mid"])
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One decision; the episode is written at its end if there is a folder."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        terms = [float(info["terms"][name]) for name in self._about["terms"]]
        self._steps.append((np.array(action, np.float64).reshape(-1), float(reward), terms))
        self._read_tape()
        self._look(info["mid"], info.get("twin_mid", np.nan))
        if terminated or truncated:
            self._about["final"] = _plain(info)
            if self.folder is not None:
                self.save(self.folder / f"{self._about['seed']}-{self._about['episode']}.npz")
        return observation, float(reward), terminated, truncated, info

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the episode as far as it has come."""
        return self.episode().save(path)

    def episode(self) -> Episode:
        """The episode as far as it has come.

        Raises:
            ValueError: if none has begun.
        """
        if not self._looks:
            raise ValueError("no episode has begun; call reset first")
        columns = {name: np.array([look[name] for look in self._looks]) for name in self._looks[0]}
        tape, trades, steps = np.concatenate(self._tape), np.concatenate(self._trades), self._steps
        fills = _fills(tape, trades)
        width = 1 if not steps else len(steps[0][0])
        return Episode(
            **columns,
            own=np.array(self._own, np.int64).reshape(-1, 3),
            **{f"tape_{name}": tape[name].copy() for name in ("time_ns", "kind", "side", "price", "size", "mid2")},
            tape_own=tape["owner"] == 0,
            quotes=_quotes(tape, trades, fills["fill_event"]),
            **fills,
            actions=np.array([step[0] for step in steps]).reshape(-1, width),
            rewards=np.array([step[1] for step in steps], np.float64),
            terms=np.array([step[2] for step in steps], np.float64).reshape(-1, len(self._about["terms"])),
            about=self._about | {"lost": self._lost},
        )

    def _read_tape(self) -> None:
        tape = self.session.market.tape
        for ring, count, kept, name in (
            (tape.records[0], int(tape.record_count[0]), self._tape, "_records"),
            (tape.fills[0], int(tape.fill_count[0]), self._trades, "_fills"),
        ):
            first = max(getattr(self, name), count - len(ring))
            self._lost += first - getattr(self, name) if name == "_records" else 0
            kept.append(ring[np.arange(first, count) % len(ring)])
            setattr(self, name, count)

    def _look(self, mid: float, twin_mid: float) -> None:
        market, number = self.session.market, len(self._looks)
        prices, sizes = market.depth(LEVELS)
        account = market.accounts[0, 0]
        self._looks.append({
            "time_ns": int(market.clock_ns[0]), "event": self._records - self._first - self._lost,
            "prices": prices[0].astype(np.int32), "sizes": sizes[0].astype(np.int32), "mid2": int(market.mid2[0]),
            "mid": float(mid), "twin_mid": float(twin_mid), "inventory": int(account["inventory"]),
            "cash": int(account["cash"]), "fees": int(account["fees"]),
        })  # fmt: skip
        self._own += [(number, price, lots) for price, lots in self.session.role.resting_orders(0).items()]


def _fills(tape: np.ndarray, trades: np.ndarray) -> dict[str, np.ndarray]:
    """Fills, and the events that executed them: those fill in the order of the tape, lot by lot."""
    filled = np.where((tape["kind"] == PRINT) | (tape["kind"] == CANCEL), 0, tape["filled"]).astype(np.int64)
    event = np.searchsorted(np.cumsum(filled), np.cumsum(trades["size"].astype(np.int64)))
    made, took = trades["maker"] == 0, trades["taker"] == 0
    side = np.where(made, -trades["taker_side"], np.where(took, trades["taker_side"], 0)).astype(np.int8)
    return {
        "fill_event": event, "fill_price": trades["price"].copy(), "fill_size": trades["size"].copy(),
        "fill_side": side, "fill_made": made,
    }  # fmt: skip


def _quotes(tape: np.ndarray, trades: np.ndarray, fill_event: np.ndarray) -> np.ndarray:
    """Own orders while they rested, (q, 4): see ``Episode.quotes``."""
    found: list[list[int]] = []
    live: dict[int, tuple[int, int]] = {}  # by id: which of these, and its lots
    mine, made = np.flatnonzero(tape["owner"] == 0), np.flatnonzero(trades["maker"] == 0)
    less = [(int(fill_event[i]), int(trades["maker_id"][i]), int(trades["size"][i])) for i in made]
    more: list[tuple[int, int, int]] = []
    for i in mine:
        record = tape[i]
        if record["kind"] == CANCEL and record["status"] == CANCELLED:
            less.append((int(i), int(record["order_id"]), int(record["size"])))
        elif record["status"] == RESTED:
            more.append((int(i), int(record["order_id"]), int(record["size"] - record["filled"])))
    for event, order, lots in sorted([(e, o, -size) for e, o, size in less] + more, key=lambda change: change[0]):
        number, left = live.pop(order, (-1, 0))
        if number >= 0 and (lots > 0 or left + lots <= 0):
            found[number][1] = event
        elif number >= 0:
            live[order] = number, left + lots
        if lots > 0:
            live[order] = len(found), lots
            found.append([event, len(tape), int(tape["price"][event]), lots])
    return np.array(found, np.int64).reshape(-1, 4)


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """What of an info can be said in JSON."""
    plain = {}
    for name, value in info.items():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, (str, int, float, bool)):
            plain[name] = value
    return plain
