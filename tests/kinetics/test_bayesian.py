"""Posterior of Markov models: exactly known ones, deeptime's sampler, and controls."""

import numpy as np
import pytest
from deeptime.markov.msm import BayesianMSM
from scipy import stats
from scipy.sparse import csr_array, issparse

from molml.io import ModelFileError, load_container, save_container
from molml.kinetics import bayesian
from molml.kinetics.bayesian import BayesianMarkovStateModel, summary
from molml.kinetics.markov import MarkovStateModel

COUNTS = np.array([[90.0, 10.0, 0.0, 2.0], [8.0, 60.0, 5.0, 0.0], [1.0, 4.0, 40.0, 3.0], [0.0, 0.0, 6.0, 30.0]])


def matrices(model):
    return np.array([sample.transition_matrix for sample in model.models()])


def slow_chain(n=40, barrier=3.0, n_frames=20_000):
    x = np.linspace(-1.3, 1.3, n)
    energy = barrier * (x**2 - 1) ** 2
    counts = np.zeros((n, n))
    rng = np.random.default_rng(0)
    weights = np.exp(-energy) / np.exp(-energy).sum()
    for i in range(n):
        for j in (i - 1, i + 1):
            if 0 <= j < n:
                counts[i, j] = rng.poisson(n_frames * weights[i] * min(1.0, np.exp(energy[i] - energy[j])) / 3)
    return (
        counts + np.diag(rng.poisson(n_frames * weights / 3)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    )


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.005])
@pytest.mark.parametrize("reversible", [True, False])
def test_two_states_have_beta_posteriors(scale, reversible):
    # of few counts these are far from Gaussians: the smallest shape parameter is 0.05
    counts = scale * np.array([[90.0, 10.0], [20.0, 80.0]])
    model = BayesianMarkovStateModel(n_samples=3000, reversible=reversible, seed=1).fit_counts(counts)
    found = matrices(model)
    # every tenth, so that samples are independent as the test demands
    for i in range(2):
        exact = stats.beta(counts[i, 1 - i], counts[i, i])
        assert stats.kstest(found[::10, i, 1 - i], exact.cdf).pvalue > 0.01
        # control: half the counts
        wrong = stats.beta(counts[i, 1 - i] / 2, counts[i, i] / 2)
        assert stats.kstest(found[::2, i, 1 - i], wrong.cdf).pvalue < 1e-4


def test_chain_of_three_has_beta_exits():
    # without a cycle rows are tied by nothing, so the ends are as in the model without detailed balance
    counts = np.array([[50.0, 7.0, 0.0], [9.0, 70.0, 4.0], [0.0, 3.0, 30.0]])
    found = matrices(BayesianMarkovStateModel(n_samples=3000, seed=2).fit_counts(counts))[::3]
    assert stats.kstest(found[:, 0, 1], stats.beta(7, 50).cdf).pvalue > 0.01
    assert stats.kstest(found[:, 1, 0], stats.beta(9, 74).cdf).pvalue > 0.01
    assert stats.kstest(found[:, 2, 1], stats.beta(3, 30).cdf).pvalue > 0.01


@pytest.mark.parametrize("reversible", [True, False])
def test_equal_to_deeptime_within_sampling_error(reversible):
    n = 2000
    mine = matrices(BayesianMarkovStateModel(n_samples=n, reversible=reversible).fit_counts(COUNTS))
    samples = BayesianMSM(n_samples=n, reversible=reversible, n_steps=20).fit_fetch(COUNTS).samples
    theirs = np.array([sample.transition_matrix for sample in samples])
    spread = theirs.std(axis=0) + 1e-12
    # means of n samples each, some of deeptime's correlated; it takes no seed, so that there must be room for chance
    assert np.abs((mine.mean(axis=0) - theirs.mean(axis=0)) / spread).max() < 12 / np.sqrt(n)
    occurs = spread > 1e-9
    np.testing.assert_allclose(mine.std(axis=0)[occurs], spread[occurs], rtol=0.3)
    np.testing.assert_array_equal(mine.std(axis=0) > 0, occurs)


