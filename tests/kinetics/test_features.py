"""Featurizers: against mdtraj, between themselves (tensor, config, pickle), and on what users get wrong."""

import json
import pickle

import mdtraj
import numpy as np
import pytest
import torch

from molml.kinetics import features as module
from molml.kinetics.features import (
    FEATURES,
    Angles,
    Concatenation,
    ContactDistances,
    Distances,
    Function,
    MinimumDistances,
    Positions,
    ReferenceRMSD,
    Torsions,
    features_from_names,
    featurizer_from_config,
)
from molml.kinetics.geometry import NoValueError

RESIDUES = [
    ("ACE", ["CH3", "C", "O"]),
    ("ALA", ["N", "H", "CA", "HA", "CB", "C", "O"]),
    ("ARG", ["N", "H", "CA", "CB", "CG", "CD", "NE", "CZ", "NH1", "NH2", "C", "O"]),
    ("GLY", ["N", "CA", "C", "O"]),
    ("LYS", ["N", "CA", "CB", "CG", "CD", "CE", "NZ", "C", "O"]),
    ("ALA", ["N", "CA", "CB", "C", "O"]),
    ("NME", ["N", "C"]),
]
N = 40


def peptide():
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for number, (name, atoms) in enumerate(RESIDUES, start=1):
        residue = topology.add_residue(name, chain, resSeq=number)
        for atom in atoms:
            topology.add_atom(atom, mdtraj.element.get_by_symbol(atom[0]), residue)
    topology.create_standard_bonds()
    return topology


@pytest.fixture(scope="module")
def topology():
    return peptide()


@pytest.fixture(scope="module")
def trajectory(topology):
    rng = np.random.default_rng(0)
    start = 0.4 * rng.normal(size=(topology.n_atoms, 3))
    xyz = (start + 0.05 * rng.normal(size=(N, topology.n_atoms, 3))).astype(np.float32)
    return mdtraj.Trajectory(xyz, topology, time=np.arange(float(N)))


@pytest.fixture(scope="module")
def boxed(trajectory):
    """The same in a small skew box, where atoms of one molecule are nearest to each other's images."""
    lengths, angles = np.full((N, 3), [0.9, 1.0, 1.1]), np.full((N, 3), [80.0, 95.0, 70.0])
    return mdtraj.Trajectory(trajectory.xyz, trajectory.topology, unitcell_lengths=lengths, unitcell_angles=angles)


def end_to_end(positions):
    return np.linalg.norm(positions[:, -1] - positions[:, 0], axis=1, keepdims=True)


def end_to_end_tensor(positions):
    return (positions[..., -1, :] - positions[..., 0, :]).norm(dim=-1, keepdim=True)


MAKE = {
    "Positions": lambda t: Positions(t.topology, "name CA", reference=t),
    "Positions, others superposed": lambda t: Positions(t.topology, "name CB", reference=t[3], superposed="backbone"),
    "Distances": lambda t: Distances(t.topology, "resid 1 2 and not element H"),
    "Distances of pairs": lambda t: Distances(t.topology, pairs=[(3, 1), (0, 40)]),
    "MinimumDistances": lambda t: MinimumDistances(t.topology, [("resid 0 1", "resid 4"), ("resid 4", "resid 6")]),
    "ContactDistances": lambda t: ContactDistances(t.topology),
    "ContactDistances of CA": lambda t: ContactDistances(t.topology, [(1, 3), (5, 2)], scheme="ca"),
    "ContactDistances of all": lambda t: ContactDistances(t.topology, [(0, 6), (1, 2)], scheme="closest"),
    "Angles": lambda t: Angles(t.topology),
    "Angles of triplets": lambda t: Angles(t.topology, triplets=[(0, 9, 5)]),
    "Torsions": lambda t: Torsions(t.topology, ("phi", "psi", "omega", "chi1", "chi2", "chi3", "chi4", "chi5")),
    "Torsions, angles": lambda t: Torsions(t.topology, cossin=False),
    "Torsions of quadruplets": lambda t: Torsions(t.topology, quadruplets=[(0, 5, 9, 2), (1, 2, 3, 4)]),
    "ReferenceRMSD": lambda t: ReferenceRMSD(t.topology, "backbone", reference=t[5]),
    "Function": lambda t: Function(end_to_end, ["end to end"], differentiable=end_to_end_tensor),
    "Concatenation": lambda t: Torsions(t.topology) + Distances(t.topology, "name CA") + Angles(t.topology),
}


