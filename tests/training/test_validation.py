import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from molml.training import ArrayDataset, Trainer, squared_error
from molml.training.validation import (
    bias_variance,
    cross_validate,
    learning_curve,
    resampled_predictions,
    search,
    train_test_split,
)


def samples(n=40, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return ArrayDataset(torch.tensor(x), torch.tensor(x @ [1.0, -1.0, 2.0, 0.0] + noise * rng.normal(size=n)))


def ridge(data, settings):
    return Ridge(**settings).fit(data.inputs.numpy(), data.targets.numpy())


def error(model, data):
    return mean_squared_error(data.targets.numpy(), model.predict(data.inputs.numpy()))


def plain(data):
    return ridge(data, {"alpha": 1.0})


def test_split_gives_every_item_once():
    data = ArrayDataset(torch.arange(20.0), torch.arange(20.0))
    train, test = train_test_split(data, 0.25, seed=0)
    assert (len(train), len(test)) == (15, 5)
    assert sorted(train.targets.tolist() + test.targets.tolist()) == list(range(20))
    again, other = (train_test_split(data, 0.25, seed=s)[1].targets for s in (0, 1))
    assert torch.equal(again, test.targets)
    assert not torch.equal(other, test.targets)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_split_fraction_must_leave_something(fraction):
    with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
        train_test_split(samples(), fraction, seed=0)


def test_a_split_without_training_items_is_refused():
    with pytest.raises(ValueError, match="train set will be empty"):
        train_test_split(samples(1), 0.5, seed=0)


def test_cross_validation_equals_scikit_learns():
    data = samples()
    result = cross_validate(plain, error, data, k=5, seed=3)
    folds = KFold(5, shuffle=True, random_state=3)
    scores = cross_val_score(Ridge(), data.inputs, data.targets, cv=folds, scoring="neg_mean_squared_error")
    np.testing.assert_allclose(result.test, -scores, rtol=1e-12)
    assert (result.train < result.test).sum() >= 3


def test_search_equals_grid_search():
    data = samples(12, noise=2.0)
    grid = {"alpha": [1e-3, 1.0, 10.0, 1e4], "fit_intercept": [True, False]}
    candidates = search(ridge, error, data, grid, k=4, seed=1)
    folds = KFold(4, shuffle=True, random_state=1)
    reference = GridSearchCV(Ridge(), grid, cv=folds, scoring="neg_mean_squared_error").fit(data.inputs, data.targets)
    assert len(candidates) == 8
    assert candidates[0].settings == reference.best_params_
    assert candidates[0].error == pytest.approx(-reference.best_score_, rel=1e-12)
    errors = [candidate.error for candidate in candidates]
    assert errors == sorted(errors)


def test_random_search_draws_from_distributions():
    from scipy.stats import loguniform

    one, same, other = (
        search(ridge, error, samples(), {"alpha": loguniform(1e-3, 1e3)}, n_samples=6, seed=s) for s in (0, 0, 1)
    )
    assert [c.settings for c in one] == [c.settings for c in same]
    assert len({c.settings["alpha"] for c in one + other}) == 12


def test_a_failed_model_is_never_the_best():
    def sometimes_nan(model, data):
        return math.nan if model.alpha == 1.0 else error(model, data)

    candidates = search(ridge, sometimes_nan, samples(), {"alpha": [1.0, 2.0, 3.0]})
    assert candidates[-1].settings == {"alpha": 1.0}


def test_search_works_over_networks_trained_by_the_trainer():
    def network(data, settings):
        model = torch.nn.Linear(4, 1, dtype=torch.float64)
        torch.nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"])
        Trainer(model, terms, optimizer, batch_size=8, max_epochs=5).fit(data)
        return model

    def terms(model, batch):
        return {"mse": squared_error(model(batch[0]).squeeze(1), batch[1])}

    def objective(model, data):
        return (model(data.inputs).squeeze(1) - data.targets).square().mean().item()

    candidates = search(network, objective, samples(), {"lr": [1e-6, 0.1]}, k=3)
    assert [c.settings["lr"] for c in candidates] == [0.1, 1e-6]


def test_learning_curve_falls_to_the_noise():
    curve = learning_curve(plain, error, samples(600), [5, 50, 480])
    assert curve.train.shape == curve.test.shape == (3, 5)
    test = curve.test.mean(axis=1)
    assert test[0] > test[1] > test[2]
    assert test[2] == pytest.approx(0.09, rel=0.15)
    assert (curve.train.mean(axis=1) < test).all()


def test_learning_curve_at_full_size_is_cross_validation():
    data = samples()
    curve = learning_curve(plain, error, data, [32])
    np.testing.assert_allclose(curve.test[0], cross_validate(plain, error, data).test, rtol=1e-10)


def test_small_training_sets_are_random_samples():
    # sorted data: the first five items of an unshuffled fold would all be from one end
    x = torch.arange(100.0)
    seen = []
    learning_curve(lambda part: seen.append(part.inputs), lambda model, part: 0.0, ArrayDataset(x, x), [5])
    assert all(part.max() - part.min() > 20 for part in seen)


@pytest.mark.parametrize("sizes", [[], [0, 5], [33]])
def test_sizes_must_fit_into_a_fold(sizes):
    with pytest.raises(ValueError, match="between 1 and 32"):
        learning_curve(plain, error, samples(), sizes)


@pytest.mark.parametrize("k", [1, 41])
def test_number_of_folds_must_fit(k):
    with pytest.raises(ValueError, match=f"between 2 and the number of items, 40, got {k}"):
        cross_validate(plain, error, samples(), k=k)


def test_a_grid_must_not_be_empty():
    with pytest.raises(ValueError, match="at least one hyperparameter"):
        search(ridge, error, samples(), {})


matrices = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n), min_size=3, max_size=9)
)


