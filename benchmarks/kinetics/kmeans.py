"""k-means of 1,000,000 frames of 4 features into 200 cells: CPU seconds, beside scikit-learn and deeptime.

    python benchmarks/kinetics/kmeans.py [N_FRAMES]

One thread. A time is the least of two rounds, in which every library has its turn. "5 iterations" are 5 of Lloyd's
algorithm without a test of convergence: molml's time includes the choice of the first centres, that of the others does
not, who start from molml's. A library that is not installed is left out by name.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import importlib.util
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from molml.kinetics import KMeans

N_CLUSTERS, ITERATIONS, ROUNDS = 200, 5, 2
PEER = importlib.util.find_spec("deeptime") is not None


def seconds(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least CPU time of each."""
    least = dict.fromkeys(jobs, np.inf)
    for _ in range(ROUNDS):
        for name, work in jobs.items():
            start = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - start)
    return least


def show(title: str, jobs: dict[str, Callable[[], object]]) -> None:
    times = seconds(jobs)
    first = times["molml"]
    print(
        f"{title:34s}" + "   ".join(f"{name} {t:7.3f} s ({t / first:5.1f}x)" for name, t in times.items()), flush=True
    )


def measure(x: np.ndarray) -> None:
    """Print what one type of numbers costs."""
    from sklearn.cluster import KMeans as SklearnKMeans

    start = KMeans(N_CLUSTERS, max_iter=0).fit(x).cluster_centers_.astype(x.dtype)
    given = SklearnKMeans(N_CLUSTERS, init=start, n_init=1, max_iter=ITERATIONS, tol=0, copy_x=False)
    jobs: dict[str, Callable[[], object]] = {
        "molml": lambda: KMeans(N_CLUSTERS, max_iter=ITERATIONS, tol=0).fit(x),
        "scikit-learn": lambda: given.fit(x),
    }
    if PEER:
        from deeptime.clustering import KMeans as DeeptimeKMeans

        peer = DeeptimeKMeans(N_CLUSTERS, max_iter=ITERATIONS, tolerance=0, initial_centers=start, n_jobs=1)
        jobs["deeptime"] = lambda: peer.fit(x)
    show(f"{x.dtype}, {ITERATIONS} iterations", jobs)
    mine, other = KMeans(N_CLUSTERS), SklearnKMeans(N_CLUSTERS, n_init=1, random_state=0, copy_x=False)
    show(f"{x.dtype}, whole fit", {"molml": lambda: mine.fit(x), "scikit-learn": lambda: other.fit(x)})
    print(f"    inertia: molml {mine.inertia_:.0f}, scikit-learn {other.inertia_:.0f}")
    show(f"{x.dtype}, labels", {"molml": lambda: mine.predict(x), "scikit-learn": lambda: other.predict(x)})


def main(n_frames: int) -> None:
    """Measure."""
    if not PEER:
        print("deeptime: not installed, left out")
    # three wells
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_frames, 4)) + 4 * np.eye(3, 4)[rng.integers(0, 3, n_frames)]
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what has not converged after so few iterations
        measure(x)
        measure(x.astype(np.float32))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