@pytest.fixture(params=MAKE)
def featurizer(request, trajectory):
    return MAKE[request.param](trajectory)


def test_columns_names_and_precision(featurizer, trajectory):
    before = trajectory.xyz.copy()
    values = featurizer(trajectory)
    assert values.shape == (N, featurizer.n_features) and values.dtype == np.float32
    assert len(featurizer.names) == len(set(featurizer.names)) == featurizer.n_features
    assert featurizer.n_atoms in (trajectory.n_atoms, None)
    np.testing.assert_array_equal(trajectory.xyz, before)
    # arrays are in Å; frames do not depend on each other, the bits do not on the run
    exact = featurizer(10.0 * trajectory.xyz.astype(float))
    assert exact.dtype == np.float64
    # 8 digits of positions up to 20 Å; small bond angles and torsions magnify what is lost
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(featurizer(trajectory[7:9]), values[7:9])
    assert featurizer(trajectory[:0]).shape == (0, featurizer.n_features)


def test_tensor_is_equal_and_differentiable(featurizer, trajectory):
    positions = 10.0 * trajectory.xyz[:4].astype(float)
    x = torch.from_numpy(positions).requires_grad_(True)
    expected = featurizer(positions)
    values = featurizer.tensor(x)
    np.testing.assert_allclose(values.detach(), expected, rtol=1e-12, atol=1e-12)
    single = featurizer.tensor(x.float())
    assert single.dtype == torch.float32
    # the same single-precision positions, so only the last rounding differs
    np.testing.assert_allclose(single.detach(), featurizer(positions.astype(np.float32)), rtol=1e-6, atol=1e-6)
    # one random direction through everything; central differences at 1e-5 are good to about 1e-8 of the curvature
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=positions.shape))
    weights = torch.from_numpy(np.random.default_rng(2).normal(size=expected.shape))
    (gradient,) = torch.autograd.grad((weights * values).sum(), x)
    step = 1e-5
    plus, minus = (featurizer(positions + sign * step * direction.numpy()) for sign in (1, -1))
    numeric = ((plus - minus) * weights.numpy()).sum() / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-5)
    assert featurizer.tensor(x[0]).shape == (featurizer.n_features,)
    assert featurizer.tensor(x[None]).shape == (1, 4, featurizer.n_features)


def test_config_and_pickle_rebuild_it_without_topology(featurizer, trajectory):
    config = json.loads(json.dumps(featurizer.config))
    for copy in (featurizer_from_config(config), pickle.loads(pickle.dumps(featurizer))):
        np.testing.assert_array_equal(copy(trajectory), featurizer(trajectory))
        assert copy.names == featurizer.names and copy.config == featurizer.config and repr(copy) == repr(featurizer)
    # what is handed out is a copy
    featurizer.config.clear()
    featurizer.names.clear()
    assert featurizer.config == config and featurizer.names


def test_a_sum_is_the_columns_side_by_side(featurizer, trajectory):
    other = Function(lambda x: x[:, 0], ["x", "y", "z"])
    for joined in (featurizer + other, Concatenation(featurizer, other)):
        expected = np.concatenate([featurizer(trajectory), other(trajectory)], axis=1)
        np.testing.assert_array_equal(joined(trajectory), expected)
        assert joined.names == featurizer.names + ["x", "y", "z"]
        assert not any(isinstance(part, Concatenation) for part in joined.parts)


# mdtraj computes in single precision; near 0 and 180° its angles lose half their digits