@given(matrices, st.booleans())
def test_parts_always_add_up_to_the_error(rows, known):
    targets, truth, *predictions = np.array(rows)
    parts = bias_variance(np.array(predictions), targets, truth if known else None)
    assert parts.bias2 + parts.variance + parts.noise == pytest.approx(parts.error, rel=1e-9, abs=1e-12)
    assert min(parts) >= 0


def polynomial(degree):
    return lambda data: np.polynomial.Polynomial.fit(data.inputs.numpy(), data.targets.numpy(), degree, domain=[-1, 1])


def decomposition(degree, n_samples=400):
    """Sine, noise of 0.5, 25 new points per model: what the course draws."""
    rng = np.random.default_rng(4)
    x, grid = np.linspace(-1, 1, 25), np.linspace(-0.9, 0.9, 50)
    truth = np.sin(math.pi * grid)
    predictions, errors = [], []
    for _ in range(n_samples):
        y = np.sin(math.pi * x) + 0.5 * rng.normal(size=25)
        model = polynomial(degree)(ArrayDataset(torch.tensor(x), torch.tensor(y)))
        predictions.append(model(grid))
        errors.append(np.mean((truth + 0.5 * rng.normal(size=50) - predictions[-1]) ** 2))
    noisy = truth + 0.5 * rng.choice([-1.0, 1.0], size=50)
    return bias_variance(np.array(predictions), noisy, truth), np.mean(errors)


@pytest.mark.parametrize("degree", [1, 3, 7])
def test_error_is_that_of_fresh_targets(degree):
    parts, measured = decomposition(degree)
    # 400 samples of 50 points: the standard error of the mean is about 1 %
    assert parts.error == pytest.approx(measured, rel=0.04)
    assert parts.noise == pytest.approx(0.25, rel=1e-12)


def test_variance_of_least_squares_is_known():
    # sigma² · trace of the hat matrix of the points: mean over the training points is sigma² p / n
    x = np.linspace(-1, 1, 25)
    rng = np.random.default_rng(5)
    fits = [np.polynomial.Polynomial.fit(x, x + 0.5 * rng.normal(size=25), 3)(x) for _ in range(3000)]
    parts = bias_variance(np.array(fits), x)
    assert parts.variance == pytest.approx(0.25 * 4 / 25, rel=0.03)
    assert parts.bias2 < 1e-3


def test_bias_falls_and_variance_rises_with_complexity():
    simple, middle, flexible = (decomposition(degree)[0] for degree in (1, 3, 9))
    assert simple.bias2 > 10 * middle.bias2
    assert simple.variance < middle.variance < flexible.variance
    assert middle.error < min(simple.error, flexible.error)


def test_bootstrap_scatter_is_that_of_new_samples():
    rng = np.random.default_rng(6)
    x = np.linspace(-1, 1, 200)
    data = ArrayDataset(torch.tensor(x), torch.tensor(x + 0.5 * rng.normal(size=200)))
    predictions = resampled_predictions(polynomial(2), lambda model: model(x), data, n_samples=600)
    assert predictions.shape == (600, 200)
    assert bias_variance(predictions, x).variance == pytest.approx(0.25 * 3 / 200, rel=0.25)
    same = resampled_predictions(polynomial(2), lambda model: model(x), data, n_samples=3)
    np.testing.assert_array_equal(same, predictions[:3])


def test_one_model_shows_no_variance():
    with pytest.raises(ValueError, match="at least 2"):
        resampled_predictions(plain, lambda model: 0, samples(), n_samples=1)


@pytest.mark.parametrize(
    "shapes", [((3,), (3,), (3,)), ((2, 3), (2,), (3,)), ((2, 3), (3,), (2,)), ((2, 3, 1), (3, 1), (3, 1))]
)
def test_shapes_of_predictions_must_fit(shapes):
    with pytest.raises(ValueError, match="must have shapes"):
        bias_variance(*map(np.zeros, shapes))
