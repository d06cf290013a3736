"""How good a model is on data it has not seen, and why: splits, cross-validation, search, learning and bias curves.

Everything here works on a data set with `__len__` and `subset(indices)`, such as those of the arms or `ArrayDataset`,
and two functions: `fit`, data set -> model (any object: a potential, a scikit-learn estimator, …), and `score`, model
and data set -> error (lower is better). For plain arrays and estimators scikit-learn's own functions do the same.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from molml.training.data import Subsettable

Model = TypeVar("Model")
Data = TypeVar("Data", bound=Subsettable)


class CrossValidation(NamedTuple):
    """Errors of k models, each trained without one part of the data.

    Attributes
    ----------
    train : ndarray, shape (k,)
        Error on the data that each model was trained on.
    test : ndarray, shape (k,)
        Error on the part that it has not seen.
    """

    train: NDArray[np.float64]
    test: NDArray[np.float64]


class Candidate(NamedTuple):
    """A choice of hyperparameters and what it led to.

    Attributes
    ----------
    settings : dict
        The hyperparameters.
    error : float
        Mean of the test errors.
    validation : CrossValidation
        Errors of every fold.
    """

    settings: dict[str, Any]
    error: float
    validation: CrossValidation


class LearningCurve(NamedTuple):
    """Errors of models trained on more and more data.

    Attributes
    ----------
    sizes : ndarray, shape (n_sizes,)
        Numbers of training items.
    train, test : ndarray, shape (n_sizes, k)
        Errors on the items trained on, and on the fold left out.
    """

    sizes: NDArray[np.int64]
    train: NDArray[np.float64]
    test: NDArray[np.float64]


class BiasVariance(NamedTuple):
    """Parts of the expected squared error; error = bias2 + variance + noise.

    Attributes
    ----------
    bias2 : float
        Squared distance of the mean prediction from the truth, mean over the points: what no amount of data cures.
    variance : float
        Scatter of the predictions of models trained on other samples, mean over the points.
    noise : float
        Scatter of the targets about the truth; 0 if the truth is not known, and then part of `bias2`.
    error : float
        Squared error of a model, trained on a random sample, for new targets of the same noise.
    """

    bias2: float
    variance: float
    noise: float
    error: float


def train_test_split(dataset: Data, fraction: float, *, seed: int) -> tuple[Data, Data]:
    """Random split into a training and a test set. Not for time series: neighbours in time are no independent test.

    Parameters
    ----------
    dataset : data set
    fraction : float
        Part of the items, 0 < fraction < 1, that goes into the test set.
    seed : int

    Returns
    -------
    train, test : data sets

    Raises
    ------
    ValueError
        If the fraction is out of its range, or one of the sets would be empty.
    """
    from sklearn.model_selection import train_test_split as split

    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    train, test = split(np.arange(len(dataset)), test_size=fraction, random_state=seed)
    return _subset(dataset, train), _subset(dataset, test)


def cross_validate(
    fit: Callable[[Data], Model],
    score: Callable[[Model, Data], float],
    dataset: Data,
    *,
    k: int = 5,
    seed: int = 0,
) -> CrossValidation:
    """k-fold cross-validation: each k-th of the items, drawn at random, is left out once.

    Parameters
    ----------
    fit : callable
        Training set -> model.
    score : callable
        Model, data set -> error.
    dataset : data set
    k : int
        Number of folds, 2 … number of items.
    seed : int
        Seed of the folds.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ValueError
        If `k` is out of its range.

    Examples
    --------
    >>> import torch
    >>> from sklearn.linear_model import LinearRegression
    >>> from molml.training import ArrayDataset
    >>> x = torch.arange(10.0)[:, None]
    >>> data = ArrayDataset(x, 2 * x + 1)
    >>> result = cross_validate(
    ...     lambda part: LinearRegression().fit(part.inputs, part.targets),
    ...     lambda model, part: 1 - model.score(part.inputs, part.targets),
    ...     data,
    ... )
    >>> result.test.shape, bool(result.test.max() < 1e-6)
    ((5,), True)
    """
    errors = []
    for train, test in _folds(len(dataset), k, seed):
        part, rest = _subset(dataset, train), _subset(dataset, test)
        model = fit(part)
        errors.append((score(model, part), score(model, rest)))
    return CrossValidation(*np.array(errors, dtype=np.float64).T)


def search(
    fit: Callable[[Data, Mapping[str, Any]], Model],
    score: Callable[[Model, Data], float],
    dataset: Data,
    grid: Mapping[str, Any],
    *,
    n_samples: int | None = None,
    k: int = 5,
    seed: int = 0,
) -> list[Candidate]:
    """Hyperparameter search by cross-validation; every candidate sees the same folds.

    Parameters
    ----------
    fit : callable
        Training set, settings -> model; ``lambda data, settings: Ridge(**settings).fit(data.inputs, data.targets)``.
    score : callable
        Model, data set -> error.
    dataset : data set
    grid : mapping
        Name -> list of values; with `n_samples` also a distribution of scipy.stats.
    n_samples : int, optional
        Try so many random choices; all combinations if not given.
    k, seed : int
        As in `cross_validate`; the seed also draws the choices.

    Returns
    -------
    list of Candidate
        Best first.

    Raises
    ------
    ValueError
        If the grid has no names or no values, or `k` is out of its range.
    """
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    if not grid:
        raise ValueError("grid must name at least one hyperparameter, got none")
    choices = ParameterGrid(grid) if n_samples is None else ParameterSampler(grid, n_samples, random_state=seed)
    candidates = []
    for choice in choices:
        settings = dict(choice)
        validation = cross_validate(partial(_fit_with, fit, settings), score, dataset, k=k, seed=seed)
        candidates.append(Candidate(settings, float(validation.test.mean()), validation))
    # nan, of a model that failed, is never the best
    return sorted(candidates, key=lambda candidate: (np.isnan(candidate.error), candidate.error))


def learning_curve(
    fit: Callable[[Data], Model],
    score: Callable[[Model, Data], float],
    dataset: Data,
    sizes: Sequence[int],
    *,
    k: int = 5,
    seed: int = 0,
) -> LearningCurve:
    """Errors of models trained on the first `size` items of each shuffled training fold.

    Parameters
    ----------
    fit, score, dataset, k, seed
        As in `cross_validate`.
    sizes : sequence of int
        Numbers of training items, each 1 … size of a training fold, (k - 1) / k of the data.

    Returns
    -------
    LearningCurve

    Raises
    ------
    ValueError
        If a size or `k` is out of its range.
    """
    folds = _folds(len(dataset), k, seed)
    most = min(len(train) for train, _ in folds)
    if len(sizes) == 0 or min(sizes) < 1 or max(sizes) > most:
        raise ValueError(f"sizes must be numbers between 1 and {most}, the size of a training fold, got {list(sizes)}")
    train_errors, test_errors = np.empty((2, len(sizes), k))
    for fold, (train, test) in enumerate(folds):
        # KFold leaves the training items in order: the first ones would be no random sample
        order = np.random.default_rng([seed, fold]).permutation(train)
        rest = _subset(dataset, test)
        for row, size in enumerate(sizes):
            part = _subset(dataset, order[:size])
            model = fit(part)
            train_errors[row, fold], test_errors[row, fold] = score(model, part), score(model, rest)
    return LearningCurve(np.array(sizes, dtype=np.int64), train_errors, test_errors)


def resampled_predictions(
    fit: Callable[[Data], Model],
    predict: Callable[[Model], Any],
    dataset: Data,
    *,
    n_samples: int = 50,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Predictions, for fixed points, of models trained on bootstrap samples of the data (drawn with replacement).

    Parameters
    ----------
    fit : callable
        Training set -> model.
    predict : callable
        Model -> predictions, shape (n_points,).
    dataset : data set
    n_samples : int
        Number of models, at least 2.
    seed : int

    Returns
    -------
    ndarray, shape (n_samples, n_points)

    Raises
    ------
    ValueError
        If `n_samples` is below 2.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 17.
    """
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2 to show a variance, got {n_samples}")
    rng = np.random.default_rng(seed)
    samples = (rng.integers(len(dataset), size=len(dataset)) for _ in range(n_samples))
    return np.array([np.ravel(predict(fit(_subset(dataset, sample)))) for sample in samples], dtype=np.float64)


