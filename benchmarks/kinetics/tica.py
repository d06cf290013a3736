"""TICA of 1,000,000 frames of 100 float32 features: CPU seconds and memory beyond the input, beside other libraries.

    python benchmarks/kinetics/tica.py [N_FRAMES]

One thread. A time is the least of several rounds, in which every library has its turn; memory is the growth of the
peak of a process of its own. A library that is not installed is left out by name.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

N_FEATURES, LAGTIME, ROUNDS = 100, 10, 4


def trajectory(n_frames: int) -> np.ndarray:
    """Noise; what it holds does not matter to the time."""
    return np.random.default_rng(0).standard_normal((n_frames, N_FEATURES), dtype=np.float32)


class Stream:
    """The same number of frames, made piece by piece."""

    n_features = N_FEATURES

    def __init__(self, n_frames: int) -> None:
        self.lengths = [n_frames]

    def blocks(self, index: int, n_frames: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for start in range(0, self.lengths[index], n_frames):
            yield rng.standard_normal((min(n_frames, self.lengths[index] - start), N_FEATURES), dtype=np.float32)


def molml_tica(x: np.ndarray | Stream) -> object:
    from molml.kinetics import TICA

    return TICA(LAGTIME).fit(x)


def molml_vamp(x: np.ndarray | Stream) -> object:
    from molml.kinetics import VAMP

    return VAMP(LAGTIME).fit(x)


def molml_pca(x: np.ndarray | Stream) -> object:
    from molml.kinetics import PCA

    return PCA().fit(x)


def deeptime_tica(x: np.ndarray) -> object:
    from deeptime.decomposition import TICA

    return TICA(lagtime=LAGTIME).fit(x)


def deeptime_vamp(x: np.ndarray) -> object:
    from deeptime.decomposition import VAMP

    return VAMP(lagtime=LAGTIME).fit(x)


def deeptime_tica_in_pieces(x: np.ndarray) -> object:
    from deeptime.decomposition import TICA
    from deeptime.util.data import timeshifted_split

    estimator = TICA(lagtime=LAGTIME)
    for pair in timeshifted_split(x, lagtime=LAGTIME, chunksize=20_000):
        estimator.partial_fit(pair)
    return estimator.fetch_model()


def sklearn_pca(x: np.ndarray) -> object:
    from sklearn.decomposition import PCA

    return PCA(svd_solver="covariance_eigh").fit(x)


METHODS: dict[str, Callable] = {
    function.__name__: function
    for function in (
        molml_tica,
        deeptime_tica,
        deeptime_tica_in_pieces,
        molml_vamp,
        deeptime_vamp,
        molml_pca,
        sklearn_pca,
    )
}


def seconds(names: list[str], x: np.ndarray) -> dict[str, float]:
    """Least CPU time of each."""
    least = dict.fromkeys(names, np.inf)
    for _ in range(ROUNDS):
        for name in names:
            start = time.process_time()
            METHODS[name](x)
            least[name] = min(least[name], time.process_time() - start)
    return least


def peak() -> float:
    """Largest memory that this process has had, MB; Linux only."""
    # getrusage counts what the process was forked from, too
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def memory(name: str, n_frames: int, *, streamed: bool = False) -> tuple[float, float]:
    """Growth of the peak of a process, and the peak, MB."""
    command = [sys.executable, __file__, str(n_frames), name, "streamed" if streamed else "in memory"]
    grown, whole = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    return float(grown), float(whole)


def measure_memory(n_frames: int, name: str, how: str) -> None:
    METHODS[name](trajectory(1000))  # the libraries themselves
    x = Stream(n_frames) if how == "streamed" else trajectory(n_frames)
    before = peak()
    METHODS[name](x)
    print(peak() - before, peak())


def main(n_frames: int) -> None:
    names = [name for name in METHODS if importlib.util.find_spec(name.split("_")[0])]
    for name in METHODS.keys() - names:
        print(f"{name}: not installed, left out")
    with threadpool_limits(1):
        times = seconds(names, trajectory(n_frames))
    print(f"{n_frames} frames of {N_FEATURES} float32 features, lag time {LAGTIME}, one thread")
    for name in names:
        kind = name.split("_")[1]
        print(
            f"{name:26s} {times[name]:6.2f} s, {times[name] / times[f'molml_{kind}']:5.1f} times molml's, "
            f"{memory(name, n_frames)[0]:7.0f} MB beyond the input"
        )
    for n in (n_frames, 4 * n_frames):
        print(f"molml_tica streamed, {n} frames: {memory('molml_tica', n, streamed=True)[1]:.0f} MB in all")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure_memory(int(sys.argv[1]), *sys.argv[2:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
