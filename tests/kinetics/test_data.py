"""Lagged pairs, blocks of time and trajectory files: against pairs counted by hand, and arrays in memory."""

import pickle
import tracemalloc
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molml.kinetics.data import (
    Streamed,
    TimeLaggedDataset,
    TrajectoryFiles,
    as_list,
    check_lagtime,
    check_lengths,
    is_several,
    lagged_blocks,
    remaining_blocks,
    time_blocks,
)
from molml.kinetics.features import Distances, Function, Torsions
from molml.kinetics.linear import TICA
from molml.kinetics.reading import parse_lag


def numbered(*lengths: int) -> list[np.ndarray]:
    """Every frame holds its trajectory and its number."""
    return [np.stack([np.full(n, float(i)), np.arange(float(n))], axis=1) for i, n in enumerate(lengths)]


def pairs_of(dataset: TimeLaggedDataset) -> tuple[np.ndarray, np.ndarray]:
    x, y = dataset.collate([dataset[i] for i in range(len(dataset))])
    return x.numpy(), y.numpy()


def frames_of(dataset: TimeLaggedDataset) -> set[tuple[int, int]]:
    return {(int(i), int(t)) for part in pairs_of(dataset) for i, t in part}


@pytest.fixture
def mapped(tmp_path):
    """Arrays as read-only memory maps."""

    def write(arrays):
        for i, array in enumerate(arrays):
            np.save(tmp_path / f"{i}.npy", array)
        return [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(len(arrays))]

    return write


@pytest.mark.parametrize("lagtime", [0, 1, 4])
def test_all_pairs_of_every_trajectory_and_none_across_their_ends(mapped, lagtime):
    arrays = numbered(5, 9, 30)
    expected = np.concatenate([array[: len(array) - lagtime] for array in arrays])
    for given_ in (arrays, mapped(arrays)):
        dataset = TimeLaggedDataset(given_, lagtime)
        x, y = pairs_of(dataset)
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(y, expected + [0, lagtime])
        assert len(dataset) == 44 - 3 * lagtime and dataset.n_features == 2


def test_order_and_repeats_of_items_are_kept(mapped):
    items = [30, 2, 2, 11]
    for arrays in (numbered(5, 9, 30), mapped(numbered(5, 9, 30))):
        batch = TimeLaggedDataset(arrays, 1).collate(items)
        np.testing.assert_array_equal(batch.x, [[2, 18], [0, 2], [0, 2], [1, 7]])
    assert TimeLaggedDataset(numbered(10), 1)[-1] == 8
    with pytest.raises(IndexError):
        TimeLaggedDataset(numbered(10), 1)[9]


def test_precision_is_that_of_the_trajectories(mapped):
    arrays = [x.astype(np.float32) for x in numbered(5, 9)]
    assert TimeLaggedDataset(arrays, 1).collate([0]).x.dtype == torch.float32
    assert TimeLaggedDataset(mapped(arrays), 1).collate([0]).y.dtype == torch.float32


def test_memory_maps_are_not_read_into_memory(mapped):
    maps = mapped(numbered(50, 50))
    dataset = TimeLaggedDataset(maps, 1)
    assert all(np.shares_memory(piece, x) for piece, x in zip(dataset._pieces, maps, strict=True))


@given(
    st.lists(st.integers(12, 60), min_size=1, max_size=4),
    st.integers(0, 3),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
)
def test_split_never_shares_a_frame(lengths, lagtime, fraction, seed):
    dataset = TimeLaggedDataset(numbered(*lengths), lagtime)
    train, valid = dataset.split(fraction, seed=seed)
    assert not frames_of(train) & frames_of(valid)
    for part in (train, valid):
        x, y = pairs_of(part)
        np.testing.assert_array_equal(y, x + [0, lagtime])
        # whole blocks: as many runs of consecutive pairs as segments, at most
        assert (np.diff(x[:, 1]) != 1).sum() < len(part.segments)
    # a control: random frames would be shared
    mixed = np.random.default_rng(0).permutation(len(dataset))
    first, second = (
        {(int(i), int(t)) for x in dataset.collate(half) for i, t in x} for half in np.array_split(mixed, 2)
    )
    assert bool(first & second) == (lagtime > 0)


