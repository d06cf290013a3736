"""Distances, angles and torsions: against formulas in plain numpy, over all periodic images, and mdtraj."""

import itertools

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molml.kinetics.geometry import (
    NoValueError,
    angles,
    angles_tensor,
    distances,
    distances_tensor,
    torsions,
    torsions_tensor,
)

PAIRS = np.array(list(itertools.combinations(range(6), 2)))
SINGLES = [np.array([i]) for i in range(6)]
TRIPLETS = np.array([[0, 1, 2], [3, 2, 1], [5, 0, 4]])
QUADRUPLETS = np.array([[0, 1, 2, 3], [3, 2, 1, 5], [5, 0, 4, 2]])
# more than two blocks of frames, and not whole ones
N = 77


@pytest.fixture
def positions():
    return np.random.default_rng(0).normal(size=(N, 6, 3))


def cells_of(kind, n=N, seed=1):
    rng = np.random.default_rng(seed)
    edges = rng.uniform(1.5, 3.0, (n, 3))
    if kind == "rectangular":
        return edges[:, :, None] * np.eye(3)
    skew = np.tril(rng.uniform(-1.5, 1.5, (n, 3, 3)), -1)
    return edges[:, :, None] * (np.eye(3) + skew)


def images(vectors, cells, reach):
    """Shortest of the periodic images up to `reach` cells from the one in the middle cell."""
    vectors = vectors - np.einsum(
        "fpk,fkc->fpc", np.round(np.einsum("fpc,fck->fpk", vectors, np.linalg.inv(cells))), cells
    )
    shifts = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    candidates = vectors[:, :, None] + np.einsum("sk,fkc->fsc", shifts, cells)[:, None]
    best = np.linalg.norm(candidates, axis=3).argmin(axis=2)
    return np.take_along_axis(candidates, best[:, :, None, None], axis=2)[:, :, 0]


@pytest.mark.parametrize(("kind", "least"), [("rectangular", 0.0), ("triclinic", 0.1)])
def test_nearest_of_all_images(positions, kind, least):
    cells = cells_of(kind)
    found = distances(3 * positions, SINGLES, PAIRS, cells, 1.0)
    vectors = 3 * (positions[:, PAIRS[:, 1]] - positions[:, PAIRS[:, 0]])
    exact = np.linalg.norm(images(vectors, cells, 6), axis=2)
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    # controls: without the cell, or in the middle cell of so skew ones, many are wrong
    assert (distances(3 * positions, SINGLES, PAIRS, None, 1.0) > exact + 0.1).mean() > 0.5
    assert (np.linalg.norm(images(vectors, cells, 0), axis=2) > exact + 0.1).mean() >= least


def test_factor_and_precision(positions):
    exact = np.linalg.norm(positions[:, PAIRS[:, 0]] - positions[:, PAIRS[:, 1]], axis=2)
    np.testing.assert_allclose(distances(positions, SINGLES, PAIRS, None, 10.0), 10 * exact, rtol=1e-14)
    single = distances(positions.astype(np.float32), SINGLES, PAIRS, None, 10.0)
    assert single.dtype == np.float32
    # positions of up to 3 are rounded to 2e-7, the shortest distance is 0.2
    np.testing.assert_allclose(single, 10 * exact, rtol=2e-6)


@pytest.mark.parametrize("kind", [None, "rectangular", "triclinic"])
def test_groups_take_the_closest_two(positions, kind):
    cells = None if kind is None else cells_of(kind)
    groups = [np.array([0, 3]), np.array([1]), np.array([2, 4, 5])]
    pairs = np.array([[0, 1], [2, 0], [1, 2]])
    found = distances(positions, groups, pairs, cells, 1.0)
    every = distances(positions, SINGLES, PAIRS, cells, 1.0)
    table = np.zeros((N, 6, 6))
    table[:, PAIRS[:, 0], PAIRS[:, 1]] = table[:, PAIRS[:, 1], PAIRS[:, 0]] = every
    expected = [table[:, groups[a][:, None], groups[b]].min(axis=(1, 2)) for a, b in pairs]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-13)


def plain_angle(x, i, j, k):
    u, v = x[:, i] - x[:, j], x[:, k] - x[:, j]
    return np.arccos((u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1))


def plain_torsion(x, i, j, k, m):
    """Of the projections along the middle bond."""
    axis = x[:, k] - x[:, j]
    axis = axis / np.linalg.norm(axis, axis=1, keepdims=True)
    u, w = x[:, i] - x[:, j], x[:, m] - x[:, k]
    u, w = (y - (y * axis).sum(1, keepdims=True) * axis for y in (u, w))
    return np.arctan2((np.cross(axis, u) * w).sum(1), (u * w).sum(1))


