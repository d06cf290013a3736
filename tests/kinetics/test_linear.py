"""Linear coordinates: against counted Markov chains, closed forms, other libraries, and what data should not do."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from molml.kinetics.linear import PCA, TICA, VAMP
from molml.kinetics.metrics import vamp_score

ESTIMATORS = [PCA(), TICA(), VAMP()]
TRANSITION = np.array([[0.90, 0.08, 0.02], [0.10, 0.80, 0.10], [0.01, 0.04, 0.95]])


def chain(n_frames, *, start=0, seed=0, transition=TRANSITION):
    """States of a Markov chain."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(transition, axis=1)
    states = [start]
    for uniform in rng.uniform(size=n_frames - 1):
        states.append(int((uniform > cumulative[states[-1]]).sum()))
    return np.array(states)


def counted(sequences, lagtime):
    """Transition counts of three states."""
    counts = np.zeros((3, 3))
    for s in sequences:
        np.add.at(counts, (s[: len(s) - lagtime], s[lagtime:]), 1)
    return counts


def oscillators(*lengths, seed=0):
    """AR(1) processes of timescales 100, 20, 5 and 1 frames and variance 1, mixed; and their independent values."""
    rng = np.random.default_rng(seed)
    rho = np.exp(-1 / np.array([100.0, 20.0, 5.0, 1.0]))
    hidden = []
    for n in lengths:
        z = rng.normal(size=(n, 4))
        z[1:] *= np.sqrt(1 - rho**2)
        for t in range(1, n):
            z[t] += rho * z[t - 1]
        hidden.append(z)
    return [z @ MIXING + [1.0, -20.0, 3.0, 0.0] for z in hidden], hidden


MIXING = np.random.default_rng(5).normal(size=(4, 4)) * [1.0, 0.1, 10.0, 3.0]


def up_to_sign(a, b):
    """Largest difference of columns that may have the other sign, relative to their size."""
    signs = np.sign((a * b).sum(axis=0))
    return np.abs(a - signs * b).max() / np.abs(b).max()


@parametrize_with_checks([*ESTIMATORS, PCA(whiten=True), TICA(scaling="commute_map"), TICA(reweight=True)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# PCA


def test_pca_is_the_singular_value_decomposition():
    x = oscillators(2000)[0][0]
    u, s, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    pca = PCA().fit(x)
    np.testing.assert_allclose(pca.mean_, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pca.explained_variance_, s**2 / 1999, rtol=1e-10)
    np.testing.assert_allclose(pca.explained_variance_ratio_, s**2 / (s**2).sum(), rtol=1e-10)
    assert up_to_sign(pca.components_.T, vt.T) < 1e-8
    assert up_to_sign(pca.transform(x), u * s) < 1e-8
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(x)), x, atol=1e-10)


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_equals_scikit_learn(whiten):
    x = oscillators(500)[0][0]
    ours, theirs = PCA(3, whiten=whiten).fit(x), SklearnPCA(3, whiten=whiten).fit(x)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-10)
    assert up_to_sign(ours.transform(x), theirs.transform(x)) < 1e-8
    z = ours.transform(x)
    np.testing.assert_allclose(ours.inverse_transform(z), theirs.inverse_transform(theirs.transform(x)), atol=1e-8)
    assert isinstance(ours.inverse_transform([z, z]), list)


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_scores_the_variance_it_explains(whiten):
    train, test = oscillators(3000, 400)[0]
    pca = PCA(2, whiten=whiten).fit(train)
    assert pca.score(train) == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-12)
    left = test - pca.inverse_transform(pca.transform(test))
    expected = 1 - np.square(left).sum() / np.square(test - test.mean(axis=0)).sum()
    assert pca.score(test) == pytest.approx(expected, abs=1e-12)
    assert PCA(4, whiten=whiten).fit(train).score(test) == pytest.approx(1.0, abs=1e-12)


