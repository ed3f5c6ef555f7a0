"""How big an exchange is and what it charges."""

from dataclasses import asdict, dataclass, fields, replace

from tradefm_gym.market.latency import Latency, each_seat, read_latencies

PREVENTION = ("off", "cancel_newest", "cancel_oldest", "cancel_both")
MAX_RATE = 100_000  # a tenth of the notional


@dataclass(frozen=True)
class MarketConfig:
    """Capacities and rules of N equal markets. JSON in, JSON out.

    An exhausted capacity refuses the order and counts it; a full queue is an error of the caller.
    """

    levels: int = 256  # price levels that have room at first; a power of two, 64 to 4096; more follow on need
    orders: int = 4096  # resting orders of a market at most, all owners together; memory follows on need
    seats: int = 1  # agents in a market
    flow_ids: int = 65536  # background order ids that can be told apart at a time
    agent_ids: int = 4096  # order ids of a seat: 0 <= id < agent_ids
    tape: int = 8192  # records kept per market
    fills: int = 8192  # fills kept per market
    flow_queue: int = 256  # background events waiting in a market
    agent_queue: int = 64  # agents' events waiting in a market, per seat
    self_trade: str | tuple[str, ...] = "cancel_newest"  # one of PREVENTION for all seats, or one for each
    maker_fee: int = 0  # 1/1000 ticks a lot; negative is a rebate
    taker_fee: int = 0  # 1/1000 ticks a lot
    maker_rate: int = 0  # parts per million of a fill's notional, besides the fee; negative is a rebate
    taker_rate: int = 0  # parts per million of a fill's notional, besides the fee
    order_latency: Latency | tuple[Latency, ...] = None  # of orders, for all seats or one each; see latency.py
    data_latency: Latency | tuple[Latency, ...] = None  # of all that a seat sees of the market
    tick: int = 1  # prices are its multiples
    lot: int = 1  # sizes are its multiples

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "self_trade":
                self._check_self_trade()
                continue
            if field.name in ("order_latency", "data_latency"):
                object.__setattr__(self, field.name, read_latencies(field.name, value, self.seats))
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name} is {value!r}; allowed is an int.")
            low, high = _RANGES[field.name]
            if not low <= value <= high:
                raise ValueError(f"{field.name} is {value}; allowed is {low} to {high}.")
        if self.levels & (self.levels - 1):
            raise ValueError(f"levels is {self.levels}; allowed is a power of two.")

    def _check_self_trade(self):
        if isinstance(self.self_trade, list):
            object.__setattr__(self, "self_trade", tuple(self.self_trade))
        for rule in self.preventions:
            if rule not in PREVENTION:
                raise ValueError(f"self_trade is {rule!r}; allowed are {', '.join(map(repr, PREVENTION))}.")
        if len(self.preventions) != self.seats:
            raise ValueError(
                f"self_trade has {len(self.preventions)} rules for {self.seats} seats; allowed is one each."
            )

    @property
    def preventions(self) -> tuple[str, ...]:
        """What keeps each seat from trading with itself; among background orders it is always allowed."""
        return (self.self_trade,) * self.seats if isinstance(self.self_trade, str) else self.self_trade

    @property
    def order_latencies(self) -> tuple[Latency, ...]:
        """How long the orders of each seat are on their way."""
        return each_seat(self.order_latency, self.seats)

    @property
    def data_latencies(self) -> tuple[Latency, ...]:
        """How old the market is that each seat sees."""
        return each_seat(self.data_latency, self.seats)

    @property
    def late_seats(self) -> tuple[int, ...]:
        """Seats that see an older market."""
        return tuple(seat for seat, latency in enumerate(self.data_latencies) if latency)

    @property
    def of_views(self) -> "MarketConfig":
        """The configuration of the markets that those seats see: nothing is under way in the past."""
        return replace(self, order_latency=None, data_latency=None)

    def to_json(self) -> dict:
        """A dict of plain numbers and strings, lists of them and such dicts."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "MarketConfig":
        """The inverse of :meth:`to_json`; missing keys take their defaults."""
        names = {field.name for field in fields(cls)}
        for name in values:
            if name not in names:
                raise ValueError(f"MarketConfig has no field {name!r}; allowed are {', '.join(sorted(names))}.")
        return cls(**values)


_RANGES = {
    "levels": (64, 4096),
    "orders": (1, 2**24),
    "seats": (0, 2**15 - 1),
    "flow_ids": (1, 2**30),
    "agent_ids": (1, 2**24),
    "tape": (1, 2**30),
    "fills": (1, 2**30),
    "flow_queue": (1, 2**24),
    "agent_queue": (1, 2**24),
    "maker_fee": (-(2**30), 2**30),
    "taker_fee": (-(2**30), 2**30),
    "maker_rate": (-MAX_RATE, MAX_RATE),
    "taker_rate": (-MAX_RATE, MAX_RATE),
    "tick": (1, 2**20),
    "lot": (1, 2**20),
}