def test_angles_and_torsions_are_the_formulas(positions):
    values, bad = angles(positions, TRIPLETS, None)
    expected = np.stack([plain_angle(positions, *three) for three in TRIPLETS], axis=1)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    phi, bad_torsion = torsions(positions, QUADRUPLETS, None, cossin=False)
    expected = np.stack([plain_torsion(positions, *four) for four in QUADRUPLETS], axis=1)
    np.testing.assert_allclose(phi, expected, rtol=0, atol=1e-12)
    both, _ = torsions(positions, QUADRUPLETS, None, cossin=True)
    np.testing.assert_allclose(both[:, ::2], np.cos(expected), rtol=0, atol=1e-13)
    np.testing.assert_allclose(both[:, 1::2], np.sin(expected), rtol=0, atol=1e-13)
    assert bad == bad_torsion == -1
    # the mirror image turns the other way: the sign is seen
    mirrored, _ = torsions(positions * [1, 1, -1], QUADRUPLETS, None, cossin=False)
    np.testing.assert_allclose(mirrored, -expected, rtol=0, atol=1e-12)


def test_known_torsions():
    square = np.array([[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 0]])
    turned = [np.array([np.cos(a), 1.0, np.sin(a)]) for a in (0.0, np.pi / 2, np.pi, -np.pi / 3)]
    frames = np.stack([np.concatenate([square[:3], [last]]) for last in turned])
    values, _ = torsions(frames, np.array([[0, 1, 2, 3]]), None, cossin=False)
    # seen along +y, from x to +z is anticlockwise: negative
    np.testing.assert_allclose(np.abs(values[2]), np.pi, rtol=1e-15)
    np.testing.assert_allclose(values[[0, 1, 3], 0], [0.0, -np.pi / 2, np.pi / 3], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", ["rectangular", "triclinic"])
def test_periodic_angles_and_torsions_are_those_of_whole_molecules(positions, kind):
    cells = 6 * cells_of(kind)
    rng = np.random.default_rng(2)
    whole = 0.3 * positions
    broken = whole + np.einsum("fak,fkc->fac", rng.integers(-3, 4, (N, 6, 3)), cells)
    np.testing.assert_allclose(angles(broken, TRIPLETS, cells)[0], angles(whole, TRIPLETS, None)[0], rtol=0, atol=1e-11)
    for cossin in (True, False):
        np.testing.assert_allclose(
            torsions(broken, QUADRUPLETS, cells, cossin=cossin)[0],
            torsions(whole, QUADRUPLETS, None, cossin=cossin)[0],
            rtol=0,
            atol=1e-11,
        )
    assert np.abs(angles(broken, TRIPLETS, None)[0] - angles(whole, TRIPLETS, None)[0]).max() > 1


@pytest.mark.parametrize("kind", [None, "rectangular", "triclinic"])
def test_equal_to_mdtraj(positions, kind):
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(6):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    trajectory = mdtraj.Trajectory(positions.astype(np.float32), topology)
    cells = None
    if kind is not None:
        trajectory.unitcell_vectors = (3 * cells_of(kind)).astype(np.float32)
        cells = trajectory.unitcell_vectors
    xyz = trajectory.xyz
    # mdtraj computes in single precision throughout
    np.testing.assert_allclose(
        distances(xyz, SINGLES, PAIRS, cells, 1.0), mdtraj.compute_distances(trajectory, PAIRS), rtol=0, atol=2e-6
    )
    np.testing.assert_allclose(
        angles(xyz, TRIPLETS, cells)[0], mdtraj.compute_angles(trajectory, TRIPLETS), rtol=0, atol=5e-4
    )
    theirs = mdtraj.compute_dihedrals(trajectory, QUADRUPLETS)
    ours = torsions(xyz, QUADRUPLETS, cells, cossin=True)[0]
    np.testing.assert_allclose(ours[:, ::2], np.cos(theirs), rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours[:, 1::2], np.sin(theirs), rtol=0, atol=1e-4)


@given(st.lists(st.floats(-2, 2), min_size=12, max_size=12))
def test_every_torsion_has_a_value_or_is_named(numbers):
    frame = np.reshape(numbers, (1, 4, 3))
    values, bad = torsions(frame, np.array([[0, 1, 2, 3]]), None, cossin=True)
    u, v, w = np.diff(frame[0], axis=0)
    sines = np.linalg.norm(np.cross(u, v)) * np.linalg.norm(np.cross(v, w))
    assert (bad == -1) == (sines > 1e-12 * np.linalg.norm(u) * (v @ v) * np.linalg.norm(w))
    assert bad == 0 or abs((values**2).sum() - 1) < 1e-12


def test_undefined_angles_are_named(positions):
    positions[20, 5] = 2 * positions[20, 0] - positions[20, 4]
    assert torsions(positions, QUADRUPLETS, None, cossin=True)[1] == 20 * 3 + 2
    # three atoms on a line still make an angle
    values, bad = angles(positions[20:21], TRIPLETS, None)
    assert bad == -1 and values[0, 2] == pytest.approx(np.pi, abs=1e-7)
    positions[20] = positions[21]
    positions[60, 0] = positions[60, 1]
    assert angles(positions, TRIPLETS, None)[1] == 60 * 3
    assert torsions(positions, QUADRUPLETS, None, cossin=False)[1] == 60 * 3


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("frame", [0, 31, 32, N - 1])
def test_numbers_that_are_not_finite_are_refused_by_frame(positions, number, frame):
    positions[frame, 2, 1] = number
    message = f"frame {frame}: positions must be finite"
    groups = [np.array([0, 1]), np.array([2, 3])]
    for cells in (None, cells_of("rectangular"), cells_of("triclinic")):
        for work in (
            lambda c: distances(positions, SINGLES, PAIRS, c, 1.0),
            lambda c: distances(positions, groups, np.array([[0, 1]]), c, 1.0),
        ):
            with pytest.raises(NoValueError, match=message) as caught:
                work(cells)
            assert caught.value.frame == frame


def test_numbers_whose_squares_overflow_are_refused(positions):
    positions[70, 2] = 1e200
    groups = [np.array([0, 1]), np.array([2, 3])]
    for work in (
        lambda: distances(positions, SINGLES, PAIRS, None, 1.0),
        lambda: distances(positions, groups, np.array([[0, 1]]), None, 1.0),
    ):
        with pytest.raises(NoValueError, match="frame 70: positions must be finite.*so large"):
            work()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_angles_of_such_numbers_too(positions, number):
    positions[45, 2, 1] = number
    for work in (
        lambda: angles(positions, TRIPLETS, None),
        lambda: torsions(positions, QUADRUPLETS, cells_of("triclinic"), cossin=True),
        lambda: torsions(positions, QUADRUPLETS, None, cossin=False),
    ):
        with pytest.raises(NoValueError, match=r"frame 45: .*\(of atom 2\)"):
            work()


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([1.0, np.nan, 1.0]), np.diag([1.0, -0.0, 1.0])])
def test_cells_without_volume_are_refused(positions, cell):
    cells = cells_of("triclinic")
    cells[7] = cell
    with pytest.raises(NoValueError, match="frame 7: the unit cell must have a volume"):
        distances(positions, SINGLES, PAIRS, cells, 1.0)


