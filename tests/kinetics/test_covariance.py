"""Covariances against two passes in extended precision, whatever the order, the pieces, the offset and the weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molml.kinetics.covariance import Covariances, koopman_weights, whitening


def walks(*lengths, n_features=3, seed=0):
    """Correlated features on different scales."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features)) * 10.0 ** np.arange(n_features)
    found = []
    for n in lengths:
        x = rng.normal(size=(n, n_features))
        for t in range(1, n):
            x[t] += 0.9 * x[t - 1]
        found.append(x @ mixing + rng.normal(size=n_features))
    return found


def wide(*lengths):
    """Forty float32 features, enough to be multiplied in float32."""
    mixing = np.random.default_rng(1).normal(size=(3, 40)) * np.geomspace(1e-3, 1e3, 40)
    return [(x @ (mixing / [[1.0], [10.0], [100.0]])).astype(np.float32) for x in walks(*lengths)]


def two_pass(arrays, lagtime, *, reversible, weights=None):
    """mean_0, mean_t, c00, c0t, ctt by their definition, in extended precision."""
    lists = [np.asarray(x, np.longdouble) for x in arrays]
    x = np.concatenate([a[: len(a) - lagtime] for a in lists])
    y = np.concatenate([a[lagtime:] for a in lists])
    w = np.ones(len(x), np.longdouble)
    if weights is not None:
        w = np.concatenate([np.asarray(v, np.longdouble)[: len(v) - lagtime] for v in weights])
    if reversible:
        x, y, w = np.concatenate([x, y]), np.concatenate([y, x]), np.concatenate([w, w])
    w = w[:, None] / w.sum()
    mean_0, mean_t = (w * x).sum(axis=0), (w * y).sum(axis=0)
    a, b = x - mean_0, y - mean_t
    return mean_0, mean_t, (w * a).T @ a, (w * a).T @ b, (w * b).T @ b


def distance(found, expected):
    """Largest difference of means and covariances, relative to the standard deviations."""
    mean_0, mean_t, c00, c0t, ctt = (np.asarray(e, np.longdouble) for e in expected)
    d, dt = np.sqrt(np.diag(c00)), np.sqrt(np.diag(ctt))
    return float(
        max(
            # of a mean of 1e6 a double holds ten digits behind the point
            np.abs((found.mean_0 - mean_0) / (d + np.abs(mean_0))).max(),
            np.abs((found.mean_t - mean_t) / (dt + np.abs(mean_t))).max(),
            np.abs((found.c00 - c00) / d / d[:, None]).max(),
            np.abs((found.c0t - c0t) / dt / d[:, None]).max(),
            np.abs((found.ctt - ctt) / dt / dt[:, None]).max(),
        )
    )


def same(a, b):
    return distance(a, (b.mean_0, b.mean_t, b.c00, b.c0t, b.ctt))


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("lagtime", [0, 1, 7, 45])
def test_equal_two_passes(lagtime, reversible):
    arrays = walks(50, 5000, 46, 300)
    found = Covariances(lagtime, reversible=reversible).update(arrays)
    assert distance(found, two_pass(arrays, lagtime, reversible=reversible)) < 1e-12
    assert found.n_pairs == found.weight == 5396 - 4 * lagtime
    assert found.n_features == 3 and found.resolution == np.finfo(float).eps
    # the comparison sees a pair too many
    assert distance(found, two_pass([arrays[0], arrays[1][1:], *arrays[2:]], lagtime, reversible=reversible)) > 1e-6


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("lagtime", [0, 1, 45])
def test_weights_are_those_of_the_first_frame_of_a_pair(lagtime, reversible):
    arrays = walks(50, 5000, 46)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(size=len(x)) for x in arrays]
    weights[1][100:200] = 0.0
    found = Covariances(lagtime, reversible=reversible).update(arrays, weights)
    assert distance(found, two_pass(arrays, lagtime, reversible=reversible, weights=weights)) < 1e-12
    assert distance(found, two_pass(arrays, lagtime, reversible=reversible)) > 1e-4
    equal = Covariances(lagtime, reversible=reversible).update(arrays, [np.full(len(x), 0.3) for x in arrays])
    assert same(equal, Covariances(lagtime, reversible=reversible).update(arrays)) < 1e-12
    single = Covariances(lagtime, reversible=reversible).update(arrays[1], weights[1])
    assert same(single, Covariances(lagtime, reversible=reversible).update([arrays[1]], [weights[1]])) == 0.0