def test_split_takes_the_fraction_and_follows_the_seed():
    dataset = TimeLaggedDataset(numbered(1000, 1000), 5)
    train, valid = dataset.split(0.3, seed=1)
    # 6 of 20 blocks of 100 frames; each loses its lag time at the end at most
    assert 6 * 95 <= len(valid) <= 6 * 100 and len(train) >= 1400 - 5 * 14
    assert dataset.split(0.3, seed=1)[1].segments == valid.segments
    assert dataset.split(0.3, seed=2)[1].segments != valid.segments
    assert len(dataset.split(0.5, n_blocks=2)[1].segments) == 1
    # a part can be parted again
    inner, held = train.split(0.5, n_blocks=4)
    assert not frames_of(inner) & frames_of(held) and frames_of(inner) | frames_of(held) <= frames_of(train)


def test_every_block_is_held_out_once():
    dataset = TimeLaggedDataset(numbered(100, 250), 3)
    parts = dataset.blocks(5)
    held = [frames_of(valid) for _, valid in parts]
    assert sum(len(frames) for frames in held) == 350 and len(set().union(*held)) == 350
    assert all(not frames_of(train) & frames_of(valid) for train, valid in parts)


def test_runs_of_one_length_make_folds_of_whole_runs():
    assert time_blocks([100] * 6, 3, 10) == [[(2 * i, 0, 100), (2 * i + 1, 0, 100)] for i in range(3)]
    assert time_blocks([100, 99, 101], 3, 10) == [[(0, 0, 100)], [(1, 0, 99)], [(2, 0, 101)]]
    # slivers are left out
    assert time_blocks([100, 20], 2, 30) == [[(0, 0, 60)], [(0, 60, 100)]]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(2, 6), st.integers(0, 5))
def test_blocks_and_the_rest_make_the_whole(lengths, n_folds, lagtime):
    lengths[0] += 200  # always enough for all folds
    folds = time_blocks(lengths, n_folds, lagtime)
    taken = [(i, t) for fold in folds for i, start, stop in fold for t in range(start, stop)]
    assert len(taken) == len(set(taken)) <= sum(lengths)
    # only slivers are missing, two for every cut or end of a trajectory
    assert sum(lengths) - len(taken) <= lagtime * (n_folds + len(lengths))
    for fold in folds:
        rest = remaining_blocks(lengths, fold, lagtime)
        frames = {(i, t) for i, start, stop in rest for t in range(start, stop)}
        inside = {(i, t) for i, start, stop in fold for t in range(start, stop)}
        assert not frames & inside
        assert all(stop - start > lagtime for _, start, stop in rest)