def test_tensors_are_equal_and_differentiable(positions):
    x = torch.from_numpy(positions[:8]).requires_grad_(True)
    groups = [np.array([0, 3]), np.array([1]), np.array([2, 4, 5])]
    pairs = np.array([[0, 1], [2, 0], [1, 2]])
    cases = [
        (distances(positions[:8], SINGLES, PAIRS, None, 1.0), lambda x: distances_tensor(x, SINGLES, PAIRS)),
        (distances(positions[:8], groups, pairs, None, 1.0), lambda x: distances_tensor(x, groups, pairs)),
        (angles(positions[:8], TRIPLETS, None)[0], lambda x: angles_tensor(x, TRIPLETS)[0]),
        (torsions(positions[:8], QUADRUPLETS, None, cossin=True)[0],
         lambda x: torsions_tensor(x, QUADRUPLETS, cossin=True)[0]),
        (torsions(positions[:8], QUADRUPLETS, None, cossin=False)[0],
         lambda x: torsions_tensor(x, QUADRUPLETS, cossin=False)[0]),
    ]  # fmt: skip
    for expected, function in cases:
        np.testing.assert_allclose(function(x).detach(), expected, rtol=1e-12, atol=1e-14)
        assert torch.autograd.gradcheck(function, x)
        assert function(x[0]).shape == expected.shape[1:]
        assert function(x.float()).dtype == torch.float32


def test_derivatives_where_there_is_none_are_zero():
    x = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0], [2, 0, 0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(distances_tensor(x, SINGLES[:2], np.array([[0, 1]])).sum(), x)
    assert (gradient == 0).all()
    value, bad = angles_tensor(x, np.array([[1, 2, 3]]))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert bad == -1 and value.item() == pytest.approx(np.pi) and torch.isfinite(gradient).all()
    assert angles_tensor(x, np.array([[0, 1, 2]]))[1] == 0
    assert torsions_tensor(x.expand(2, 4, 3), np.array([[1, 2, 3, 0]]), cossin=True)[1] == 0
