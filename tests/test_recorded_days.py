"""The recorded days that the project is measured on; skipped where they are not at hand."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tradefm_gym.data import calibrate, load, split
from tradefm_gym.data.fidelity import check
from tradefm_gym.envs.gym_env import ExecutionEnv
from tradefm_gym.market.events import BACKGROUND, CANCEL, LIMIT

ROOT = Path(os.environ.get("TRADEFM_DATA", Path(__file__).parents[2] / "shared" / "data"))

# Folder, least share of takers and of lots reproduced, expected takers.
BY_ID = {
    "sse_600519_20230207": (1.0, 1.0, 12662),
    "nasdaq_arl_20250717_mbo": (1.0, 1.0, 9),
    "cme_esm4_20240508_mbo_2s": (1.0, 0.83, 5),
    "nasdaq_aapl_20120621_l50_1h": (0.987, 0.988, 3290),
    "nymex_clx5_mbo": (0.989, 0.962, 1561),
    "bitstamp_btcusd_20150501": (0.966, 0.969, 453),
}
WITH_BOOK = {"nasdaq_aapl_20120621_l1": 18016, "nasdaq_goog_20120621_l10": 5931}


def day(name):
    pytest.importorskip("polars", reason="needs the data extra")
    if not (ROOT / name).exists():
        pytest.skip(f"recorded day {name} is not in {ROOT}")
    return load(ROOT / name)


@pytest.mark.parametrize("name", [*BY_ID, *WITH_BOOK])
def test_every_day_is_a_valid_flow(name):
    flow = day(name)
    records = flow.records
    assert (np.diff(records["time_ns"]) >= 0).all()
    assert (records["owner"] == BACKGROUND).all() and (records["size"] > 0).all()
    ids = records["order_id"][records["order_id"] >= 0]
    first = np.sort(np.unique(ids, return_index=True)[1])
    assert np.array_equal(ids[first], np.arange(len(first)))
    limits = records[records["kind"] == LIMIT]
    assert np.array_equal(limits["size"], limits["filled"] + limits["max_rest"])
    assert limits["filled"].sum() == flow.fills["size"].sum()
    taken = limits["filled"] > 0
    worst = limits["price"].astype(np.int64) * limits["filled"] * limits["side"]
    assert (limits["notional"] * limits["side"])[taken].max(initial=0) <= np.abs(worst).max(initial=0)
    assert ((limits["notional"] * limits["side"]) <= worst).all()  # nobody pays more than the limit
    assert flow.summary()["takers"] == (BY_ID[name][2] if name in BY_ID else WITH_BOOK[name])
    parts = split(flow)
    assert min(map(len, (parts.train, parts.validation, parts.test))) > 0
    scale = calibrate(flow)
    assert scale.spread >= 1 and scale.median_size >= 1 and scale.event_ns > 0


@pytest.mark.parametrize("name", BY_ID)
def test_rebuilt_takers_reproduce_the_recorded_fills(name):
    flow = day(name)
    fidelity = check(flow)
    assert fidelity.takers == BY_ID[name][2]
    assert fidelity.share_takers >= BY_ID[name][0]
    assert fidelity.share_lots >= BY_ID[name][1]
    assert flow.meta.counts["crossed_records"] <= 0.001 * len(flow)


def test_shanghai_replays_exactly():
    flow = day("sse_600519_20230207")
    fidelity = check(flow)
    assert (fidelity.lots_equal, fidelity.spurious_lots, fidelity.missing_cancels) == (fidelity.lots, 0, 0)


def test_replayed_touch_agrees_with_the_venues_own_book():
    deep, top = day("nasdaq_aapl_20120621_l50_1h"), day("nasdaq_aapl_20120621_l1")

    def settled(flow):
        time = flow.records["time_ns"]
        last = np.r_[time[1:] != time[:-1], True]
        return time[last], flow.touch[last]

    (time, touch), (other_time, other) = settled(deep), settled(top)
    _, here, there = np.intersect1d(time, other_time, return_indices=True)
    assert len(here) > 20_000
    assert (touch[here] == other[there]).mean(axis=0).min() > 0.998


def test_lobster_files_and_parquet_agree():
    name = "nasdaq_goog_20120621_l10"
    flow = day(name)
    csv = load(next((ROOT / name / "raw").glob("*_message_*.csv.gz")))
    for field in ("records", "fills", "touch", "book", "source_row"):
        assert np.array_equal(getattr(flow, field), getattr(csv, field)), field
    assert (flow.meta.ticker, flow.meta.date, flow.meta.counts) == (csv.meta.ticker, csv.meta.date, csv.meta.counts)


def test_the_touch_of_a_book_set_is_never_crossed():
    for name in WITH_BOOK:
        touch = day(name).touch
        two = (touch[:, 1] > 0) & (touch[:, 3] > 0)
        assert (touch[two, 0] < touch[two, 2]).all()


def digest(flow):
    """Of everything that a model is trained on, bit for bit; what records say of the touch stands in ``touch`` too."""
    total = hashlib.sha256()
    for array in (flow.records, flow.fills, flow.touch, flow.source_row, flow.book):
        for name in () if array is None else array.dtype.names or (None,):
            if name in ("spread", "bid_size", "ask_size"):
                continue
            total.update(np.ascontiguousarray(array if name is None else array[name]).tobytes())
    meta = flow.meta
    said = [flow.opening, meta.lot, meta.tick_size, meta.replay_by_id, list(meta.session_ns), meta.counts]
    total.update(json.dumps(said, sort_keys=True).encode())
    return total.hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sse_600519_20230207", "02462153a02357db"),
        ("nasdaq_arl_20250717_mbo", "b8993d14b19b6980"),
        ("cme_esm4_20240508_mbo_2s", "30778eab374ab531"),
        ("nasdaq_aapl_20120621_l50_1h", "becf5c9fff0fec90"),
        ("nymex_clx5_mbo", "5c6d9e18f1283e4d"),
        ("bitstamp_btcusd_20150501", "efd5542cb0f12952"),
        ("nasdaq_goog_20120621_l10", "bd088f98261d51a3"),
        ("nasdaq_aapl_20120621_l1", "942493f34fcbde5d"),
    ],
)
def test_days_load_as_they_did_when_models_were_trained_on_them(name, expected):
    assert digest(day(name)) == expected


def test_sets_without_order_ids_are_refused():
    pytest.importorskip("polars", reason="needs the data extra")
    if not (ROOT / "binance_spot_btcusdt_20240808").exists():
        pytest.skip(f"recorded day is not in {ROOT}")
    with pytest.raises(FileNotFoundError, match=r"has no events\.parquet"):
        load(ROOT / "binance_spot_btcusdt_20240808")


def environment(name, kind, **arguments):
    """An environment that replays the day, or one in which the model is warmed up on it."""
    day(name)  # skips where it is not at hand
    path = str(ROOT / name)
    return ExecutionEnv(**({"flow": f"replay:{path}"} if kind == "replay" else {"context": path}), **arguments)


@pytest.mark.parametrize("kind", ["replay", "context"])
def test_a_day_without_trades_has_no_parent_order(kind):
    said = r"usually trades 0 lots .* a parent order needs at least 16 \(start context 0 of 'ESM4 CME.*give a quantity"
    with pytest.raises(ValueError, match=said):
        environment("cme_esm4_20240508_mbo_2s", kind)
    if kind == "context":  # its book is also deeper than the model's market
        with pytest.raises(ValueError, match=r"of 'ESM4 CME.* has 13600 resting orders; a market of flow 'tradefm"):
            environment("cme_esm4_20240508_mbo_2s", kind, quantity=3)
        return
    env = environment("cme_esm4_20240508_mbo_2s", kind, quantity=3)
    assert env.reset(seed=0)[1]["quantity"] == 3
    while not any(env.step([0.0, 0.0])[2:4]):
        pass


@pytest.mark.parametrize("kind", ["replay", "context"])
def test_a_day_with_few_trades_has_a_small_parent_order_and_says_so(kind):
    with pytest.warns(
        UserWarning, match=r"64 of 64 start contexts of 'ARL.* are thin, such as 0: .* trades 49 lots"
    ) as warned:
        env = environment("nasdaq_arl_20250717_mbo", kind)
        infos = [env.reset(seed=seed)[1] for seed in range(2)]
    assert len(warned) == 1
    for info in infos:
        assert (info["quantity"], info["decisions"]) == (18, 49)
        assert "usually trades 49 lots within 64 decisions" in info["reason"]


@pytest.mark.parametrize(("name", "lots"), [("nymex_clx5_mbo", 64), ("sse_600519_20230207", 4194)])
def test_a_day_with_trades_has_the_usual_parent_order(name, lots):
    info = environment(name, "replay").reset(seed=0)[1]
    assert (info["quantity"], info["decisions"], info["reason"]) == (lots, 64, "")


def test_cancels_name_orders_and_what_remains():
    flow = day("sse_600519_20230207")
    cancels = flow.flow[flow.flow["kind"] == CANCEL]
    assert (cancels["order_id"] >= 0).all()
    assert (cancels["max_rest"] == 0).all()  # Shanghai deletes whole orders