def test_pca_whitens_only_what_varies():
    x = oscillators(300)[0][0]
    x = np.c_[x, np.full(300, 3.0), x[:, 0] - x[:, 1]]
    pca = PCA(whiten=True).fit(x)
    assert pca.components_.shape == (4, 6)
    np.testing.assert_allclose(np.cov(pca.transform(x).T), np.eye(4), atol=1e-8)
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(x)), x, atol=1e-8)
    plain = PCA().fit(x)
    assert plain.components_.shape == (6, 6) and plain.explained_variance_[4:].max() < 1e-10
    with pytest.raises(ValueError, match="n_components must be at most 4"):
        PCA(5, whiten=True).fit(x)
    # what one feature lacks in size must not be noise of another
    wide = PCA(whiten=True).fit(x[:, :2] * [1e9, 1e-9])
    assert len(wide.components_) == 1 and np.isfinite(wide.components_).all()


def test_pca_of_fewer_frames_than_features():
    x = np.random.default_rng(0).normal(size=(5, 20))
    pca = PCA(4, whiten=True).fit(x)
    np.testing.assert_allclose(np.cov(pca.transform(x).T), np.eye(4), atol=1e-8)
    with pytest.raises(ValueError, match="at most 4, the number of independent directions"):
        PCA(5, whiten=True).fit(x)


def test_pca_weights_are_repeats():
    x = oscillators(60)[0][0]
    repeats = np.random.default_rng(0).integers(0, 4, 60)
    weighted, repeated = PCA(2).fit(x, weights=repeats), PCA(2).fit(np.repeat(x, repeats, axis=0))
    np.testing.assert_allclose(weighted.components_, repeated.components_, atol=1e-10)
    np.testing.assert_allclose(weighted.explained_variance_ratio_, repeated.explained_variance_ratio_, rtol=1e-10)
    assert np.abs(PCA(2).fit(x).components_ - weighted.components_).max() > 1e-3


# TICA


@pytest.mark.parametrize("lagtime", [1, 4])
def test_tica_of_a_counted_chain(lagtime):
    """With states as features TICA is the Markov model of symmetrised counts."""
    sequences = [chain(800), chain(300, start=2, seed=1), chain(50, start=1, seed=2)]
    counts = counted(sequences, lagtime)
    symmetric = counts + counts.T
    expected = np.sort(np.linalg.eigvals(symmetric / symmetric.sum(axis=1, keepdims=True)).real)[::-1]
    tica = TICA(lagtime).fit([np.eye(3)[s] for s in sequences])
    # one of the three indicators follows from the others, and the constant function has no variance
    assert tica.rank_ == 2
    np.testing.assert_allclose(tica.eigenvalues_, expected[1:], rtol=1e-10)
    np.testing.assert_allclose(tica.timescales(), -lagtime / np.log(expected[1:]), rtol=1e-8)
    np.testing.assert_allclose(tica.timescales(1), tica.timescales()[:1])


def test_tica_solves_its_eigenvalue_problem():
    arrays = oscillators(2000, 500)[0]
    lag = 7
    x, y = (np.concatenate(a) for a in ([a[:-lag] for a in arrays], [a[lag:] for a in arrays]))
    mean = (x.mean(axis=0) + y.mean(axis=0)) / 2
    x, y = x - mean, y - mean
    c0, ct = (x.T @ x + y.T @ y) / 2, (x.T @ y + y.T @ x) / 2
    values, vectors = scipy.linalg.eigh(ct, c0)
    order = np.argsort(-np.abs(values))
    tica = TICA(lag, scaling=None).fit(arrays)
    np.testing.assert_allclose(tica.eigenvalues_, values[order], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tica.mean_, mean, rtol=1e-10)
    expected = vectors[:, order] * np.sqrt(len(x))
    assert up_to_sign(tica.components_.T, expected) < 1e-8
    z = tica.transform(np.concatenate([x, y]) + mean)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(4), atol=1e-9)