def test_distances_are_mdtrajs(trajectory, boxed):
    for frames in (trajectory, boxed):
        feature = Distances(trajectory.topology, "name CA CB")
        expected = 10 * mdtraj.compute_distances(frames, feature.pairs)
        np.testing.assert_allclose(feature(frames), expected, rtol=0, atol=1e-5)
    assert np.abs(feature(trajectory) - feature(boxed)).max() > 1
    without = Distances(trajectory.topology, "name CA CB", periodic=False)
    np.testing.assert_array_equal(without(boxed), feature(trajectory))
    assert Distances(trajectory.topology).n_features == 39 * 38 // 2


def test_contacts_are_mdtrajs(trajectory, boxed):
    for frames in (trajectory, boxed):
        for scheme in ("ca", "closest-heavy", "closest"):
            feature = ContactDistances(trajectory.topology, scheme=scheme)
            expected, pairs = mdtraj.compute_contacts(frames, scheme=scheme)
            np.testing.assert_allclose(feature(frames), 10 * expected, rtol=0, atol=1e-5)
            residues = [frames.topology.residue(i) for i in range(7)]
            assert feature.names == [f"contact {residues[i]} {residues[j]}" for i, j in pairs]


def test_minimum_distances_are_the_least_of_all(trajectory, boxed):
    topology = trajectory.topology
    for frames in (trajectory, boxed):
        found = MinimumDistances(topology, [("resid 0 1", "resid 4"), ("resid 4", "name NH1 NH2")])(frames)
        for column, (a, b) in enumerate([("resid 0 1", "resid 4"), ("resid 4", "name NH1 NH2")]):
            pairs = [(i, j) for i in topology.select(a) for j in topology.select(b)]
            expected = 10 * mdtraj.compute_distances(frames, pairs).min(axis=1)
            np.testing.assert_allclose(found[:, column], expected, rtol=0, atol=1e-5)


def test_angles_are_mdtrajs(trajectory, boxed):
    feature = Angles(trajectory.topology, "backbone")
    for frames in (trajectory, boxed):
        expected = mdtraj.compute_angles(frames, feature.triplets)
        np.testing.assert_allclose(feature(frames), expected, rtol=0, atol=2e-3)
    # bonds of the backbone, two by two: CH3 is not part of it
    bonded = {(a.index, b.index) for a, b in trajectory.topology.bonds}
    for i, j, k in feature.triplets:
        assert {(i, j), (j, i)} & bonded and {(j, k), (k, j)} & bonded


@pytest.mark.parametrize("kind", module.TORSIONS)
def test_torsions_are_mdtrajs(trajectory, boxed, kind):
    feature = Torsions(trajectory.topology, (kind,), cossin=False)
    for frames in (trajectory, boxed):
        indices, expected = getattr(mdtraj, f"compute_{kind}")(frames)
        np.testing.assert_array_equal(feature.quadruplets, indices)
        turned = np.angle(np.exp(1j * (feature(frames) - expected)))
        np.testing.assert_allclose(turned, 0, atol=5e-3)


def test_torsions_have_cosine_and_sine_in_turn(trajectory):
    topology = trajectory.topology
    angle, both = (Torsions(topology, ("psi", "phi"), cossin=c)(trajectory).astype(float) for c in (False, True))
    np.testing.assert_allclose(both[:, ::2], np.cos(angle), rtol=0, atol=1e-6)
    np.testing.assert_allclose(both[:, 1::2], np.sin(angle), rtol=0, atol=1e-6)
    names = Torsions(topology, ("phi", "psi"), selection="resid 0 1 2").names
    assert names == [f"{f} {label}" for label in ("phi ALA2", "phi ARG3", "psi ALA2") for f in ("cos", "sin")]
    assert Torsions(topology, ("phi", "psi"), cossin=False).names[0] == "phi ALA2"
    assert Torsions(topology, quadruplets=[(0, 5, 9, 2)]).names[0] == "cos torsion ACE1-CH3 ALA2-CA ALA2-O ACE1-O"


