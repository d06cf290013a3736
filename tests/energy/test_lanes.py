"""Eight numbers in a register against the same in numpy."""

import numpy as np
import pytest

from molml.energy.cutoffs import jit
from molml.energy.lanes import (
    LANES,
    across,
    below,
    compress,
    exp,
    gather,
    larger,
    load,
    rows,
    smaller,
    spread,
    sqrt,
    store,
    transpose,
)

RNG = np.random.default_rng(0)


@jit
def exponentials(x: np.ndarray, out: np.ndarray) -> None:
    for k in range(0, x.shape[1], LANES):
        store(out, 0, k, exp(load(x, 0, k)))


def test_exponential_to_an_ulp() -> None:
    x = -np.concatenate([np.geomspace(1e-20, 700.0, 997), [0.0, 1.0, np.log(2.0)]])[None]
    out = np.empty_like(x)
    exponentials(x, out)
    assert np.abs(out / np.exp(x) - 1.0).max() < 5e-16


def test_exponential_vanishes_far_out() -> None:
    x = np.array([[-700.1, -710.0, -1e3, -1e10, -1e300, -np.inf, -701.0, -1.0]])
    out = np.empty_like(x)
    exponentials(x, out)
    assert not out[0, :-1].any()
    assert out[0, -1] == pytest.approx(np.exp(-1.0), rel=1e-15)


@jit
def arithmetic(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    x, y = load(a, 0, 0), load(b, 0, 0)
    store(out, 0, 0, x + y)
    store(out, 1, 0, x - y)
    store(out, 2, 0, x * y)
    store(out, 3, 0, x / y)
    store(out, 4, 0, 2.0 - x * 3.0)
    store(out, 5, 0, (x - 1.0) / 7.0 + 1.0 / y)
    store(out, 6, 0, sqrt(y))
    store(out, 7, 0, smaller(x, y))
    store(out, 8, 0, larger(x, y))
    store(out, 9, 0, below(x, spread(0.0), y, spread(-2.0)))
    x += y
    x *= y
    x -= y
    store(out, 10, 0, x)
    out[11, 0] = across(y)


def test_arithmetic_of_lanes_and_numbers() -> None:
    a, b, out = RNG.normal(size=(1, LANES)), RNG.uniform(0.1, 2.0, (1, LANES)), np.zeros((12, LANES))
    arithmetic(a, b, out)
    x, y = a[0], b[0]
    expected = [x + y, x - y, x * y, x / y, 2 - 3 * x, (x - 1) / 7 + 1 / y, np.sqrt(y), np.minimum(x, y)]
    expected += [np.maximum(x, y), np.where(x < 0, y, -2.0), (x + y) * y - y]
    np.testing.assert_allclose(out[:11], expected, rtol=1e-14, atol=1e-15)
    assert out[11, 0] == pytest.approx(y.sum(), rel=1e-14)


@jit
def gathered(array: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    for k in range(0, places.shape[1], LANES):
        store(out, 0, k, gather(array, 1, places, 0, k))


def test_gather_takes_what_the_places_say() -> None:
    array, places, out = RNG.normal(size=(3, 50)), RNG.integers(0, 50, (1, 4 * LANES)), np.empty((1, 4 * LANES))
    gathered(array, places, out)
    assert np.array_equal(out[0], array[1, places[0]])


@jit
def chosen(source: np.ndarray, values: np.ndarray, limit: float, out: np.ndarray) -> int:
    n = 0
    for k in range(0, source.shape[1], LANES):
        n += compress(out, 1, n, source, 0, k, load(values, 0, k), spread(limit))
    return n


@pytest.mark.parametrize("limit", [0.5, 0.0, 2.0])
def test_compress_keeps_what_is_below(limit: float) -> None:
    source, values = np.arange(5 * LANES)[None], RNG.uniform(size=(1, 5 * LANES))
    out = np.full((2, 6 * LANES), -1)
    n = chosen(source, values, limit, out)
    kept = np.flatnonzero(values[0] < limit)
    assert n == len(kept)
    assert np.array_equal(out[1, :n], kept)
    assert (out[0] == -1).all() and (out[1, n + LANES :] == -1).all()  # nothing beyond the room is written


@jit
def transposed(array: np.ndarray, out: np.ndarray) -> None:
    transpose(array, 1, 2, out, 3, 0)


def test_transpose_turns_one_square() -> None:
    array, out = RNG.normal(size=(LANES + 2, LANES + 3)), np.zeros((LANES + 4, LANES + 1))
    transposed(array, out)
    assert np.array_equal(out[3 : 3 + LANES, :LANES], array[1 : 1 + LANES, 2 : 2 + LANES].T)
    assert np.count_nonzero(out) == LANES * LANES


def test_rows_begin_on_cache_lines() -> None:
    room = rows(3, 2 * LANES)
    assert room.shape == (3, 2 * LANES)
    assert room.ctypes.data % 64 == 0