def test_detailed_balance_is_a_constraint():
    free = matrices(BayesianMarkovStateModel(n_samples=500, reversible=False).fit_counts(COUNTS))
    tied = BayesianMarkovStateModel(n_samples=500).fit_counts(COUNTS)
    for sample in tied.models():
        flows = sample.stationary_distribution[:, None] * sample.transition_matrix
        np.testing.assert_allclose(flows, flows.T, rtol=1e-12)
        np.testing.assert_allclose(sample.transition_matrix.sum(axis=1), 1, rtol=1e-13)
        assert sample.stationary_distribution.sum() == pytest.approx(1)
    # control: rows that are independent do not obey it, and cycles then have no zero where one count is
    cycle = free[:, 0, 1] * free[:, 1, 2] * free[:, 2, 0] - free[:, 0, 2] * free[:, 2, 1] * free[:, 1, 0]
    assert np.abs(cycle).max() > 1e-5


def test_samples_of_slow_chains_are_independent():
    counts = slow_chain()
    model = BayesianMarkovStateModel(n_samples=600).fit_counts(counts)
    times = np.log(model.posterior(lambda sample: sample.timescales(1)).samples[:, 0])
    assert abs(np.corrcoef(times[:-2], times[2:])[0, 1]) < 0.15
    samples = BayesianMSM(n_samples=600).fit_fetch(counts).samples
    theirs = np.log([sample.timescales(1)[0] for sample in samples])
    # control: steps from one element to the next are not; they are of the same distribution all the same
    assert np.corrcoef(theirs[:-2], theirs[2:])[0, 1] > 0.2
    # deeptime takes no seed; its 600 samples, each correlated with the next by up to 0.9, are worth 30 independent ones
    assert times.mean() == pytest.approx(theirs.mean(), abs=5 * times.std() / np.sqrt(30))
    assert times.std() == pytest.approx(theirs.std(), rel=0.6)


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth = np.array([[0.95, 0.05, 0.0], [0.03, 0.95, 0.02], [0.0, 0.06, 0.94]])
    exact = MarkovStateModel().fit_counts(truth).timescales(1)[0]
    chain = MarkovStateModel().fit_counts(truth)
    inside, too_narrow = 0, 0
    # the seeds are fixed: the test cannot fail by chance
    for seed in range(40):
        states = chain.simulate(2000, seed=seed)
        interval = (
            BayesianMarkovStateModel(n_samples=100, seed=seed)
            .fit(states)
            .posterior(lambda sample: sample.timescales(1), confidence=0.8)
        )
        inside += int(interval.low[0] <= exact <= interval.high[0])
        sliding = (
            BayesianMarkovStateModel(10, counting="sliding", n_samples=100, seed=seed)
            .fit(states)
            .posterior(lambda sample: sample.timescales(1), confidence=0.8)
        )
        too_narrow += int(sliding.low[0] <= exact <= sliding.high[0])
    # 0.8 · 40 = 32 with a standard deviation of 2.5
    assert 25 <= inside <= 39
    # control: sliding counts of lag 10 are taken for ten times as many
    assert too_narrow < 24


def test_more_data_narrower_posterior():
    few = BayesianMarkovStateModel(n_samples=400).fit_counts(COUNTS)
    many = BayesianMarkovStateModel(n_samples=400).fit_counts(100 * COUNTS)
    spread = [model.posterior(lambda sample: sample.timescales(1)).std[0] for model in (few, many)]
    assert spread[0] / spread[1] == pytest.approx(10, rel=0.4)


def test_everything_that_follows_from_a_model_has_a_posterior():
    model = BayesianMarkovStateModel(2, n_samples=50).fit_counts(COUNTS)
    passage = model.posterior(lambda sample: sample.mean_first_passage_time(0, 3))
    assert passage.samples.shape == (50,) and passage.low < passage.mean < passage.high
    assert passage.low < model.maximum_likelihood.mean_first_passage_time(0, 3) < passage.high
    committor = model.posterior(lambda sample: sample.committor(0, 3), confidence=0.5)
    assert committor.low.shape == (4,) and (committor.low <= committor.high).all()
    np.testing.assert_allclose(committor.mean[[0, 3]], [0, 1])


@pytest.mark.parametrize("reversible", [True, False])
def test_sparse_is_the_same(reversible):
    full = BayesianMarkovStateModel(n_samples=20, reversible=reversible).fit_counts(COUNTS)
    thin = BayesianMarkovStateModel(n_samples=20, reversible=reversible, sparse=True).fit_counts(csr_array(COUNTS))
    for mine, other in zip(full.models(), thin.models(), strict=True):
        assert issparse(other.transition_matrix)
        np.testing.assert_allclose(other.transition_matrix.toarray(), mine.transition_matrix, rtol=1e-8, atol=1e-12)