def test_tica_finds_the_timescales_of_oscillators():
    arrays, hidden = oscillators(40_000, 40_000)
    tica = TICA(5).fit(arrays)
    # the standard error of a correlation time t over T frames is about t √(2 t / T)
    t = np.array([100.0, 20.0, 5.0, 1.0])
    assert (np.abs(tica.timescales() - t) < 4 * t * np.sqrt(2 * t / 80_000) + [0, 0, 0, 0.5]).all()
    z = np.concatenate(tica.transform(arrays))
    assert abs(np.corrcoef(z[:, 0], np.concatenate(hidden)[:, 0])[0, 1]) > 0.99
    # the first direction of largest variance is another one
    p = np.concatenate(PCA(1).fit(arrays).transform(arrays))
    assert abs(np.corrcoef(p[:, 0], np.concatenate(hidden)[:, 0])[0, 1]) < 0.9


@pytest.mark.parametrize("lagtime", [1, 10])
def test_tica_equals_deeptime(lagtime):
    deeptime = pytest.importorskip("deeptime.decomposition")
    arrays = oscillators(1000, 700)[0]
    theirs = deeptime.TICA(lagtime=lagtime).fit(arrays).fetch_model()
    ours = TICA(lagtime).fit(arrays)
    np.testing.assert_allclose(ours.eigenvalues_, theirs.singular_values, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.timescales(), theirs.timescales(lagtime=lagtime), rtol=1e-7)
    assert up_to_sign(ours.transform(arrays[0]), theirs.transform(arrays[0])) < 1e-8
    # a decay of one more frame would be seen
    assert np.abs(TICA(lagtime + 1).fit(arrays).eigenvalues_ - theirs.singular_values).max() > 1e-3


def test_scalings():
    x = oscillators(3000)[0][0]
    plain, kinetic, commute = (TICA(3, scaling=s).fit(x) for s in (None, "kinetic_map", "commute_map"))
    values = plain.eigenvalues_
    np.testing.assert_allclose(plain.components_, plain.eigenvectors_)
    np.testing.assert_allclose(kinetic.components_, plain.components_ * np.abs(values)[:, None])
    t = -3 / np.log(np.abs(values))
    damped = t / 2 * (1 + np.tanh(np.pi * (t - 3) / 3))
    np.testing.assert_allclose(commute.components_, plain.components_ * np.sqrt(damped / 2)[:, None])
    assert plain.vamp_score(x) == pytest.approx(kinetic.vamp_score(x), abs=1e-12)


def test_as_few_components_as_hold_the_kinetic_variance():
    x = oscillators(3000)[0][0]
    ratio = TICA(3).fit(x).kinetic_variance_ratio_
    assert ratio.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(ratio, TICA(3).fit(x).eigenvalues_ ** 2 / (TICA(3).fit(x).eigenvalues_ ** 2).sum())
    for estimator in (TICA, VAMP):
        ratio = estimator(3).fit(x).kinetic_variance_ratio_
        for n in (1, 2, 3):
            part = float(ratio[:n].sum())
            assert len(estimator(3, kinetic_variance=part).fit(x).components_) == n
            assert len(estimator(3, kinetic_variance=part + 1e-6).fit(x).components_) == n + 1
        assert len(estimator(3, kinetic_variance=1.0).fit(x).components_) == 4
        assert len(estimator(3, 2, kinetic_variance=1.0).fit(x).components_) == 2


def test_anticorrelated_coordinates_come_by_size_and_have_no_timescale():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5000, 2))
    for t in range(1, 5000):
        z[t] += [-0.9, 0.5] * z[t - 1]
    tica = TICA(1).fit(z)
    assert tica.eigenvalues_[0] < -0.85 and tica.eigenvalues_[1] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(tica.timescales(), [-1 / np.log(tica.eigenvalues_[1]), 0.0])


def test_a_coordinate_that_never_decays():
    """Two trajectories that differ in a constant: eigenvalue 1, an infinite timescale, no commute distance."""
    x = [np.c_[a, np.full(len(a), float(i))] for i, a in enumerate(oscillators(300, 300)[0])]
    tica = TICA(2).fit(x)
    assert tica.eigenvalues_[0] == 1.0 and tica.timescales()[0] == np.inf
    with pytest.raises(ValueError, match="infinite timescale"):
        TICA(2, scaling="commute_map").fit(x)


