import json
from dataclasses import replace

import numpy as np
import pytest
from test_features import random_records

from tradefm_gym.market.features import BEHIND, OPPOSITE_TOUCH, OWN_TOUCH, new_state, observe
from tradefm_gym.model.tokenizer import (
    DEPTHS,
    SIZES,
    TAKERS,
    TIMES,
    TradeTokenizer,
    compose,
    decode_values,
    decompose,
)


def features_of(seed: int = 0, count: int = 4_000, price_scale: int = 1, size_scale: int = 1):
    records = random_records(seed, count, price_scale, size_scale)
    features, _ = observe(new_state(1, 250.0 * size_scale, (0.1, 1.0)), records)
    return features[features["valid"] == 1]


@pytest.fixture(scope="module")
def tokenizer() -> TradeTokenizer:
    return TradeTokenizer.calibrate([features_of(0), features_of(1)], provenance={"source": "test"})


def test_worked_example_of_the_paper():
    assert compose(action=0, side=1, depth=7, volume=7, time=11) == 6011
    assert decompose(6011) == (0, 1, 7, 7, 11)


def test_compose_inverts_decompose_over_the_whole_vocabulary():
    tokens = np.arange(16_384)
    assert np.array_equal(compose(*decompose(tokens)), tokens)


@pytest.mark.parametrize(("price_scale", "size_scale"), [(7, 1), (1, 13), (1000, 1), (3, 100)])
def test_tokens_do_not_depend_on_the_units(tokenizer, price_scale, size_scale):
    tokens = tokenizer.encode(features_of(3))
    scaled = tokenizer.encode(features_of(3, price_scale=price_scale, size_scale=size_scale))
    assert np.array_equal(tokens, scaled)


