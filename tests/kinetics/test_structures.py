import itertools

import mdtraj
import numpy as np
import pytest

from molml import datasets
from molml.kinetics import Torsions, TrajectoryFiles
from molml.kinetics.structures import moving, representatives


@pytest.fixture(scope="module")
def alanine():
    """Two runs of alanine dipeptide and sin(phi), which changes fast, as their coordinate."""
    folder = datasets.path("alanine-dipeptide")
    runs = [mdtraj.load(folder / f"run-{n}.xtc", top=folder / "topology.pdb")[::5] for n in (1, 2)]
    phi = [mdtraj.compute_dihedrals(run, [[1, 3, 4, 6]]) for run in runs]
    return runs, [np.concatenate([np.sin(p), np.cos(p)], axis=1) for p in phi]


def coordinates(structures):
    phi = mdtraj.compute_dihedrals(structures, [[1, 3, 4, 6]])
    return np.concatenate([np.sin(phi), np.cos(phi)], axis=1)


@pytest.mark.parametrize("find", [representatives, moving])
def test_structures_have_the_values_in_order(find, alanine):
    runs, latent = alanine
    along = find(runs, latent, component=0, n_structures=9)
    np.testing.assert_allclose(coordinates(along.structures)[:, 0], along.values, atol=1e-5)
    low, high = np.quantile(np.concatenate(latent)[:, 0], [0.005, 0.995])
    expected = low + (high - low) * (np.arange(9) + 0.5) / 9
    # each lies in its own ninth
    assert np.all(np.abs(along.values - expected) <= (high - low) / 18 + 1e-12)
    for (i, j), value in zip(along.frames, along.values, strict=True):
        assert latent[i][j, 0] == value


@pytest.mark.parametrize("find", [representatives, moving])
def test_structures_are_aligned_frames(find, alanine):
    runs, latent = alanine
    along = find(runs, latent, component=1, n_structures=5)
    for k, (i, j) in enumerate(along.frames):
        frame, original = along.structures.xyz[k], runs[i].xyz[j]
        # the same structure, moved: distances between atoms are those of the frame
        for a, b in itertools.combinations(range(10), 2):
            assert np.linalg.norm(frame[a] - frame[b]) == pytest.approx(
                np.linalg.norm(original[a] - original[b]), abs=1e-5
            )
        first = along.structures.xyz[0]
        moved = mdtraj.Trajectory(frame[None], runs[0].topology).superpose(along.structures[0]).xyz[0]
        assert np.sum((frame - first) ** 2) <= np.sum((moved - first) ** 2) + 1e-6
    np.testing.assert_array_equal(along.structures.time, [runs[i].time[j] for i, j in along.frames])


@pytest.mark.parametrize("find", [representatives, moving])
def test_files_give_the_same_structures(find, alanine, monkeypatch):
    runs, latent = alanine
    folder = datasets.path("alanine-dipeptide")
    top = runs[0].topology
    files = TrajectoryFiles([folder / f"run-{n}.xtc" for n in (1, 2)], Torsions(top), topology=top, stride=5)
    asked = []
    get = TrajectoryFiles.frames
    monkeypatch.setattr(TrajectoryFiles, "frames", lambda self, frames: asked.extend(frames) or get(self, frames))
    # whole files are never held
    monkeypatch.delattr(TrajectoryFiles, "trajectory")
    monkeypatch.delattr(TrajectoryFiles, "load")
    streamed, held = find(files, latent, n_structures=6), find(runs, latent, n_structures=6)
    assert streamed.frames == held.frames
    np.testing.assert_array_equal(streamed.structures.xyz, held.structures.xyz)
    np.testing.assert_array_equal(streamed.structures.time, held.structures.time)
    assert len(asked) <= 20 * 6
    with pytest.raises(ValueError, match=r"latent must be a list of arrays .* \[1000, 1000\] frames, got shapes"):
        find(files, [z[:-1] for z in latent], n_structures=6)


def test_quantiles_follow_the_frames(alanine):
    runs, latent = alanine
    values = np.sort(np.concatenate(latent)[:, 0])
    along = representatives(runs, latent, n_structures=4, quantiles=True, limits=(-1.0, 1.0))
    ranks = np.searchsorted(values, along.values) / len(values)
    np.testing.assert_allclose(ranks, [0.125, 0.375, 0.625, 0.875], atol=0.02)


