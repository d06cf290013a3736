import dataclasses
import warnings

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.linalg import eigs

from molml.kinetics.systems import (
    Diffusion,
    _langevin,
    asymmetric_double_well,
    beltway,
    double_well,
    mueller_brown,
    prinz_potential,
    quadruple_well,
    square_root_model,
    swiss_roll_model,
    triple_well,
)

CHAINS = [square_root_model, swiss_roll_model]
WELLS = [double_well, asymmetric_double_well, prinz_potential, triple_well, quadruple_well, mueller_brown]
EVERY = [*CHAINS, beltway, *WELLS]


def own(system):
    """Timescales in the time of the equation of motion."""
    return system.timescales() * system.frame_time


# published: reference values of generators converged to 0.1 %, and closed forms of the hidden chains
def test_chains_have_the_published_timescales():
    np.testing.assert_allclose(square_root_model().timescales(), [-1.0 / np.log(0.9)], rtol=1e-12)
    roots = 1.0 - 0.1 * (1.0 - np.cos(np.pi * np.arange(1, 4) / 4.0))
    np.testing.assert_allclose(swiss_roll_model().timescales(), -1.0 / np.log(roots), rtol=1e-12)
    np.testing.assert_allclose(swiss_roll_model().timescales(), [33.640, 9.4912, 5.3423], rtol=2e-5)


def test_chains_have_the_published_scores():
    assert square_root_model().vamp2(1, 1) == pytest.approx(1.81, abs=1e-12)
    assert swiss_roll_model().vamp2(1, 3) == pytest.approx(3.44, abs=1e-12)
    assert square_root_model().vamp2(3, 1) == pytest.approx(1.0 + 0.9**6, abs=1e-12)


def test_beltway_has_the_published_timescales():
    np.testing.assert_allclose(beltway().timescales(), [17924.4, 3310.8, 1817.9], rtol=5e-5)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (double_well(), [1.3357]),
        (double_well(temperature=0.25), [33.58]),
        (asymmetric_double_well(), [21.30]),
        (prinz_potential(), [0.8340, 0.1268, 0.0651]),
        (triple_well(), [12.68, 1.338, 0.256]),
        (quadruple_well(), [36.39, 36.39, 18.19]),
        (mueller_brown(), [801.5, 0.281]),
    ],
    ids=["double", "cold double", "asymmetric", "prinz", "triple", "quadruple", "mueller"],
)
def test_potentials_have_the_published_timescales(system, expected):
    np.testing.assert_allclose(own(system)[: len(expected)], expected, rtol=2e-3)


def test_quadruple_well_is_two_independent_double_wells():
    # sums of independent generators: rates add; the grids differ, their errors are of 1e-3
    line = own(double_well(temperature=0.245))
    np.testing.assert_allclose(own(quadruple_well()), [line[0], line[0], line[0] / 2.0], rtol=1e-3)


def test_timescales_converge_with_the_square_of_the_cell():
    fine, half, quarter = (
        Diffusion(s.potential, s.gradient, s.temperature, s.box, n, s.timestep, s.interval).timescales(1)[0]
        for s in [prinz_potential()]
        for n in (800, 400, 200)
    )
    assert (quarter - half) / (half - fine) == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("make", CHAINS)
def test_chain_agrees_with_deeptime(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pytest.importorskip("deeptime.data")
        theirs = {square_root_model: data.sqrt_model, swiss_roll_model: data.swissroll_model}[make]
        states, x = theirs(20_000, seed=1)
    mine = make().simulate(20_000, seed=2)
    for j in range(len(make().means)):
        a, b = mine.trajectories[0][mine.states[0] == j], x[states == j]
        spread = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
        # within a state frames are independent: four sigma of a dozen comparisons
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4.0 * spread)
        np.testing.assert_allclose(np.cov(a.T), np.cov(b.T), atol=0.08 * np.abs(np.cov(b.T)).max())
    # one frame in ten hops at most: four binomial sigma of a difference
    hops = [np.mean(np.abs(np.diff(s))) for s in (mine.states[0], states)]
    assert hops[0] == pytest.approx(hops[1], abs=4.0 * np.sqrt(2.0 * 0.1 / 20_000))