def test_json_round_trip_is_exact(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = TradeTokenizer.load(tmp_path)
    assert loaded.to_json() == tokenizer.to_json()
    assert np.array_equal(loaded.encode(features_of(2)), tokenizer.encode(features_of(2)))
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_bins_have_the_shape_of_the_specification(tokenizer):
    assert (tokenizer.depth_edges == -tokenizer.depth_edges[::-1]).all()  # no direction built in
    assert (tokenizer.level_edges == -tokenizer.level_edges[::-1]).all()
    assert np.allclose(np.diff(tokenizer.volume_edges), tokenizer.volume_edges[0])
    assert np.allclose(np.diff(tokenizer.time_edges[1:]), np.diff(tokenizer.time_edges[1:])[0])
    assert tokenizer.time_edges[0] > np.log10(1e-6)  # bin 0 holds everything up to one microsecond
    occupancy = tokenizer.provenance["occupancy"]["depth"]
    assert sum(occupancy) == pytest.approx(1.0, abs=1e-3)
    assert max(occupancy[1:-1]) < 0.15
    assert occupancy[0] < 0.03 and occupancy[-1] < 0.03


def test_decode_lands_in_the_bins_that_were_encoded(tokenizer):
    features = features_of(4)
    tokens = tokenizer.encode(features)[:, 3]
    uniforms = np.random.default_rng(0).random((len(tokens), 3))
    action, side, depth, size, seconds = tokenizer.decode(tokens, uniforms)
    again = features.copy()
    again["action"], again["side"], again["depth"], again["seconds"] = action, side, depth, seconds
    again["volume"] = np.log1p(size)
    digits, expected = decompose(tokenizer.encode(again)[:, 3]), decompose(tokens)
    for name, got, want in zip(("action", "side", "depth", "volume", "time"), digits, expected, strict=True):
        assert (got == want).mean() > 0.999, name  # a table entry on an edge may fall to the neighbour


def test_decoded_values_follow_the_distribution_they_were_calibrated_on(tokenizer):
    features = np.concatenate([features_of(0), features_of(1)])
    tokens = tokenizer.encode(features)[:, 3]
    _, _, depth, size, seconds = tokenizer.decode(tokens, np.random.default_rng(1).random((len(tokens), 3)))
    assert np.quantile(depth, [0.25, 0.75]) == pytest.approx(np.quantile(features["depth"], [0.25, 0.75]), rel=0.1)
    assert np.median(np.log1p(size)) == pytest.approx(np.median(features["volume"]), rel=0.05)
    assert np.median(seconds) == pytest.approx(max(np.median(features["seconds"]), 1e-6), rel=0.2)


def test_an_asset_has_its_own_values_inside_the_bins_where_it_has_enough_of_them():
    """Half of its takers take 310 lots and half 320, all others send 320; it never sends a small order."""
    features = features_of(0)
    tokenizer = TradeTokenizer.calibrate([features], mid="touch")
    own = features[:2_000].copy()
    own["action"], own["depth"] = 0, np.where(np.arange(2_000) % 4 == 0, OPPOSITE_TOUCH, OWN_TOUCH) + 0.5
    own["volume"] = np.log1p(np.where(np.arange(2_000) % 8 == 0, 310, 320) / 250.0)
    own["seconds"] = 0.01
    tables = tokenizer.tables_of(own)
    bin_ = int(np.searchsorted(tokenizer.volume_edges, np.log1p(1.28), side="right"))
    assert bin_ == np.searchsorted(tokenizer.volume_edges, np.log1p(1.24), side="right") > 0
    sizes = [250.0 * np.expm1(tables[kind, bin_]) for kind in (TAKERS, SIZES)]
    np.testing.assert_allclose(sizes[0], np.repeat([310.0, 320.0], 12))
    np.testing.assert_allclose(sizes[1][[0, 1, 2, 5, 23]], [310.0, 310.0, 310.0, 320.0, 320.0])  # an eighth takes 310
    np.testing.assert_array_equal(np.delete(tables[SIZES], bin_, 0), np.delete(tokenizer.volume_table, bin_, 0))
    np.testing.assert_array_equal(tables[DEPTHS, BEHIND:], tokenizer.depth_table[BEHIND:])
    assert (tables[TIMES] == np.log10(0.01)).all(1).sum() == 1
    for digit, kind in ((OPPOSITE_TOUCH, TAKERS), (OWN_TOUCH, SIZES)):
        for action, read in ((0, kind), (1, SIZES)):  # a cancel takes nothing
            token = compose(action, 1, digit, bin_, 3)
            size = decode_values(token, np.full(3, 0.3), tables)[1]  # the eighth quantile, in which the two differ
            assert size == pytest.approx(np.expm1(tables[read, bin_, 7]))


def test_without_uniforms_decoding_takes_the_median(tokenizer):
    tokens = np.array([6011, 6011])
    first = tokenizer.decode(tokens)
    assert all(value[0] == value[1] for value in first)


@pytest.mark.parametrize("token", [-1, 16_384])
def test_tokens_out_of_range_are_refused(tokenizer, token):
    with pytest.raises(ValueError, match="tokens"):
        tokenizer.decode(np.array([token]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version"),
        ({"vocabulary": 100}, "version"),
        ({"depth_edges": [3.0, 1.0]}, "depth_edges"),
        ({"mid": "oracle"}, "mid"),
        ({"surprise": 1}, "surprise"),
        ({"half_life_s": 0}, "half_life_s"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tokenizer, tmp_path, change, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(tokenizer.to_json()) | change))
    with pytest.raises(ValueError, match=message):
        TradeTokenizer.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        TradeTokenizer.load(tmp_path)


def test_calibration_needs_events():
    with pytest.raises(ValueError, match="samples"):
        TradeTokenizer.calibrate([features_of(0)[:0]])


def test_an_asset_whose_events_come_together_keeps_waits_of_nothing():
    features = features_of(1)  # of which many come at once, and many 900 ns later
    tokenizer = TradeTokenizer.calibrate([features])
    tables = tokenizer.tables_of(features)
    tokens = tokenizer.encode(features[features["valid"] == 1])[:, 3]
    uniforms = np.random.default_rng(0).random((len(tokens), 3))
    waits = [decode_values(token, u, tables)[2] for token, u in zip(tokens.tolist(), uniforms, strict=True)]
    nanoseconds = np.floor(np.array(waits) * 1e9).astype(np.int64)
    at_once = (features["seconds"] == 0.0).mean()
    assert at_once > 0.15 and abs((nanoseconds == 0).mean() - at_once) < 0.04
    assert abs((nanoseconds < 1000).mean() - (features["seconds"] < 1e-6).mean()) < 0.01


def test_an_asset_that_a_tokenizer_does_not_tell_is_nobodys(tokenizer):
    features = features_of(2)[:8]
    plain = tokenizer.encode(features)
    features["asset"] = np.arange(8)
    np.testing.assert_array_equal(tokenizer.encode(features), plain)
    told = replace(tokenizer, assets=("one", "another")).encode(features)
    assert ((told - plain)[:, 1] // (2 * tokenizer.pressures)).tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