def test_representative_is_the_typical_one():
    # 20 frames of one value: one shape 15 times, another 5 times
    random = np.random.default_rng(0)
    topology = mdtraj.load(datasets.path("alanine-dipeptide") / "topology.pdb").topology
    shapes = random.normal(size=(2, 10, 3))
    which = np.array([1] * 5 + [0] * 15 + [0, 1])
    xyz = shapes[which] + 0.01 * random.normal(size=(22, 10, 3))
    latent = np.array([0.0] * 20 + [1.0, 1.0])[:, None]
    run = mdtraj.Trajectory(xyz, topology)
    along = representatives([run], [latent], n_structures=2, limits=(-0.5, 1.5))
    assert 5 <= along.frames[0][1] < 20
    # control: with the atoms of the shapes swapped the other one is typical
    swapped = mdtraj.Trajectory(shapes[1 - which] + 0.0, topology)
    np.testing.assert_array_equal(representatives([swapped], [latent], n_structures=2).frames[0][0], 0)


def test_moving_picture_jumps_least(alanine):
    runs, latent = alanine
    few = [runs[0][::50]]
    z = [latent[0][::50]]
    along = moving(few, z, n_structures=3, limits=(-1.0, 1.0))

    def jumps(picked):
        path = mdtraj.join([few[0][k] for k in picked])
        return sum(mdtraj.rmsd(path[1:], path[:-1], k)[k] ** 2 for k in range(len(picked) - 1))

    edges = np.linspace(-1.0, 1.0, 4)
    groups = [
        [k for k in range(len(z[0])) if low <= z[0][k, 0] <= high]
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    assert [len(group) for group in groups] == [len(set(group)) for group in groups]
    best = min(jumps(path) for path in itertools.product(*groups))
    assert jumps([j for _, j in along.frames]) == pytest.approx(best, rel=1e-4)
    # control: frames nearest to the values jump more
    nearest = [int(np.argmin(np.abs(z[0][:, 0] - value))) for value in (edges[:-1] + edges[1:]) / 2]
    assert jumps(nearest) > 1.05 * best


def test_gap_takes_the_nearest_frame_again():
    topology = mdtraj.load(datasets.path("alanine-dipeptide") / "topology.pdb").topology
    run = mdtraj.Trajectory(np.random.default_rng(0).normal(size=(4, 10, 3)), topology)
    along = moving([run], [np.array([[0.0], [0.01], [0.99], [1.0]])], n_structures=4, limits=(0.0, 1.0))
    assert set(along.values[1:3]) == {0.01, 0.99}


def test_structures_can_be_written(alanine, tmp_path):
    runs, latent = alanine
    along = moving(runs, latent, n_structures=6)
    along.structures.save(tmp_path / "moving.xtc")
    along.structures.save(tmp_path / "moving.pdb")
    for name in ("moving.xtc", "moving.pdb"):
        again = mdtraj.load(tmp_path / name, top=runs[0].topology)
        np.testing.assert_allclose(coordinates(again)[:, 0], along.values, atol=0.05)


@pytest.mark.parametrize("atoms", [[4, 5, 6, 3], None])
def test_atoms_choose_what_is_aligned(alanine, atoms):
    runs, latent = alanine
    along = representatives(runs, latent, n_structures=3, atoms=atoms)
    again = mdtraj.Trajectory(along.structures.xyz, runs[0].topology).superpose(along.structures[0], 0, atoms)
    np.testing.assert_allclose(again.xyz, along.structures.xyz, atol=1e-4)


def test_what_users_get_wrong(alanine):
    runs, latent = alanine
    with pytest.raises(TypeError, match=r"trajectories must be a list of mdtraj\.Trajectory, or TrajectoryFiles, got"):
        representatives(runs[0], latent)
    with pytest.raises(ValueError, match="latent must be a list of arrays .* got shapes"):
        representatives(runs, latent[:1])
    with pytest.raises(ValueError, match="latent must be a list of arrays"):
        representatives(runs, [z[:, 0] for z in latent])
    with pytest.raises(ValueError, match="component must be 0 to 1, got 2"):
        moving(runs, latent, component=2)
    with pytest.raises(ValueError, match="n_structures must be 2 to the number of frames, 2000, got 1"):
        representatives(runs, latent, n_structures=1)
    with pytest.raises(ValueError, match=r"limits must be \(low, high\), got \(1, 0\)"):
        representatives(runs, latent, limits=(1.0, 0.0))
    with pytest.raises(ValueError, match=r"limits must hold frames, got \(5, 6\) for values from"):
        representatives(runs, latent, limits=(5.0, 6.0))
    with pytest.raises(ValueError, match="latent must be finite, got 1 other"):
        representatives(runs, [np.where(np.arange(1000)[:, None] == 3, np.nan, latent[0]), latent[1]])
    with pytest.raises(ValueError, match=r"same atoms, got \[9, 10\] atoms"):
        representatives([runs[0], runs[1].atom_slice(range(9))], latent)