class Stream:
    n_features = 1
    lengths = [10]

    def blocks(self, index, n_frames):
        yield np.zeros((10, 1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TimeLaggedDataset(Stream(), 1), TypeError, r"to_arrays\(directory\)"),
        (lambda: TimeLaggedDataset(numbered(10, 3), 3), ValueError, r"lagtime=3 and a trajectory of .*=3"),
        (lambda: TimeLaggedDataset([np.full((9, 1), np.nan)], 3), ValueError, "must be finite"),
        (lambda: TimeLaggedDataset(numbered(10), 3, segments=[(0, 5, 8)]), ValueError, r"lagtime=3.*got \(0, 5, 8\)"),
        (lambda: TimeLaggedDataset(numbered(10), 3, segments=[(1, 0, 8)]), ValueError, "segments must be"),
        (lambda: TimeLaggedDataset(numbered(10), 3, segments=[(0, 5, 11)]), ValueError, "segments must be"),
        (lambda: TimeLaggedDataset(numbered(90), 3).split(1.0), ValueError, "between 0 and 1, got 1.0"),
        (lambda: TimeLaggedDataset(numbered(90), 3).split(0.5, n_blocks=1), ValueError, "at least 2, got 1"),
        (lambda: TimeLaggedDataset(numbered(20), 3).split(0.5, n_blocks=6), ValueError, "6 folds of about 3 frames"),
        (lambda: TimeLaggedDataset(numbered(20), 11).blocks(2), ValueError, "fewer folds, or shorten"),
        (lambda: time_blocks([50], 2.0, 3), ValueError, "n_folds must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_nothing_left_for_training_is_refused():
    dataset = TimeLaggedDataset(numbered(40), 3, segments=[(0, 0, 20)])
    with pytest.raises(ValueError, match="no pair is left for training at lagtime=3"):
        dataset._parted([(0, 0, 18)])


# ---- trajectory files ------------------------------------------------------------------------------------------------


def written(path: Path, n_frames: int, *, seed: int = 0, first: float = 0.0) -> mdtraj.Trajectory:
    """A random walk of twelve atoms about random places, frames 0.5 ps apart."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("LIG", topology.add_chain())
    for i in range(12):
        topology.add_atom(f"C{i}", mdtraj.element.carbon, residue)
    rng = np.random.default_rng(seed)
    start = np.random.default_rng(0).normal(size=(12, 3))
    xyz = (start + 0.05 * rng.normal(size=(n_frames, 12, 3))).astype(np.float32)
    trajectory = mdtraj.Trajectory(xyz, topology, time=first + 0.5 * np.arange(n_frames))
    trajectory.save(str(path))
    return trajectory


@pytest.fixture
def runs(tmp_path):
    """Folder of three runs, and their frames."""
    lengths = {"run1": 300, "run2": 127, "run10": 41}
    return tmp_path, [written(tmp_path / f"{name}.xtc", n, seed=n) for name, n in lengths.items()]


@pytest.fixture
def source(runs):
    folder, trajectories = runs
    topology = trajectories[0].topology
    features = Torsions(topology, quadruplets=[(0, 1, 2, 3), (4, 5, 6, 7)]) + Distances(topology, pairs=[(0, 11)])
    return TrajectoryFiles(folder / "*.xtc", features, topology=topology)


def in_memory(source: TrajectoryFiles) -> list[np.ndarray]:
    """The same features by mdtraj's own reader."""
    return [source.features(mdtraj.load(str(path), top=source.topology)[:: source.stride]) for path in source.files]


def test_what_it_holds(source, runs):
    assert isinstance(source, Streamed)
    assert [path.name for path in source.files] == ["run1.xtc", "run2.xtc", "run10.xtc"]
    assert source.lengths == [300, 127, 41] and source.n_features == 5 and source.timestep == 0.5
    assert source.names == source.features.names
    assert repr(source) == "TrajectoryFiles(3 files, 468 frames, 5 features)"
    for loaded, expected in zip(source.load(), in_memory(source), strict=True):
        np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize("n_frames", [1, 7, 300, 10_000])
def test_blocks_are_the_trajectory_in_pieces(source, n_frames):
    blocks = list(source.blocks(1, n_frames))
    assert all(len(block) <= n_frames for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), in_memory(source)[1])


@pytest.mark.parametrize("lagtime", [0, 1, 40])
@pytest.mark.parametrize("size", [16, 50, 127, 1000])
def test_streamed_gives_the_pieces_of_arrays_in_memory(source, monkeypatch, lagtime, size):
    """Then the bits of all that is summed over them are the same, in single precision, too."""
    monkeypatch.setattr("molml.kinetics.data._block_length", lambda *_: size)
    streamed, whole = lagged_blocks(source, lagtime), lagged_blocks(as_list(in_memory(source)), lagtime)
    for (i, first, x, y), (j, other, u, v) in zip(streamed, whole, strict=True):
        assert (i, first) == (j, other)
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


@pytest.mark.parametrize("lagtime", [1, 40])
def test_estimators_see_no_difference(source, monkeypatch, lagtime):
    monkeypatch.setattr("molml.kinetics.data._block_length", lambda *_: 50)
    streamed, whole = (TICA(lagtime=lagtime).fit(X) for X in (source, in_memory(source)))
    np.testing.assert_allclose(streamed.mean_, whole.mean_, rtol=1e-12)
    np.testing.assert_allclose(streamed.eigenvalues_, whole.eigenvalues_, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate(streamed.transform(source)), np.concatenate(whole.transform(source)),
                               rtol=1e-10, atol=1e-12)  # fmt: skip


def test_strides(runs):
    folder, trajectories = runs
    topology = trajectories[0].topology
    source = TrajectoryFiles(folder / "*.xtc", Distances(topology), topology=topology, stride=7)
    assert source.lengths == [43, 19, 6] and source.timestep == 3.5
    for loaded, expected in zip(source.load(), in_memory(source), strict=True):
        np.testing.assert_array_equal(loaded, expected)
    np.testing.assert_array_equal(np.concatenate(list(source.blocks(0, 5))), source.load()[0])
    np.testing.assert_array_equal(source.trajectory(1).xyz, mdtraj.load(str(source.files[1]), top=topology)[::7].xyz)
    assert source.frames([(0, 42)]).time[0] == 42 * 3.5


def test_frames_come_in_the_order_asked_for(source):
    loaded = [mdtraj.load(str(path), top=source.topology) for path in source.files]
    selection = [(2, 40), (0, 0), (0, 299), (2, 40), (1, 63)]
    frames = source.frames(selection)
    assert frames.topology == source.topology
    np.testing.assert_array_equal(frames.xyz, [loaded[i].xyz[t] for i, t in selection])
    np.testing.assert_array_equal(frames.time, [loaded[i].time[t] for i, t in selection])
    np.testing.assert_array_equal(source.frames(np.array(selection)).xyz, frames.xyz)
    np.testing.assert_array_equal(source.trajectory(1).xyz, loaded[1].xyz)


def test_arrays_on_the_disk(source, tmp_path, monkeypatch):
    folder = tmp_path / "made" / "arrays"
    arrays = source.to_arrays(folder)
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in arrays)
    for array, expected in zip(arrays, in_memory(source), strict=True):
        np.testing.assert_array_equal(array, expected)
    names = ["0000-run1.npy", "0001-run2.npy", "0002-run10.npy"]
    assert sorted(path.name for path in folder.iterdir()) == names
    dataset = TimeLaggedDataset(arrays, 5)
    np.testing.assert_array_equal(dataset.collate([295]).x[0], arrays[1][0])
    # an old file stays whole when a new one cannot be finished
    before = (folder / names[1]).read_bytes()
    failing = TrajectoryFiles(source.files, Function(lambda x: x[:100, 0], ["x", "y", "z"]), topology=source.topology)
    with pytest.raises(ValueError, match="features must give .*|the function must give real numbers"):
        failing.to_arrays(folder)
    assert (folder / names[1]).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == names