def test_rmsd_is_mdtrajs(trajectory):
    chosen = trajectory.topology.select("backbone")
    found = ReferenceRMSD(trajectory.topology, "backbone", reference=trajectory[5])(trajectory)[:, 0]
    expected = 10 * mdtraj.rmsd(trajectory, trajectory, 5, atom_indices=chosen)
    # mdtraj takes the difference of large numbers
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)
    # after the rotation of rounded positions
    assert found[5] < 1e-6


def test_positions_are_those_of_the_superposed_trajectory(trajectory):
    topology = trajectory.topology
    feature = Positions(topology, "name CB", reference=trajectory[3], superposed="backbone")
    moved = trajectory[:].superpose(trajectory, 3, atom_indices=topology.select("backbone"))
    expected = 10 * moved.xyz[:, topology.select("name CB")].reshape(N, -1)
    np.testing.assert_allclose(feature(trajectory), expected, rtol=0, atol=1e-4)
    assert feature.names[:4] == ["ALA2-CB x", "ALA2-CB y", "ALA2-CB z", "ARG3-CB x"]
    np.testing.assert_array_equal(feature.superposed, topology.select("backbone"))
    np.testing.assert_array_equal(feature.atoms, topology.select("name CB"))
    np.testing.assert_allclose(feature.reference, 10 * trajectory.xyz[3, feature.superposed], rtol=1e-7)


def test_rotations_and_shifts_change_nothing(trajectory):
    from scipy.spatial.transform import Rotation

    turns = Rotation.random(N, rng=np.random.default_rng(3)).as_matrix()
    positions = 10.0 * trajectory.xyz.astype(float)
    moved = positions @ turns + np.random.default_rng(4).normal(size=(N, 1, 3))
    for name, make in MAKE.items():
        feature = make(trajectory)
        np.testing.assert_allclose(feature(moved), feature(positions), rtol=0, atol=1e-9, err_msg=name)
    # a control: raw coordinates do not pass
    raw = Function(lambda x: x[:, 0], ["x", "y", "z"])
    assert np.abs(raw(moved) - raw(positions)).max() > 1


def test_broken_molecules_are_not_superposed(trajectory):
    topology = trajectory.topology
    xyz = trajectory.xyz.copy()
    box = {"unitcell_lengths": np.full((N, 3), 5.0), "unitcell_angles": np.full((N, 3), 90.0)}
    bonded = Positions(topology, "name CA", reference=trajectory)
    whole = mdtraj.Trajectory(xyz, topology, **box)
    # random atoms make no bonds; those of the topology are all shorter than half the box
    np.testing.assert_array_equal(bonded(whole), bonded(trajectory))
    xyz[17, topology.select("resid 4")] += [5.0, 0, 0]
    for feature in (bonded, ReferenceRMSD(topology, reference=trajectory)):
        with pytest.raises(NoValueError, match="frame 17: molecules must be whole.*make_molecules_whole") as caught:
            feature(mdtraj.Trajectory(xyz, topology, **box))
        assert caught.value.frame == 17
    # torsions take the nearest image
    np.testing.assert_allclose(
        Torsions(topology)(mdtraj.Trajectory(xyz, topology, **box)), Torsions(topology)(whole), rtol=0, atol=1e-4
    )