def test_reweighting_undoes_the_start():
    """Many short runs from one state: only with weights they show equilibrium."""
    sequences = [chain(6, start=0, seed=i) for i in range(4000)]
    indicators = [np.eye(3)[s] for s in sequences]
    values, vectors = np.linalg.eig(TRANSITION.T)
    exact = np.sort(values.real)[::-1][1:]
    stationary = np.real(vectors[:, np.argmax(values.real)])
    stationary /= stationary.sum()
    tica, plain = TICA(1, reweight=True).fit(indicators), TICA(1).fit(indicators)
    # standard errors of the counted probabilities are about 0.005
    np.testing.assert_allclose(tica.mean_, stationary, atol=0.05)
    assert np.abs(plain.mean_ - stationary).max() > 0.2
    # the chain is not reversible, so symmetrising is an approximation: of the equilibrium, not of the start
    assert np.abs(tica.eigenvalues_ - exact).max() < 0.02 < np.abs(plain.eigenvalues_ - exact).max()


def test_reweighted_tica_equals_deeptime():
    deeptime = pytest.importorskip("deeptime.decomposition")
    from deeptime.covariance import Covariance, KoopmanWeightingEstimator

    arrays = [np.eye(3)[chain(20, start=0, seed=i)] @ [[1.0, 0.2], [0.0, 1.0], [-1.0, 3.0]] for i in range(100)]
    pair = np.concatenate([x[:-2] for x in arrays]), np.concatenate([x[2:] for x in arrays])
    weights = KoopmanWeightingEstimator(lagtime=2, epsilon=1e-6).partial_fit(pair).fetch_model()
    covariance = Covariance(2, compute_c0t=True, reversible=True, remove_data_mean=True, bessels_correction=False)
    covariance.partial_fit(pair, weights=weights.weights(pair[0]))
    theirs = deeptime.TICA(lagtime=2).fit(covariance).fetch_model()
    ours = TICA(2, reweight=True).fit(arrays)
    np.testing.assert_allclose(ours.eigenvalues_, theirs.singular_values, rtol=1e-8)
    assert np.abs(TICA(2).fit(arrays).eigenvalues_ - theirs.singular_values).max() > 1e-3


# VAMP


@pytest.mark.parametrize("lagtime", [1, 4])
def test_vamp_of_a_counted_chain(lagtime):
    """With states as features: the singular values of the counts, scaled by how often each state begins and ends."""
    sequences = [chain(800), chain(300, start=2, seed=1)]
    counts = counted(sequences, lagtime)
    scaled = counts / np.sqrt(counts.sum(axis=1, keepdims=True)) / np.sqrt(counts.sum(axis=0))
    expected = np.linalg.svd(scaled)[1]
    vamp = VAMP(lagtime).fit([np.eye(3)[s] for s in sequences])
    np.testing.assert_allclose(vamp.singular_values_, expected[1:], rtol=1e-10)
    indicators = [np.eye(3)[s] for s in sequences]
    for r in (1, 2, 3.5):
        assert vamp.vamp_score(indicators, r=r) == pytest.approx((expected**r).sum(), rel=1e-10)
    # on its own data the model is the best one, and VAMP-E of the best one is VAMP-2
    assert vamp.vamp_score(indicators, r="E") == pytest.approx((expected**2).sum(), rel=1e-10)
    assert vamp.score(indicators) == vamp.vamp_score(indicators, r=2)
    np.testing.assert_allclose(vamp.timescales(), -lagtime / np.log(expected[1:]), rtol=1e-8)


