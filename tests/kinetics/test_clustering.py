"""Cells and mixtures: against brute force, scikit-learn, and data with known clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from molml.io import ModelFileError, load_container, save_container
from molml.kinetics import clustering, data
from molml.kinetics.clustering import GaussianMixture, KMeans


def blobs(n_per_blob=50, n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    middles = 10 * np.eye(4, n_features) + np.arange(4)[:, None]
    return np.concatenate([middle + rng.normal(size=(n_per_blob, n_features)) for middle in middles])


def brute_force(X, centers):
    return np.argmin(((X[:, None] - centers) ** 2).sum(axis=2), axis=1)


@parametrize_with_checks([KMeans(3), GaussianMixture(2)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


# ---- labels


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5, 8, 19])
@pytest.mark.parametrize("n_frames", [1, 127, 128, 129, 1000])
def test_labels_are_those_of_brute_force(dtype, n_features, n_frames):
    rng = np.random.default_rng(n_features)
    X, centers = rng.normal(size=(n_frames, n_features)).astype(dtype), rng.normal(size=(37, n_features))
    labels, distances = np.empty(n_frames, np.int32), np.empty(n_frames, dtype)
    clustering._assign(X, centers.astype(dtype), labels, distances)
    np.testing.assert_array_equal(labels, brute_force(X.astype(float), centers.astype(dtype)))
    expected = ((X.astype(float) - centers.astype(dtype)[labels]) ** 2).sum(axis=1)
    # of the largest sums, a few roundings of the type
    np.testing.assert_allclose(distances, expected, rtol=20 * np.finfo(dtype).eps)


def test_of_equally_near_centres_the_first():
    model = KMeans(3, max_iter=0).fit(np.array([[0.0], [2.0], [4.0]]))
    model.cluster_centers_ = np.array([[2.0], [0.0], [2.0]])
    np.testing.assert_array_equal(model.predict(np.array([[1.0], [2.0], [0.9], [5.0]])), [0, 0, 1, 0])


def test_far_from_the_origin_distances_are_still_differences():
    X = 1e9 + blobs()
    model = KMeans(4).fit(X)
    np.testing.assert_array_equal(model.predict(X), brute_force(X, model.cluster_centers_))
    assert len({tuple(np.unique(model.predict(X)[i : i + 50])) for i in range(0, 200, 50)}) == 4
    # control: |x|² - 2 x·c + |c|² has lost all digits there
    squares = (X**2).sum(axis=1)[:, None] - 2 * X @ model.cluster_centers_.T + (model.cluster_centers_**2).sum(axis=1)
    assert (squares.argmin(axis=1) != model.predict(X)).any()


# ---- centres


def test_known_clusters_are_found():
    X = blobs()
    model = KMeans(4).fit(X)
    expected = X.reshape(4, 50, 3).mean(axis=1)
    order = brute_force(expected, model.cluster_centers_)
    np.testing.assert_allclose(model.cluster_centers_[order], expected, rtol=1e-12)
    np.testing.assert_array_equal(model.counts_, 50)
    assert model.inertia_ == pytest.approx(((X - model.cluster_centers_[model.predict(X)]) ** 2).sum())
    assert model.score(X) == pytest.approx(-model.inertia_ / 200)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ends_where_scikit_learn_ends_from_the_same_start(dtype):
    X = np.random.default_rng(1).normal(size=(3000, 4)).astype(dtype)
    start = KMeans(20, max_iter=0).fit(X).cluster_centers_
    mine = KMeans(20, tol=0, max_iter=500).fit(X)
    theirs = SklearnKMeans(20, init=start.astype(dtype), n_init=1, tol=0, max_iter=500, algorithm="lloyd").fit(X)
    np.testing.assert_allclose(mine.cluster_centers_, theirs.cluster_centers_, atol=2e-5)
    np.testing.assert_array_equal(mine.predict(X), theirs.labels_)
    # control: the start itself is far from there
    assert np.abs(start - theirs.cluster_centers_).max() > 0.1


def test_start_is_as_good_as_that_of_scikit_learn():
    X = np.random.default_rng(1).normal(size=(3000, 4))
    mine = [KMeans(50, seed=seed, max_iter=0).fit(X).inertia_ for seed in range(8)]
    theirs = [-SklearnKMeans(50, random_state=seed, n_init=1, max_iter=1).fit(X).score(X) for seed in range(8)]
    # theirs have moved once already, which lowers it by a fifth
    assert np.mean(mine) < 1.4 * np.mean(theirs)
    rng = np.random.default_rng(0)
    drawn = [((X - c[brute_force(X, c)]) ** 2).sum() for c in (X[rng.choice(3000, 50)] for _ in range(8))]
    # control: frames drawn alike
    assert np.mean(mine) < 0.95 * np.mean(drawn)


@given(st.integers(0, 2**20))
@settings(max_examples=30)
def test_inertia_never_rises(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 2)).round(1)
    k = int(rng.integers(1, 12))
    inertia = [KMeans(k, seed=seed, max_iter=n, tol=0).fit(X).inertia_ for n in range(5)]
    assert all(b <= a + 1e-9 for a, b in zip(inertia, inertia[1:], strict=False))


def test_stops_by_itself_and_when_told():
    X = blobs()
    assert KMeans(4).fit(X).n_iter_ < 10
    assert KMeans(12, tol=0, max_iter=3).fit(X).n_iter_ == 3
    assert KMeans(12, tol=0.5).fit(X).n_iter_ < KMeans(12, tol=0, max_iter=300).fit(X).n_iter_


def test_seed_decides():
    X = np.random.default_rng(1).normal(size=(500, 2))
    first, again, other = (KMeans(10, seed=seed).fit(X).cluster_centers_ for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_rare_clusters_are_found_in_samples_too(monkeypatch):
    X = np.concatenate([np.zeros((40_000, 1)) + np.linspace(0, 1, 40_000)[:, None], np.full((400, 1), 90.0)])
    model = KMeans(2).fit(X)
    assert model.cluster_centers_.max() == pytest.approx(90)


# ---- what goes wrong


def test_a_cell_that_loses_all_frames_moves_to_the_furthest(monkeypatch):
    X = np.concatenate([blobs(), [[500.0, 0.0, 0.0]]])
    bad = np.array([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0], [2e4, 0.0, 0.0]])
    monkeypatch.setattr(KMeans, "_first_centers", lambda self, data: bad.copy())
    model = KMeans(3).fit(X)
    assert (model.counts_ > 0).all() and model.counts_.sum() == len(X)
    assert model.cluster_centers_[:, 0].max() == 500
    # control: without moving, two of the centres have nothing
    assert KMeans(3, max_iter=0).fit(X).counts_.tolist() == [len(X), 0, 0]


def test_duplicates():
    X = np.repeat([[0.0], [1.0], [5.0]], 100, axis=0)
    model = KMeans(3).fit(X)
    np.testing.assert_array_equal(np.sort(model.cluster_centers_[:, 0]), [0, 1, 5])
    assert model.inertia_ == 0
    with pytest.raises(ValueError, match="got 3 different ones and n_clusters=4; choose fewer clusters"):
        KMeans(4).fit(X)


def test_different_frames_that_a_sample_misses_are_found():
    X = np.zeros((50_000, 1))
    X[[17, 30_000]] = [[1.0], [2.0]]
    np.testing.assert_array_equal(np.sort(KMeans(3).fit(X).cluster_centers_[:, 0]), [0, 1, 2])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_clusters": 0}, "n_clusters must be a whole number of at least 1, got 0"),
        ({"n_clusters": 2.0}, "n_clusters must be a whole number"),
        ({"n_clusters": True}, "n_clusters must be a whole number"),
        ({"n_clusters": 201}, "n_samples=200 and n_clusters=201; choose fewer clusters"),
        ({"n_clusters": 2, "max_iter": -1}, "max_iter must be a whole number of at least 0"),
        ({"n_clusters": 2, "tol": -1.0}, "tol must be at least 0"),
        ({"n_clusters": 2, "tol": np.inf}, "tol must be at least 0 and finite"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KMeans(**options).fit(blobs())
    with pytest.raises(ValueError, match=message):
        KMeans(**options).partial_fit(blobs())


@pytest.mark.parametrize("estimator", [KMeans(2), GaussianMixture(2)])
def test_bad_frames_are_refused(estimator):
    X = blobs()
    model = clone(estimator).fit(X)
    X[3, 1] = np.nan
    for use in (model.predict, model.transform, model.score, clone(estimator).fit):
        with pytest.raises(ValueError, match="trajectory 0, frame 3, feature 1"):
            use(X)
    for use in (model.predict, model.transform, model.score):
        with pytest.raises(ValueError, match="X has 2 features, but it is expecting 3"):
            use(X[:, :2])
    with pytest.raises(ValueError, match="empty list"):
        clone(estimator).fit([])


@pytest.mark.parametrize("estimator", [KMeans(2), GaussianMixture(2)])
def test_not_fitted(estimator):
    for use in (estimator.predict, estimator.transform, estimator.score):
        with pytest.raises(NotFittedError):
            use(blobs())


def test_overflow_is_an_error():
    with pytest.raises(ValueError, match="squared distances overflow; scale them"), np.errstate(over="ignore"):
        KMeans(2).fit(np.array([[1e200], [-1e200], [3.0]]))


# ---- lists, streams, pipelines


def test_lists_and_streams_are_the_frames_of_one_array(monkeypatch, streamed):
    monkeypatch.setattr(data, "BLOCK_BYTES", 100)
    X = np.random.default_rng(0).normal(size=(2500, 3))
    parts = [X[:700], X[700:701], X[701:]]
    whole = KMeans(7).fit(X)
    for given_ in (parts, tuple(parts), streamed(parts, 97)):
        model = KMeans(7).fit(given_)
        np.testing.assert_allclose(model.cluster_centers_, whole.cluster_centers_, rtol=1e-12)
        states = model.predict(given_)
        assert isinstance(states, list) and [len(x) for x in states] == [700, 1, 1799]
        np.testing.assert_array_equal(np.concatenate(states), whole.predict(X))
        distances = model.transform(given_)
        assert isinstance(distances, list)
        np.testing.assert_allclose(np.concatenate(distances), whole.transform(X), rtol=1e-9)
        assert model.score(given_) == pytest.approx(whole.score(X))
        np.testing.assert_array_equal(np.concatenate(KMeans(7).fit_predict(given_)), whole.predict(X))
    assert whole.predict(X).dtype == np.int32 and whole.predict(X).shape == (2500,)


def test_transform_gives_distances():
    X = blobs()
    model = KMeans(4).fit(X)
    distances = model.transform(X)
    expected = np.linalg.norm(X[:, None] - model.cluster_centers_, axis=2)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    np.testing.assert_array_equal(distances.argmin(axis=1), model.predict(X))


def test_other_layouts():
    X = np.random.default_rng(0).normal(size=(300, 6))
    view = X[::2, ::3]
    np.testing.assert_array_equal(KMeans(4).fit(view).cluster_centers_, KMeans(4).fit(view.copy()).cluster_centers_)
    fortran = np.asfortranarray(view)
    fortran.flags.writeable = False
    np.testing.assert_array_equal(KMeans(4).fit_predict(fortran), KMeans(4).fit_predict(view.copy()))


def test_batches_move_centres_to_the_mean_of_all_frames():
    X = blobs()[np.random.default_rng(0).permutation(200)]
    model = KMeans(4).partial_fit(X[:100])
    before = model.counts_.copy()
    for first in range(100, 200, 20):
        model.partial_fit([X[first : first + 20]])
    assert before.sum() == 100 and model.counts_.sum() == 200
    whole = KMeans(4).fit(X)
    order = brute_force(whole.cluster_centers_, model.cluster_centers_)
    # clusters are far apart, so that frames never change theirs
    np.testing.assert_allclose(model.cluster_centers_[order], whole.cluster_centers_, rtol=1e-10)
    assert model.n_iter_ == 6


def test_partial_fit_goes_on_from_fit():
    X = blobs()
    model = KMeans(4).fit(X)
    centers = model.cluster_centers_.copy()
    model.partial_fit(X)
    np.testing.assert_allclose(model.cluster_centers_, centers, rtol=1e-10)
    np.testing.assert_array_equal(model.counts_, 100)
    with pytest.raises(ValueError, match="expecting 3 features"):
        model.partial_fit(X[:, :1])


def test_pipelines_grids_and_names():
    X = blobs()
    pipeline = make_pipeline(StandardScaler(), KMeans(4))
    assert pipeline.fit(X).predict(X).shape == (200,)
    parts = [X[::3], X[1::3], X[2::3]]
    search = GridSearchCV(KMeans(), {"n_clusters": [1, 4]}, cv=3).fit(parts)
    assert search.best_params_ == {"n_clusters": 4}
    assert list(KMeans(2).fit(X).get_feature_names_out()) == ["kmeans0", "kmeans1"]
    assert list(GaussianMixture(2).fit(X).get_feature_names_out()) == ["gaussianmixture0", "gaussianmixture1"]


def test_progress_is_shown_on_request(capsys):
    KMeans(3, progress=True).fit(blobs())
    assert "k-means" in capsys.readouterr().err
    KMeans(3).fit(blobs())
    assert capsys.readouterr().err == ""


# ---- mixtures


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_mixture_is_that_of_scikit_learn(covariance_type, tmp_path):
    X = blobs()
    mine = GaussianMixture(4, covariance_type=covariance_type, seed=3).fit([X[:150], X[150:]])
    theirs = SklearnMixture(4, covariance_type=covariance_type, random_state=3).fit(X)
    np.testing.assert_allclose(mine.means_, theirs.means_)
    np.testing.assert_array_equal(mine.predict(X), theirs.predict(X))
    np.testing.assert_allclose(mine.transform(X), theirs.predict_proba(X))
    assert mine.score(X) == pytest.approx(theirs.score(X))
    states = mine.predict([X[:150], X[150:]])
    np.testing.assert_array_equal(np.concatenate(states), theirs.predict(X))
    np.testing.assert_allclose(np.concatenate(mine.transform([X[:150], X[150:]])), theirs.predict_proba(X))
    np.testing.assert_array_equal(mine.fit_predict(X), mine.predict(X))
    mine.save(tmp_path / "model.molml")
    loaded = GaussianMixture.from_container(load_container(tmp_path / "model.molml"))
    np.testing.assert_array_equal(loaded.transform(X), mine.transform(X))


def test_mixture_needs_frames_in_memory(streamed):
    with pytest.raises(TypeError, match="GaussianMixture needs all frames in memory, got a stream"):
        GaussianMixture(2).fit(streamed([blobs()], 97))
    with pytest.raises(TypeError, match="in memory"):
        GaussianMixture(2).fit(blobs()).predict(streamed([blobs()], 97))


def test_mixture_that_has_not_converged_warns():
    with pytest.warns(ConvergenceWarning):
        GaussianMixture(3, max_iter=1, tol=1e-12).fit(np.random.default_rng(0).normal(size=(100, 1)))


# ---- files


def test_files_keep_everything(tmp_path):
    X = blobs()
    model = KMeans(4, seed=5).fit(X)
    model.save(tmp_path / "model.molml", {"names": ["x", "y", "z"]})
    container = load_container(tmp_path / "model.molml")
    loaded = KMeans.from_container(container)
    assert container.metadata["names"] == ["x", "y", "z"] and loaded.get_params() == model.get_params()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.partial_fit(X).counts_, 2 * model.counts_)


@pytest.mark.parametrize(
    "estimator, tensor", [(KMeans(2), "cluster_centers_"), (GaussianMixture(2), "precisions_cholesky_")]
)
def test_files_that_do_not_fit_together_are_refused(estimator, tensor, tmp_path):
    estimator.fit(blobs()).save(tmp_path / "model.molml")
    whole = load_container(tmp_path / "model.molml")
    tensors = whole.tensors | {tensor: whole.tensors[tensor][:, :2].contiguous()}
    save_container(tmp_path / "bad.molml", whole.kind, whole.config, tensors, {})
    with pytest.raises(ModelFileError, match=f"{tensor} must be an array of shape"):
        type(estimator).from_container(load_container(tmp_path / "bad.molml"))
    with pytest.raises(ModelFileError, match="expected a file of a"):
        type(estimator).from_container(whole._replace(kind="Other"))
