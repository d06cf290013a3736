"""Posterior distribution of Markov models: how far counts determine them.

With the prior Π x_ij^-1 over the flows x_ij = π_i P_ij that occur (Trendelkamp-Schroer et al., J. Chem. Phys. 143,
174101 (2015), section III), the posterior of a reversible model is Π_i<j x_ij^(s_ij - 1) Π_i x_ii^(c_ii - 1)
x_i^(-c_i), in the notation of `molml.kinetics.reversible`. Since x_i^(-c_i) is proportional to ∫ q^(c_i - 1) e^(-q x_i)
dq, it is the marginal of a joint density of x and q in which, q given, all flows are independent: x_ij ~ Gamma(s_ij,
rate q_i + q_j) and x_ii ~ Gamma(c_ii, rate q_i). Integrated over the flows instead, u = log q has the density exp f(u),
with the same concave f whose maximum is the maximum-likelihood model. So u is sampled, by Hamiltonian Monte Carlo in
coordinates in which f is nearly -|z|²/2, and then the flows are drawn exactly. Unlike steps from one matrix element to
the next, this is not slower for slower chains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Self, final

import numpy as np
from scipy import linalg
from scipy.sparse import coo_array
from scipy.special import polygamma
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from molml.kinetics.counting import active_set, transition_counts, warn_of_left_out
from molml.kinetics.data import whole
from molml.kinetics.files import check_fitted_shapes, load_estimator, save_estimator
from molml.kinetics.markov import MarkovStateModel, check_fitted
from molml.kinetics.passage import stationary_distribution
from molml.kinetics.reversible import CountGraph, count_graph, gradient, laplacian, log_potentials

Array = np.ndarray[Any, np.dtype[Any]]

MOST_STATES = 5_000
"""Most states of a posterior with detailed balance; the cost of a sample is that of two products with a full matrix."""

_WARM_UP = 30
_ACCEPTANCE = 0.85
# logarithm of the smallest flow: products of smaller ones would be too small for numbers, and cut the chain in two
_LEAST = -200.0


class Posterior(NamedTuple):
    """What the samples say of a quantity.

    Attributes
    ----------
    samples : array (n_samples, ...)
    mean, std : array (...)
    low, high : array (...)
        Ends of the central interval.
    """

    samples: Array
    mean: Array
    std: Array
    low: Array
    high: Array


@final
@dataclass(eq=False, repr=False)
class BayesianMarkovStateModel(BaseEstimator):
    """Markov models drawn from their posterior distribution, for intervals of anything that follows from one.

    Transitions that never occurred have probability 0 in every sample, as in the maximum-likelihood model.

    Parameters
    ----------
    lagtime : int
        In frames.
    reversible : bool
        Detailed balance, and the prior of the module's text; otherwise rows are independent, with the prior Π P_ij^-1.
    n_samples : int
    counting : {"effective", "strided", "sliding"}
        As in `molml.kinetics.counting.transition_counts`. Sliding counts are not independent: their intervals are too
        narrow by about the root of the lag time.
    sparse : bool
        Keep matrices as scipy.sparse.csr_array.
    seed : int
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Attributes
    ----------
    counts_, transition_matrix_, stationary_distribution_, active_states_, n_states_, active_count_fraction_
        Of the maximum-likelihood model, as in `MarkovStateModel`.
    pattern_ : integer array (2, n_transitions)
        Rows and columns of the transition probabilities that are not 0.
    probabilities_ : array (n_samples, n_transitions)
    stationary_distributions_ : array (n_samples, n_active)

    References
    ----------
    Trendelkamp-Schroer et al., J. Chem. Phys. 143, 174101 (2015); Neal, Handbook of Markov Chain Monte Carlo (2011),
    chapter 5.

    Examples
    --------
    >>> model = BayesianMarkovStateModel(n_samples=1000).fit_counts(np.array([[90, 10], [20, 80]]))
    >>> timescale = model.posterior(lambda sample: sample.timescales(1))
    >>> model.maximum_likelihood.timescales(1).round(2), timescale.low.round(1), timescale.high.round(1)
    (array([2.8]), array([1.9]), array([4.2]))
    """

    lagtime: int = 1
    _: KW_ONLY
    reversible: bool = True
    n_samples: int = 100
    counting: str = "effective"
    sparse: bool = False
    seed: int = 0
    progress: bool | None = None

    save = save_estimator
    from_container = classmethod(load_estimator)

    def fit(self, dtrajs: Any, y: None = None) -> Self:
        """Count and sample.

        Parameters
        ----------
        dtrajs : integer array (n_frames,), or sequence of such arrays
            States from 0; -1 for none.
        y : None
            Ignored.

        Raises
        ------
        TypeError, ValueError, ArithmeticError
            As in `MarkovStateModel.fit`; if there are too many states, or `n_samples` is not positive.

        Warns
        -----
        UserWarning
            If states that were visited are not in the active set.
        """
        counts = transition_counts(dtrajs, self.lagtime, counting=self.counting, sparse=self.sparse)
        warn_of_left_out(active_set(counts))
        return self.fit_counts(counts)

    def fit_counts(self, counts: Any) -> Self:
        """Sample, given counts of independent transitions; without a warning if states are left out.

        Parameters
        ----------
        counts : array (n_states, n_states) or scipy.sparse matrix

        Raises
        ------
        TypeError, ValueError, ArithmeticError
            As in `fit`.
        """
        whole("n_samples", self.n_samples, 1)
        best = MarkovStateModel(self.lagtime, reversible=self.reversible, sparse=self.sparse).fit_counts(counts)
        for name in _COMMON:
            setattr(self, name, getattr(best, name))
        rng = np.random.default_rng(self.seed)
        if self.reversible:
            self._sample_reversible(rng)
        else:
            self._sample_rows(rng)
        return self

    def _sample_reversible(self, rng: np.random.Generator) -> None:
        n = len(self.active_states_)
        if n > MOST_STATES:
            raise ValueError(
                f"at most {MOST_STATES} states can be sampled with detailed balance, got {n}; use fewer states, or "
                "resample trajectories"
            )
        graph = count_graph(self.counts_)
        inside = np.flatnonzero(graph.staying)
        u = sample_potentials(graph, self.n_samples, rng, progress=self.progress)
        between = _log_gamma(graph.weights, len(u), rng) - np.logaddexp(u[:, graph.first], u[:, graph.second])
        within = _log_gamma(graph.staying[inside], len(u), rng) - u[:, inside]
        flows = np.concatenate([between, between, within], axis=1)
        flows = np.exp(np.maximum(flows - flows.max(axis=1, keepdims=True), _LEAST))
        rows = np.concatenate([graph.first, graph.second, inside])
        self.pattern_ = np.stack([rows, np.concatenate([graph.second, graph.first, inside])])
        leaving = np.stack([np.bincount(rows, values, n) for values in flows])
        self.probabilities_ = flows / leaving[:, rows]
        self.stationary_distributions_ = leaving / leaving.sum(axis=1, keepdims=True)

    def _sample_rows(self, rng: np.random.Generator) -> None:
        n = len(self.active_states_)
        counts = coo_array(self.counts_)
        rows = counts.coords[0].astype(np.int64)
        self.pattern_ = np.stack([rows, counts.coords[1].astype(np.int64)])
        weights = _log_gamma(counts.data, self.n_samples, rng)
        # rows follow each other, and none is empty
        highest = np.maximum.reduceat(weights, np.flatnonzero(np.diff(rows, prepend=-1)), axis=1)
        weights = np.exp(np.maximum(weights - highest[:, rows], _LEAST))
        total = np.stack([np.bincount(rows, values, n) for values in weights])
        self.probabilities_ = weights / total[:, rows]
        self.stationary_distributions_ = np.stack(
            [stationary_distribution(self._matrix(values)) for values in self.probabilities_]
        )

    def _matrix(self, probabilities: Array) -> Any:
        n = len(self.active_states_)
        matrix = coo_array((probabilities, tuple(self.pattern_)), shape=(n, n))
        return matrix.tocsr() if self.sparse else matrix.toarray()

    @property
    def maximum_likelihood(self) -> MarkovStateModel:
        """The model of maximum likelihood of the same counts."""
        check_is_fitted(self)
        return self._model(self.transition_matrix_, self.stationary_distribution_)

    def models(self) -> Iterator[MarkovStateModel]:
        """The samples, one after the other."""
        check_is_fitted(self)
        for probabilities, distribution in zip(self.probabilities_, self.stationary_distributions_, strict=True):
            yield self._model(self._matrix(probabilities), distribution)

    def _model(self, matrix: Any, distribution: Array) -> MarkovStateModel:
        model = MarkovStateModel(self.lagtime, reversible=self.reversible, counting=self.counting, sparse=self.sparse)
        for name in _COMMON:
            setattr(model, name, getattr(self, name))
        model.transition_matrix_, model.stationary_distribution_ = matrix, distribution
        return model

    def posterior(self, quantity: Callable[[MarkovStateModel], Any], *, confidence: float = 0.95) -> Posterior:
        """Distribution of a quantity over the samples.

        Parameters
        ----------
        quantity : callable
            MarkovStateModel -> number or array, of the same shape for all.
        confidence : float
            Part of the samples between `low` and `high`.

        Returns
        -------
        Posterior

        Raises
        ------
        ValueError
            If `confidence` is not between 0 and 1.
        """
        check_confidence(confidence)
        return summary(np.array([quantity(model) for model in self.models()]), confidence)

    def _check_fitted(self) -> None:
        check_fitted(self)
        n, n_transitions = len(self.active_states_), self.pattern_.shape[-1]
        shapes = {
            "pattern_": (2, n_transitions),
            "probabilities_": (self.n_samples, n_transitions),
            "stationary_distributions_": (self.n_samples, n),
        }
        check_fitted_shapes(self, shapes)
        if not (0 <= self.pattern_.min() and self.pattern_.max() < n):
            raise ValueError(f"pattern_ must hold states from 0 to {n - 1}, got others")


_COMMON = (
    "counts_",
    "transition_matrix_",
    "stationary_distribution_",
    "active_states_",
    "n_states_",
    "active_count_fraction_",
)


def check_confidence(confidence: float) -> None:
    """Refuse what is no probability.

    Raises
    ------
    ValueError
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}; 0.95 is usual")


