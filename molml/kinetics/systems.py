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


def _simulate(
    self: HiddenChain | Lattice | Diffusion, n_frames: int, *, n_trajectories: int = 1, seed: int
) -> Simulation:
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
        With the hidden states, the sites (row x number of columns + column) or the cells of the grid.

    Raises
    ------
    ValueError
        If a number is not positive.
    """
    for name, number in (("n_frames", n_frames), ("n_trajectories", n_trajectories)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    return self._simulated(np.random.default_rng(seed), n_frames, n_trajectories)


def _slow_function(self: HiddenChain | Lattice | Diffusion, x: Array, index: int = 1) -> Array:
    """Exact eigenfunction at given points.

    Parameters
    ----------
    x : array (n, n_features)
        On a lattice the nearest site counts; in a potential, values are linear between the centres of the cells, and
        a point outside the box has the value of the nearest one inside.
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
    points = _points(x, self._n_features)
    functions = self._spectrum.eigenfunctions.T
    if not 1 <= index <= len(functions):
        raise ValueError(f"index must be 1 (the slowest) to {len(functions)}, got {index}")
    return self._evaluated(functions[index - 1], points)


def _best_vamp2(self: HiddenChain | Lattice | Diffusion, lagtime: int, n_components: int) -> float:
    """Best VAMP-2 score that coordinates can have, the constant function included.

    Parameters
    ----------
    lagtime : int, frames
    n_components : int
        Number of coordinates; at most those of the slow functions, which are eight for particles.

    Returns
    -------
    float
        At most n_components + 1.

    Raises
    ------
    ValueError
        If more are asked for, or the lag time is not positive.
    """
    eigenvalues = self._spectrum.eigenvalues
    if lagtime < 1:
        raise ValueError(f"lagtime must be at least 1 frame, got {lagtime}")
    if not 1 <= n_components <= len(eigenvalues):
        raise ValueError(f"n_components must be 1 to {len(eigenvalues)}, got {n_components}")
    return float(1.0 + np.sum(eigenvalues[:n_components] ** (2 * lagtime)))