@pytest.mark.parametrize("reversible", [False, True])
def test_whole_weights_are_repeats(reversible):
    """Two trajectories, one of which counts three times."""
    a, b = walks(300, 200)
    weighted = Covariances(5, reversible=reversible).update([a, b], [np.ones(300), np.full(200, 3.0)])
    assert same(weighted, Covariances(5, reversible=reversible).update([a, b, b, b])) < 1e-12


def test_no_pair_crosses_the_end_of_a_trajectory():
    x = np.arange(10.0)[:, None]
    found = Covariances(2).update([x[:5], x[5:]])
    # pairs 0-2, 1-3, 2-4 and 5-7, 6-8, 7-9
    assert found.n_pairs == 6
    np.testing.assert_allclose(found.mean_0, [21 / 6])
    np.testing.assert_allclose(found.c0t, found.c00)
    assert Covariances(2).update(x).n_pairs == 8


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("drift", [0.0, 1e6])
def test_a_large_mean_costs_no_digits(drift, reversible):
    rng = np.random.default_rng(0)
    arrays = [1e6 + drift * i + rng.normal(size=(n, 2)) for i, n in enumerate((4, 30_000, 2000))]
    expected = two_pass(arrays, 3, reversible=reversible)
    assert distance(Covariances(3, reversible=reversible).update(arrays), expected) < 1e-12
    # the textbook formula would be noticed
    x = np.concatenate([a[:-3] for a in arrays])
    naive = x.T @ x / len(x) - np.outer(x.mean(axis=0), x.mean(axis=0))
    assert np.abs(naive - two_pass(arrays, 3, reversible=False)[2]).max() > 1e-6


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_float32_is_good_to_its_seven_digits(offset, reversible):
    arrays = [x + np.float32(offset) * x[0] for x in wide(30_000, 500)]
    expected = two_pass(arrays, 10, reversible=reversible)
    found = Covariances(10, reversible=reversible).update(arrays)
    # products of 24 bits each, summed in float32 over 2048 frames
    assert 1e-12 < distance(found, expected) < 3e-7
    assert found.resolution == pytest.approx(1.2e-7, rel=0.01)
    doubles = Covariances(10, reversible=reversible).update([x.astype(float) for x in arrays])
    assert distance(doubles, expected) < 1e-12


@pytest.mark.parametrize("reversible", [False, True])
def test_a_few_features_are_multiplied_in_float64(reversible):
    arrays = [x[:, 4:36] for x in wide(5000, 500)]
    expected = two_pass(arrays, 10, reversible=reversible)
    assert distance(Covariances(10, reversible=reversible).update(arrays), expected) < 1e-12


def test_precisions_may_be_mixed():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 40)) + np.pi * 1e5 for n in (100, 300, 200)]
    arrays = [arrays[0], arrays[1].astype(np.float32), arrays[2]]
    for order in ([0, 1, 2], [1, 0, 2]):
        found = Covariances(2).update([arrays[i] for i in order])
        assert distance(found, two_pass(arrays, 2, reversible=False)) < 3e-7


def test_float32_with_squares_that_it_cannot_hold():
    x = wide(3000)[0][:, :33] / 1000
    for scale in (1e-22, 1e22):
        scaled = x * np.float32(scale)
        found = Covariances(1).update(scaled)
        expected = two_pass([scaled.astype(float) / scale], 1, reversible=False)[2].astype(float)
        size = np.sqrt(np.diag(expected))
        np.testing.assert_allclose(
            found.c00 / scale**2 / size / size[:, None], expected / size / size[:, None], atol=1e-12
        )
    x[777, 0] = 1e25
    with pytest.raises(ValueError, match="float32 can hold"):
        Covariances(1).update(np.tile(x, (3, 1)))