def test_it_can_be_sent_to_other_processes(source):
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.load()[2], source.load()[2])


def peak(work) -> int:
    """Bytes of Python and numpy at the worst moment."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def stream(source: TrajectoryFiles) -> None:
    for *_, x, y in lagged_blocks(source, 10):
        float(x.sum()) + float(y.sum())


def test_memory_does_not_grow_with_length(tmp_path, monkeypatch):
    monkeypatch.setattr("molml.kinetics.data.BLOCK_BYTES", 500_000)
    topology = written(tmp_path / "a.dcd", 4_000).topology
    written(tmp_path / "b.dcd", 40_000)
    short, long = (TrajectoryFiles(tmp_path / f"{name}.dcd", Distances(topology), topology=topology) for name in "ab")
    stream(short)  # compiled, imported
    assert peak(lambda: stream(long)) < 1.5 * peak(lambda: stream(short))
    # a control: what is loaded grows as it must
    assert peak(long.load) > 5 * peak(short.load)


def test_files_that_bring_their_topology(runs, tmp_path):
    _, trajectories = runs
    trajectories[2].save(str(tmp_path / "models.pdb"))
    topology = trajectories[0].topology
    source = TrajectoryFiles(tmp_path / "models.pdb", Distances(topology), timestep=2.0)
    assert source.lengths == [41] and source.timestep == 2.0 and source.topology.n_atoms == 12
    untimed = TrajectoryFiles(tmp_path / "models.pdb", Distances(topology))
    assert untimed.timestep is None
    with pytest.raises(ValueError, match="give timestep= in ps"):
        parse_lag("10 ps", untimed.timestep)


def test_files_with_different_times(tmp_path):
    trajectory = written(tmp_path / "a.xtc", 20)
    trajectory.time = trajectory.time * 2
    trajectory.save(str(tmp_path / "b.xtc"))
    features = Distances(trajectory.topology)
    with pytest.raises(ValueError, match=r"got 0.5 ps in .*a.xtc and 1.0 ps in .*b.xtc; read them apart, or give"):
        TrajectoryFiles(tmp_path / "*.xtc", features, topology=trajectory.topology)
    taken = TrajectoryFiles(tmp_path / "*.xtc", features, topology=trajectory.topology, timestep=3.0, stride=2)
    assert taken.timestep == 6.0


def test_files_that_end_early(source, runs):
    folder, _ = runs
    data = (folder / "run2.xtc").read_bytes()
    (folder / "run2.xtc").write_bytes(data[:-5])
    with pytest.raises(ValueError, match="run2.xtc: the file ends within frame 126; 126 frames are whole"):
        TrajectoryFiles(folder / "*.xtc", source.features, topology=source.topology)
    with pytest.warns(UserWarning, match="run2.xtc: the file ends within frame 126; 126 frames are whole and taken"):
        shorter = TrajectoryFiles(folder / "*.xtc", source.features, topology=source.topology, allow_truncated=True)
    assert shorter.lengths == [300, 126, 41] and len(shorter.load()[1]) == 126


def test_frames_without_features_are_named_as_in_the_file(tmp_path):
    trajectory = written(tmp_path / "a.dcd", 90)
    trajectory.xyz[72, 2] = trajectory.xyz[72, 1]
    trajectory.save(str(tmp_path / "a.dcd"))
    features = Torsions(trajectory.topology, quadruplets=[(0, 1, 2, 3)])
    for stride, size in ((1, 10), (1, 1000), (3, 4), (8, 2)):
        source = TrajectoryFiles(tmp_path / "a.dcd", features, topology=trajectory.topology, stride=stride)
        with pytest.raises(ValueError, match=r"a.dcd, frame 72: atoms on a line make no torsion"):
            list(source.blocks(0, size))


def test_progress_is_shown_if_asked_for_and_slow(source, capsys, monkeypatch):
    source.load()
    assert capsys.readouterr().err == ""
    source.progress = True
    source.load()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("molml.kinetics.data._BAR_DELAY", 0.0)
    source.load()
    assert "run10.xtc:   0%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": "torsions"}, TypeError, "features must be a featurizer such as Torsions.*got str"),
        ({"features": lambda x: x}, TypeError, "got function; functions can be wrapped in Function"),
        ({"topology": "a.pdb"}, TypeError, "topology must be an mdtraj.Topology, got str; load_topology"),
        ({"topology": None}, ValueError, "topology must be given: run1.xtc holds positions only"),
        ({"stride": 0}, ValueError, "stride must be a whole number of at least 1, got 0"),
        ({"stride": 2.0}, ValueError, "stride must be a whole number of at least 1, got 2.0"),
        ({"timestep": 0.0}, ValueError, "timestep must be a positive number of ps, got 0.0"),
        ({"timestep": np.nan}, ValueError, "timestep must be a positive number of ps, got nan"),
        ({"timestep": np.inf}, ValueError, "timestep must be a positive number of ps, got inf"),
        ({"files": []}, ValueError, "files must name at least one trajectory"),
    ],
)
def test_what_no_files_can_be_made_of(source, change, error, message):
    arguments = {"files": source.files, "features": source.features, "topology": source.topology} | change
    with pytest.raises(error, match=message):
        TrajectoryFiles(arguments.pop("files"), arguments.pop("features"), **arguments)


def test_features_of_other_molecules_are_refused(source):
    other = Distances(source.topology.subset(range(5)))
    with pytest.raises(ValueError, match="got features of 5 atoms and a topology of 12"):
        TrajectoryFiles(source.files, other, topology=source.topology)


@pytest.mark.parametrize(
    ("selection", "message"),
    [([(3, 0)], r"got \(3, 0\)"), ([(0, 300)], r"of \[300, 127, 41\] frames, got \(0, 300\)"), ([(-1, 0)], "-1"),
     ([(0, -1)], r"got \(0, -1\)"), ([], "at least one frame, got none")],
)  # fmt: skip
def test_frames_that_are_not_there(source, selection, message):
    with pytest.raises(ValueError, match=message):
        source.frames(selection)


class Short:
    """A featurizer that loses frames."""

    names, n_features, n_atoms = ["x"], 1, None

    def __call__(self, frames):
        return np.zeros((len(frames) - 1, 1))


def test_featurizers_that_lose_frames_are_caught(source):
    broken = TrajectoryFiles(source.files, Short(), topology=source.topology)
    with pytest.raises(ValueError, match=r"features must give an array of shape \(300, 1\) for 300 frames, got \(299"):
        broken.load()


# trajectories and pairs, piece by piece


class Pieces:
    """Arrays as a streamed source that gives pieces of five frames; `claimed` lengths may be wrong."""

    def __init__(self, arrays, claimed=None):
        self.arrays, self.n_features = arrays, arrays[0].shape[1] if arrays else 2
        self.lengths = [len(x) for x in arrays] if claimed is None else claimed

    def blocks(self, index, n_frames):
        for start in range(0, len(self.arrays[index]), 5):
            yield self.arrays[index][start : start + 5]


def test_arrays_are_not_copied_and_streams_stay_streams():
    x, y = numbered(5, 9)
    assert as_list(x)[0] is x and as_list([x, y])[1] is y and as_list((x, y))[0] is x
    assert as_list(x.astype(np.float32))[0].dtype == np.float32
    stream = Pieces([x])
    assert as_list(stream) is stream
    assert as_list([[1, 2], [3, 4]])[0].dtype == np.float64
    assert as_list(np.arange(6).reshape(3, 2))[0].shape == (3, 2)
    assert [is_several(v) for v in (x, [x], (x, y), stream, [[1.0, 2.0]], [])] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "at least one trajectory, got an empty list"),
        (Pieces([]), "at least one trajectory, got none"),
        ([np.ones(5), np.ones(5)], r"arrays \(n_frames, n_features\), got one of shape \(5,\); x.reshape"),
        (np.ones(5), "Reshape your data"),
        (np.ones((2, 3, 4)), "dim 3"),
        (np.ones((0, 3)), "0 sample"),
        (np.ones((5, 3)) * 1j, "Complex data"),
        ([np.ones((5, 3)), np.ones((5, 2))], r"the same features, got widths \[2, 3\]"),
        (np.ones((5, 3)), "has 3 features, but it is expecting 2 features"),
        (Pieces([np.ones((5, 3))]), "has 3 features, but it is expecting 2 features"),
    ],
)
def test_what_are_no_trajectories(X, message):
    with pytest.raises(ValueError, match=message):
        as_list(X, n_features=2)


@pytest.mark.parametrize("lagtime", [0, 1, 4])
def test_pairs_of_pieces(monkeypatch, lagtime):
    monkeypatch.setattr("molml.kinetics.data._block_length", lambda *_: 3)
    arrays = numbered(5, 9, 30)
    for source in (arrays, Pieces(arrays)):
        pieces = list(lagged_blocks(source, lagtime))
        x, y = (np.concatenate([piece[i] for piece in pieces]) for i in (2, 3))
        np.testing.assert_array_equal(x, np.concatenate([a[: len(a) - lagtime] for a in arrays]))
        np.testing.assert_array_equal(y, x + [0, lagtime])
        assert all((piece[0] == piece[2][:, 0]).all() and piece[1] == piece[2][0, 1] for piece in pieces)
        assert len(pieces) > 8
    assert np.shares_memory(next(lagged_blocks(arrays, lagtime))[3], arrays[0])


@pytest.mark.parametrize("frame", [0, 3, 28, 29])
def test_numbers_that_are_not_finite_are_found_wherever_they_are(frame):
    arrays = numbered(9, 30)
    arrays[1][frame, 0] = np.inf
    for source in (arrays, Pieces(arrays)):
        with pytest.raises(ValueError, match=f"got inf .* in trajectory 1, frame {frame}, feature 0"):
            list(lagged_blocks(source, 4))


def test_large_numbers_are_finite():
    x = np.full((20, 2), 3e38, np.float32)
    assert len(next(lagged_blocks([x], 1))[2]) == 19


def test_streams_that_do_not_keep_their_word():
    arrays = numbered(9, 30)
    for claimed, found in ([9, 31], 30), ([9, 29], 30):
        with pytest.raises(ValueError, match=f"got {found} of the {claimed[1]} frames of trajectory 1"):
            list(lagged_blocks(Pieces(arrays, claimed), 2))
    narrow = Pieces([arrays[0], arrays[1][:, :1]])
    with pytest.raises(ValueError, match="pieces of 2 features"):
        list(lagged_blocks(narrow, 2))


def test_lag_times_that_do_not_fit():
    for bad in (-1, 1.0, True, "1"):
        with pytest.raises(ValueError, match="lagtime must be a whole number of frames, at least 0"):
            check_lengths([5], bad)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        check_lagtime(0, least=1)
    with pytest.raises(ValueError, match=r"lagtime=5 and a trajectory of n_samples=5 frames \(X\[1\]\)"):
        check_lengths([9, 5, 6], 5)
    check_lengths([9, 5, 6], np.int64(4))
