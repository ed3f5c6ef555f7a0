"""What one agent did in one market, written down while it happens: what recorders of all faces share."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.envs.episode import LEVELS, Episode
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.tasks import plain_row
from tradefm_gym.market.events import CANCEL, CANCELLED, PRINT, RESTED


class Recording:
    """The episodes of one seat in one row of a session, each forgotten when the next one begins.

    Args:
        session: the markets.
        environment: name of the environment's class.
        folder: where each finished episode is written; made if it is not there. None: only where ``save`` says.
        row: of the session.
        seat: the agent's.
        agent: its name, where there are several.
    """

    def __init__(
        self,
        session: TradingSession,
        environment: str,
        folder: str | os.PathLike | None = None,
        *,
        row: int = 0,
        seat: int = 0,
        agent: str = "",
    ):
        self.session, self.row, self.seat = session, row, seat
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._who = {"environment": environment} | ({"agent": agent} if agent else {})
        self._looks: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Begins an episode, which the session has just begun; forgets the one before."""
        session, row, tape = self.session, self.row, self.session.market.tape
        role: Any = session.roles[self.seat]
        start = plain_row(session.start_info(self.seat), row)
        self._records, self._fills = int(tape.record_count[row]), int(tape.fill_count[row])
        self._first, self._lost = self._records, 0
        self._looks, self._steps, self._own = [], [], []
        self._tape, self._trades = [tape.records[row, :0].copy()], [tape.fills[row, :0].copy()]
        self._about = self._who | {
            "terms": list(role.term_names), "sign": int(getattr(role, "sign", 1)),
            "basis_point": float(role.notional(role.state)[row]) / 10_000.0,
            "seed": int(session.seeds[row]), "episode": int(session.episodes[row]),
            "start": _plain(start), "final": {},
        }  # fmt: skip
        self._look(start["arrival_mid"], np.nan if session.twin is None else start["arrival_mid"])

    def decided(self, action: Any, reward: float, ended: bool) -> None:
        """Adds a decision, which the session has just carried out; an ended episode is written if there is a folder.

        Args:
            action: of the agent.
            reward: what it was paid.
            ended: terminated or truncated.
        """
        info = plain_row(self.session.step_info(self.seat), self.row)
        terms = [float(info["terms"][name]) for name in self._about["terms"]]
        self._steps.append((np.array(action, np.float64).reshape(-1), float(reward), terms))
        self._read_tape()
        self._look(info["mid"], info.get("twin_mid", np.nan))
        if ended:
            self._about["final"] = _plain(info | plain_row(self.session.final_info(self.seat), self.row))
            if self.folder is not None:
                self.save(self.folder / f"{self.name()}.npz")

    def name(self) -> str:
        """Of the file in the folder: seed, episode and, where there are several, agent."""
        parts = (self._about["seed"], self._about["episode"], self._who.get("agent", ""))
        return "-".join(str(part) for part in parts if part != "")

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
        fills = _fills(tape, trades, self.seat)
        width = 1 if not steps else len(steps[0][0])
        return Episode(
            **columns,
            own=np.array(self._own, np.int64).reshape(-1, 3),
            **{f"tape_{name}": tape[name].copy() for name in ("time_ns", "kind", "side", "price", "size", "mid2")},
            tape_own=tape["owner"] == self.seat,
            quotes=_quotes(tape, trades, fills["fill_event"], self.seat),
            **fills,
            actions=np.array([step[0] for step in steps]).reshape(-1, width),
            rewards=np.array([step[1] for step in steps], np.float64),
            terms=np.array([step[2] for step in steps], np.float64).reshape(-1, len(self._about["terms"])),
            about=self._about | {"lost": self._lost},
        )

    def _read_tape(self) -> None:
        tape, row = self.session.market.tape, self.row
        for ring, count, kept, name in (
            (tape.records[row], int(tape.record_count[row]), self._tape, "_records"),
            (tape.fills[row], int(tape.fill_count[row]), self._trades, "_fills"),
        ):
            first = max(getattr(self, name), count - len(ring))
            self._lost += first - getattr(self, name) if name == "_records" else 0
            kept.append(ring[np.arange(first, count) % len(ring)])
            setattr(self, name, count)

    def _look(self, mid: float, twin_mid: float) -> None:
        market, number, row = self.session.market, len(self._looks), self.row
        prices, sizes = market.depth(LEVELS)
        account = market.accounts[row, self.seat]
        self._looks.append({
            "time_ns": int(market.clock_ns[row]), "event": self._records - self._first - self._lost,
            "prices": prices[row].astype(np.int32), "sizes": sizes[row].astype(np.int32), "mid2": int(market.mid2[row]),
            "mid": float(mid), "twin_mid": float(twin_mid), "inventory": int(account["inventory"]),
            "cash": int(account["cash"]), "fees": int(account["fees"]),
        })  # fmt: skip
        role: Any = self.session.roles[self.seat]
        self._own += [(number, price, lots) for price, lots in role.resting_orders(row).items()]


def _fills(tape: np.ndarray, trades: np.ndarray, seat: int) -> dict[str, np.ndarray]:
    """Fills, and the events that executed them: those fill in the order of the tape, lot by lot."""
    filled = np.where((tape["kind"] == PRINT) | (tape["kind"] == CANCEL), 0, tape["filled"]).astype(np.int64)
    event = np.searchsorted(np.cumsum(filled), np.cumsum(trades["size"].astype(np.int64)))
    made, took = trades["maker"] == seat, trades["taker"] == seat
    side = np.where(made, -trades["taker_side"], np.where(took, trades["taker_side"], 0)).astype(np.int8)
    return {
        "fill_event": event, "fill_price": trades["price"].copy(), "fill_size": trades["size"].copy(),
        "fill_side": side, "fill_made": made,
    }  # fmt: skip


def _quotes(tape: np.ndarray, trades: np.ndarray, fill_event: np.ndarray, seat: int) -> np.ndarray:
    """Own orders while they rested, (q, 4): see ``Episode.quotes``."""
    found: list[list[int]] = []
    live: dict[int, tuple[int, int]] = {}  # by id: which of these, and its lots
    mine, made = np.flatnonzero(tape["owner"] == seat), np.flatnonzero(trades["maker"] == seat)
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