def test_slow_motions_keep_their_digits():
    """1 − λ of a motion of 100,000 frames, in float32."""
    x = np.sin(2 * np.pi * np.arange(100_000) / 1e5).astype(np.float32)
    found = Covariances(1, reversible=True).update(np.repeat(x[:, None], 33, axis=1))
    c = two_pass([x[:, None]], 1, reversible=True)
    exact = float(c[2][0, 0] - c[3][0, 0])
    np.testing.assert_allclose(found.dirichlet, exact, rtol=1e-6)
    # as a difference of two float32 sums it would be rounding
    y = x - x.mean()
    plain = float((y[:-1] ** 2).sum() / 2 + (y[1:] ** 2).sum() / 2 - (y[:-1] * y[1:]).sum()) / (len(x) - 1)
    assert plain != pytest.approx(exact, rel=1e-2)


@settings(max_examples=50)
@given(
    # two pairs at least: one has no variance, in units of which differences are measured
    lengths=st.lists(st.integers(13, 2500), min_size=1, max_size=4),
    lagtime=st.integers(0, 11),
    size=st.integers(20, 2500),
    reversible=st.booleans(),
    weighted=st.booleans(),
)
def test_streamed_equals_in_memory(lengths, lagtime, size, reversible, weighted, streamed):
    arrays = [np.random.default_rng(i).normal(size=(n, 2)) * [1.0, 50.0] + [3.0, 1e4] for i, n in enumerate(lengths)]
    weights = [np.random.default_rng(n).uniform(0.1, 1.0, n) for n in lengths] if weighted else None
    whole = Covariances(lagtime, reversible=reversible).update(arrays, weights)
    pieces = Covariances(lagtime, reversible=reversible).update(streamed(arrays, size), weights)
    assert same(whole, pieces) < 1e-12
    assert whole.n_pairs == pieces.n_pairs


def test_streamed_frame_by_frame(streamed):
    arrays = walks(40, 31)
    for lagtime in (0, 1, 30):
        whole = Covariances(lagtime).update(arrays)
        assert same(whole, Covariances(lagtime).update(streamed(arrays, 1))) < 1e-12


@settings(max_examples=40)
@given(st.permutations(range(5)), st.integers(0, 4), st.booleans())
def test_merging_in_any_order(order, cut, reversible):
    arrays = walks(60, 3000, 21, 2500, 400)
    arrays[2] += 1e5
    whole = Covariances(20, reversible=reversible).update(arrays)
    assert distance(whole, two_pass(arrays, 20, reversible=reversible)) < 1e-12
    parts = [Covariances(20, reversible=reversible).update(arrays[i]) for i in order]
    left, right = Covariances(20, reversible=reversible), Covariances(20, reversible=reversible)
    for i, part in enumerate(parts):
        (left if i <= cut else right).merge(part)
    left.merge(right)
    assert left.n_pairs == whole.n_pairs
    assert same(whole, left) < 1e-12


def test_merging_leaves_the_other_one_alone():
    arrays = walks(60, 300)
    first, second = (Covariances(1).update(x) for x in arrays)
    total = Covariances(1)
    total.merge(first)
    total.merge(second)
    total.merge(Covariances(1))
    assert same(first, Covariances(1).update(arrays[0])) == 0.0
    assert same(total, Covariances(1).update(arrays)) < 1e-12


def test_reversed_time_is_the_same_if_reversible():
    x = walks(4000)[0]
    forward, backward = (Covariances(3, reversible=True).update(a) for a in (x, x[::-1]))
    assert same(forward, backward) < 1e-12
    np.testing.assert_array_equal(forward.c0t, forward.c0t.T)
    np.testing.assert_array_equal(forward.c00, forward.ctt)
    np.testing.assert_allclose(forward.c00 - forward.c0t, forward.dirichlet, rtol=1e-8)
    assert same(*(Covariances(3).update(a) for a in (x, x[::-1]))) > 1e-3


def test_a_constant_feature_does_not_begin_to_vary():
    x = walks(50_000, n_features=2)[0]
    x[:, 0] = 0.1
    for dtype in (np.float64, np.float32):
        covariances = Covariances(1, reversible=True)
        for part in (x[:20_000], x[20_000:20_011], x[20_011:]):
            covariances.update(part.astype(dtype))
        assert covariances.c00[0, 0] == 0.0 and covariances.dirichlet[0, 0] == 0.0
        assert covariances.mean_0[0] == dtype(0.1)


