"""Systems and sources of data that several files test with."""

import numpy as np
import pytest
import scipy.linalg

from molml.kinetics.systems import square_root_model


class Pieces:
    """Arrays as a streamed source that gives pieces of `size` frames."""

    def __init__(self, arrays, size=700):
        self.arrays, self.size = arrays, size
        self.lengths, self.n_features = [len(x) for x in arrays], arrays[0].shape[1]

    def blocks(self, index, n_frames, /):
        step = min(self.size, n_frames)
        for start in range(0, len(self.arrays[index]), step):
            yield self.arrays[index][start : start + step]


@pytest.fixture(scope="session")
def streamed():
    return Pieces


def make_oscillators(*lengths, seed=0):
    """AR(1) processes with autocorrelations 0.95, 0.8, 0.5, 0.2 and 0, mixed into six features of rank five."""
    rng = np.random.default_rng(seed)
    rho = np.array([0.95, 0.8, 0.5, 0.2, 0.0])
    mixing = np.random.default_rng(1).normal(size=(5, 6)) * [1.0, 3.0, 0.5, 2.0, 1.0, 1.0]
    result = []
    for n in lengths:
        z = rng.normal(size=(n, 5))
        z[1:] *= np.sqrt(1 - rho**2)
        for t in range(1, n):
            z[t] += rho * z[t - 1]
        result.append(z @ mixing + 5.0)
    return result


@pytest.fixture(scope="session")
def oscillators():
    return make_oscillators


@pytest.fixture(scope="session")
def trajectories():
    return make_oscillators(2000, 1000)


@pytest.fixture(scope="session")
def square_root():
    """10,000 frames of the square-root model, and its slow function."""
    system = square_root_model()
    x = system.simulate(10000, seed=0).trajectories[0]
    return x, system.slow_function(x)[:, None]


@pytest.fixture(scope="session")
def angles():
    """Between the spaces of two sets of coordinates, degrees."""

    def angles(A, B):
        A, B = np.concatenate(A), np.concatenate(B)
        return np.degrees(scipy.linalg.subspace_angles(A - A.mean(0), B - B.mean(0)))

    return angles