def test_left_and_right_functions():
    arrays = oscillators(2000, 600)[0]
    vamp = VAMP(5).fit(arrays)
    x, y = (np.concatenate(a) for a in ([a[:-5] for a in arrays], [a[5:] for a in arrays]))
    f, g = vamp.transform(x), (y - vamp.right_mean_) @ vamp.right_components_.T
    n = len(x)
    np.testing.assert_allclose(f.T @ f / n, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(g.T @ g / n, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(f.T @ g / n, np.diag(vamp.singular_values_), atol=1e-9)
    np.testing.assert_allclose(f.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(g.mean(axis=0), 0, atol=1e-10)


@pytest.mark.parametrize("lagtime", [1, 10])
def test_vamp_equals_deeptime(lagtime):
    deeptime = pytest.importorskip("deeptime.decomposition")
    train, test = oscillators(1500, 500)[0]
    theirs = deeptime.VAMP(lagtime=lagtime).fit(train).fetch_model()
    ours = VAMP(lagtime).fit(train)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values, rtol=1e-8)
    assert up_to_sign(ours.transform(test), theirs.transform(test)) < 1e-7
    held = deeptime.VAMP.covariance_estimator(lagtime=lagtime).fit(test).fetch_model()
    for n in (None, 2):
        some = VAMP(lagtime, n).fit(train)
        for r in (1, 2, "E"):
            expected = deeptime.vamp_score(theirs, r, covariances_test=held, dim=n)
            assert some.vamp_score(test, r=r) == pytest.approx(expected, rel=1e-8)
            assert some.vamp_score(train, r=r) != pytest.approx(expected, rel=1e-3)


def test_tica_scores_its_coordinates():
    train, test = oscillators(1500, 500)[0]
    for estimator in (TICA(5, 2), TICA(5, 2, scaling=None)):
        estimator.fit(train)
        assert estimator.score(test) == pytest.approx(vamp_score(estimator.transform(test), 5), abs=1e-10)
        assert 1 < estimator.score(test) < 3
    # VAMP-E asks more of a model than VAMP-2: the eigenvalues must be right, too
    assert estimator.vamp_score(test, r="E") < estimator.vamp_score(test)
    assert estimator.vamp_score(train, r="E") == pytest.approx(estimator.vamp_score(train), abs=0.02)


def test_of_reversible_data_all_agree():
    """A trajectory and its reverse: TICA is VAMP."""
    x = oscillators(2000)[0][0]
    both = [x, x[::-1]]
    tica, vamp = TICA(5, scaling=None).fit(both), VAMP(5).fit(both)
    np.testing.assert_allclose(np.abs(tica.eigenvalues_), vamp.singular_values_, rtol=1e-8)
    assert up_to_sign(tica.components_.T, vamp.components_.T) < 1e-6


# what every one of them does


@pytest.fixture(params=[PCA(2), TICA(3, 2), VAMP(3, 2)], ids=lambda e: type(e).__name__)
def estimator(request):
    return request.param.__class__(**request.param.get_params())


def test_same_kind_back(estimator, streamed):
    arrays = oscillators(900, 40)[0]
    estimator.fit(arrays)
    one, several = estimator.transform(arrays[0]), estimator.transform(arrays)
    assert one.shape == (900, 2) and [z.shape for z in several] == [(900, 2), (40, 2)]
    np.testing.assert_array_equal(one, several[0])
    np.testing.assert_allclose(one, (arrays[0] - estimator.mean_) @ estimator.components_.T, atol=1e-12)
    pieces = estimator.transform(streamed(arrays))
    assert isinstance(pieces, list)
    np.testing.assert_allclose(np.concatenate(pieces), np.concatenate(several), rtol=1e-12, atol=1e-13)
    assert estimator.transform(arrays[0].astype(np.float32)).dtype == np.float64
    assert estimator.transform(arrays[0][:1]).shape == (1, 2)


def test_streamed_equals_in_memory(estimator, streamed):
    arrays = oscillators(3000, 50, 1200)[0]
    whole = estimator.fit(arrays).components_
    score = estimator.score(arrays)
    np.testing.assert_allclose(estimator.fit(streamed(arrays)).components_, whole, rtol=1e-10, atol=1e-12)
    assert estimator.score(streamed(arrays)) == pytest.approx(score, rel=1e-12)


def test_partial_fit_equals_fit(estimator):
    arrays = oscillators(300, 50, 120)[0]
    whole = estimator.fit(arrays).components_
    partly = type(estimator)(**estimator.get_params())
    for part in arrays:
        partly.partial_fit(part)
    np.testing.assert_allclose(partly.components_, whole, rtol=1e-8, atol=1e-12)
    # after a fit it goes on, and a fit begins anew
    np.testing.assert_allclose(estimator.fit(arrays[:1]).partial_fit(arrays[1:]).components_, whole, rtol=1e-8)
    assert np.abs(estimator.fit(arrays[1]).components_ - whole).max() > 1e-3


def test_partial_fit_that_fails_changes_nothing(estimator):
    x = oscillators(300)[0][0]
    before = estimator.partial_fit(x).components_
    for bad in (x[:, :3], [x[:, :3]], np.where(x == x[7, 2], np.nan, x)):
        with pytest.raises(ValueError, match="expecting 4 features|NaN"):
            estimator.partial_fit(bad)
    np.testing.assert_array_equal(estimator.components_, before)
    np.testing.assert_array_equal(estimator.transform(x), (x - estimator.mean_) @ before.T)
    again = type(estimator)(**estimator.get_params()).fit([x, x])
    np.testing.assert_allclose(estimator.partial_fit(x).components_, again.components_, rtol=1e-8)


def test_a_failed_fit_is_no_fit(estimator):
    with pytest.raises(ValueError, match="a feature that varies"):
        estimator.fit(np.ones((20, 3)))
    with pytest.raises(NotFittedError):
        estimator.transform(np.ones((20, 3)))


def wide(*lengths):
    """Forty float32 features of different sizes, enough to be multiplied in float32."""
    rng = np.random.default_rng(7)
    mixing, size = rng.normal(size=(4, 40)), np.geomspace(0.01, 100, 40)
    hidden = oscillators(*lengths)[1]
    return [((z @ mixing + rng.normal(size=(len(z), 40)) + 100) * size).astype(np.float32) for z in hidden]


def test_float32_is_good_to_six_digits(estimator):
    narrow = wide(50_000, 3000)
    doubles = [x.astype(float) for x in narrow]
    exact = type(estimator)(**estimator.get_params()).fit(doubles)
    found = estimator.fit(narrow)
    expected = exact.transform(doubles[0])
    assert 1e-14 < np.abs(found.transform(narrow[0]) - expected).max() / expected.std() < 5e-6
    assert found.score(narrow) == pytest.approx(exact.score(doubles), rel=1e-6)


@pytest.mark.parametrize(("kind", "name"), [(TICA, "eigenvalues_"), (VAMP, "singular_values_")])
def test_eigenvalues_of_float32_are_good_to_six_digits(kind, name):
    narrow = wide(50_000, 3000)
    found, exact = (getattr(kind(5).fit(x), name) for x in (narrow, [x.astype(float) for x in narrow]))
    assert 1e-14 < np.abs(found - exact).max() < 1e-6


def test_signs_are_those_of_the_largest_entry(estimator):
    x = oscillators(900)[0][0]
    for sign in (1.0, -1.0):
        components = estimator.fit(sign * x).components_
        largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
        assert (largest > 0).all()
    # equal entries: the first one decides, whatever rounding does to them
    twins = np.c_[x[:, 0], -x[:, 0]] * [1.0, 1.0 + 1e-12]
    assert type(estimator)(n_components=1).fit(twins).components_[0, 0] > 0


def test_units_of_the_features_do_not_matter():
    x = oscillators(2000)[0][0]
    for kind in (TICA, VAMP):
        one, other = kind(5).fit(x), kind(5).fit(x * [1e-9, 1.0, 1e6, 1e-3] + [0.0, 1e3, 0.0, 0.0])
        assert up_to_sign(one.transform(x), other.transform(x * [1e-9, 1.0, 1e6, 1e-3] + [0, 1e3, 0, 0])) < 1e-7


def test_degenerate_features():
    """Constants, copies and combinations of others neither fail nor change the result."""
    x = oscillators(2000)[0][0]
    more = np.c_[x, np.full(2000, 1e5), x[:, 1], x[:, 0] + x[:, 2], np.zeros(2000)]
    for kind in (TICA, VAMP):
        plain, padded = kind(5).fit(x), kind(5).fit(more)
        assert padded.rank_ == 4
        np.testing.assert_allclose(padded.transform(more), plain.transform(x) * sign(padded, plain, more, x), atol=1e-6)
        assert not padded.components_[:, [4, 7]].any()
        assert padded.score(more) == pytest.approx(plain.score(x), abs=1e-9)
        with pytest.raises(ValueError, match="n_components must be at most 4"):
            kind(5, 5).fit(more)


def sign(a, b, x, y):
    return np.sign((a.transform(x) * b.transform(y)).sum(axis=0))


def test_fewer_frames_than_features():
    x = np.random.default_rng(0).normal(size=(8, 30))
    vamp = VAMP(2).fit(x)
    # six pairs: any function of the first frames predicts the last ones
    assert vamp.rank_ == 5
    np.testing.assert_allclose(vamp.singular_values_, 1.0, atol=1e-10)
    assert (vamp.singular_values_ <= 1).all() and not np.isnan(vamp.timescales()).any()
    tica = TICA(2).fit(x)
    assert tica.rank_ <= 8 and np.isfinite(tica.components_).all() and (np.abs(tica.eigenvalues_) <= 1 + 1e-12).all()


def test_motion_without_any_memory():
    """x_t is 0 wherever x_t+1 is not: every eigenvalue is zero exactly, and nothing becomes NaN."""
    x = np.tile([1.0, 0.0, -1.0, 0.0], 5)[:, None][:-2]
    tica = TICA(1).fit(x)
    assert np.isfinite(tica.components_).all() and tica.eigenvalues_[0] == pytest.approx(0.0, abs=0.05)
    assert np.isfinite(tica.kinetic_variance_ratio_).all()


def test_test_data_that_does_not_vary():
    x = oscillators(500)[0][0]
    for estimator in (TICA(3, 2), VAMP(3, 2)):
        assert estimator.fit(x).score(np.tile(x[:1], (50, 1))) == 1.0
    with pytest.raises(ValueError, match="a feature that varies"):
        PCA(2).fit(x).score(np.tile(x[:1], (50, 1)))


def test_pipelines_and_grids_of_trajectories():
    arrays = oscillators(700, 800, 750, 600, 90, 640)[0]
    pipeline = make_pipeline(PCA(whiten=True), TICA(5))
    pipeline.fit(arrays)
    np.testing.assert_allclose(pipeline[-1].eigenvalues_, TICA(5).fit(arrays).eigenvalues_, rtol=1e-8)
    assert isinstance(pipeline.transform(arrays), list)
    assert list(pipeline.get_feature_names_out()) == ["tica0", "tica1", "tica2", "tica3"]
    search = GridSearchCV(pipeline, {"tica__n_components": [1, 2, 3]}, cv=3, error_score="raise").fit(arrays)
    # folds are whole trajectories
    train, test = next(KFold(3).split(arrays))
    by_hand = make_pipeline(PCA(whiten=True), TICA(5, 2)).fit([arrays[i] for i in train])
    expected = by_hand.score([arrays[i] for i in test])
    assert search.cv_results_["split0_test_score"][1] == pytest.approx(expected, rel=1e-12)
    # VAMP-2 grows with every coordinate that holds something
    assert search.best_params_ == {"tica__n_components": 3}
    single = GridSearchCV(VAMP(), {"lagtime": [1, 2]}, cv=KFold(2), error_score="raise").fit(arrays[0])
    assert single.best_params_ == {"lagtime": 1}


def test_names_of_components():
    x = oscillators(100)[0][0]
    assert list(PCA(2).fit(x).get_feature_names_out()) == ["pca0", "pca1"]
    assert list(VAMP(1, 1).fit(x).get_feature_names_out()) == ["vamp0"]


def test_columns_of_a_data_frame_are_forgotten_with_the_next_fit():
    pandas = pytest.importorskip("pandas")
    x = oscillators(100)[0][0]
    tica = TICA().fit(pandas.DataFrame(x, columns=list("abcd")))
    assert list(tica.feature_names_in_) == list("abcd")
    assert not hasattr(tica.fit([x]), "feature_names_in_")


def test_weights():
    arrays = oscillators(300, 200)[0]
    for kind in (TICA, VAMP):
        weighted = kind(5, 2).fit(arrays, weights=[np.ones(300), np.full(200, 2.0)])
        repeated = kind(5, 2).fit([*arrays, arrays[1]])
        np.testing.assert_allclose(weighted.components_, repeated.components_, rtol=1e-8)
        partly = kind(5, 2).partial_fit(arrays[0]).partial_fit(arrays[1], weights=np.full(200, 2.0))
        np.testing.assert_allclose(partly.components_, repeated.components_, rtol=1e-8)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (TICA(0), "lagtime must be a whole number of frames, at least 1"),
        (VAMP(1.5), "lagtime must be a whole number"),
        (TICA(100), "lagtime must be shorter than every trajectory"),
        (TICA(1, 0), "n_components must be a whole number of at least 1"),
        (VAMP(1, 2.0), "n_components must be a whole number"),
        (PCA(True), "n_components must be a whole number"),
        (PCA(5), "n_components must be at most 4"),
        (TICA(1, 5), "n_components must be at most 4"),
        (TICA(scaling="km"), "scaling must be one of kinetic_map, commute_map or None, got 'km'"),
        (TICA(epsilon=-1.0), "epsilon must be at least 0"),
        (VAMP(epsilon="small"), "epsilon must be at least 0"),
        (TICA(kinetic_variance=1.5), "kinetic_variance must be a fraction"),
        (VAMP(kinetic_variance=0), "kinetic_variance must be a fraction"),
    ],
)
def test_parameters_that_cannot_be(estimator, message):
    x = oscillators(100)[0][0]
    with pytest.raises(ValueError, match=message):
        estimator.fit(x)
    with pytest.raises(ValueError, match=message):
        estimator.partial_fit(x)


