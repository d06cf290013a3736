"""Systems whose slow motions are known exactly: what every method of this arm can be measured against.

Each system simulates trajectories and tells, from its transition matrix or its discretised generator, the timescales,
the slow functions, the stationary distribution and the best possible VAMP-2 score. Time is counted in frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numba
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Simulation(NamedTuple):
    """Simulated trajectories.

    Attributes
    ----------
    trajectories : list of array (n_frames, n_features)
    states : list of int array (n_frames,)
        What the system knows of every frame: the hidden state, or the site of the lattice or grid.
    """

    trajectories: list[Array]
    states: list[Array]


@dataclass(frozen=True, eq=False)
class HiddenChain:
    """A Markov chain seen through Gaussian noise and a curved map.

    The states do not overlap in what is seen, so the slow functions of the observation are those of the chain.

    Parameters
    ----------
    transition_matrix : array (n_states, n_states)
        Reversible, of one step.
    means : array (n_states, n_hidden)
    deviations : array (n_hidden,)
        Standard deviations of the noise.
    fold : callable
        Takes points (n, n_hidden), returns what is seen (n, n_features).
    unfold : callable
        The way back.
    """

    transition_matrix: Array
    means: Array
    deviations: Array
    fold: Callable[[Array], Array]
    unfold: Callable[[Array], Array]

    def simulate(self, n_frames: int, *, n_trajectories: int = 1, seed: int) -> Simulation:
        """Trajectories that start in equilibrium.

        Parameters
        ----------
        n_frames : int
            Of each trajectory.
        n_trajectories : int
        seed : int

        Returns
        -------
        Simulation
            With the hidden states.

        Raises
        ------
        ValueError
            If a number is not positive.
        """
        random = _generator(n_frames, n_trajectories, seed)
        n_states = len(self.transition_matrix)
        targets = np.broadcast_to(np.arange(n_states), (n_states, n_states))
        states = [
            _walk(random, n_frames, self.stationary_distribution, targets, self.transition_matrix)
            for _ in range(n_trajectories)
        ]
        noise = [self.deviations * random.standard_normal((n_frames, len(self.deviations))) for _ in states]
        trajectories = [self.fold(self.means[s] + e) for s, e in zip(states, noise, strict=True)]
        return Simulation(trajectories, states)

    def timescales(self, n: int | None = None) -> Array:
        """Implied timescales -1 / ln λ, longest first.

        Parameters
        ----------
        n : int, optional
            How many; all unless told.

        Returns
        -------
        array (n,), frames

        Raises
        ------
        ValueError
            If there are fewer.
        """
        return _timescales(self._spectrum, n)

    def slow_function(self, x: Array, index: int = 1) -> Array:
        """Exact eigenfunction at given points.

        Parameters
        ----------
        x : array (n, n_features)
        index : int
            1 is the slowest.

        Returns
        -------
        array (n,)
            Of mean zero and variance one in equilibrium.

        Raises
        ------
        ValueError
            If there is no such function, or x has other features.
        """
        points = self.unfold(_points(x, self.fold(self.means).shape[1]))
        distance = (((points[:, None] - self.means) / self.deviations) ** 2).sum(axis=2)
        weights = self.stationary_distribution * np.exp(-0.5 * (distance - distance.min(axis=1, keepdims=True)))
        chosen: Array = weights @ _eigenfunction(self._spectrum, index) / weights.sum(axis=1)
        return chosen

    def vamp2(self, lagtime: int, n_components: int) -> float:
        """Best VAMP-2 score that coordinates can have, the constant function included.

        Parameters
        ----------
        lagtime : int, frames
        n_components : int
            Number of coordinates.

        Returns
        -------
        float
            At most n_components + 1.

        Raises
        ------
        ValueError
            If the chain has fewer slow functions, or the lag time is not positive.
        """
        return _vamp2(self._spectrum, lagtime, n_components)

    @property
    def stationary_distribution(self) -> Array:
        """Probabilities of the hidden states, shape (n_states,)."""
        return self._spectrum.stationary

    @cached_property
    def _spectrum(self) -> _Spectrum:
        values, vectors = np.linalg.eig(self.transition_matrix.T)
        stationary = np.real(vectors[:, np.argmax(values.real)])
        stationary /= stationary.sum()
        root = np.sqrt(stationary)
        values, vectors = np.linalg.eigh(root[:, None] * self.transition_matrix / root)
        return _Spectrum(values[-2::-1], _oriented(vectors[:, -2::-1] / root[:, None]), stationary)


@dataclass(frozen=True, eq=False)
class Lattice:
    """A particle that hops between neighbouring sites of a square lattice.

    One step goes to a neighbour with weight exp(-ΔV) or stays with weight 1, divided by the sum of the weights.

    Parameters
    ----------
    axis : array (n,)
        Coordinates of the rows and of the columns.
    energy : array (n, n), kT
    """

    axis: Array
    energy: Array

    def simulate(self, n_frames: int, *, n_trajectories: int = 1, seed: int) -> Simulation:
        """Trajectories that start in equilibrium.

        Parameters
        ----------
        n_frames : int
            Of each trajectory, one a step.
        n_trajectories : int
        seed : int

        Returns
        -------
        Simulation
            Positions (n_frames, 2) and sites (row x number of columns + column).

        Raises
        ------
        ValueError
            If a number is not positive.
        """
        random = _generator(n_frames, n_trajectories, seed)
        targets, probabilities = self._moves
        states = [
            _walk(random, n_frames, self.stationary_distribution, targets, probabilities) for _ in range(n_trajectories)
        ]
        return Simulation([self._sites[s] for s in states], states)

    def timescales(self, n: int = 3) -> Array:
        """Implied timescales -1 / ln λ, longest first.

        Parameters
        ----------
        n : int
            How many, at most eight.

        Returns
        -------
        array (n,), frames

        Raises
        ------
        ValueError
            If more are asked for.
        """
        return _timescales(self._spectrum, n)

    def slow_function(self, x: Array, index: int = 1) -> Array:
        """Exact eigenfunction at the sites nearest to given points.

        Parameters
        ----------
        x : array (n, 2)
        index : int
            1 is the slowest.

        Returns
        -------
        array (n,)
            Of mean zero and variance one in equilibrium.

        Raises
        ------
        ValueError
            If there is no such function, or x has other features.
        """
        edges = 0.5 * (self.axis[1:] + self.axis[:-1])
        rows, columns = np.searchsorted(edges, _points(x, 2)).T
        chosen: Array = _eigenfunction(self._spectrum, index)[rows * len(self.axis) + columns]
        return chosen

    def vamp2(self, lagtime: int, n_components: int) -> float:
        """Best VAMP-2 score that coordinates can have, the constant function included.

        Parameters
        ----------
        lagtime : int, frames
        n_components : int
            Number of coordinates, at most eight.

        Returns
        -------
        float
            At most n_components + 1.

        Raises
        ------
        ValueError
            If more are asked for, or the lag time is not positive.
        """
        return _vamp2(self._spectrum, lagtime, n_components)

    @property
    def stationary_distribution(self) -> Array:
        """Probabilities of the sites, shape (n_sites,)."""
        return self._spectrum.stationary

    @property
    def _sites(self) -> Array:
        return np.stack(np.meshgrid(self.axis, self.axis, indexing="ij"), axis=-1).reshape(-1, 2)

    @property
    def _moves(self) -> tuple[Array, Array]:
        n = len(self.axis)
        site = np.arange(n * n).reshape(n, n)
        energy = np.pad(self.energy, 1, constant_values=np.inf)
        around = np.pad(site, 1, mode="edge")
        steps = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
        targets = np.stack([around[i : i + n, j : j + n].ravel() for i, j in steps], axis=1)
        weights = np.stack([np.exp(self.energy - energy[i : i + n, j : j + n]).ravel() for i, j in steps], axis=1)
        return targets, weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def _spectrum(self) -> _Spectrum:
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import eigsh

        targets, probabilities = self._moves
        # staying has weight 1, so that 1 / probabilities[:, 0] is the sum of the weights
        stationary = np.exp(-2.0 * (self.energy - self.energy.min())).ravel() / probabilities[:, 0]
        stationary /= stationary.sum()
        root = np.sqrt(stationary)
        symmetric = root[:, None] * probabilities / root[targets]
        n_sites = len(root)
        matrix = csr_array((symmetric.ravel(), (np.repeat(np.arange(n_sites), 5), targets.ravel())))
        # just above the largest eigenvalue 1: the inverse there makes the slow ones dominant
        values, vectors = eigsh(matrix.tocsc(), k=_N_SLOW + 1, sigma=1.0 + 1e-8, v0=root)
        order = np.argsort(values)[::-1][1:]
        return _Spectrum(values[order], _oriented(vectors[:, order] / root[:, None]), stationary)


def square_root_model() -> HiddenChain:
    """Two states that alternate along a parabola: the first toy of the time-lagged autoencoder paper.

    The slow motion goes across, and the largest variance runs along the parabola.

    Examples
    --------
    >>> system = square_root_model()
    >>> system.timescales().round(4)
    array([9.4912])
    >>> round(system.vamp2(lagtime=1, n_components=1), 4)
    1.81
    >>> x = system.simulate(1000, seed=0).trajectories[0]
    >>> x.shape
    (1000, 2)

    References
    ----------
    Wehmeyer and Noé, J. Chem. Phys. 148, 241703 (2018).
    """
    return HiddenChain(
        transition_matrix=np.array([[0.95, 0.05], [0.05, 0.95]]),
        means=np.array([[0.0, 1.0], [0.0, -1.0]]),
        deviations=np.sqrt([30.0, 0.015]),
        fold=lambda points: np.stack([points[:, 0], points[:, 1] + np.sqrt(np.abs(points[:, 0]))], axis=1),
        unfold=lambda x: np.stack([x[:, 0], x[:, 1] - np.sqrt(np.abs(x[:, 0]))], axis=1),
    )


def swiss_roll_model() -> HiddenChain:
    """Four states in a chain on a rolled-up plane: the second toy of the time-lagged autoencoder paper.

    Examples
    --------
    >>> swiss_roll_model().timescales().round(4)
    array([33.6397,  9.4912,  5.3423])

    References
    ----------
    Wehmeyer and Noé, J. Chem. Phys. 148, 241703 (2018).
    """
    p = 0.05
    return HiddenChain(
        transition_matrix=np.array(
            [[1 - p, p, 0.0, 0.0], [p, 1 - 2 * p, p, 0.0], [0.0, p, 1 - 2 * p, p], [0.0, 0.0, p, 1 - p]]
        ),
        means=np.array([[7.5, 7.5], [7.5, 15.0], [15.0, 15.0], [15.0, 7.5]]),
        deviations=np.ones(2),
        fold=lambda points: np.stack(
            [points[:, 0] * np.cos(points[:, 0]), points[:, 1], points[:, 0] * np.sin(points[:, 0])], axis=1
        ),
        # the radius is positive by seven standard deviations
        unfold=lambda x: np.stack([np.hypot(x[:, 0], x[:, 2]), x[:, 1]], axis=1),
    )


def beltway() -> Lattice:
    """A circular track with barriers and a wall: the slow motion runs along the ring, not across the plane.

    Examples
    --------
    >>> beltway().timescales().round(1)
    array([17924.4,  3310.8,  1817.9])

    References
    ----------
    Chen, Sidky and Ferguson, J. Chem. Phys. 151, 064123 (2019), here on a lattice.
    """
    axis = np.linspace(-1.0, 1.0, 50)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    energy = 2.5 + 9.0 * (radius - 0.8) ** 2
    ring = np.abs(radius - 0.8) < 0.05
    energy[ring] = 0.0
    for height, turn in ((0.5, 0.25), (1.3, 0.5), (1.0, 0.75)):
        away = np.abs(np.exp(1j * angle) - np.exp(2j * np.pi * turn))
        energy[ring & (away < 2.0 * np.sin(0.125))] = height
    energy[(radius > 0.4) & (np.abs(angle) < 0.05)] = 8.0
    return Lattice(axis, energy)


_N_SLOW = 8


class _Spectrum(NamedTuple):
    eigenvalues: Array  # (n,) of one frame, descending, without the 1
    eigenfunctions: Array  # (n_states, n), of variance one
    stationary: Array  # (n_states,)


def _generator(n_frames: int, n_trajectories: int, seed: int) -> np.random.Generator:
    for name, number in (("n_frames", n_frames), ("n_trajectories", n_trajectories)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    return np.random.default_rng(seed)


def _points(x: Array, n_features: int) -> Array:
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != n_features:
        raise ValueError(f"x must have shape (n, {n_features}), got {points.shape}")
    return points


def _oriented(functions: Array) -> Array:
    """Functions whose largest value is positive: eigenvectors have no sign of their own."""
    largest = np.take_along_axis(functions, np.abs(functions).argmax(axis=0)[None], axis=0)
    oriented: Array = functions * np.sign(largest)
    return oriented


def _timescales(spectrum: _Spectrum, n: int | None) -> Array:
    eigenvalues = spectrum.eigenvalues
    if n is not None and not 1 <= n <= len(eigenvalues):
        raise ValueError(f"n must be 1 to {len(eigenvalues)} timescales, got {n}")
    timescales: Array = -1.0 / np.log(eigenvalues[:n])
    return timescales


def _eigenfunction(spectrum: _Spectrum, index: int) -> Array:
    if not 1 <= index <= len(spectrum.eigenvalues):
        raise ValueError(f"index must be 1 (the slowest) to {len(spectrum.eigenvalues)}, got {index}")
    function: Array = spectrum.eigenfunctions[:, index - 1]
    return function


def _vamp2(spectrum: _Spectrum, lagtime: int, n_components: int) -> float:
    if lagtime < 1:
        raise ValueError(f"lagtime must be at least 1 frame, got {lagtime}")
    if not 1 <= n_components <= len(spectrum.eigenvalues):
        raise ValueError(f"n_components must be 1 to {len(spectrum.eigenvalues)}, got {n_components}")
    return float(1.0 + np.sum(spectrum.eigenvalues[:n_components] ** (2 * lagtime)))


def _walk(random: np.random.Generator, n_frames: int, start: Array, targets: Array, probabilities: Array) -> Array:
    first = random.choice(len(start), p=start)
    return _steps(first, random.random(n_frames - 1), targets, np.cumsum(probabilities, axis=1))


@numba.njit(cache=True)
def _steps(first: int, uniform: Array, targets: Array, cumulative: Array) -> Array:
    states = np.empty(len(uniform) + 1, dtype=np.int64)
    states[0] = first
    last = targets.shape[1] - 1
    for n in range(len(uniform)):
        state = states[n]
        move = 0
        # the last bound may fall short of 1 by rounding
        while move < last and uniform[n] >= cumulative[state, move]:
            move += 1
        states[n + 1] = targets[state, move]
    return states