@pytest.mark.parametrize("make", CHAINS)
def test_slow_function_reads_the_hidden_state(make):
    system = make()
    simulation = system.simulate(5000, seed=0)
    by_state = system.slow_function(system.fold(system.means))
    values = system.slow_function(simulation.trajectories[0])
    # two frames in ten thousand lie between two states of the swiss roll
    assert np.mean(np.abs(values - by_state[simulation.states[0]]) < 0.1) > 0.998
    assert by_state @ system.stationary_distribution == pytest.approx(0.0, abs=1e-12)
    assert by_state**2 @ system.stationary_distribution == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "index", "n_frames"),
    [
        *((make, 1, 100_000) for make in CHAINS + [beltway]),
        *((make, 1, 40_000) for make in WELLS),
        (swiss_roll_model, 2, 100_000),
        (swiss_roll_model, 3, 100_000),
        (prinz_potential, 2, 40_000),
        (prinz_potential, 3, 40_000),
        (triple_well, 2, 40_000),
        (quadruple_well, 3, 40_000),
    ],
)
def test_slow_functions_decay_as_their_timescales_say(make, index, n_frames):
    system = make()
    timescale = system.timescales(index)[-1]
    lagtime = max(1, round(timescale / 20))
    simulated = system.simulate(n_frames, n_trajectories=2, seed=3).trajectories
    values = [system.slow_function(x, index) for x in simulated]
    products = np.sum([v[lagtime:] @ v[:-lagtime] for v in values])
    decay = products / np.sum([(v[lagtime:] @ v[lagtime:] + v[:-lagtime] @ v[:-lagtime]) / 2 for v in values])
    # Bartlett's error of an autocorrelation that decays exponentially; 1e-3 for the generator's grid
    t = 2.0 * lagtime / timescale
    error = np.sqrt(timescale / (2 * n_frames) * (1.0 - np.exp(-t) - t * np.exp(-t)))
    assert decay == pytest.approx(np.exp(-lagtime / timescale), abs=4.0 * error + 1e-3)


def slope(system, x):
    """Of the potential on a line, by differences of fourth order."""
    e = 1e-4
    a, b, c, d = (system.potential((x + shift)[..., None]) for shift in (-2 * e, -e, e, 2 * e))
    return (a - 8.0 * b + 8.0 * c - d) / (12.0 * e)


def heun(system, x, noise):
    h = system.timestep
    trial = x - h * slope(system, x) + noise
    return x - 0.5 * h * (slope(system, x) + slope(system, trial)) + noise


def euler(system, x, noise):
    return x - system.timestep * slope(system, x) + noise


def timescales_of_steps(step, system):
    """Exact timescales of an integrator on a line: its transition density on a grid, without any simulation."""
    scale = np.sqrt(2.0 * system.temperature * system.timestep)
    x = np.arange(*system.box[0], scale / 4.0)  # the sum over a grid is exact to 1e-30 for so wide a Gaussian
    x = x[system.potential(x[:, None]) < 35.0 * system.temperature]
    reach = np.arange(-32, 33)
    rows, start = np.repeat(np.arange(len(x)), len(reach)), np.repeat(x, len(reach))
    columns = (np.searchsorted(x, euler(system, x, 0.0))[:, None] + reach).ravel()
    inside = (columns >= 0) & (columns < len(x))
    rows, columns, start = rows[inside], columns[inside], start[inside]
    # which noise leads there, by Newton's method, and how dense such noise lies
    noise = x[columns] - euler(system, start, 0.0)
    for _ in range(6):
        change = (step(system, start, noise + 1e-6) - step(system, start, noise - 1e-6)) / 2e-6
        noise -= (step(system, start, noise) - x[columns]) / change
    matrix = csr_array((np.exp(-0.5 * (noise / scale) ** 2) / change, (rows, columns)))
    matrix = csr_array(matrix / matrix.sum(axis=1)[:, None])
    rates = eigs(matrix.tocsc(), k=4, sigma=1.0 + 1e-7, v0=np.ones(len(x)), return_eigenvectors=False)
    return -1.0 / np.log(np.sort(rates.real)[-2::-1]) / system.interval


@pytest.mark.parametrize("make", [double_well, lambda: double_well(temperature=0.25), prinz_potential])
def test_steps_of_the_integrator_have_the_timescales_of_the_generator(make):
    # two computations that share the potential alone; 4e-4 for the step, of second order, and the generator's grid
    np.testing.assert_allclose(timescales_of_steps(heun, make()), make().timescales(), rtol=5e-4)


def test_steps_of_first_order_have_other_timescales():
    # control: what twice the tolerance of the timescales would not excuse
    assert timescales_of_steps(euler, prinz_potential())[0] > 1.003 * prinz_potential().timescales()[0]


@pytest.mark.parametrize("make", [double_well, prinz_potential])
def test_simulation_takes_the_steps_of_the_integrator(make):
    system = dataclasses.replace(make(), interval=1)
    x, random = np.array([0.3]), np.random.default_rng(4)
    frames = _langevin(random, system.gradient, x, system.temperature, system.timestep, 50, 1)[:, 0]
    noise = np.sqrt(2.0 * system.temperature * system.timestep) * np.random.default_rng(4).standard_normal(49)
    for frame, kick in enumerate(noise):
        assert frames[frame + 1] == pytest.approx(heun(system, frames[frame], kick), abs=1e-9)
    assert abs(frames[1] - euler(system, frames[0], noise[0])) > 1e-6