def test_atoms_of_one_name_are_told_apart():
    topology = mdtraj.Topology()
    for _ in range(2):
        residue = topology.add_residue("LIG", topology.add_chain(), resSeq=1)
        for _ in range(2):
            topology.add_atom("C", mdtraj.element.carbon, residue)
    names = Distances(topology).names
    assert names[0] == "distance LIG1-C #0 LIG1-C #1" and len(set(names)) == 6
    assert len(set(ContactDistances(topology, [(0, 1)]).names)) == 1


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_atoms_on_a_line_are_named(topology):
    positions = np.random.default_rng(5).normal(size=(6, topology.n_atoms, 3))
    feature = Torsions(topology)
    i, j, k, m = feature.quadruplets[0]
    positions[4, k] = 2 * positions[4, j] - positions[4, i]
    message = rf"frame 4: atoms on a line make no torsion, got phi ALA2 \(atoms {i}, {j}, {k}, {m}\)"
    with pytest.raises(NoValueError, match=message):
        feature(positions)
    with pytest.raises(NoValueError, match=message):
        feature.tensor(torch.from_numpy(positions))
    angles = Angles(topology, triplets=[(0, 1, 2)])
    positions[2, 0] = positions[2, 1]
    message = r"frame 2: two atoms in one place make no angle, got angle ACE1-CH3 ACE1-C ACE1-O \(atoms 0, 1, 2\)"
    with pytest.raises(NoValueError, match=message):
        angles(positions)
    with pytest.raises(NoValueError, match=message):
        angles.tensor(torch.from_numpy(positions))
    # two atoms in one place have a distance, and no derivative that is NaN
    x = torch.from_numpy(positions).requires_grad_(True)
    value = Distances(topology, pairs=[(0, 1)]).tensor(x)
    value.sum().backward()
    assert value[2].item() == 0 and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_refused(featurizer, trajectory, number):
    positions = 10 * trajectory.xyz.astype(float)
    positions[11] = number
    with np.errstate(invalid="ignore"), pytest.raises(NoValueError, match="frame 11: .*finite") as caught:
        featurizer(positions)
    assert caught.value.frame == 11