def summary(samples: Array, confidence: float) -> Posterior:
    """Mean, standard deviation and central interval over the first axis."""
    # one of the samples instead of a number between two, of which one may be infinite
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0, method="inverted_cdf")
    with np.errstate(invalid="ignore"):
        return Posterior(samples, samples.mean(axis=0), samples.std(axis=0), low, high)


def _log_gamma(shape: Array, n_samples: int, rng: np.random.Generator) -> Array:
    """Logarithms of numbers from Gamma(shape, 1), (n_samples, len(shape)), also where these are too small for numbers.

    Gamma(a) is distributed as Gamma(a + 1) U^(1/a) (Marsaglia, Tsang, ACM Trans. Math. Softw. 26, 363 (2000), section
    6).
    """
    size = (n_samples, len(shape))
    # 1 - U is never 0
    return np.log(rng.standard_gamma(shape + 1.0, size)) + np.log1p(-rng.random(size)) / shape


def sample_potentials(
    graph: CountGraph, n_samples: int, rng: np.random.Generator, *, progress: bool | None = None
) -> Array:
    """Samples of u = log q from exp f(u), the last entry held at 0.

    Hamiltonian Monte Carlo with trajectories of a quarter of a period, after which a Gaussian would be forgotten. Of
    coordinates z with u = mode + W z, W Wᵀ is the covariance of Gaussians whose every bond has the variance that
    log(q_i / q_j) would have if it were the only one: ψ'(s p) + ψ'(s (1 - p)) with p = q_i / (q_i + q_j). With many
    counts that is the inverse Hessian.

    Parameters
    ----------
    graph : CountGraph
        Of a strongly connected set.
    n_samples : int
    rng : Generator
    progress : bool, optional

    Returns
    -------
    array (n_samples, n_states)
    """
    n = len(graph.leaving)
    u = mode = log_potentials(graph)
    samples = np.zeros((n_samples, n))
    if n == 1:
        return samples
    p = np.exp(-np.logaddexp(0.0, mode[graph.second] - mode[graph.first]))
    variance = polygamma(1, graph.weights * p) + polygamma(1, graph.weights * (1 - p))
    factor = linalg.cholesky(laplacian(graph, 1 / variance), check_finite=False)
    width = linalg.solve_triangular(factor, np.eye(n - 1), check_finite=False)
    bonds = np.empty(len(graph.weights))

    def slope_at(u: Array) -> Array:
        return gradient(u, *graph[:4], bonds)[:-1] @ width

    step, z, value, slope = 0.3, np.zeros(n - 1), _log_density(graph, u), slope_at(u)
    hidden = None if progress is None else not progress
    for i in tqdm(range(-_WARM_UP, n_samples), desc="sampling", disable=hidden, leave=False):
        # lengths vary, or some periods would return to where they began
        length = step * rng.uniform(0.8, 1.2)
        momentum = rng.normal(size=n - 1)
        before = value - momentum @ momentum / 2
        end, end_slope, end_u = z, slope, u
        for _ in range(max(1, round(np.pi / 2 / step))):
            momentum = momentum + length / 2 * end_slope
            end = end + length * momentum
            end_u = np.append(mode[:-1] + width @ end, 0.0)
            end_slope = slope_at(end_u)
            momentum = momentum + length / 2 * end_slope
        end_value = _log_density(graph, end_u)
        change = float(end_value - momentum @ momentum / 2 - before)
        accepted = math.exp(min(0.0, change)) if np.isfinite(change) else 0.0
        if rng.random() < accepted:
            z, value, slope, u = end, end_value, end_slope, end_u
        if i < 0:
            step = min(math.pi / 4, step * math.exp(0.5 * (accepted - _ACCEPTANCE)))
        else:
            samples[i] = u
    return samples


def _log_density(graph: CountGraph, u: Array) -> float:
    return float(graph.leaving @ u - graph.weights @ np.logaddexp(u[graph.first], u[graph.second]))
