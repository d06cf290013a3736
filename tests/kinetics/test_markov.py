"""Markov models: closed forms, deeptime, linear regression, and what users get wrong."""

import pickle
import warnings

import numpy as np
import pytest
from deeptime.markov.msm import MarkovStateModel as DeeptimeModel
from deeptime.markov.msm import MaximumLikelihoodMSM
from scipy.sparse import csr_array, issparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from molml.io import ModelFileError, load_container, save_container
from molml.kinetics.bayesian import BayesianMarkovStateModel
from molml.kinetics.markov import MarkovStateModel
from molml.kinetics.metrics import vamp_score


def random_matrix(rng, n):
    matrix = rng.dirichlet(np.full(n, 0.5), n) + 0.02
    return matrix / matrix.sum(axis=1, keepdims=True)


def simulated(matrix, n_frames, seed=0):
    """A chain of another make: inverse transform sampling, one frame at a time."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(matrix, axis=1)
    states = np.zeros(n_frames, dtype=int)
    for t in range(1, n_frames):
        states[t] = min(np.searchsorted(cumulative[states[t - 1]], rng.random()), len(matrix) - 1)
    return states


@pytest.fixture(scope="module")
def matrix():
    """Five states with detailed balance, some of its processes oscillating."""
    flows = np.random.default_rng(0).exponential(size=(5, 5)) ** 3
    flows = flows + flows.T + 3 * np.eye(5)
    return flows / flows.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def dtrajs(matrix):
    return [simulated(matrix, n, seed) for seed, n in enumerate((4000, 1000, 2000))]


# ---- what scikit-learn asks of estimators

MODELS = [MarkovStateModel(), BayesianMarkovStateModel(n_samples=5, progress=False)]
# checks that fit to real numbers in several columns; what they are about is tested below with trajectories of states
_STATES = "trajectories of states are integers in one dimension, not features in columns"
EXPECTED_FAILURES = dict.fromkeys(
    (
        "check_complex_data", "check_dict_unchanged", "check_dont_overwrite_parameters", "check_dtype_object",
        "check_estimators_dtypes", "check_estimators_empty_data_messages", "check_estimators_fit_returns_self",
        "check_estimators_nan_inf", "check_estimators_overwrite_params", "check_estimators_pickle", "check_fit1d",
        "check_f_contiguous_array_estimator", "check_fit2d_1feature", "check_fit2d_1sample", "check_fit2d_predict1d",
        "check_fit_check_is_fitted", "check_fit_idempotent", "check_fit_score_takes_y",
        "check_methods_sample_order_invariance", "check_methods_subset_invariance", "check_n_features_in",
        "check_n_features_in_after_fitting", "check_pipeline_consistency", "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
    ),
    _STATES,
)  # fmt: skip


@parametrize_with_checks(MODELS, expected_failed_checks=lambda model: EXPECTED_FAILURES)
def test_conventions_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("model", "result"), [(MODELS[0], "transition_matrix"), (MODELS[1], "maximum_likelihood")])
def test_conventions_of_scikit_learn_on_trajectories_of_states(model, result, dtrajs):
    """What the checks that expect features in columns are about."""
    states = [x.copy() for x in dtrajs]
    for x in states:
        x.flags.writeable = False
    fitted = clone(model)
    with pytest.raises(NotFittedError):
        getattr(fitted, result)
    before = fitted.get_params()
    assert fitted.fit(states, None) is fitted
    assert fitted.get_params() == before and repr(fitted) == repr(model)
    # all that is learned ends with an underscore, and nothing of the data has changed
    assert {name for name in vars(fitted) if not name.endswith("_")} == set(before)
    for x, original in zip(states, dtrajs, strict=True):
        np.testing.assert_array_equal(x, original)
    # again, pickled, with other kinds of integers, in one array
    names = sorted(set(vars(fitted)) - set(before))
    for other in (
        clone(model).fit(states),
        clone(fitted.fit(states[:1])).fit(states),
        pickle.loads(pickle.dumps(clone(model).fit(states))),
        clone(model).fit([x.astype(np.uint8) for x in states]),
    ):
        for name in names:
            np.testing.assert_array_equal(getattr(other, name), getattr(clone(model).fit(states), name))
    for wrong, error in (
        (states[0].astype(float), TypeError), (states[0].astype(complex), TypeError), (np.full(9, np.nan), TypeError),
        (states[0].astype(object), TypeError), (np.stack([states[0]] * 2, axis=1), ValueError), ([], ValueError),
        (np.zeros(0, int), ValueError), (np.zeros(1, int), ValueError), (-states[0] - 2, ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match=r"states|dtrajs|trajectory"):
            clone(model).fit(wrong)


# ---- estimation


def one_hot(dtrajs, lagtime, n):
    begin = np.concatenate([states[:-lagtime] for states in dtrajs])
    end = np.concatenate([states[lagtime:] for states in dtrajs])
    return np.eye(n)[begin], np.eye(n)[end]


@pytest.mark.parametrize("lagtime", [1, 3])
def test_without_detailed_balance_it_is_linear_least_squares(dtrajs, lagtime):
    x, y = one_hot(dtrajs, lagtime, 5)
    model = MarkovStateModel(lagtime, reversible=False).fit(dtrajs)
    np.testing.assert_allclose(model.transition_matrix, np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-12)
    regression = LinearRegression(fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(model.transition_matrix, regression.coef_.T, atol=1e-12)
    np.testing.assert_allclose(y.T @ x, model.counts.T)
    # control: with detailed balance it is not
    constrained = MarkovStateModel(lagtime).fit(dtrajs)
    assert np.abs(constrained.transition_matrix - regression.coef_.T).max() > 1e-4


def test_least_squares_is_also_most_likely(dtrajs):
    model = MarkovStateModel(reversible=False).fit(dtrajs)
    rng = np.random.default_rng(0)

    occurred = model.counts > 0

    def log_likelihood(candidate):
        return np.sum(model.counts[occurred] * np.log(candidate[occurred]))

    best = log_likelihood(model.transition_matrix)
    for _ in range(20):
        other = model.transition_matrix * np.exp(0.01 * rng.normal(size=(5, 5)))
        assert log_likelihood(other / other.sum(axis=1, keepdims=True)) < best


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize("lagtime", [1, 4])
def test_equal_to_deeptime(dtrajs, reversible, lagtime):
    theirs = MaximumLikelihoodMSM(reversible=reversible, lagtime=lagtime, maxerr=1e-15).fit_fetch(dtrajs)
    mine = MarkovStateModel(lagtime, reversible=reversible).fit(dtrajs)
    np.testing.assert_allclose(mine.transition_matrix, theirs.transition_matrix, atol=1e-10)
    np.testing.assert_allclose(mine.stationary_distribution, theirs.stationary_distribution, atol=1e-10)
    np.testing.assert_allclose(mine.timescales(1), theirs.timescales(1), rtol=1e-8)
    expected = np.linalg.eigvals(theirs.transition_matrix)
    np.testing.assert_allclose(np.sort_complex(mine.eigenvalues()), np.sort_complex(expected), atol=1e-10)


def test_known_chain_is_found_again(matrix, dtrajs):
    model = MarkovStateModel().fit(dtrajs)
    error = np.sqrt(matrix * (1 - matrix) / model.counts.sum(axis=1, keepdims=True))
    # multinomial standard errors
    assert np.abs((model.transition_matrix - matrix) / error).max() < 4
    # control: another chain is as far away as it is
    assert np.abs((model.transition_matrix - matrix[::-1, ::-1]) / error).max() > 20


def test_lag_time_scales_timescales(matrix, dtrajs):
    one, three = MarkovStateModel(1).fit(dtrajs), MarkovStateModel(3).fit(dtrajs)
    exact = -1 / np.log(np.sort(np.linalg.eigvals(matrix).real)[::-1][1])
    assert one.timescales(1) == pytest.approx(exact, rel=0.1)
    assert three.timescales(1) == pytest.approx(exact, rel=0.1)
    # lag times in frames: a model that took steps for frames would be three times too fast
    assert three.timescales(1) * 3 > 2 * exact


def test_effective_counts_give_the_same_matrix(dtrajs):
    sliding, effective = MarkovStateModel(4).fit(dtrajs), MarkovStateModel(4, counting="effective").fit(dtrajs)
    np.testing.assert_allclose(sliding.transition_matrix, effective.transition_matrix, atol=1e-12)
    assert effective.counts.sum() == sliding.counts.sum() / 4


@pytest.mark.parametrize("reversible", [True, False])
def test_sparse_is_the_same(dtrajs, reversible):
    full = MarkovStateModel(2, reversible=reversible).fit(dtrajs)
    thin = MarkovStateModel(2, reversible=reversible, sparse=True).fit(dtrajs)
    assert issparse(thin.transition_matrix) and issparse(thin.counts) and not issparse(full.transition_matrix)
    np.testing.assert_allclose(thin.transition_matrix.toarray(), full.transition_matrix, atol=1e-12)
    np.testing.assert_allclose(thin.stationary_distribution, full.stationary_distribution, atol=1e-12)
    for n in (1, 2, 4):
        np.testing.assert_allclose(thin.timescales(n), full.timescales(n), rtol=1e-8)
    np.testing.assert_allclose(thin.mean_first_passage_times([0, 1]), full.mean_first_passage_times([0, 1]), rtol=1e-10)
    np.testing.assert_allclose(thin.committor(0, [3, 4]), full.committor(0, [3, 4]), atol=1e-12)
    np.testing.assert_array_equal(thin.simulate(50, seed=1), full.simulate(50, seed=1))


def test_counts_may_be_given_sparse_for_a_full_model_and_the_reverse():
    counts = np.array([[9, 1], [2, 8]])
    full = MarkovStateModel().fit_counts(csr_array(counts))
    thin = MarkovStateModel(sparse=True).fit_counts(counts)
    np.testing.assert_allclose(full.transition_matrix, thin.transition_matrix.toarray())
    assert not issparse(full.counts)


# ---- what is in the data


def test_states_are_known_by_their_numbers(dtrajs):
    renamed = [np.array([7, 2, 90, 5, 11])[states] for states in dtrajs]
    model, plain = MarkovStateModel().fit(renamed), MarkovStateModel().fit(dtrajs)
    np.testing.assert_array_equal(model.active_states, [2, 5, 7, 11, 90])
    assert model.n_states_ == 91 and model.active_count_fraction_ == 1
    order = [1, 3, 0, 4, 2]
    np.testing.assert_allclose(model.transition_matrix, plain.transition_matrix[np.ix_(order, order)], atol=1e-10)
    np.testing.assert_allclose(model.committor(7, 90), plain.committor(0, 2)[order], atol=1e-9)
    assert model.mean_first_passage_time([7, 2], 11) == pytest.approx(plain.mean_first_passage_time([0, 1], 4))
    assert set(model.simulate(200)) <= {2, 5, 7, 11, 90}


def test_what_is_left_out_is_said():
    # 3 is visited once, at the end; 0 only at the beginning
    states = np.array([0, 1, 2, 1, 1, 2, 2, 1, 3])
    with pytest.warns(UserWarning, match="2 of 4 visited states, with 25 % of the counts, are left out"):
        model = MarkovStateModel().fit(states)
    np.testing.assert_array_equal(model.active_states, [1, 2])
    assert model.active_count_fraction_ == 0.75
    assert model.fit_counts(np.array([[1, 1, 0], [0, 1, 1], [0, 1, 1]])).active_states.tolist() == [1, 2]


def test_absorbing_state_is_a_model_of_itself():
    with pytest.warns(UserWarning, match="1 of 2 visited states"):
        model = MarkovStateModel().fit(np.array([0, 0, 1, 1, 1, 1]))
    np.testing.assert_array_equal(model.active_states, [1])


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_one_state(reversible, sparse):
    model = MarkovStateModel(reversible=reversible, sparse=sparse).fit(np.zeros(5, dtype=int))
    assert np.asarray(model.transition_matrix.todense() if sparse else model.transition_matrix).tolist() == [[1.0]]
    assert model.stationary_distribution.tolist() == [1.0]
    assert model.timescales(3).tolist() == [] and model.eigenvalues(1).tolist() == [1.0]
    assert model.simulate(3).tolist() == [0, 0, 0]
    assert model.mean_first_passage_times(0).tolist() == [0]


def test_one_state_scores_the_constant():
    assert MarkovStateModel().fit(np.zeros(5, dtype=int)).score(np.array([0, 0, 1])) == pytest.approx(1.0)


@pytest.mark.parametrize("reversible", [True, False])
def test_periodic_chain_has_no_timescale(reversible):
    model = MarkovStateModel(reversible=reversible).fit(np.array([0, 1] * 20))
    np.testing.assert_allclose(model.eigenvalues(), [1, -1], atol=1e-14)
    np.testing.assert_array_equal(model.timescales(), [0.0])


def test_oscillating_processes_have_the_timescale_of_their_modulus():
    cycle = np.roll(np.eye(3), 1, axis=1) * 90 + 5
    model = MarkovStateModel(2, reversible=False).fit_counts(cycle)
    # circulant: 5 (1 + ω + ω²) + 90 ω = 90 ω
    modulus = 90 / 105
    np.testing.assert_allclose(np.abs(model.eigenvalues()), [1, modulus, modulus])
    np.testing.assert_allclose(model.timescales(), [-2 / np.log(modulus)] * 2)


def test_gaps_are_no_states():
    states = np.array([0, 1, 0, -1, -1, 1, 0, 1, 1])
    split = [np.array([0, 1, 0]), np.array([1, 0, 1, 1])]
    np.testing.assert_array_equal(MarkovStateModel().fit(states).counts, MarkovStateModel().fit(split).counts)


@pytest.mark.parametrize(
    "dtrajs, options, error, message",
    [
        (np.array([0, 1, 0]), {"lagtime": 3}, ValueError, "shorter than every trajectory"),
        (np.array([0, 1, 0]), {"lagtime": 0}, ValueError, "lagtime must be a whole number"),
        (np.array([0, 1, 0]), {"lagtime": 1.5}, ValueError, "lagtime must be a whole number"),
        (np.array([0, 1, 0]), {"counting": "none"}, ValueError, "counting must be one of"),
        ([], {}, ValueError, "at least one trajectory"),
        (np.array([0.5, 1.0]), {}, TypeError, "must hold integers"),
        (np.array([0, 1, 2, 3]), {}, ValueError, "connect states in both directions"),
    ],
)
def test_bad_input_is_refused(dtrajs, options, error, message):
    with pytest.raises(error, match=message):
        MarkovStateModel(**options).fit(dtrajs)


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="square"):
        MarkovStateModel().fit_counts(np.ones((2, 3)))
    with pytest.raises(ValueError, match="lagtime must be a whole number"):
        MarkovStateModel(0).fit_counts(np.ones((2, 2)))


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.transition_matrix,
        lambda model: model.counts,
        lambda model: model.stationary_distribution,
        lambda model: model.active_states,
        lambda model: model.timescales(),
        lambda model: model.simulate(3),
        lambda model: model.score(np.array([0, 1])),
    ],
)
def test_not_fitted(use):
    with pytest.raises(NotFittedError):
        use(MarkovStateModel())


# ---- spectrum


def test_two_states_in_closed_form():
    a, b = 0.02, 0.05
    model = MarkovStateModel(5).fit_counts(1e4 * np.array([[1 - a, a], [b, 1 - b]]))
    np.testing.assert_allclose(model.eigenvalues(), [1, 1 - a - b], rtol=1e-12)
    np.testing.assert_allclose(model.timescales(), [-5 / np.log(1 - a - b)], rtol=1e-12)
    np.testing.assert_allclose(model.stationary_distribution, [b / (a + b), a / (a + b)], rtol=1e-12)
    np.testing.assert_allclose(model.mean_first_passage_times(1), [5 / a, 0], rtol=1e-12)
    np.testing.assert_allclose(model.eigenvectors_right()[:, 1], np.array([-1, b / a]) * np.sqrt(a / b), rtol=1e-10)


def test_three_states_in_closed_form():
    # 0 and 2 are alike: one process between them, one between both and 1
    p, q = 0.1, 0.3
    model = MarkovStateModel().fit_counts(1e5 * np.array([[1 - p, p, 0], [q / 2, 1 - q, q / 2], [0, p, 1 - p]]))
    np.testing.assert_allclose(model.eigenvalues(), [1, 1 - p, 1 - p - q], rtol=1e-10)
    np.testing.assert_allclose(model.stationary_distribution, np.array([q / 2, p, q / 2]) / (p + q), rtol=1e-10)
    np.testing.assert_allclose(model.committor(0, 2), [0, 0.5, 1], rtol=1e-10)
    assert model.mean_first_passage_time(0, 2) == pytest.approx(2 / p + 2 / q)


@pytest.mark.parametrize("reversible", [True, False])
def test_eigenvectors_are_dual(dtrajs, reversible):
    model = MarkovStateModel(reversible=reversible).fit(dtrajs)
    values, right, left = model.eigenvalues(), model.eigenvectors_right(), model.eigenvectors_left()
    np.testing.assert_allclose(left @ right, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(right @ np.diag(values) @ left, model.transition_matrix, atol=1e-10)
    np.testing.assert_allclose(right[:, 0], 1, rtol=1e-10)
    np.testing.assert_allclose(left[0], model.stationary_distribution, atol=1e-12)
    np.testing.assert_allclose(model.eigenvectors_right(2), right[:, :2], atol=1e-10)
    np.testing.assert_allclose(model.eigenvectors_left(2), left[:2], atol=1e-10)
    np.testing.assert_allclose(model.eigenvalues(3), values[:3], rtol=1e-12)
    # more than there are is all there are
    assert len(model.eigenvalues(50)) == 5 and len(model.timescales(50)) == 4


def test_eigenvectors_of_reversible_models_have_length_one_and_a_sign(dtrajs):
    model = MarkovStateModel().fit(dtrajs)
    right = model.eigenvectors_right()
    np.testing.assert_allclose((model.stationary_distribution[:, None] * right**2).sum(axis=0), 1, rtol=1e-12)
    assert (right[np.abs(right).argmax(axis=0), np.arange(5)] > 0).all()


def test_second_process_that_hardly_decays_is_not_mixed_with_the_first():
    # two pairs of states, connected once in 10^11
    block = np.array([[60.0, 40.0], [40.0, 60.0]])
    counts = np.kron(np.eye(2), block) + 1e-9 * np.eye(4)[[2, 3, 0, 1]]
    model = MarkovStateModel().fit_counts(counts)
    second = model.eigenvectors_right()[:, 1]
    np.testing.assert_allclose(second * np.sign(second[0]), [1, 1, -1, -1], atol=1e-5)
    assert model.timescales()[0] == pytest.approx(5e10, rel=1e-3)
    np.testing.assert_allclose(model.timescales()[1:], -1 / np.log(0.2), rtol=1e-6)


def test_sparse_spectrum_of_a_slow_chain():
    n = 300
    counts = sum(np.diag(np.full(n - abs(k), 1000.0), k) for k in (-1, 0, 1))
    thin = MarkovStateModel(sparse=True).fit_counts(counts)
    full = MarkovStateModel().fit_counts(counts)
    np.testing.assert_allclose(thin.timescales(5), full.timescales(5), rtol=1e-8)
    # on a path with reflecting ends: known cosines
    np.testing.assert_allclose(np.abs(thin.eigenvectors_right(4)), np.abs(full.eigenvectors_right(4)), atol=1e-7)
    free = MarkovStateModel(sparse=True, reversible=False).fit_counts(counts)
    np.testing.assert_allclose(free.timescales(5), full.timescales(5), rtol=1e-6)
    again = MarkovStateModel(sparse=True).fit_counts(counts)
    np.testing.assert_array_equal(again.eigenvectors_right(3), thin.eigenvectors_right(3))


def test_sparse_needs_to_know_how_many():
    model = MarkovStateModel(sparse=True).fit_counts(np.ones((3, 3)))
    with pytest.raises(ValueError, match="n must be given for a sparse model"):
        model.timescales()
    model = MarkovStateModel(sparse=True, reversible=False).fit_counts(np.ones((3, 3)))
    with pytest.raises(ValueError, match="eigenvectors of a sparse model need reversible=True"):
        model.eigenvectors_right(1)


@pytest.mark.parametrize("n", [0, -1, 1.0, True])
def test_number_of_processes_is_checked(dtrajs, n):
    model = MarkovStateModel().fit(dtrajs)
    for use in (model.timescales, model.eigenvalues, model.simulate):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            use(n)
    with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
        model.score(dtrajs, n=n)


def test_matrix_without_a_basis_of_eigenvectors():
    # eigenvalues 1, 0.1, 0.1, with one eigenvector to the latter
    jordan = np.array([[1.0, 1.0, 1.0], [1.0, -2.0, 0.0], [1.0, 1.0, -1.0]])
    block = np.array([[1.0, 0.0, 0.0], [0.0, 0.1, 0.1], [0.0, 0.0, 0.1]])
    defective = jordan @ block @ np.linalg.inv(jordan)
    assert (defective > 0).all() and np.allclose(defective.sum(axis=1), 1)
    model = MarkovStateModel(reversible=False).fit_counts(defective)
    np.testing.assert_allclose(np.abs(model.eigenvalues()), [1, 0.1, 0.1], atol=1e-6)
    with pytest.raises(ValueError, match="cannot be diagonalised"):
        model.eigenvectors_right()


# ---- passages


@pytest.mark.parametrize("reversible", [True, False])
def test_passages_equal_deeptime(dtrajs, reversible):
    model = MarkovStateModel(3, reversible=reversible).fit(dtrajs)
    theirs = DeeptimeModel(model.transition_matrix, lagtime=3)
    assert model.mean_first_passage_time(0, [3, 4]) == pytest.approx(theirs.mfpt([0], [3, 4]), rel=1e-10)
    assert model.mean_first_passage_time([0, 1], 4) == pytest.approx(theirs.mfpt([0, 1], [4]), rel=1e-10)
    np.testing.assert_allclose(model.committor([0], [3, 4]), theirs.committor_forward([0], [3, 4]), atol=1e-12)


def test_passage_times_are_those_of_simulated_passages(dtrajs):
    model = MarkovStateModel(2).fit(dtrajs)
    path = model.simulate(200_000, seed=3)
    begin = np.flatnonzero(path[:-1] != 4)
    arrivals = np.flatnonzero(path == 4)
    begin = begin[begin < arrivals[-1]]
    waits = 2 * (arrivals[np.searchsorted(arrivals, begin)] - begin)
    expected = model.mean_first_passage_times(4)
    for state in range(4):
        assert waits[path[begin] == state].mean() == pytest.approx(expected[state], rel=0.05)


@pytest.mark.parametrize(
    "source, target, error, message",
    [
        ([], 1, ValueError, "source must name at least one active state"),
        (0, [], ValueError, "target must name at least one active state"),
        (0, 9, ValueError, r"got \[9\], of which \[9\] are not in active_states"),
        (0, [1, -1], ValueError, r"of which \[-1\] are not in active_states"),
        (0.0, 1, TypeError, "integers, got float64"),
        ("a", 1, TypeError, "integers"),
    ],
)
def test_sets_are_checked(dtrajs, source, target, error, message):
    model = MarkovStateModel().fit(dtrajs)
    with pytest.raises(error, match=message):
        model.mean_first_passage_time(source, target)
    with pytest.raises(error, match=message):
        model.committor(source, target)


def test_committor_needs_two_sets(dtrajs):
    with pytest.raises(ValueError, match=r"no common state, got \[1\] in both"):
        MarkovStateModel().fit(dtrajs).committor([0, 1], [1, 2])


# ---- simulation


def test_simulated_trajectories_are_of_the_chain(dtrajs):
    model = MarkovStateModel().fit(dtrajs)
    path = model.simulate(300_000, seed=5)
    error = np.sqrt(model.transition_matrix / (model.stationary_distribution[:, None] * len(path)))
    again = MarkovStateModel(reversible=False).fit(path)
    assert np.abs((again.transition_matrix - model.transition_matrix) / error).max() < 5
    # control: the transposed chain is not
    assert np.abs((again.transition_matrix - model.transition_matrix.T) / error).max() > 20


def test_first_state_is_stationary_or_given(dtrajs):
    model = MarkovStateModel().fit(dtrajs)
    first = [model.simulate(1, seed=seed)[0] for seed in range(3000)]
    share = np.bincount(first, minlength=5) / 3000
    expected = model.stationary_distribution
    assert np.abs(share - expected).max() < 4 * np.sqrt(0.25 / 3000)
    assert {int(model.simulate(2, seed=seed, start=3)[0]) for seed in range(5)} == {3}
    with pytest.raises(ValueError, match="not in active_states"):
        model.simulate(2, start=17)


def test_simulations_repeat(dtrajs):
    model = MarkovStateModel().fit(dtrajs)
    np.testing.assert_array_equal(model.simulate(100, seed=1), model.simulate(100, seed=1))
    assert (model.simulate(100, seed=1) != model.simulate(100, seed=2)).any()


# ---- score


def test_score_is_that_of_eigenvectors_as_coordinates(dtrajs):
    model = MarkovStateModel(2).fit(dtrajs[:1])
    coordinates = [model.eigenvectors_right(4)[states, 1:] for states in dtrajs[1:]]
    assert model.score(dtrajs[1:], n=3) == pytest.approx(vamp_score(coordinates, 2), rel=1e-8)
    # all of them span everything that states can say, on the same data Σ σ² of the whole matrix
    assert 1 < model.score(dtrajs[1:], n=1) < model.score(dtrajs[1:], n=4) <= 5


def test_unknown_states_score_nothing(dtrajs):
    model = MarkovStateModel().fit(dtrajs[:1])
    unknown = [np.where(states == 2, 40, states) for states in dtrajs[1:]]
    coordinates = [
        np.where(states[:, None] == 40, 0.0, model.eigenvectors_right(3)[np.minimum(states, 4), 1:])
        for states in unknown
    ]
    assert model.score(unknown, n=2) == pytest.approx(vamp_score(coordinates, 1), rel=1e-8)
    assert model.score(unknown, n=2) < model.score(dtrajs[1:], n=2)


def test_score_needs_detailed_balance(dtrajs):
    with pytest.raises(ValueError, match="choose reversible=True"):
        MarkovStateModel(reversible=False).fit(dtrajs).score(dtrajs)


# ---- scikit-learn's conventions and files


def test_parameters_and_clones():
    model = MarkovStateModel(3, reversible=False, counting="strided", sparse=True)
    assert clone(model).get_params() == model.get_params()
    assert model.fit(np.array([0, 1] * 9)) is model


def test_grid_search_over_trajectories(dtrajs):
    search = GridSearchCV(MarkovStateModel(), {"lagtime": [1, 2]}, cv=3).fit(dtrajs)
    assert search.best_params_ == {"lagtime": 1}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_fitting_warns_of_nothing_else(dtrajs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MarkovStateModel().fit(dtrajs).timescales()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("reversible", [True, False])
def test_files_keep_everything(dtrajs, tmp_path, sparse, reversible):
    model = MarkovStateModel(2, sparse=sparse, reversible=reversible).fit([states + 3 for states in dtrajs])
    model.save(tmp_path / "model.molml", {"timestep": 0.2})
    container = load_container(tmp_path / "model.molml")
    loaded = MarkovStateModel.from_container(container)
    assert container.metadata["timestep"] == 0.2
    assert loaded.get_params() == model.get_params() and loaded.n_states_ == 8
    assert issparse(loaded.transition_matrix) == sparse and issparse(loaded.counts) == sparse
    np.testing.assert_array_equal(loaded.timescales(3), model.timescales(3))
    np.testing.assert_array_equal(loaded.active_states, model.active_states)
    np.testing.assert_array_equal(loaded.simulate(20), model.simulate(20))


def test_files_that_do_not_fit_together_are_refused(dtrajs, tmp_path):
    model = MarkovStateModel(sparse=True).fit(dtrajs)
    model.save(tmp_path / "model.molml")
    whole = load_container(tmp_path / "model.molml")

    def damaged(**changes):
        tensors = {name: changes.get(name.replace(":", "_"), tensor) for name, tensor in whole.tensors.items()}
        save_container(tmp_path / "bad.molml", whole.kind, whole.config, tensors, {})
        return MarkovStateModel.from_container(load_container(tmp_path / "bad.molml"))

    damaged()
    with pytest.raises(ModelFileError, match="does not hold a whole MarkovStateModel"):
        damaged(stationary_distribution_=whole.tensors["stationary_distribution_"][:2])
    # indices beyond the matrix, which compiled code would follow
    with pytest.raises(ModelFileError, match="does not hold a whole MarkovStateModel"):
        damaged(counts__indices=whole.tensors["counts_:indices"] + 100)
    with pytest.raises(ModelFileError, match="does not hold a whole MarkovStateModel"):
        tensors = {name: tensor for name, tensor in whole.tensors.items() if name != "counts_:data"}
        MarkovStateModel.from_container(whole._replace(tensors=tensors))