def _longest_timescales(self: Lattice | Diffusion, n: int = 3) -> Array:
    """Implied timescales -1 / ln λ, longest first.

    Parameters
    ----------
    n : int
        How many, at most eight.

    Returns
    -------
    array (n,), frames
        Of a particle in a potential, multiply with `frame_time` for the time of the equation of motion.

    Raises
    ------
    ValueError
        If more are asked for.
    """
    return _timescales(self._spectrum, n)


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

    simulate, slow_function, vamp2 = _simulate, _slow_function, _best_vamp2

    def _simulated(self, random: np.random.Generator, n_frames: int, n_trajectories: int) -> Simulation:
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

    @property
    def _n_features(self) -> int:
        return self.fold(self.means).shape[1]

    def _evaluated(self, function: Array, x: Array) -> Array:
        points = self.unfold(x)
        distance = (((points[:, None] - self.means) / self.deviations) ** 2).sum(axis=2)
        weights = self.stationary_distribution * np.exp(-0.5 * (distance - distance.min(axis=1, keepdims=True)))
        values: Array = weights @ function / weights.sum(axis=1)
        return values

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

    simulate, slow_function, vamp2, timescales = _simulate, _slow_function, _best_vamp2, _longest_timescales
    _n_features = 2

    def _simulated(self, random: np.random.Generator, n_frames: int, n_trajectories: int) -> Simulation:
        targets, probabilities = self._moves
        states = [
            _walk(random, n_frames, self.stationary_distribution, targets, probabilities) for _ in range(n_trajectories)
        ]
        return Simulation([self._sites[s] for s in states], states)

    def _evaluated(self, function: Array, x: Array) -> Array:
        edges = 0.5 * (self.axis[1:] + self.axis[:-1])
        rows, columns = np.searchsorted(edges, x).T
        values: Array = function[rows * len(self.axis) + columns]
        return values

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


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A particle in a potential, overdamped: dx = -∇V dt + sqrt(2 temperature) dW.

    The exact answers are those of its generator on a grid: finite volumes, second order in the width of a cell.

    Parameters
    ----------
    potential : callable
        Takes points (..., n_dimensions), returns energies (...).
    gradient : compiled callable
        Takes a point (n_dimensions,) and an array of the same shape that it fills.
    temperature : float
        kT, and the diffusion coefficient.
    box : tuple of (low, high)
        One pair a dimension. The particle practically never leaves it.
    n_cells : int
        Of the grid, in each dimension.
    timestep : float
        Of the integrator.
    interval : int
        Steps in a frame.

    References
    ----------
    Kloeden and Platen, Numerical Solution of Stochastic Differential Equations (Springer, 1992), chapter 15: Heun's
    step, of second weak order where the noise is the same everywhere. Euler's, and those that are of second order in
    the equilibrium alone, give timescales with errors of first order: about 1 % for the Prinz potential.
    """

    potential: Callable[[Array], Array]
    gradient: Callable[[Array, Array], None]
    temperature: float
    box: tuple[tuple[float, float], ...]
    n_cells: int
    timestep: float
    interval: int

    simulate, slow_function, vamp2, timescales = _simulate, _slow_function, _best_vamp2, _longest_timescales

    @property
    def frame_time(self) -> float:
        """Time between two frames."""
        return self.timestep * self.interval

    def _simulated(self, random: np.random.Generator, n_frames: int, n_trajectories: int) -> Simulation:
        width = self._centres[:, 1] - self._centres[:, 0]
        trajectories = []
        for _ in range(n_trajectories):
            cell = random.choice(len(self.stationary_distribution), p=self.stationary_distribution)
            centre = self._centres[range(len(self.box)), np.unravel_index(cell, self._shape)]
            start = centre + width * (random.random(len(self.box)) - 0.5)
            trajectories.append(
                _langevin(random, self.gradient, start, self.temperature, self.timestep, n_frames, self.interval)
            )
        return Simulation(trajectories, [self._cells(x) for x in trajectories])

    @property
    def _n_features(self) -> int:
        return len(self.box)

    def _evaluated(self, function: Array, x: Array) -> Array:
        from scipy.interpolate import interpn

        points = np.clip(x, self._centres[:, 0], self._centres[:, -1])
        values: Array = interpn(tuple(self._centres), function.reshape(self._shape), points)
        return values

    def density(self, x: Array) -> Array:
        """Stationary probability density at given points.

        Parameters
        ----------
        x : array (n, n_dimensions)

        Returns
        -------
        array (n,)

        Raises
        ------
        ValueError
            If x has other dimensions.
        """
        energy = self._grid_energy
        volume = np.prod([(high - low) / self.n_cells for low, high in self.box])
        lowest = energy.min()
        total = volume * np.exp(-(energy - lowest) / self.temperature).sum()
        density: Array = np.exp(-(self.potential(_points(x, len(self.box))) - lowest) / self.temperature) / total
        return density

    @property
    def stationary_distribution(self) -> Array:
        """Probabilities of the cells, shape (n_cells ** n_dimensions,)."""
        return self._spectrum.stationary

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.n_cells,) * len(self.box)

    @property
    def _centres(self) -> Array:
        low, high = np.array(self.box).T[:, :, None]
        centres: Array = low + (high - low) * (np.arange(self.n_cells) + 0.5) / self.n_cells
        return centres

    @property
    def _grid_energy(self) -> Array:
        return self.potential(np.stack(np.meshgrid(*self._centres, indexing="ij"), axis=-1))

    def _cells(self, x: Array) -> Array:
        low, high = np.array(self.box).T
        index = np.floor(self.n_cells * (x - low) / (high - low)).astype(np.int64)
        cells: Array = np.ravel_multi_index(tuple(index.T), self._shape, mode="clip")
        return cells

    @cached_property
    def _spectrum(self) -> _Spectrum:
        from scipy.ndimage import distance_transform_edt
        from scipy.sparse import coo_array, eye_array
        from scipy.sparse.linalg import LinearOperator, eigsh, splu
        from threadpoolctl import threadpool_limits

        energy = self._grid_energy / self.temperature
        energy -= energy.min()
        stationary = np.exp(-energy.ravel()) / np.exp(-energy).sum()
        # higher cells are never visited, and functions there would be rounding errors over vanishing weights
        visited = energy < _HIGHEST
        site = np.full(self._shape, -1)
        site[visited] = np.arange(visited.sum())
        height, root = energy[visited], np.sqrt(stationary[visited.ravel()])
        diagonal = np.zeros(len(height))
        rows, columns, values = [np.arange(len(height))], [np.arange(len(height))], [diagonal]
        for axis, (low, high) in enumerate(self.box):
            pairs = [np.take(site, np.arange(self.n_cells - 1) + step, axis).ravel() for step in (0, 1)]
            i, j = np.stack(pairs)[:, (pairs[0] >= 0) & (pairs[1] >= 0)]
            hop = self.temperature * (self.n_cells / (high - low)) ** 2
            rows, columns, values = [*rows, i, j], [*columns, j, i], [*values, *np.full((2, len(i)), -hop)]
            # the rate from i to j is hop exp((energy_i - energy_j) / 2); symmetrised, it is hop in both directions
            for a, b in ((i, j), (j, i)):
                diagonal += np.bincount(a, hop * np.exp(0.5 * (height[a] - height[b])), minlength=len(height))
        matrix = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))).tocsc()
        shift = 1e-6
        inverse = splu(
            matrix + shift * eye_array(len(height), format="csc"),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        operator = LinearOperator(matrix.shape, matvec=inverse.solve, dtype=np.float64)
        # threads slow these short vectors down many times on a busy machine
        with threadpool_limits(1):
            rates, vectors = eigsh(matrix, k=_N_SLOW + 1, sigma=-shift, v0=root, OPinv=operator)
        order = np.argsort(rates)[1:]
        functions = _oriented(vectors[:, order] / root[:, None])
        nearest = distance_transform_edt(~visited, return_distances=False, return_indices=True)
        everywhere = functions[site[tuple(nearest)].ravel()]
        return _Spectrum(np.exp(-rates[order] * self.frame_time), everywhere, stationary)


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


def double_well(temperature: float = 1.0) -> Diffusion:
    """The double well (x² - 1)².

    Parameters
    ----------
    temperature : float
        0.25 makes the crossing 25 times slower.

    Raises
    ------
    ValueError
        If the temperature is not in 0.1 to 2, where grid and time step are right.

    Examples
    --------
    >>> system = double_well()
    >>> (system.timescales(1) * system.frame_time).round(3)
    array([1.336])
    """
    if not 0.1 <= temperature <= 2.0:
        raise ValueError(f"temperature must be 0.1 to 2, got {temperature}")
    return Diffusion(_double_well, _double_well_gradient, temperature, ((-3.0, 3.0),), 2000, 2e-3, 50)


def asymmetric_double_well() -> Diffusion:
    """The double well (x² - 1)² + 0.3 x at temperature 0.25."""
    return Diffusion(
        lambda x: _double_well(x) + 0.3 * x[..., 0], _asymmetric_gradient, 0.25, ((-2.5, 2.5),), 2000, 2e-3, 50
    )


def prinz_potential() -> Diffusion:
    """Four wells on a line, at temperature 1.

    Examples
    --------
    >>> prinz_potential().timescales().round(1)
    array([166.8,  25.4,  13. ])

    References
    ----------
    Prinz et al., J. Chem. Phys. 134, 174105 (2011).
    """
    return Diffusion(_prinz, _prinz_gradient, 1.0, ((-1.4, 1.4),), 2000, 1e-4, 50)


def triple_well() -> Diffusion:
    """Two deep wells and a shallow one in the plane; noise strength 1.09.

    References
    ----------
    Schütte and Sarich, Metastability and Markov State Models in Molecular Dynamics, Courant Lecture Notes 24 (2013).
    """
    return Diffusion(_triple, _triple_gradient, 0.5 * 1.09**2, ((-2.6, 2.6), (-2.3, 3.0)), 200, 2e-3, 50)


def quadruple_well() -> Diffusion:
    """Four equal wells in the plane, (x² - 1)² + (y² - 1)²; noise strength 0.7.

    The two slowest motions are equally slow: only the space of their two functions is defined.
    """
    return Diffusion(_quadruple, _quadruple_gradient, 0.5 * 0.7**2, ((-1.9, 1.9), (-1.9, 1.9)), 200, 2e-3, 50)


def mueller_brown() -> Diffusion:
    """The Müller-Brown potential times 0.15, at temperature 1.

    References
    ----------
    Müller and Brown, Theor. Chim. Acta 53, 75 (1979).
    """
    return Diffusion(_mueller, _mueller_gradient, 1.0, ((-1.8, 1.3), (-0.6, 2.3)), 200, 2e-4, 500)


_N_SLOW = 8
_HIGHEST = 30.0  # kT


class _Spectrum(NamedTuple):
    eigenvalues: Array  # (n,) of one frame, descending, without the 1
    eigenfunctions: Array  # (n_states, n), of variance one
    stationary: Array  # (n_states,)


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


@numba.njit
def _langevin(
    random: np.random.Generator,
    gradient: Callable[[Array, Array], None],
    start: Array,
    temperature: float,
    timestep: float,
    n_frames: int,
    interval: int,
) -> Array:
    n = len(start)
    frames = np.empty((n_frames, n))
    x, slope, trial, trial_slope = start.copy(), np.empty(n), np.empty(n), np.empty(n)
    scale = np.sqrt(2.0 * temperature * timestep)
    frames[0] = x
    for frame in range(1, n_frames):
        for _ in range(interval):
            gradient(x, slope)
            for i in range(n):
                x[i] += scale * random.standard_normal()
                trial[i] = x[i] - timestep * slope[i]
            gradient(trial, trial_slope)
            for i in range(n):
                x[i] -= 0.5 * timestep * (slope[i] + trial_slope[i])
        frames[frame] = x
    return frames


def _double_well(x: Array) -> Array:
    energy: Array = (x[..., 0] ** 2 - 1.0) ** 2
    return energy


@numba.njit
def _double_well_gradient(x: Array, slope: Array) -> None:
    slope[0] = 4.0 * x[0] * (x[0] ** 2 - 1.0)


@numba.njit
def _asymmetric_gradient(x: Array, slope: Array) -> None:
    slope[0] = 4.0 * x[0] * (x[0] ** 2 - 1.0) + 0.3


def _quadruple(x: Array) -> Array:
    return _double_well(x) + _double_well(x[..., 1:])


@numba.njit
def _quadruple_gradient(x: Array, slope: Array) -> None:
    for i in range(2):
        slope[i] = 4.0 * x[i] * (x[i] ** 2 - 1.0)


def _prinz(x: Array) -> Array:
    q = x[..., 0]
    energy: Array = 4.0 * (
        q**8 + 0.8 * np.exp(-80.0 * q**2) + 0.2 * np.exp(-80.0 * (q - 0.5) ** 2) + 0.5 * np.exp(-40.0 * (q + 0.5) ** 2)
    )
    return energy


@numba.njit
def _prinz_gradient(x: Array, slope: Array) -> None:
    q = x[0]
    slope[0] = 4.0 * (
        8.0 * q**7
        - 128.0 * q * np.exp(-80.0 * q**2)
        - 32.0 * (q - 0.5) * np.exp(-80.0 * (q - 0.5) ** 2)
        - 40.0 * (q + 0.5) * np.exp(-40.0 * (q + 0.5) ** 2)
    )


# height, x and y of the four Gaussians of width 1
_TRIPLE = np.array([(3.0, 0.0, 1.0 / 3.0), (-3.0, 0.0, 5.0 / 3.0), (-5.0, 1.0, 0.0), (-5.0, -1.0, 0.0)])


def _triple(x: Array) -> Array:
    energy: Array = 0.2 * x[..., 0] ** 4 + 0.2 * (x[..., 1] - 1.0 / 3.0) ** 4
    for height, centre_x, centre_y in _TRIPLE:
        energy = energy + height * np.exp(-((x[..., 0] - centre_x) ** 2) - (x[..., 1] - centre_y) ** 2)
    return energy


@numba.njit
def _triple_gradient(x: Array, slope: Array) -> None:
    slope[0] = 0.8 * x[0] ** 3
    slope[1] = 0.8 * (x[1] - 1.0 / 3.0) ** 3
    for n in range(4):
        dx, dy = x[0] - _TRIPLE[n, 1], x[1] - _TRIPLE[n, 2]
        value = -2.0 * _TRIPLE[n, 0] * np.exp(-dx * dx - dy * dy)
        slope[0] += value * dx
        slope[1] += value * dy


# A, a, b, c, x and y of the four terms A exp(a dx² + b dx dy + c dy²)
_MUELLER = np.array(
    [
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    ]
)
_MUELLER_SCALE = 0.15


def _mueller(x: Array) -> Array:
    energy = np.zeros(x.shape[:-1])
    for height, a, b, c, centre_x, centre_y in _MUELLER:
        dx, dy = x[..., 0] - centre_x, x[..., 1] - centre_y
        energy += height * np.exp(a * dx**2 + b * dx * dy + c * dy**2)
    return _MUELLER_SCALE * energy


@numba.njit
def _mueller_gradient(x: Array, slope: Array) -> None:
    slope[:] = 0.0
    for n in range(4):
        height, a, b, c = _MUELLER[n, 0], _MUELLER[n, 1], _MUELLER[n, 2], _MUELLER[n, 3]
        dx, dy = x[0] - _MUELLER[n, 4], x[1] - _MUELLER[n, 5]
        value = _MUELLER_SCALE * height * np.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        slope[0] += value * (2.0 * a * dx + b * dy)
        slope[1] += value * (b * dx + 2.0 * c * dy)
