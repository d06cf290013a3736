"""Neighbour lists against a brute-force count of images and against scipy's KD-tree."""

import itertools
import re
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from molml.energy.neighbors import neighbor_pairs, neighbor_shifts

CELL = np.array([[5.0, 0.0, 0.0], [1.0, 6.0, 0.0], [0.5, -1.0, 7.0]])


def lattice_points(cell, pbc, reach):
    """Every translation along the periodic directions that may bring two points `reach` apart together."""
    vectors = cell[pbc]
    counts = np.zeros(3, dtype=int)
    counts[pbc] = np.ceil(reach * np.linalg.norm(np.linalg.pinv(vectors), axis=0)).astype(int) if len(vectors) else 0
    return np.array(list(itertools.product(*(range(-n, n + 1) for n in counts))))


def brute_force(positions, cell, pbc, cutoff):
    """The definition: every atom, every atom, every image."""
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1).max()
    shifts = lattice_points(cell, pbc, apart + cutoff + 1e-9)
    vectors = positions[None, :, None] - positions[:, None, None] + shifts @ cell
    close = np.linalg.norm(vectors, axis=-1) < cutoff
    close[range(len(positions)), range(len(positions)), (shifts == 0).all(axis=1).argmax()] = False
    first, second, image = np.nonzero(close)
    return first, second, shifts[image]


def assert_same_pairs(positions, cell, pbc, cutoff):
    expected = brute_force(positions, cell, pbc, cutoff)
    got = neighbor_shifts(positions, cell, pbc, cutoff)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    return len(got[0])