def test_same_bits_every_time():
    x = wide(5000)[0]
    first, second = (Covariances(3).update(x) for _ in range(2))
    for name in ("mean_0", "mean_t", "c00", "c0t", "ctt"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_input_is_left_alone():
    x = walks(500)[0]
    copy = x.copy()
    Covariances(3).update(x, np.ones(500))
    np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize("lagtime", [1, 10])
def test_equal_deeptime(lagtime):
    deeptime = pytest.importorskip("deeptime.covariance")
    arrays = walks(500, 3000, 60)
    for reversible in (False, True):
        theirs = deeptime.Covariance(
            lagtime,
            compute_c0t=True,
            compute_ctt=not reversible,
            reversible=reversible,
            remove_data_mean=True,
            bessels_correction=False,
        ).fit(arrays)
        model = theirs.fetch_model()
        ours = Covariances(lagtime, reversible=reversible).update(arrays)
        assert distance(ours, (model.mean_0, model.mean_t, model.cov_00, model.cov_0t, model.cov_tt)) < 1e-8


def test_nothing_of_a_refused_update_stays():
    x = walks(50_000)[0]
    bad = x.copy()
    bad[-1, 1] = np.nan
    found = Covariances(2).update(x)
    before = found.c00
    with pytest.raises(ValueError, match="frame 49999, feature 1"):
        found.update(bad)
    np.testing.assert_array_equal(found.c00, before)
    assert found.n_pairs == 49_998


@pytest.mark.parametrize(
    ("X", "weights", "message"),
    [
        (np.ones((5, 2)), None, "lagtime must be shorter than every trajectory"),
        (np.ones((9, 2)), np.ones(8), r"shapes \[\(9,\)\], got \[\(8,\)\]"),
        ([np.ones((9, 2))] * 2, np.ones(9), "one number per frame"),
        ([np.ones((9, 2))] * 2, [np.ones(9), -np.ones(9)], r"at least 0, got -1.0 for frame 0 of X\[1\]"),
        (np.ones((9, 2)), np.full(9, np.nan), "finite and at least 0"),
        (np.ones((9, 2)), np.repeat([0.0, 1.0], [4, 5]), "no pair of frames with a positive one"),
        (np.ones((9, 2)), lambda x: np.ones(3), "4 finite numbers for 4 frames"),
        (np.ones((9, 2)), lambda x: np.full(len(x), np.inf), "finite numbers"),
        (np.ones((9, 2)), lambda x: -np.ones(len(x)), "positive sum, got -4"),
        (np.geomspace(1e-300, 1e300, 18).reshape(9, 2), None, "scale the features"),
    ],
)
def test_what_cannot_be_added(X, weights, message):
    with pytest.raises(ValueError, match=message):
        Covariances(5).update(X, weights)


@pytest.mark.parametrize("lagtime", [-1, 1.0, True, None])
def test_lag_times_that_are_none(lagtime):
    with pytest.raises(ValueError, match="lagtime must be a whole number"):
        Covariances(lagtime)


def test_what_cannot_be_merged():
    x = walks(100)[0]
    covariances = Covariances(2).update(x)
    for other in (Covariances(3).update(x), Covariances(2, reversible=True).update(x)):
        with pytest.raises(ValueError, match="of one kind"):
            covariances.merge(other)
    with pytest.raises(ValueError, match="same features, got 3 and 2"):
        covariances.merge(Covariances(2).update(x[:, :2]))
    with pytest.raises(ValueError, match="has 2 features, but it is expecting 3"):
        covariances.update(x[:, :2])
    with pytest.raises(ValueError, match="needs reversible=True"):
        _ = covariances.dirichlet
    with pytest.raises(ValueError, match="got none yet"):
        _ = Covariances(2).c00
    with pytest.raises(ValueError, match="got none yet"):
        _ = Covariances(2, reversible=True).dirichlet


# whitening


def test_whitening_whitens():
    c = np.cov(np.random.default_rng(0).normal(size=(4, 50)) * [[1e-3], [1.0], [30.0], [1e5]])
    white = whitening(c)
    np.testing.assert_allclose(white.T @ c @ white, np.eye(4), atol=1e-12)


def test_rank_does_not_depend_on_units():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    x[:, 3] = x[:, 0] - 2 * x[:, 1]
    x[:, 4] = 7.0
    for units in ([1.0] * 5, [1e-8, 1.0, 1e7, 1e-3, 1.0]):
        covariances = Covariances(0).update(x * units)
        white = whitening(covariances.c00, mean=covariances.mean_0)
        assert white.shape == (5, 3) and not white[4].any()
        np.testing.assert_allclose(white.T @ covariances.c00 @ white, np.eye(3), atol=1e-10)


def test_small_directions_are_those_below_epsilon():
    c = np.array([[1.0, 1 - 1e-5], [1 - 1e-5, 1.0]])
    assert whitening(c, epsilon=0.9e-5).shape[1] == 2
    assert whitening(c, epsilon=1.1e-5).shape[1] == 1
    # and those that float32 data cannot resolve
    assert whitening(c, epsilon=1e-12, resolution=1e-5).shape[1] == 1


def test_rounding_is_no_motion():
    assert whitening(np.diag([1.0, 1e-14]), mean=np.array([0.0, 1e3]), resolution=1.2e-7).shape[1] == 1
    assert whitening(np.diag([1.0, 1e-14]), resolution=1.2e-7).shape[1] == 2
    assert whitening(np.zeros((3, 3))).shape == (3, 0)


# reweighting


def chain(transition, start, n_frames, n_trajectories, seed=0):
    """State sequences of a Markov chain, all from one state."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(transition, axis=1)
    states = np.full((n_trajectories, n_frames), start)
    for t in range(1, n_frames):
        states[:, t] = (rng.uniform(size=n_trajectories)[:, None] > cumulative[states[:, t - 1]]).sum(axis=1)
    return list(states)


TRANSITION = np.array([[0.90, 0.08, 0.02], [0.10, 0.80, 0.10], [0.01, 0.04, 0.95]])


def test_koopman_weights_are_the_stationary_distribution_over_the_sampled_one():
    sequences = chain(TRANSITION, 0, 15, 400)
    indicators = [np.eye(3)[s] for s in sequences]
    weights = koopman_weights(Covariances(1).update(indicators))(np.eye(3))
    # indicators know the counted transition matrix: its stationary distribution, to rounding
    counts = np.zeros((3, 3))
    for s in sequences:
        np.add.at(counts, (s[:-1], s[1:]), 1)
    sampled = counts.sum(axis=1) / counts.sum()
    values, vectors = np.linalg.eig((counts / counts.sum(axis=1, keepdims=True)).T)
    stationary = np.real(vectors[:, np.argmax(values.real)])
    stationary /= stationary.sum()
    np.testing.assert_allclose(weights, stationary / sampled, rtol=1e-10)
    assert np.abs(sampled - stationary).max() > 0.2


def test_koopman_weights_are_those_of_deeptime():
    deeptime = pytest.importorskip("deeptime.covariance")
    arrays = [np.eye(3)[s] @ [[1.0, 0.2], [0.0, 1.0], [-1.0, 3.0]] for s in chain(TRANSITION, 0, 30, 100)]
    pairs = np.concatenate([x[:-2] for x in arrays]), np.concatenate([x[2:] for x in arrays])
    theirs = deeptime.KoopmanWeightingEstimator(lagtime=2, epsilon=1e-6).partial_fit(pairs).fetch_model()
    ours = koopman_weights(Covariances(2).update(arrays))
    np.testing.assert_allclose(ours(pairs[0]), theirs.weights(pairs[0]), rtol=1e-8)
    assert ours(pairs[0]).mean() == pytest.approx(1.0, abs=1e-12)


def test_what_cannot_be_reweighted():
    x = walks(500)[0]
    with pytest.raises(ValueError, match="got reversible ones"):
        koopman_weights(Covariances(1, reversible=True).update(x))
    # the number of the trajectory never changes: there are as many equilibria as trajectories
    with pytest.raises(ValueError, match="one equilibrium"):
        koopman_weights(Covariances(1).update([np.c_[x, np.zeros(500)], np.c_[x, np.ones(500)]]))