def test_frames_of_other_molecules_are_refused(trajectory):
    feature = Torsions(trajectory.topology)
    with pytest.raises(ValueError, match="frames must have the 42 atoms of the topology .*got 3 atoms"):
        feature(trajectory.atom_slice([0, 1, 2]))
    with pytest.raises(ValueError, match="got 41 atoms"):
        feature(np.zeros((2, 41, 3)))
    with pytest.raises(ValueError, match=r"positions must have shape \(..., 42, 3\), got \(41, 3\)"):
        feature.tensor(torch.zeros(41, 3))
    with pytest.raises(TypeError, match="floating-point numbers, got torch.int64"):
        feature.tensor(torch.zeros((42, 3), dtype=torch.int64))
    for bad, found in ((np.zeros((42, 3)), r"shape \(42, 3\)"), ("traj.xtc", "str"), (np.array(["a"]), "<U1 of shape")):
        with pytest.raises(ValueError, match=rf"frames must be an mdtraj.Trajectory.*got .*{found}"):
            feature(bad)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda t: Distances("a.pdb"), TypeError, "topology must be an mdtraj.Topology, got str"),
        (lambda t: Distances(t, "name XY"), ValueError, r"selection 'name XY' finds nothing.*ACE, ALA, ARG.*1 chains"),
        (lambda t: Distances(t, "name CH3"), ValueError, "'name CH3' finds 1 atom, but at least 2 are needed"),
        (lambda t: Distances(t, "name CA and"), ValueError, "'name CA and' is not in mdtraj's selection language"),
        (lambda t: Distances(t, "mass > 'a'"), ValueError, "not in mdtraj's selection language"),
        (lambda t: Distances(t, 5), TypeError, "selection must be a string .* got int"),
        (lambda t: Distances(t, "name CA", pairs=[(0, 1)]), ValueError, "selection and pairs both"),
        (lambda t: Distances(t, pairs=[(0, 1, 2)]), ValueError, "list of 2 atom indices each"),
        (lambda t: Distances(t, pairs=[]), ValueError, r"pairs must be a non-empty list .* got \[\]"),
        (lambda t: Distances(t, pairs=[(0, 42)]), ValueError, "pairs must be of atoms 0 ... 41, got 0 ... 42"),
        (lambda t: Distances(t, pairs=[(0, 1), (3, 3)]), ValueError, r"different atoms each, got \[3, 3\]"),
        (lambda t: Angles(t, "name CA"), ValueError, "no two bonds that meet; topology.create_standard_bonds"),
        (lambda t: Angles(t, "name CA", triplets=[(0, 1, 2)]), ValueError, "selection and triplets both"),
        (lambda t: Angles(t, triplets=[(0, 1)]), ValueError, "triplets must be a non-empty list of 3"),
        (lambda t: Torsions(t, "phi"), ValueError, "kinds must be a non-empty list of phi, psi, .* got 'phi'"),
        (lambda t: Torsions(t, ["phi", "chi6"]), ValueError, r"chi5, got \['phi', 'chi6'\]"),
        (lambda t: Torsions(t, []), ValueError, "kinds must be a non-empty list"),
        (lambda t: Torsions(t, ["chi5"], selection="resid 0"), ValueError,
         "no torsion chi5 within selection 'resid 0'; the topology holds 42 atoms"),
        (lambda t: Torsions(t, ["phi"], quadruplets=[(0, 1, 2, 3)]), ValueError, "give one or the other"),
        (lambda t: Torsions(t, quadruplets=[(0, 1, 2, 0)]), ValueError, r"different atoms each, got \[0, 1, 2, 0\]"),
        (lambda t: MinimumDistances(t, "resid 1"), ValueError, "list of pairs of selections, got 'resid 1'"),
        (lambda t: MinimumDistances(t, ["ab"]), ValueError, "list of pairs of selections"),
        (lambda t: MinimumDistances(t, []), ValueError, "list of pairs of selections"),
        (lambda t: MinimumDistances(t, [("name CA", "resid 1")]), ValueError, "share no atom, got ALA2-CA in both"),
        (lambda t: MinimumDistances(t, [("name CA", "name XY")]), ValueError, "pairs 'name XY' finds nothing"),
        (lambda t: ContactDistances("x"), TypeError, "topology must be"),
        (lambda t: ContactDistances(t, scheme="com"), ValueError, "one of ca, closest-heavy, closest, got 'com'"),
        (lambda t: ContactDistances(t, [(0, 7)]), ValueError, "residues 0 ... 6, got 0 ... 7"),
        (lambda t: ContactDistances(t, [(2, 2)]), ValueError, "pairs of different residues"),
        (lambda t: ContactDistances(t, [(0, 3)], scheme="ca"), ValueError, r"residue 0 \(ACE1\) has no atom for"),
        (lambda t: ContactDistances(t.subset(range(10))), ValueError, "contacts must be given where no two residues"),
        (lambda t: Positions(t, reference="a.pdb"), TypeError, "reference must be an mdtraj.Trajectory, got str"),
        (lambda t: ReferenceRMSD(t, reference=mdtraj.Trajectory(np.zeros((1, 3, 3)), None)), ValueError,
         "reference must have a frame of the 42 atoms of the topology, got 1 frames of 3 atoms"),
        (lambda t: Positions(t, reference=mdtraj.Trajectory(np.full((1, 42, 3), np.nan), t)), ValueError,
         "reference must have finite positions"),
        (lambda t: Function(3, ["a"]), TypeError, "function must be a function, got int"),
        (lambda t: Function(end_to_end, ["a"], differentiable=3), TypeError, "differentiable must be a function"),
        (lambda t: Function(end_to_end, "a"), ValueError, "names must be a non-empty list of strings"),
        (lambda t: Function(end_to_end, []), ValueError, "names must be a non-empty list of strings"),
        (lambda t: Concatenation(), ValueError, "at least one featurizer"),
        (lambda t: Concatenation(end_to_end), TypeError, "only featurizers can be joined, got function; wrap"),
        (lambda t: Torsions(t) + Torsions(t), ValueError, "every feature must be taken once, got cos phi ALA2"),
        (lambda t: Torsions(t) + Distances(t.subset(range(10))), ValueError, r"same atoms, got \[10, 42\] atoms"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(topology, make, error, message):
    with pytest.raises(error, match=message):
        make(topology)


# ---- functions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: np.zeros(len(x)), r"shape \(40, 1\) for 40 frames and the names a, got float64 of shape \(40,\)"),
        (lambda x: np.zeros((len(x), 2)), r"got float64 of shape \(40, 2\)"),
        (lambda x: np.zeros((len(x), 1), complex), "got complex128"),
        (lambda x: np.where(np.arange(len(x)) == 9, np.nan, 0)[:, None], "frame 9: the function must give finite"),
    ],
)
def test_functions_that_give_no_features_are_refused(trajectory, function, message):
    with pytest.raises(ValueError, match=message):
        Function(function, ["a"])(trajectory)