def test_more_that_cannot_be(streamed):
    x = oscillators(100)[0][0]
    with pytest.raises(ValueError, match="weights must not be given with reweight=True"):
        TICA(reweight=True).fit(x, weights=np.ones(100))
    with pytest.raises(AttributeError, match="partial_fit"):
        TICA(reweight=True).partial_fit(x)
    with pytest.raises(ValueError, match="lagtime=1.*lagtime=2"):
        TICA(1).partial_fit(x).set_params(lagtime=2).partial_fit(x)
    tica = TICA(1, 2).fit(x)
    for n in (0, 3, 1.0):
        with pytest.raises(ValueError, match="n must be a whole number from 1 to 2"):
            tica.timescales(n)
    for r in (0.5, "e", True, np.inf):
        with pytest.raises(ValueError, match="r must be a number of at least 1"):
            tica.vamp_score(x, r=r)
    with pytest.raises(ValueError, match="expecting 4 features"):
        tica.transform([x[:, :2]])
    with pytest.raises(ValueError, match="expecting 2 features"):
        PCA(2).fit(x).inverse_transform(x)
    with pytest.raises(TypeError, match="streamed source"):
        PCA(2).fit(x).inverse_transform(streamed([x[:, :2]]))
    with pytest.raises(ValueError, match="n_samples=1"):
        PCA().fit(x[:1])
    for unfitted in (PCA(), TICA(), VAMP()):
        with pytest.raises(NotFittedError):
            unfitted.score(x)
