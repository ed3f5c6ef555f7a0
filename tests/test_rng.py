"""Philox against the published vectors, and the names of its draws."""

import numba
import numpy as np
import pytest

from tradefm_gym import rng

ONES = 0xFFFFFFFF

# Random123 1.14, kat_vectors, philox4x32 with 10 rounds: counter, key, expected.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_published_vectors(counter, key, expected):
    assert tuple(int(word) for word in rng.philox(*counter, *key)) == expected


def test_bits_place_their_arguments_in_key_and_counter():
    seed, episode, index = 0x299F31D0A4093822, 0x13198A2E, 0x85A308D3243F6A88
    expected = rng.philox(0x243F6A88, 0x85A308D3, 0x13198A2E, rng.FLOW, 0xA4093822, 0x299F31D0)
    words = rng.bits(np.uint64(seed), np.uint32(episode), np.uint64(index), rng.FLOW)
    assert [int(word) for word in words] == [int(word) for word in expected]


def test_uniforms_have_53_bits_and_lie_in_the_unit_interval():
    w0, w1, w2, w3 = (int(word) for word in rng.bits(7, 1, 2, rng.SAMPLE))
    first, second = rng.uniforms(7, 1, 2, rng.SAMPLE)
    assert first == ((w0 >> 5) * 2**26 + (w1 >> 6)) / 2**53 == rng.uniform(7, 1, 2, rng.SAMPLE)
    assert second == ((w2 >> 5) * 2**26 + (w3 >> 6)) / 2**53


def test_arrays_extend_the_scalar_draws():
    seeds = np.array([0, 5, 2**64 - 1], np.uint64)
    episodes = np.array([0, 9, 2**32 - 1], np.uint32)
    indices = np.array([0, 3, 2**40], np.uint64)
    words = rng.bits_array(seeds, episodes, indices, rng.DECODE, 10)
    draws = rng.uniform_array(seeds, episodes, indices, rng.DECODE, 5)
    assert words.shape == (3, 10) and words.dtype == np.uint32
    assert draws.shape == (3, 5) and draws.dtype == np.float64
    for m in range(3):
        place = seeds[m], episodes[m], indices[m], rng.DECODE
        assert tuple(words[m, :4]) == rng.bits(*place)
        assert tuple(draws[m, :2]) == rng.uniforms(*place)
    assert len(np.unique(words)) == words.size, "further blocks are further draws"


def test_array_is_independent_of_batch_and_threads():
    seeds = np.arange(100, dtype=np.uint64)
    whole = rng.uniform_array(seeds, 3, 17, rng.FLOW, 6)
    alone = np.concatenate([rng.uniform_array(seed, 3, 17, rng.FLOW, 6) for seed in seeds])
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    single = rng.uniform_array(seeds, 3, 17, rng.FLOW, 6)
    numba.set_num_threads(before)
    np.testing.assert_array_equal(whole, alone)
    np.testing.assert_array_equal(whole, single)


def test_draws_look_uniform_and_streams_differ():
    index = np.arange(20_000)
    draws = rng.uniform_array(np.uint64(1), 0, index, rng.FLOW, 2)
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03
    other = rng.uniform_array(np.uint64(1), 0, index, rng.SAMPLE, 2)
    assert not np.any(draws == other)