def test_functions_get_positions_in_angstrom_and_may_give_integers(trajectory):
    seen = []
    feature = Function(lambda x: seen.append(x) or (x[:, :1, 0] > 0).astype(int), ["side"])
    assert feature(trajectory).dtype == np.float64
    np.testing.assert_allclose(seen[0], 10 * trajectory.xyz, rtol=1e-7)


def test_functions_of_scripts_can_be_used_but_not_stored():
    feature = Function(lambda x: x[:, 0], ["x", "y", "z"])
    with pytest.raises(ValueError, match="<lambda>' cannot be stored in a file.*top level of a module"):
        _ = (feature + feature.__class__(end_to_end, ["end"])).config
    with pytest.raises(TypeError, match="differentiable must be given to Function"):
        feature.tensor(torch.zeros(2, 3, 3))


def test_a_file_imports_no_module(monkeypatch):
    config = {"kind": "Function", "function": "antigravity:geohash", "differentiable": None, "names": ["a"]}
    with pytest.raises(ValueError, match="needs the function geohash of module antigravity; import antigravity first"):
        featurizer_from_config(config)
    with pytest.raises(ValueError, match="function nothing, which module json does not have"):
        featurizer_from_config(config | {"function": "json:nothing"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "Tensors"}, "config must have a kind, one of Positions, .* got 'Tensors'"),
        ({"kind": None}, "got None"),
        ({"pairs": [[0, 99]]}, r"indices must be of shape \(1, 2\) and in 0 ... 41"),
        ({"pairs": [[0, 1], [1, 2]]}, "indices must be of shape"),
        ({"n_atoms": None}, "the configuration of Distances is damaged: TypeError"),
    ],
)
def test_damaged_configurations_are_refused(topology, change, message):
    config = Distances(topology, pairs=[(0, 1)]).config | change
    with pytest.raises(ValueError, match=message):
        featurizer_from_config(config)
    with pytest.raises(ValueError, match="is damaged: KeyError: 'pairs'"):
        featurizer_from_config({"kind": "Distances", "n_atoms": 3})


# ---- by name ---------------------------------------------------------------------------------------------------------


def test_every_name_gives_features(trajectory):
    topology = trajectory.topology
    for name in FEATURES:
        assert features_from_names(topology, [name], reference=trajectory)(trajectory).shape[0] == N
    joined = features_from_names(topology, ["torsions", "ca-distances"])
    assert joined.names == Torsions(topology).names + Distances(topology, "name CA").names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["torsion"], "features must be of positions, torsions, .*rmsd, got 'torsion'"),
        ([], "non-empty list of positions, torsions"),
        ("torsions", "non-empty list .* got 'torsions'"),
        (["positions"], "reference must be given for the features 'positions'"),
        (["rmsd"], "reference must be given for the features 'rmsd'"),
    ],
)
def test_unknown_names_are_refused(topology, names, message):
    with pytest.raises(ValueError, match=message):
        features_from_names(topology, names)


def test_too_many_distances_are_refused():
    large = mdtraj.Topology()
    residue = large.add_residue("LIG", large.add_chain())
    for i in range(150):
        large.add_atom(f"C{i}", mdtraj.element.carbon, residue)
    with pytest.raises(ValueError, match=r"150 atoms \(not element H\) have 11175 distances, more than 10000"):
        features_from_names(large, ["distances"])
