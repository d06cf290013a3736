"""Superposition: against singular value decompositions, on all that is degenerate, and on real frames."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molml.kinetics import alignment
from molml.kinetics.alignment import align, align_positions, align_tensor, rmsd, rmsd_tensor

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "md"


def kabsch(positions, reference, weights=None):
    """The textbook: rotation by singular value decomposition, the last vector mirrored if need be."""
    w = np.ones(len(reference)) if weights is None else np.asarray(weights, float)
    w = w[:, None] / w.sum()
    centre, goal = (w * positions).sum(axis=1, keepdims=True), (w * reference).sum(axis=0)
    left, _, right = np.linalg.svd(np.swapaxes(positions - centre, 1, 2) @ (w * (reference - goal)))
    signs = np.ones((len(positions), 3))
    signs[:, 2] = np.sign(np.linalg.det(left) * np.linalg.det(right))
    return (positions - centre) @ (left * signs[:, None] @ right) + goal


def deviation(positions, reference, weights=None):
    w = np.ones(len(reference)) if weights is None else np.asarray(weights, float)
    return ((w[:, None] * (positions - reference) ** 2).sum(axis=(1, 2)) / w.sum()) ** 0.5


def rotations(n, seed=0):
    return Rotation.random(n, rng=np.random.default_rng(seed)).as_matrix()


def moved_as_a_whole(before, after, tolerance):
    """Distances are kept, and handedness: the parallelepiped of every four atoms has the same volume."""
    n = before.shape[1]
    pairs = np.triu_indices(n, 1)
    d0, d1 = (np.linalg.norm(x[:, pairs[0]] - x[:, pairs[1]], axis=2) for x in (before, after))
    assert np.abs(d0 - d1).max(initial=0) <= tolerance
    edges = [np.diff(x[:, : 4 * (n // 4)].reshape(len(x), n // 4, 4, 3), axis=2) for x in (before, after)]
    volumes = [np.linalg.det(x) for x in edges]
    assert np.abs(volumes[0] - volumes[1]).max(initial=0) <= tolerance * 10


@pytest.mark.parametrize("n_atoms", [3, 4, 10, 57])
@pytest.mark.parametrize("noise", [0.0, 0.1, 3.0])
def test_equals_the_singular_value_decomposition(n_atoms, noise):
    rng = np.random.default_rng(n_atoms)
    reference, weights = rng.normal(size=(n_atoms, 3)), rng.uniform(0.1, 2, n_atoms)
    positions = (reference + noise * rng.normal(size=(2000, n_atoms, 3))) @ rotations(2000) + rng.normal(size=3)
    for w in (None, weights):
        aligned = align_positions(positions, reference, w)
        expected = kabsch(positions, reference, w)
        # three atoms and large noise come near to having two best rotations: digits are lost by any method
        np.testing.assert_allclose(
            deviation(aligned, reference, w), deviation(expected, reference, w), rtol=0, atol=1e-12
        )
        assert np.quantile(np.abs(aligned - expected), 0.99) < 1e-12
        np.testing.assert_allclose(rmsd(positions, reference, w), deviation(expected, reference, w), rtol=0, atol=1e-12)
        moved_as_a_whole(positions, aligned, 1e-11)


def test_single_precision_gives_single_precision_of_the_exact_result():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(10, 3)).astype(np.float32)
    positions = ((reference + 0.3 * rng.normal(size=(500, 10, 3))) @ rotations(500)).astype(np.float32)
    aligned = align_positions(positions, reference)
    assert aligned.dtype == np.float32
    # one rounding of numbers up to 4
    np.testing.assert_allclose(aligned, kabsch(positions.astype(float), reference.astype(float)), rtol=0, atol=3e-7)


def test_half_turns_are_turned_back():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(10, 3))
    axes = np.concatenate([np.eye(3), rng.normal(size=(200, 3))])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for angle in (np.pi, np.pi - 1e-9, np.pi - 1e-14, 1e-9, 0.0):
        turned = reference @ Rotation.from_rotvec(angle * axes).as_matrix()
        aligned = align_positions(turned, reference)
        np.testing.assert_allclose(aligned, np.broadcast_to(reference, aligned.shape), rtol=0, atol=1e-13)
    # a control: without turning they are far away
    assert rmsd(turned[:1] * [-1.0, -1.0, 1.0], reference)[0] < 1e-13 < np.abs(reference).max()


def test_mirror_images_are_rotated_never_reflected():
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(10, 3))
    mirrored = (reference * [1.0, 1.0, -1.0] + 0.01 * rng.normal(size=(500, 10, 3))) @ rotations(500)
    aligned = align_positions(mirrored, reference)
    moved_as_a_whole(mirrored, aligned, 1e-12)
    np.testing.assert_allclose(
        deviation(aligned, reference), deviation(kabsch(mirrored, reference), reference), rtol=0, atol=1e-12
    )
    # a control: a reflection would fit far better
    assert deviation(aligned, reference).min() > 0.3


def degenerate(kind, rng):
    """Reference and a frame of it, turned: atoms in special places."""
    base = rng.normal(size=(8, 3))
    shapes = {
        "planar": base * [1, 1, 0],
        "nearly planar": base * [1, 1, 1e-9],
        "linear": base[:, :1] * [1.0, 2.0, -1.0],
        "nearly linear": base[:, :1] * [1.0, 2.0, -1.0] + 1e-4 * base,
        "two atoms": base[:2],
        "one atom": base[:1],
        "one place": np.ones((5, 3)),
        "square": np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]),
        "tetrahedron": np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]),
        "cube": np.array(np.meshgrid([-1.0, 1], [-1.0, 1], [-1.0, 1])).reshape(3, -1).T,
    }
    return shapes[kind]


KINDS = [
    "planar", "nearly planar", "linear", "nearly linear", "two atoms", "one atom", "one place", "square",
    "tetrahedron", "cube",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_shapes_come_back(kind):
    rng = np.random.default_rng(3)
    reference = degenerate(kind, rng)
    turned = reference @ rotations(300) + rng.normal(size=(300, 1, 3))
    aligned = align_positions(turned, reference)
    # the roll of a rod 1e4 times as long as thick hangs on the last seven digits of the covariance: that times 1e-4
    np.testing.assert_allclose(aligned, np.broadcast_to(reference, aligned.shape), rtol=0, atol=1e-9)
    np.testing.assert_allclose(rmsd(turned, reference), 0, atol=1e-9)


def test_a_rod_as_thin_as_rounding_is_laid_down_all_the_same():
    rng = np.random.default_rng(3)
    base = rng.normal(size=(8, 3))
    reference = base[:, :1] * [1.0, 2.0, -1.0] + 1e-8 * base
    turned = reference @ rotations(300)
    # its roll is beyond double precision, its direction is not: off by its thickness at most
    assert rmsd(turned, reference).max() < 5e-8
    moved_as_a_whole(turned, align_positions(turned, reference), 1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-6, 0.3, 1.0])
def test_degenerate_shapes_fit_as_well_as_can_be(kind, size):
    rng = np.random.default_rng(4)
    reference = degenerate(kind, rng)
    for other in (reference, -reference, reference * [1, 1, -1], reference[::-1]):
        positions = (other + size * rng.normal(size=(300, *other.shape))) @ rotations(300)
        aligned = align_positions(positions, reference)
        best = deviation(kabsch(positions, reference), reference)
        np.testing.assert_allclose(deviation(aligned, reference), best, rtol=0, atol=1e-11)
        moved_as_a_whole(positions, aligned, 1e-12)


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0, 1e-9, 1e-4, 2.0]), min_size=12, max_size=12),
    st.lists(st.sampled_from([-1.0, 0.0, 1.0, 1e-9, 1e-4, 2.0]), min_size=12, max_size=12),
)
def test_never_worse_than_the_decomposition_on_lattices(first, second):
    positions, reference = np.reshape(first, (1, 4, 3)), np.reshape(second, (4, 3))
    aligned = align_positions(positions, reference)
    best = deviation(kabsch(positions, reference), reference)
    np.testing.assert_allclose(deviation(aligned, reference), best, rtol=0, atol=1e-12)
    moved_as_a_whole(positions, aligned, 1e-12)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12, 0.0])
def test_nearly_equal_eigenvalues(gap):
    """A mirror image whose two shortest axes are nearly equal has two rotations that are nearly the best."""
    axes = np.diag([2.0, 1.0 + gap, 1.0])
    reference = np.concatenate([axes, -axes])
    positions = (reference * [1, 1, -1]) @ rotations(300)
    aligned = align_positions(positions, reference)
    best = deviation(kabsch(positions, reference), reference)
    np.testing.assert_allclose(deviation(aligned, reference), best, rtol=0, atol=1e-14 * 10)
    moved_as_a_whole(positions, aligned, 1e-12)


def test_far_from_the_origin_and_tiny_and_large():
    rng = np.random.default_rng(6)
    reference = rng.normal(size=(10, 3))
    turned = reference @ rotations(50)
    for offset in (1e4, 1e8):
        aligned = align_positions(turned + offset, reference)
        # the positions themselves are rounded at that distance
        np.testing.assert_allclose(aligned, np.broadcast_to(reference, turned.shape), rtol=0, atol=10 * offset * 2e-16)
        far = align_positions(turned, reference + offset)
        np.testing.assert_allclose(far - offset, align_positions(turned, reference), rtol=0, atol=10 * offset * 2e-16)
    for scale in (1e-30, 1e-10, 1e10, 1e30):
        aligned = align_positions(scale * turned, scale * reference)
        np.testing.assert_allclose(aligned / scale, np.broadcast_to(reference, turned.shape), rtol=0, atol=1e-13)


def test_both_ways_to_the_quaternion_agree(monkeypatch):
    """The fast one is taken for molecules; forbidding it changes no digit that counts."""
    rng = np.random.default_rng(7)
    calls = []
    jacobi = alignment._by_jacobi.py_func

    def counted(*matrix):
        calls.append(matrix)
        return jacobi(*matrix)

    monkeypatch.setattr(alignment, "_by_jacobi", counted)
    monkeypatch.setattr(alignment, "_from_quaternion", alignment._from_quaternion.py_func)
    for _ in range(200):
        x, y = rng.normal(size=(2, 10, 3))
        fast, slow = np.empty((3, 3)), np.empty((3, 3))
        alignment._rotation.py_func(x, y, fast)
        n_before = len(calls)
        monkeypatch.setattr(alignment, "_APART", np.inf)
        with np.errstate(over="ignore"):  # a rotation by nothing
            alignment._rotation.py_func(x, y, slow)
        monkeypatch.setattr(alignment, "_APART", 1e-2)
        assert len(calls) == n_before + 1
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-11)
    assert len(calls) < 205


def test_same_bits_every_time_and_input_untouched():
    rng = np.random.default_rng(8)
    positions, reference = rng.normal(size=(50, 6, 3)), rng.normal(size=(6, 3))
    copy = positions.copy()
    first = align_positions(positions, reference)
    np.testing.assert_array_equal(first, align_positions(positions, reference))
    np.testing.assert_array_equal(first[7:8], align_positions(positions[7:8], reference))
    np.testing.assert_array_equal(positions, copy)
    np.testing.assert_array_equal(first, align_positions(np.asfortranarray(positions), reference))
    assert align_positions(positions[:0], reference).shape == (0, 6, 3)


def test_derivatives():
    rng = np.random.default_rng(9)
    reference = torch.from_numpy(rng.normal(size=(6, 3)))
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.0, 3.0], dtype=torch.float64)
    positions = torch.from_numpy((reference.numpy() + 0.3 * rng.normal(size=(5, 6, 3))) @ rotations(5) + 3)
    positions.requires_grad_(True)
    aligned = align_tensor(positions, reference, weights)
    expected = align_positions(positions.detach().numpy(), reference.numpy(), weights.numpy())
    np.testing.assert_allclose(aligned.detach(), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: align_tensor(x, reference, weights), positions, atol=1e-7)
    values = rmsd(positions.detach().numpy(), reference.numpy(), weights.numpy())
    np.testing.assert_allclose(rmsd_tensor(positions, reference, weights).detach(), values, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: rmsd_tensor(x, reference, weights), positions, atol=1e-7)
    # a symmetric top: two of the other eigenvalues meet, where the derivative of eigh is NaN
    top = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    turned = (top @ torch.from_numpy(rotations(1)[0])).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: align_tensor(x, top, torch.ones(6)), turned, atol=1e-7)
    # and shapes with any number of leading axes
    assert align_tensor(positions[0], reference, weights).shape == (6, 3)
    assert align_tensor(positions[None, None].float(), reference, weights).dtype == torch.float32


def test_derivative_of_no_deviation_is_zero():
    reference = torch.from_numpy(np.random.default_rng(10).normal(size=(6, 3)))
    positions = reference.clone().requires_grad_(True)
    value = rmsd_tensor(positions, reference, torch.ones(6))
    value.backward()
    assert value.item() < 1e-15 and torch.isfinite(positions.grad).all()


def test_no_derivative_where_several_rotations_are_best():
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    with pytest.raises(ValueError, match="several in frame 1"):
        align_tensor(torch.stack([torch.eye(3), line]), line + torch.eye(3), torch.ones(3))


@pytest.fixture(scope="module")
def trajectory():
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    residue = topology.add_residue("ALA", chain)
    for name in ("N", "CA", "C", "O", "CB"):
        topology.add_atom(name, mdtraj.element.carbon, residue)
    xyz = np.random.default_rng(11).normal(size=(20, 5, 3)).astype(np.float32)
    return mdtraj.Trajectory(xyz, topology, time=np.arange(20.0) * 0.5)


def test_trajectories(trajectory):
    before = trajectory.xyz.copy()
    aligned = align(trajectory, trajectory[3:], atoms=[0, 1, 2])
    assert aligned is not trajectory and aligned.topology is trajectory.topology
    np.testing.assert_array_equal(trajectory.xyz, before)
    np.testing.assert_array_equal(aligned.time, trajectory.time)
    expected = kabsch(before.astype(float), before[3].astype(float), [1, 1, 1, 0, 0])
    np.testing.assert_allclose(aligned.xyz, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(aligned.xyz[3], before[3], rtol=0, atol=1e-6)
    whole = align(trajectory, trajectory)
    np.testing.assert_allclose(whole.xyz, kabsch(before.astype(float), before[0].astype(float)), rtol=0, atol=1e-6)
    boxed = mdtraj.Trajectory(
        before, trajectory.topology, unitcell_lengths=np.ones((20, 3)), unitcell_angles=np.full((20, 3), 90)
    )
    assert align(boxed, trajectory).unitcell_lengths is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"trajectory": np.zeros((3, 5, 3))}, TypeError, "trajectory must be an mdtraj.Trajectory, got ndarray"),
        ({"reference": "start.pdb"}, TypeError, "reference must be an mdtraj.Trajectory, got str"),
        ({"atoms": [0, 5]}, ValueError, r"atoms must lie in 0 ... 4, got 0 ... 5"),
        ({"atoms": [-1]}, ValueError, r"atoms must lie in 0 ... 4, got -1 ... -1"),
        ({"atoms": []}, ValueError, r"non-empty sequence of atom indices, got \[\]"),
        ({"atoms": "name CA"}, ValueError, r"got 'name CA'; topology.select"),
    ],
)
def test_what_cannot_be_aligned_is_refused(trajectory, change, error, message):
    arguments = {"trajectory": trajectory, "reference": trajectory} | change
    with pytest.raises(error, match=message):
        align(arguments.pop("trajectory"), arguments.pop("reference"), **arguments)


def test_trajectories_of_other_molecules_are_refused(trajectory):
    with pytest.raises(ValueError, match="5 atoms of the trajectory and a frame, got 3 atoms"):
        align(trajectory, trajectory.atom_slice([0, 1, 2]))


@pytest.mark.parametrize("function", [align_positions, rmsd])
@pytest.mark.parametrize(
    ("positions", "reference", "weights", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), None, r"positions must have shape .*, got \(2, 3\)"),
        (np.zeros((2, 0, 3)), np.zeros((0, 3)), None, r"positions must have shape .*, got \(2, 0, 3\)"),
        (np.zeros((2, 4, 3)), np.zeros((5, 3)), None, r"reference must have shape \(4, 3\).*got \(5, 3\)"),
        (np.zeros((2, 4, 3)), np.full((4, 3), np.nan), None, "reference must be finite"),
        (np.zeros((2, 4, 3)), np.zeros((4, 3)), np.zeros(4), "not all 0, got shape .* from 0.0 to 0.0"),
        (np.zeros((2, 4, 3)), np.zeros((4, 3)), [1, 1, 1, -1], "from -1.0 to 1.0"),
        (np.zeros((2, 4, 3)), np.zeros((4, 3)), np.ones(3), r"weights must be 4 finite numbers .* shape \(3,\)"),
        (np.zeros((2, 4, 3)), np.zeros((4, 3)), [], r"weights must be 4 finite numbers .* shape \(0,\)"),
        ([np.eye(3), np.eye(3) + np.diag([0, np.nan, 0])], np.eye(3), None, r"frame 1 \(of atom 1\)"),
        ([np.eye(3), np.eye(3) + np.diag([0, np.inf, 0])], np.eye(3), None, r"in frame 1 \(of atom"),
        ([np.eye(3), np.eye(3) * 1e200], np.eye(3), None, r"in frame 1 \(so large"),
    ],
)
def test_bad_arrays_are_refused(function, positions, reference, weights, message):
    with pytest.raises(ValueError, match=message):
        function(np.asarray(positions), np.asarray(reference), weights)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs alanine dipeptide at 600 K, ../shared/data/md")
@pytest.mark.parametrize("folder", ["600K", "300K"])
def test_real_frames_are_never_left_unrotated(folder):
    runs = sorted((SHARED / folder).glob("*.xtc"))
    start = mdtraj.load(str(SHARED / folder / "ala2-heavy.pdb"))
    loaded = [mdtraj.load(str(run), top=start.topology) for run in runs]
    aligned = np.concatenate([align(run, start).xyz for run in loaded]).astype(float)
    before = np.concatenate([run.xyz for run in loaded]).astype(float)
    expected = kabsch(before, start.xyz[0].astype(float))
    np.testing.assert_allclose(aligned, expected, rtol=0, atol=1e-6)
    # as in the whole of methods: rotations and shifts are gone, exactly, and no frame sticks out
    whitened, rank = whiten(expected.reshape(len(expected), -1))
    assert rank == 3 * 10 - 6
    assert np.abs(whiten(aligned.reshape(len(aligned), -1), rank)[0]).max() < 15
    assert np.abs(whitened).max() < 15


def whiten(x, rank=None):
    x = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    found = int((values > 1e-9 * values.max()).sum())
    keep = slice(len(values) - (rank or found), None)
    return x @ vectors[:, keep] / np.sqrt(values[keep]), found