@pytest.mark.parametrize("make", [triple_well, quadruple_well, mueller_brown])
def test_grids_in_the_plane_are_fine_enough(make):
    # errors of second order: the half of the cells has four times the error
    system = make()
    coarse = dataclasses.replace(system, n_cells=system.n_cells // 2)
    assert np.all(np.abs(coarse.timescales() / system.timescales() - 1.0) < 3e-3)


@pytest.mark.parametrize("make", WELLS)
def test_gradient_is_that_of_the_potential(make):
    system = make()
    random = np.random.default_rng(0)
    points = np.array([random.uniform(low, high, 50) for low, high in system.box]).T * 0.6
    slope, step = np.empty(len(system.box)), 1e-5
    for point in points:
        system.gradient(point, slope)
        shifts = step * np.eye(len(point))
        numeric = (system.potential(point + shifts) - system.potential(point - shifts)) / (2 * step)
        np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [double_well, prinz_potential, triple_well])
def test_frames_have_the_stationary_distribution(make):
    system = make()
    x = system.simulate(100, n_trajectories=200, seed=5).trajectories
    # the starts are independent draws, the ends have been moved by the integrator
    for frame in (0, -1):
        points = np.array([a[frame] for a in x])
        mean = system.stationary_distribution @ system.potential(_centres(system))
        spread = np.std(system.potential(points)) / np.sqrt(len(points))
        assert system.potential(points).mean() == pytest.approx(mean, abs=4.0 * spread)


def _centres(system):
    return np.stack(np.meshgrid(*system._centres, indexing="ij"), axis=-1).reshape(-1, len(system.box))


def test_density_is_the_distribution_over_the_volume():
    system = double_well()
    width = 6.0 / system.n_cells
    density = system.density(_centres(system))
    assert density.sum() * width == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(density * width, system.stationary_distribution, atol=1e-14)


@pytest.mark.parametrize("make", WELLS)
def test_cells_are_those_of_the_frames(make):
    system = make()
    x, cells = (each[0] for each in system.simulate(200, seed=0))
    half = np.array([high - low for low, high in system.box]) / system.n_cells / 2.0
    assert np.all(np.abs(x - _centres(system)[cells]) <= half * (1 + 1e-9))


def test_beltway_hops_to_neighbours():
    x, sites = (each[0] for each in beltway().simulate(3000, seed=0))
    step = np.abs(np.diff(x, axis=0)).sum(axis=1) / (2.0 / 49.0)
    np.testing.assert_allclose(step, np.round(step), atol=1e-9)
    assert set(np.round(step)) == {0.0, 1.0}
    np.testing.assert_array_equal(beltway()._sites[sites], x)


def test_beltway_is_reversible():
    system = beltway()
    targets, probabilities = system._moves
    flow = np.zeros((2500, 2500))
    np.add.at(flow, (np.arange(2500)[:, None], targets), system.stationary_distribution[:, None] * probabilities)
    np.testing.assert_allclose(flow, flow.T, atol=1e-16)
    np.testing.assert_allclose(flow.sum(axis=0), system.stationary_distribution, atol=1e-16)


def test_beltway_without_its_wall_is_another_system():
    # control: the published timescales see the wall
    system = beltway()
    open_ring = np.where(system.energy == 8.0, 0.0, system.energy)
    other = type(system)(system.axis, open_ring)
    assert other.timescales()[0] < 0.9 * system.timescales()[0]


@pytest.mark.parametrize("make", EVERY)
def test_simulation_repeats_with_its_seed(make):
    first, again, other = (make().simulate(50, n_trajectories=2, seed=seed) for seed in (7, 7, 8))
    for a, b, c, s in zip(first.trajectories, again.trajectories, other.trajectories, first.states, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert len(a) == len(s) == 50
    assert not np.array_equal(first.trajectories[0], first.trajectories[1])


@pytest.mark.parametrize("make", [square_root_model, beltway, double_well])
def test_what_users_get_wrong(make):
    system = make()
    with pytest.raises(ValueError, match="n_frames must be at least 1, got 0"):
        system.simulate(0, seed=0)
    with pytest.raises(ValueError, match="n_trajectories must be at least 1, got -1"):
        system.simulate(10, n_trajectories=-1, seed=0)
    with pytest.raises(ValueError, match=r"x must have shape \(n, \d\), got \(5, 7\)"):
        system.slow_function(np.zeros((5, 7)))
    x = system.simulate(3, seed=0).trajectories[0]
    with pytest.raises(ValueError, match=r"index must be 1 \(the slowest\) to \d, got 0"):
        system.slow_function(x, 0)
    with pytest.raises(ValueError, match="n must be 1 to . timescales, got 9"):
        system.timescales(9)
    with pytest.raises(ValueError, match="lagtime must be at least 1 frame, got 0"):
        system.vamp2(0, 1)
    with pytest.raises(ValueError, match="n_components must be 1 to ., got 9"):
        system.vamp2(1, 9)


def test_temperature_out_of_reach_of_the_grid():
    with pytest.raises(ValueError, match=r"temperature must be 0\.1 to 2, got 5"):
        double_well(temperature=5.0)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 1\)"):
        double_well().density(np.zeros(3))