@st.composite
def structures(draw):
    """Atoms in and far outside of cells that may be skewed, left-handed, tiny or missing, mixed boundaries."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = rng.normal(size=(3, 3)) * draw(st.floats(1.5, 5.0))
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    vectors = cell[pbc]
    heights = 1 / np.linalg.norm(np.linalg.pinv(vectors), axis=0) if len(vectors) else np.array([9.0])
    assume(heights.min() > 0.7)
    positions = rng.normal(size=(draw(st.integers(1, 7)), 3)) * draw(st.sampled_from([2.0, 8.0]))
    return positions, cell, pbc, draw(st.floats(0.5, 5.0))


@settings(max_examples=150, deadline=None)
@given(structures())
def test_any_cell_gives_the_pairs_of_the_definition(structure):
    assert_same_pairs(*structure)


def test_random_cells_are_not_trivial():
    # the control of the test above: half of its cells are left-handed, and its lists are not empty
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(100, 3, 3)) * 3
    assert 30 < (np.linalg.det(cells) < 0).sum() < 70
    counts = [assert_same_pairs(rng.normal(size=(4, 3)) * 3, c, np.array([True, True, False]), 4.0) for c in cells[:20]]
    assert min(counts) > 0 and np.mean(counts) > 20


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
def test_every_combination_of_boundaries(pbc):
    positions = np.random.default_rng(1).uniform(-9, 9, size=(6, 3))
    assert assert_same_pairs(positions, CELL, np.array(pbc), 6.0) > 0


@pytest.mark.parametrize(
    ("cell", "pbc", "cutoff", "n_pairs"),
    [
        # simple cubic, one atom: 6 + 12 + 8 neighbours up to √3 L, 26 + 6 + 24 up to √5 L
        (np.eye(3) * 2.0, [True, True, True], 3.5, 26),
        (np.eye(3) * 2.0, [True, True, True], 4.5, 56),
        # left-handed
        (np.diag([2.0, 2.0, -2.0]), [True, True, True], 3.5, 26),
        # slab with no third vector, wire with one, molecule with none
        (np.diag([2.0, 2.0, 0.0]), [True, True, False], 3.5, 8),
        (np.diag([0.0, 0.0, 2.0]), [False, False, True], 4.5, 4),
        (np.zeros((3, 3)), [False, False, False], 4.5, 0),
        # the same lattice in a very skewed cell
        (np.array([[2.0, 0, 0], [20.0, 2.0, 0], [-14.0, 8.0, 2.0]]), [True, True, True], 3.5, 26),
    ],
)
def test_lattices_with_known_coordination_numbers(cell, pbc, cutoff, n_pairs):
    first, second, offset = neighbor_pairs([[0.3, -7.0, 40.0]], cell, pbc, cutoff)
    assert len(first) == len(second) == len(offset) == n_pairs


def test_offset_points_to_the_image_within_the_cutoff():
    positions = np.random.default_rng(2).uniform(-20, 20, size=(8, 3))
    first, second, offset = neighbor_pairs(positions, CELL, [True, True, True], 5.0)
    distances = np.linalg.norm(positions[second] - positions[first] + offset, axis=1)
    assert distances.max() < 5.0
    translations = np.linalg.solve(CELL.T, offset.T).T
    np.testing.assert_allclose(translations, translations.round(), atol=1e-12)
    # control: without the offset the atoms outside the cell are far from their neighbours
    assert np.linalg.norm(positions[second] - positions[first], axis=1).max() > 10.0


def test_every_pair_appears_in_both_directions():
    positions = np.random.default_rng(3).uniform(0, 7, size=(6, 3))
    first, second, shift = neighbor_shifts(positions, CELL, [True, True, True], 6.0)
    there = set(zip(first.tolist(), second.tolist(), map(tuple, shift.tolist()), strict=True))
    back = set(zip(second.tolist(), first.tolist(), map(tuple, (-shift).tolist()), strict=True))
    assert there == back
    assert len(there) == len(first)


@pytest.mark.parametrize("seed", range(20))
def test_pairs_at_the_very_cutoff_are_seen_from_both_sides_or_from_none(seed):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-20, 20, size=(40, 3))
    _, _, offset = all_pairs = neighbor_pairs(positions, CELL, [True, True, True], 6.0)
    vectors = positions[all_pairs[1]] - positions[all_pairs[0]] + offset
    for cutoff in rng.choice(np.linalg.norm(vectors, axis=1), 50):
        first, second, shift = neighbor_shifts(positions, CELL, [True, True, True], cutoff)
        there = sorted(zip(first.tolist(), second.tolist(), shift.tolist(), strict=True))
        back = sorted(zip(second.tolist(), first.tolist(), (-shift).tolist(), strict=True))
        assert there == back


def test_neighbours_are_found_in_cells_of_many_bins():
    # skewed and left-handed, some directions without an end, atoms in clusters and far from home
    rng = np.random.default_rng(12)
    cell = np.array([[30.0, 2.0, -1.0], [7.0, 26.0, 3.0], [-4.0, 5.0, -35.0]])
    centres = rng.uniform(-60, 60, size=(12, 3))
    positions = (centres[:, None] + rng.normal(size=(12, 20, 3)) * rng.uniform(0.5, 6.0, size=(12, 1, 1))).reshape(
        -1, 3
    )
    for pbc in ([True, True, True], [True, False, True], [False, False, True], [False, False, False]):
        assert assert_same_pairs(positions, cell, np.array(pbc), 4.0) > 1000


def test_a_plane_but_for_rounding():
    positions = np.random.default_rng(14).uniform(0, 9, size=(50, 3)) * [1, 1, 1e-14]
    assert assert_same_pairs(positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), 4.0) > 100


def test_more_neighbours_than_there_was_room_for():
    positions = np.random.default_rng(13).uniform(0, 3, size=(150, 3))
    first, _, _ = neighbor_pairs(positions, np.zeros((3, 3)), [False] * 3, 9.0)
    assert len(first) == 150 * 149


def test_order_is_first_second_translation():
    positions = np.random.default_rng(4).uniform(0, 7, size=(6, 3))
    first, second, shift = neighbor_shifts(positions, CELL, [True, True, True], 8.0)
    rows = np.column_stack([first, second, shift]).tolist()
    assert rows == sorted(rows)
    assert first.dtype == second.dtype == np.int64


def test_order_holds_when_keys_no_longer_fit_into_an_integer():
    # atoms 1e5 cells away from home need translations too long to be packed into 63 bits
    positions = np.array([[0.0, 0, 0], [2.0e5, 0, 0], [0.5, 0.5, -3.0e5], [1.0, -2.5e5, 0.0]])
    first, second, shift = neighbor_shifts(
        np.tile(positions, (300, 1)) + np.arange(1200)[:, None] * 1e-3, np.eye(3), [True] * 3, 0.3
    )
    rows = np.column_stack([first, second, shift]).tolist()
    assert rows == sorted(rows)
    assert np.abs(shift).max() > 2e5


def test_moving_atoms_by_lattice_vectors_keeps_the_vectors():
    rng = np.random.default_rng(5)
    positions = rng.uniform(0, 6, size=(7, 3))
    moved = positions + rng.integers(-4, 5, size=(7, 3)) @ CELL

    def vectors(points):
        first, second, offset = neighbor_pairs(points, CELL, [True] * 3, 4.0)
        return sorted(map(tuple, np.round(points[second] - points[first] + offset, 8).tolist()))

    np.testing.assert_allclose(vectors(positions), vectors(moved), atol=1e-7)


def test_vectors_of_directions_that_are_not_periodic_are_ignored():
    positions = np.random.default_rng(6).uniform(0, 6, size=(9, 3))
    flat = np.vstack([CELL[:2], 1e-3 * CELL[0]])
    expected = neighbor_pairs(positions, np.vstack([CELL[:2], np.zeros(3)]), [True, True, False], 4.0)
    for mine, theirs in zip(neighbor_pairs(positions, flat, [True, True, False], 4.0), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_no_atoms_have_no_pairs():
    first, second, offset = neighbor_pairs(np.zeros((0, 3)), CELL, [True] * 3, 4.0)
    assert len(first) == len(second) == 0
    assert offset.shape == (0, 3)


def test_a_thousand_atoms_against_a_kd_tree():
    rng = np.random.default_rng(7)
    length, cutoff = 22.0, 5.0
    positions = rng.uniform(0, length, size=(1000, 3))
    first, second, offset = neighbor_pairs(positions, np.eye(3) * length, [True] * 3, cutoff)
    tree = cKDTree(positions, boxsize=length)
    assert len(first) == len(tree.query_pairs(cutoff, output_type="ndarray")) * 2
    counts = tree.query_ball_point(positions, cutoff, return_length=True) - 1
    np.testing.assert_array_equal(np.bincount(first, minlength=1000), counts)


def test_input_is_left_alone():
    positions, cell = np.random.default_rng(8).uniform(0, 6, size=(5, 3)), CELL.copy()
    before = positions.copy()
    neighbor_pairs(positions, cell, [True, False, True], 4.0)
    np.testing.assert_array_equal(positions, before)
    np.testing.assert_array_equal(cell, CELL)


def test_threads_do_not_change_the_list():
    # 6000 atoms are searched with threads, their halves without
    rng = np.random.default_rng(9)
    half = rng.uniform(0, 40, size=(3000, 3))
    both = np.concatenate([half, half + [1e3, 0, 0]])
    first, second, _ = neighbor_pairs(both, np.zeros((3, 3)), [False] * 3, 4.0)
    alone, other, _ = neighbor_pairs(half, np.zeros((3, 3)), [False] * 3, 4.0)
    np.testing.assert_array_equal(first, np.concatenate([alone, alone + 3000]))
    np.testing.assert_array_equal(second, np.concatenate([other, other + 3000]))


def test_cost_grows_linearly():
    def seconds(n_atoms):
        length = (n_atoms / 0.05) ** (1 / 3)
        positions = np.random.default_rng(0).uniform(0, length, size=(n_atoms, 3))
        times = []
        for _ in range(3):
            start = time.process_time()
            neighbor_pairs(positions, np.eye(3) * length, [True] * 3, 5.0)
            times.append(time.process_time() - start)
        return min(times)

    # eight times the atoms: linear costs 8, quadratic 64; caches and a busy machine get the room between
    assert seconds(16_000) < 25 * seconds(2_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.zeros((3, 2))}, "positions must have shape (n_atoms, 3), got (3, 2)"),
        ({"cell": np.zeros(3)}, "cell must have shape (3, 3) with lattice vectors as rows, got (3,)"),
        ({"pbc": [True]}, "pbc must hold three booleans, got shape (1,)"),
        ({"cutoff": 0.0}, "cutoff must be a positive length in Å, got 0.0"),
        ({"cutoff": np.inf}, "cutoff must be a positive length in Å, got inf"),
        ({"positions": [[0, 0, 0], [0, np.nan, 0]]}, "positions must be finite, got [0.0, nan, 0.0] for atom 1"),
        ({"cell": np.full((3, 3), np.nan)}, "cell must be finite, got [[nan, nan, nan]"),
        (
            {"cell": np.zeros((3, 3))},
            "cell vectors a, b, c must not be zero where pbc=(True, True, True) calls them periodic",
        ),
        (
            {"cell": np.diag([4.0, 4.0, 0.0])},
            "cell vector c must not be zero where pbc=(True, True, True) calls it periodic",
        ),
        ({"cell": np.ones((3, 3))}, "cell is singular: its periodic vectors"),
        ({"cell": [[4, 0, 0], [1, 5, 0], [9, 5, 0]]}, "cell is singular: its periodic vectors"),
        ({"cell": np.diag([4.0, 4.0, 0.05])}, "linearly dependent or flatter than 0.1 Å"),
        ({"positions": [[0.0, 0, 0], [0, 0, 1e15]]}, "atom 1 at [0.0, 0.0, 1000000000000000.0] is 1.43e+14 cells away"),
    ],
)
def test_errors(changes, message):
    arguments = {"positions": np.zeros((2, 3)), "cell": CELL, "pbc": [True] * 3, "cutoff": 4.0} | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        neighbor_pairs(**arguments)