def bias_variance(
    predictions: NDArray[np.float64], targets: NDArray[np.float64], truth: NDArray[np.float64] | None = None
) -> BiasVariance:
    """Decomposition of the expected squared error of models trained on many samples.

    With predictions ŷ_r of models r, targets t and truth f: bias² = (f - mean_r ŷ_r)², variance = mean_r (ŷ_r - mean_r
    ŷ_r)², noise = (t - f)², all averaged over the points. The identity error = mean_r (f - ŷ_r)² + noise holds exactly.

    Parameters
    ----------
    predictions : ndarray, shape (n_models, n_points)
        From independent samples of the data, or `resampled_predictions`.
    targets : ndarray, shape (n_points,)
        Measured values, independent of all training data.
    truth : ndarray, shape (n_points,), optional
        Values without noise, where they are known.

    Returns
    -------
    BiasVariance

    Raises
    ------
    ValueError
        If the shapes do not fit.

    References
    ----------
    Geman, Bienenstock and Doursat, Neural Computation 4, 1 (1992), eq. 3.3; Bishop, Pattern Recognition and Machine
    Learning (2006), eq. 3.41–3.44.

    Examples
    --------
    >>> bias_variance(np.array([[1.0], [3.0]]), np.array([5.5]), truth=np.array([5.0]))
    BiasVariance(bias2=9.0, variance=1.0, noise=0.25, error=10.25)
    """
    predictions, targets = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    known = targets if truth is None else np.asarray(truth, dtype=np.float64)
    if predictions.ndim != 2 or not predictions.shape[1:] == targets.shape == known.shape:
        raise ValueError(
            "predictions, targets and truth must have shapes (n_models, n_points), (n_points,) and (n_points,), got "
            f"{predictions.shape}, {targets.shape} and {known.shape}"
        )
    noise = float(np.mean((targets - known) ** 2))
    return BiasVariance(
        bias2=float(np.mean((known - predictions.mean(axis=0)) ** 2)),
        variance=float(np.mean(predictions.var(axis=0))),
        noise=noise,
        error=float(np.mean((known - predictions) ** 2)) + noise,
    )


def _fit_with(fit: Callable[[Data, Mapping[str, Any]], Model], settings: Mapping[str, Any], dataset: Data) -> Model:
    return fit(dataset, settings)


def _folds(n: int, k: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import KFold

    if not 2 <= k <= n:
        raise ValueError(f"k must be between 2 and the number of items, {n}, got {k}")
    return list(KFold(k, shuffle=True, random_state=seed).split(np.arange(n)))


def _subset(dataset: Data, indices: NDArray[np.int64]) -> Data:
    # a subset of a data set is one of the same kind, which Protocols cannot say
    return dataset.subset(indices.tolist())  # type: ignore[return-value]
