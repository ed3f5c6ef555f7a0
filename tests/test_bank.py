import numpy as np
import pytest

from tradefm_gym.data.archive import pack, read_archive, unpack, write_archive
from tradefm_gym.flow.protocol import SCALE, ContextBank, StartState
from tradefm_gym.market.events import BACKGROUND, BUY, LIMIT, ORDER, RECORD, SELL
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator


def state(seed: int, orders: int = 6, records: int = 5) -> StartState:
    draw = np.random.default_rng(seed)
    resting = np.zeros(orders, ORDER)
    resting["order_id"] = draw.permutation(orders)
    resting["owner"] = BACKGROUND
    resting["side"] = np.where(np.arange(orders) % 2, BUY, SELL)
    resting["price"] = 1000 - resting["side"] * draw.integers(1, 9, orders)
    resting["size"] = draw.integers(1, 500, orders)
    tape = np.zeros(records, RECORD)
    tape["time_ns"] = 10**12 + np.cumsum(draw.integers(0, 10**9, records))
    tape["kind"], tape["owner"], tape["side"] = LIMIT, BACKGROUND, BUY
    tape["price"], tape["size"] = draw.integers(900, 1000, records), draw.integers(1, 10**6, records)
    tape["mid2"] = 2000
    scale = np.ones((), SCALE)
    scale["spread"] = seed + 0.5
    return StartState(resting, tape, 10**12 + 10**10 + seed, 2000, orders + seed, scale)


def bank(count: int = 5, features: bool = False) -> ContextBank:
    states = [state(i, orders=2 + 2 * i, records=i) for i in range(count)]
    if features:
        dtype = np.dtype([("decayed", np.float64), ("ids", np.int32, (3,))])
        states = [s._replace(feature_state=np.full((), i, dtype)) for i, s in enumerate(states)]
    return ContextBank.from_states(states, np.arange(count) % 3, "test")


def assert_same(left: ContextBank, right: ContextBank) -> None:
    for name in ("order_start", "record_start", "clock_ns", "mid2", "next_id", "scale", "split_code"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    np.testing.assert_array_equal(left.records, right.records)
    for field in ("order_id", "time_ns", "price", "size", "owner", "side"):
        np.testing.assert_array_equal(left.orders[field], right.orders[field])
    assert left.origin == right.origin and left.digest() == right.digest()


@pytest.mark.parametrize("features", [False, True])
def test_a_saved_bank_comes_back_the_same(tmp_path, features):
    original = bank(features=features)
    original.save(tmp_path / "bank.npz")
    loaded = ContextBank.load(tmp_path / "bank.npz")
    assert_same(original, loaded)
    if features:
        np.testing.assert_array_equal(original.feature_state, loaded.feature_state)
        assert loaded.state(2).feature_state["ids"].tolist() == [2, 2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank.npz"]


def test_the_parts_divide_the_bank():
    parts = [bank().split(name) for name in ("train", "validation", "test")]
    assert [part.tolist() for part in parts] == [[0, 3], [1, 4], [2]]
    with pytest.raises(ValueError, match="split 'all' is not known; allowed are train, validation, test"):
        bank().split("all")


def test_states_come_out_as_they_went_in():
    for i in range(5):
        out, original = bank().state(i), state(i, orders=2 + 2 * i, records=i)
        np.testing.assert_array_equal(out.orders, original.orders)
        np.testing.assert_array_equal(out.records, original.records)
        assert out[2:5] == original[2:5]


def test_loading_fills_only_the_rows_named():
    market = MarketSimulator(4, MarketConfig())
    source = bank()
    source.load_into(market, np.array([3, 1]), np.array([4, 0]))
    assert market.clock_ns.tolist() == [0, source.clock_ns[0], 0, source.clock_ns[4]]
    prices, sizes = market.depth(20)
    for row, context in ((3, 4), (1, 0)):
        orders = source.state(context).orders
        assert sizes[row].sum() == orders["size"].sum()
        assert prices[row, 0, 0] == orders["price"][orders["side"] == BUY].max()
        assert prices[row, 1, 0] == orders["price"][orders["side"] == SELL].min()
    assert sizes[[0, 2]].sum() == 0


def test_wrong_contexts_are_named():
    market = MarketSimulator(2, MarketConfig())
    with pytest.raises(ValueError, match="context 5 does not exist; allowed are 0 to 4"):
        bank().load_into(market, np.array([0]), np.array([5]))
    with pytest.raises(ValueError, match="contexts has shape"):
        bank().load_into(market, np.array([0, 1]), np.array([2]))


def test_unsound_banks_are_refused():
    good = bank()
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
    orders = good.orders.copy()
    orders["size"][0] = 0
    for change, message in (
        ({"orders": orders}, "sizes must be positive"),
        ({"next_id": np.zeros(5, np.int64)}, "must lie below it"),
        ({"split_code": np.full(5, 3, np.uint8)}, "allowed are 0, 1 and 2"),
        ({"order_start": good.order_start + 1}, "must rise from 0"),
        ({"scale": good.scale[:3]}, "it must have 5"),
        ({"mid2": good.mid2[:2]}, "it must have 5"),
        ({"records": good.orders}, "has dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            ContextBank(**(fields | change))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; it must name a context bank"):
        ContextBank.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="is not a context bank"):
        ContextBank.load(tmp_path / "text.npz")
    write_archive(tmp_path / "day.npz", {}, {"kind": "day"})
    with pytest.raises(ValueError, match="holds a 'day'; a 'context bank' is needed"):
        ContextBank.load(tmp_path / "day.npz")
    np.savez(tmp_path / "plain.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="is not a context bank"):
        ContextBank.load(tmp_path / "plain.npz")
    write_archive(tmp_path / "part.npz", pack("orders", np.zeros(1, ORDER)), {"kind": "context bank"})
    with pytest.raises(ValueError, match="lacks the column"):
        ContextBank.load(tmp_path / "part.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "bank.npz"
    bank().save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_archive(path, {}, {"kind": object()})
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        bank().save(tmp_path / "bank.bin")
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_columns_are_narrow_and_exact(tmp_path):
    records = state(3, records=400).records
    records["notional"][7] = 2**40
    columns = pack("records", records)
    assert columns["records.price"].dtype == np.int16
    assert columns["records.status"].dtype == np.int8
    assert columns["records.mid2"].dtype == np.int16
    write_archive(tmp_path / "x.npz", columns, {"kind": "x"})
    loaded, _ = read_archive(tmp_path / "x.npz", "x")
    np.testing.assert_array_equal(unpack(loaded, "records", RECORD), records)
    columns["records.kind"] = np.full(400, 300)
    with pytest.raises(ValueError, match="outside uint8"):
        unpack(columns, "records", RECORD)
    columns["records.kind"] = np.zeros(3, np.int8)
    with pytest.raises(ValueError, match="has 3 rows where 400"):
        unpack(columns, "records", RECORD)
