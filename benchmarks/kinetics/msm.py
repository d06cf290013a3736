"""Markov models: counting, reversible estimates, posteriors and metastable sets; CPU seconds, beside deeptime.

    python benchmarks/kinetics/msm.py

One thread. A time is the least of several rounds, in which each library has its turn; of what takes seconds there is
one round. "error" is the largest part by which departures miss what detailed balance with maximum likelihood demands.
If deeptime is not installed, it is left out by name.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import importlib.util
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array, csr_matrix, diags_array, issparse
from threadpoolctl import threadpool_limits

from molml.kinetics.bayesian import BayesianMarkovStateModel
from molml.kinetics.counting import active_set, transition_counts
from molml.kinetics.markov import MarkovStateModel
from molml.kinetics.metastable import pcca

PEER = importlib.util.find_spec("deeptime") is not None


def double_well(n_states: int, *, barrier: float, reach: int) -> MarkovStateModel:
    """Metropolis walk in (x² - 1)² with a slope, discretised; the barrier in units of kT."""
    x = np.linspace(-1.5, 1.5, n_states)
    energy = barrier * (x**2 - 1) ** 2 + 0.3 * x
    flows = [
        np.minimum(np.exp(-energy[k:]), np.exp(-energy[: n_states - k])) / (2 * reach + 1) for k in range(1, reach + 1)
    ]
    matrix = diags_array(flows, offsets=list(range(1, reach + 1)), shape=(n_states,) * 2).tocsr()
    matrix = matrix + matrix.T
    stay = np.exp(-energy) - np.asarray(matrix.sum(axis=1)).ravel()
    return MarkovStateModel(sparse=True).fit_counts(csr_array(matrix + diags_array(stay)))


def scattered(n: int) -> np.ndarray:
    """Counts of a chain whose states have neighbours anywhere."""
    rng = np.random.default_rng(0)
    matrix = rng.dirichlet(np.full(n, 0.3), n) + 1e-3
    matrix /= matrix.sum(axis=1, keepdims=True)
    weights = np.linalg.matrix_power(matrix, 1000)[0]
    return rng.poisson(1e5 * weights[:, None] * matrix).astype(np.float64)


def error(counts: np.ndarray, matrix: np.ndarray, weights: np.ndarray) -> float:
    """Largest relative error of c_i = Σ_j (c_ij + c_ji) q_i / (q_i + q_j), with q_i = c_i / π_i."""
    q = counts.sum(axis=1) / weights
    expected = ((counts + counts.T) * (q[:, None] / np.add.outer(q, q))).sum(axis=1)
    return float(np.abs(expected / counts.sum(axis=1) - 1).max())


def show(title: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> None:
    """Print the least times of both, and their ratio."""
    ours()  # compiled
    jobs = [ours, theirs] if PEER else [ours]
    least = [np.inf, np.inf]
    for _ in range(rounds):
        for k, work in enumerate(jobs):
            start = time.process_time()
            work()
            least[k] = min(least[k], time.process_time() - start)
    peer = f"   deeptime {least[1]:9.5f} s   deeptime / molml {least[1] / least[0]:6.1f}" if PEER else ""
    print(f"{title:62s} molml {least[0]:9.5f} s{peer}", flush=True)


def counting() -> None:
    walk = double_well(1000, barrier=2.0, reach=20).simulate(1_000_000, seed=0)
    random = np.random.default_rng(0).integers(0, 1000, 1_000_000)
    for name, states in (("of a walk", walk), ("at random", random)):
        for dtype in (np.int32, np.int64):
            x = states.astype(dtype)
            for sparse in (False, True):
                kind = f"{np.dtype(dtype).name}, {'sparse' if sparse else 'full'}"

                def theirs(x=x, sparse=sparse) -> object:
                    from deeptime.markov import TransitionCountEstimator

                    return TransitionCountEstimator.count("sliding", [x], 1, sparse=sparse)

                show(
                    f"counts, 1,000,000 frames {name}, 1,000 states, {kind}",
                    lambda x=x, sparse=sparse: transition_counts(x, 1, sparse=sparse),
                    theirs,
                    5,
                )


def deeptime_fit(counts: object, **options: object) -> Callable[[], object]:
    def work() -> object:
        from deeptime.markov import TransitionCountModel
        from deeptime.markov.msm import MaximumLikelihoodMSM

        # sparse counts are taken in this form only, and in scipy's older class
        given = TransitionCountModel(csr_matrix(counts)) if issparse(counts) else counts
        return MaximumLikelihoodMSM(reversible=True, **options).fit_from_counts(given).fetch_model()

    return work


def reversible() -> None:
    for n in (3, 20, 89):
        counts = scattered(n)
        unequal = counts * np.random.default_rng(1).exponential(size=(n, 1))
        for name, given in (("", counts), (", rows rescaled", unequal)):
            show(
                f"reversible, {n} states{name}",
                lambda c=given: MarkovStateModel().fit_counts(c),
                deeptime_fit(given),
                20,
            )
    for barrier in (3.0, 6.0):
        chain = double_well(1000, barrier=barrier, reach=6)
        slow(active_set(transition_counts(chain.simulate(2_000_000, seed=0), 1)).counts)


def slow(counts: np.ndarray) -> None:
    model = MarkovStateModel().fit_counts(counts)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that were not enough
        show(
            f"reversible, {len(counts)} states, slowest {model.timescales(1)[0]:.3g} steps",
            lambda: MarkovStateModel().fit_counts(counts),
            lambda: found.append(deeptime_fit(counts)()),
            1,
        )
    text = f"    error: molml {error(counts, model.transition_matrix, model.stationary_distribution):.1e}"
    for theirs in found:
        difference = np.abs(theirs.transition_matrix - model.transition_matrix).max()
        text += f", deeptime {error(counts, theirs.transition_matrix, theirs.stationary_distribution):.1e}"
        text += f"; largest difference of transition probabilities {difference:.1e}"
    print(text)


def many_states() -> None:
    chain = double_well(10_000, barrier=6.0, reach=50)
    counts = active_set(transition_counts(chain.simulate(5_000_000, seed=0), 1, sparse=True)).counts
    title = f"reversible, {counts.shape[0]} states, sparse; deeptime stopped after 1,000 iterations"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        show(
            title,
            lambda: MarkovStateModel(sparse=True).fit_counts(counts),
            deeptime_fit(counts, maxiter=1000, sparse=True),
            1,
        )


def posterior() -> None:
    walk = double_well(100, barrier=4.0, reach=3).simulate(100_000, seed=0)
    for name, given in (("scattered", scattered(100)), ("slow chain", active_set(transition_counts(walk, 1)).counts)):

        def theirs(given=given) -> object:
            from deeptime.markov.msm import BayesianMSM

            return BayesianMSM(n_samples=100).fit(given).fetch_model()

        ours = BayesianMarkovStateModel(n_samples=100, progress=False)
        show(f"100 samples of {len(given)} states, {name}", lambda c=given, m=ours: m.fit_counts(c), theirs, 2)
        slowest = [[sample.timescales(1)[0] for sample in ours.models()]]
        if PEER:
            slowest.append([sample.timescales(1)[0] for sample in theirs().samples])
        after = [f"{np.corrcoef(np.log(x[:-1]), np.log(x[1:]))[0, 1]:5.2f}" for x in slowest]
        print("    correlation of one sample of the slowest timescale with the next: " + ", deeptime ".join(after))


def metastable() -> None:
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(5), 40)
    flows = rng.random((200, 200)) * np.where(block[:, None] == block, 1.0, 0.01)
    model = MarkovStateModel().fit_counts(flows + flows.T)

    def theirs() -> object:
        from deeptime.markov import pcca as deeptime_pcca

        return deeptime_pcca(model.transition_matrix, 5)

    show("5 metastable sets of 200 states", lambda: pcca(model, 5), theirs, 3)
    found = [pcca(model, 5).memberships]
    if PEER:
        found.append(theirs().memberships)
    weights = model.stationary_distribution
    crispness = [f"{np.mean(weights @ m**2 / (weights @ m)):.4f}" for m in found]
    print("    crispness (more is better): " + ", deeptime ".join(crispness))


if __name__ == "__main__":
    if not PEER:
        print("deeptime: not installed, left out")
    with threadpool_limits(1):
        for part in (counting, reversible, many_states, posterior, metastable):
            part()