def test_seed_decides():
    first, again, other = (BayesianMarkovStateModel(n_samples=5, seed=s).fit_counts(COUNTS) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.probabilities_, again.probabilities_)
    assert (first.probabilities_ != other.probabilities_).any()


def test_trajectories_are_counted_effectively():
    states = MarkovStateModel().fit_counts(COUNTS).simulate(3000, seed=0)
    model = BayesianMarkovStateModel(4, n_samples=3).fit(states)
    np.testing.assert_allclose(model.counts_.sum(), (3000 - 4) / 4)
    np.testing.assert_allclose(
        model.maximum_likelihood.transition_matrix, MarkovStateModel(4).fit(states).transition_matrix, atol=1e-10
    )
    with pytest.warns(UserWarning, match="1 of 5 visited states"):
        BayesianMarkovStateModel(n_samples=2).fit(np.append(states, 7))


@pytest.mark.parametrize("counts", [np.array([[4.0]]), np.array([[0.0, 3.0], [2.0, 0.0]])], ids=["one", "periodic"])
@pytest.mark.parametrize("reversible", [True, False])
def test_nothing_to_sample(counts, reversible):
    found = matrices(BayesianMarkovStateModel(n_samples=3, reversible=reversible).fit_counts(counts))
    np.testing.assert_allclose(found, np.broadcast_to(counts > 0, found.shape), atol=1e-12)


@pytest.mark.parametrize("reversible", [True, False])
def test_hardly_any_counts_are_no_nan(reversible):
    model = BayesianMarkovStateModel(n_samples=200, reversible=reversible).fit_counts(1e-3 * COUNTS)
    assert np.isfinite(matrices(model)).all() and (model.stationary_distributions_ >= 0).all()
    np.testing.assert_allclose(matrices(model).sum(axis=2), 1)


def test_infinite_samples_have_quantiles():
    low_high = summary(np.array([1.0, np.inf, 2.0, np.inf]), 0.9)
    assert low_high.low == 1 and low_high.high == np.inf and low_high.mean == np.inf


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"n_samples": 0}, ValueError, "n_samples must be a whole number"),
        ({"n_samples": 2.5}, ValueError, "n_samples must be a whole number"),
        ({"lagtime": 0}, ValueError, "lagtime must be a whole number"),
    ],
)
def test_parameters_out_of_range_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        BayesianMarkovStateModel(**options).fit_counts(COUNTS)


def test_too_many_states(monkeypatch):
    monkeypatch.setattr(bayesian, "MOST_STATES", 3)
    with pytest.raises(ValueError, match="at most 3 states can be sampled with detailed balance, got 4"):
        BayesianMarkovStateModel().fit_counts(COUNTS)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, np.nan])
def test_confidence_is_a_probability(confidence):
    model = BayesianMarkovStateModel(n_samples=2).fit_counts(COUNTS)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        model.posterior(lambda sample: 0.0, confidence=confidence)


@pytest.mark.parametrize("sparse", [True, False])
def test_files_keep_everything(tmp_path, sparse):
    model = BayesianMarkovStateModel(3, n_samples=7, sparse=sparse).fit_counts(COUNTS)
    model.save(tmp_path / "model.molml", {"timestep": 0.2})
    loaded = BayesianMarkovStateModel.from_container(load_container(tmp_path / "model.molml"))
    assert loaded.get_params() == model.get_params()
    np.testing.assert_array_equal(loaded.probabilities_, model.probabilities_)
    np.testing.assert_array_equal(
        loaded.posterior(lambda sample: sample.timescales(2)).samples,
        model.posterior(lambda sample: sample.timescales(2)).samples,
    )
    np.testing.assert_array_equal(loaded.maximum_likelihood.timescales(2), model.maximum_likelihood.timescales(2))


@pytest.mark.parametrize("change", [lambda pattern: pattern + 1, lambda pattern: pattern[:, :-1]])
def test_files_that_do_not_fit_together_are_refused(tmp_path, change):
    BayesianMarkovStateModel(n_samples=2).fit_counts(COUNTS).save(tmp_path / "model.molml")
    whole = load_container(tmp_path / "model.molml")
    tensors = whole.tensors | {"pattern_": change(whole.tensors["pattern_"]).contiguous()}
    save_container(tmp_path / "bad.molml", whole.kind, whole.config, tensors, {})
    with pytest.raises(ModelFileError, match=r"pattern_ must hold|does not hold a whole"):
        BayesianMarkovStateModel.from_container(load_container(tmp_path / "bad.molml"))
