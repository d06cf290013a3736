"""Trajectory files: whole ones against mdtraj, damaged ones, and readers that crash or hang."""

import contextlib
import io
import itertools
import os
import warnings
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molml.kinetics import reading
from molml.kinetics.reading import (
    SUFFIXES,
    TrajectoryFile,
    first_frame,
    inspect_file,
    load_topology,
    parse_lag,
    read_frames,
    topology_of_file,
    trajectory_paths,
)

WRITTEN_BY_MDTRAJ = (
    "xtc", "trr", "dcd", "nc", "pdb", "pdb.gz", "gro", "xyz", "xyz.gz", "lammpstrj", "mdcrd", "crd", "dtr", "cif",
    "cif.gz", "pdbx",
)  # fmt: skip
FORMATS = (*WRITTEN_BY_MDTRAJ, "mmcif", "arc", "lh5", "stk", "gsd")
ONE_FRAME = ("rst7", "restrt", "inpcrd", "ncrst", "netcdf.rst7", "xml", "hoomdxml", "mol2")
N_FRAMES = 23
# nm: XTC and GRO are rounded to 1e-3 nm, other text to 1e-4 nm, LH5 cuts to 1e-3 nm; the rest is in single precision
ROUNDING = {"xtc": 5.1e-4, "gro": 5.1e-4, "lh5": 1.1e-3, **dict.fromkeys(("trr", "dcd", "nc", "dtr", "stk"), 1e-6)}
ROUNDING_OF_CELLS = {"mdcrd": 5.1e-5}
NEEDS = {"h5": "tables", "lh5": "tables", "gsd": "gsd", "mol2": "pandas", "hoomdxml": "networkx"}


def written(trajectory: mdtraj.Trajectory, path: Path) -> None:
    """By mdtraj where it can, otherwise by hand."""
    suffix = path.name.partition(".")[2]
    pytest.importorskip(NEEDS.get(suffix, "mdtraj"))
    WRITERS.get(suffix, lambda t, p: t.save(str(p)))(trajectory, path)


def write_arc(trajectory: mdtraj.Trajectory, path: Path) -> None:
    with open(path, "w") as file:
        for k, xyz in enumerate(10 * trajectory.xyz):
            file.write(f"{len(xyz):6d}  a title\n")
            if trajectory.unitcell_lengths is not None:
                cell = [*10 * trajectory.unitcell_lengths[k], *trajectory.unitcell_angles[k]]
                file.write("".join(f"{number:12.6f}" for number in cell) + "\n")
            file.writelines(
                f"{i + 1:6d}  C{''.join(f'{number:12.6f}' for number in atom)}     1{max(i, 1):6d}\n"
                for i, atom in enumerate(xyz)
            )


def write_lh5(trajectory: mdtraj.Trajectory, path: Path) -> None:
    n_atoms = trajectory.n_atoms
    with contextlib.redirect_stderr(io.StringIO()), mdtraj.formats.LH5TrajectoryFile(str(path), "w") as file:
        file.write(trajectory.xyz.copy())
        # mdtraj's way to write them is broken, and without them it does not read the file
        root = file._handle.root
        root.AtomID[:] = root.ResidueID[:] = np.arange(n_atoms) + 1
        root.AtomNames[:], root.ResidueNames[:] = [b"C"] * n_atoms, [b"LIG"] * n_atoms


def write_stk(trajectory: mdtraj.Trajectory, path: Path) -> None:
    part = path.with_suffix(".dtr")
    trajectory.save(str(part))
    path.write_text(f"{part}\n")


def write_restart(kind: str):
    def write(trajectory: mdtraj.Trajectory, path: Path) -> None:
        with getattr(mdtraj.formats, kind)(str(path), "w", force_overwrite=True) as file:
            cell = 10 * trajectory.unitcell_lengths, trajectory.unitcell_angles
            file.write(10 * trajectory.xyz, trajectory.time, *cell)

    return write


def write_xml(trajectory: mdtraj.Trajectory, path: Path) -> None:
    """As OpenMM writes states."""

    def element(name: str, vector: np.ndarray) -> str:
        return f'<{name} x="{vector[0]:.17g}" y="{vector[1]:.17g}" z="{vector[2]:.17g}"/>'

    cell = [element(name, vector) for name, vector in zip("ABC", trajectory.unitcell_vectors[0], strict=True)]
    positions = [element("Position", xyz) for xyz in trajectory.xyz[0]]
    path.write_text(
        f"<State><PeriodicBoxVectors>{''.join(cell)}</PeriodicBoxVectors><Positions>{''.join(positions)}</Positions>"
        "</State>"
    )


def write_hoomdxml(trajectory: mdtraj.Trajectory, path: Path) -> None:
    a, b, c = trajectory.unitcell_lengths[0]
    positions = "\n".join(" ".join(f"{number:.9g}" for number in atom) for atom in trajectory.xyz[0])
    types = "\n".join("C" * trajectory.n_atoms)
    path.write_text(
        f'<hoomd_xml><configuration><box lx="{a:.9g}" ly="{b:.9g}" lz="{c:.9g}"/>\n'
        f"<position>\n{positions}\n</position>\n<type>\n{types}\n</type></configuration></hoomd_xml>\n"
    )


def write_mol2(trajectory: mdtraj.Trajectory, path: Path) -> None:
    atoms = "".join(
        f"{i + 1} C{i} {' '.join(f'{number:.4f}' for number in atom)} C.3 1 LIG 0.0\n"
        for i, atom in enumerate(10 * trajectory.xyz[0])
    )
    n = trajectory.n_atoms
    path.write_text(
        f"@<TRIPOS>MOLECULE\nLIG\n{n} 1 1\nSMALL\nNO_CHARGES\n@<TRIPOS>ATOM\n{atoms}@<TRIPOS>BOND\n1 1 2 1\n"
    )


WRITERS = {
    "mmcif": lambda t, p: (t.save(str(p.with_suffix(".cif"))), p.with_suffix(".cif").rename(p)),
    "arc": write_arc,
    "lh5": write_lh5,
    "stk": write_stk,
    "rst7": write_restart("AmberRestartFile"),
    "restrt": write_restart("AmberRestartFile"),
    "inpcrd": write_restart("AmberRestartFile"),
    "ncrst": write_restart("AmberNetCDFRestartFile"),
    "netcdf.rst7": write_restart("AmberNetCDFRestartFile"),
    "xml": write_xml,
    "hoomdxml": write_hoomdxml,
    "mol2": write_mol2,
}


def saved(path: Path, n_frames: int = N_FRAMES, *, time: np.ndarray | None = None, cell: bool = True, n_atoms=12):
    """A trajectory of carbon atoms, written; frames 0.5 ps apart."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for i in range(n_atoms):
        topology.add_atom(f"C{i}", mdtraj.element.carbon, topology.add_residue("LIG", chain, resSeq=i + 1))
    rng = np.random.default_rng(0)
    trajectory = mdtraj.Trajectory(
        rng.normal(size=(n_frames, n_atoms, 3)).astype(np.float32),
        topology,
        time=10 + 0.5 * np.arange(n_frames) if time is None else time,
        unitcell_lengths=rng.uniform(2, 3, (n_frames, 3)) if cell else None,
        unitcell_angles=np.full((n_frames, 3), 90.0) if cell else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mdtraj recommends a package for NetCDF
        written(trajectory, path)
    return trajectory


@pytest.fixture(scope="module")
def topology(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("topology") / "a.pdb", 1).topology


def joined(file: TrajectoryFile, start=0, stop=None, stride=1, n_frames=5):
    pieces = list(read_frames(file, start, file.n_frames if stop is None else stop, stride=stride, n_frames=n_frames))
    assert all(len(piece.xyz) <= n_frames for piece in pieces)
    return np.concatenate([piece.xyz for piece in pieces]), pieces


# ---- whole files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_frames_are_those_that_were_written(tmp_path, topology, suffix):
    path = tmp_path / f"a.{suffix}"
    trajectory = saved(path)
    file = inspect_file(path, topology)
    assert (file.path, file.n_frames, file.n_atoms) == (path, N_FRAMES, 12)
    tolerance = ROUNDING.get(suffix, 5.1e-5)
    for start, stop, stride, n_frames in ((0, 23, 1, 5), (0, 23, 1, 100), (7, 8, 1, 1), (2, 21, 3, 2), (22, 23, 9, 9)):
        xyz, pieces = joined(file, start, stop, stride, n_frames)
        np.testing.assert_allclose(xyz, trajectory.xyz[start:stop:stride], rtol=0, atol=tolerance)
        assert [piece.first for piece in pieces] == list(range(start, stop, stride * n_frames))
    # backwards, too
    np.testing.assert_array_equal(joined(file, 3, 6)[0], joined(file)[0][3:6])


@pytest.mark.parametrize("suffix", FORMATS)
def test_frames_are_those_of_mdtraj(tmp_path, topology, suffix):
    path = tmp_path / f"a.{suffix}"
    saved(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mdtraj recommends a package for NetCDF
        theirs = mdtraj.load(str(path), top=topology)
    file = inspect_file(path, topology)
    xyz, pieces = joined(file)
    np.testing.assert_array_equal(xyz, theirs.xyz)
    lengths = [piece.lengths for piece in pieces if piece.lengths is not None]
    np.testing.assert_allclose(np.concatenate(lengths or [[]]), [] if not lengths else theirs.unitcell_lengths)


@pytest.mark.parametrize("suffix", ONE_FRAME)
def test_files_of_one_frame(tmp_path, topology, suffix):
    path = tmp_path / f"a.{suffix}"
    trajectory = saved(path, 1)
    file = inspect_file(path, topology)
    assert (file.n_frames, file.timestep) == (1, None)
    xyz, (piece,) = joined(file)
    np.testing.assert_allclose(xyz, trajectory.xyz, rtol=0, atol=1e-5)
    # the one format that has no cell
    cell = np.zeros((1, 3)) if suffix == "mol2" else trajectory.unitcell_lengths
    np.testing.assert_allclose(np.zeros((1, 3)) if piece.lengths is None else piece.lengths, cell, rtol=1e-6)


@pytest.mark.parametrize("suffix", ["rst7", "ncrst", "xml", "hoomdxml", "mol2"])
def test_files_of_one_frame_are_those_of_mdtraj(tmp_path, topology, suffix):
    path = tmp_path / f"a.{suffix}"
    saved(path, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a format that brings its own topology
        theirs = mdtraj.load(str(path), top=topology)
    np.testing.assert_array_equal(joined(inspect_file(path, topology))[0], theirs.xyz)


@pytest.mark.parametrize("suffix", ["dtr", "stk"])
def test_names_of_desmond(tmp_path, topology, suffix):
    """Folders, of any name, by the file clickme.dtr that one clicks on; and lists of them."""
    first, second = tmp_path / "a.dtr", tmp_path / "b_trj"
    trajectory = saved(first)
    trajectory.time = 19 + 0.5 * np.arange(N_FRAMES)
    trajectory.save(str(tmp_path / "b.dtr"))
    (tmp_path / "b.dtr").rename(second)
    (second / "clickme.dtr").touch()
    assert trajectory_paths([first, second / "clickme.dtr"]) == [first, second / "clickme.dtr"]
    assert inspect_file(second / "clickme.dtr", topology).n_frames == N_FRAMES
    # a simulation that went on from before the end of the first one: what is there twice counts once
    both = tmp_path / "both.stk"
    both.write_text(f"{first}\n{second}\n")
    file = inspect_file(both, topology)
    assert file.n_frames == 18 + N_FRAMES and file.timestep == 0.5
    np.testing.assert_allclose(joined(file)[0][18:], trajectory.xyz, rtol=0, atol=1e-6)


def test_numbers_that_touch_each_other(tmp_path, topology):
    """Far from the origin there is no blank between the numbers of AMBER's trajectories."""
    trajectory = saved(tmp_path / "a.dcd")
    trajectory.xyz -= 20
    for cell in (True, False):
        trajectory.unitcell_vectors = trajectory.unitcell_vectors if cell else None
        trajectory.save(str(tmp_path / "a.mdcrd"))
        xyz, pieces = joined(inspect_file(tmp_path / "a.mdcrd", topology))
        np.testing.assert_allclose(xyz, trajectory.xyz, rtol=0, atol=6e-5)
        assert (pieces[0].lengths is not None) == cell


@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd", "nc", "gro", "lammpstrj", "mdcrd", "dtr", "stk", "arc"])
def test_cells_and_times(tmp_path, topology, suffix):
    path = tmp_path / f"a.{suffix}"
    trajectory = saved(path)
    file = inspect_file(path, topology)
    (piece,) = read_frames(file, 0, N_FRAMES, n_frames=100)
    np.testing.assert_allclose(
        piece.lengths, trajectory.unitcell_lengths, rtol=0, atol=ROUNDING_OF_CELLS.get(suffix, 1e-5)
    )
    np.testing.assert_allclose(piece.angles, 90, rtol=0, atol=1e-3)
    timed = {"xtc", "trr", "nc", "dtr", "stk"}
    assert file.timestep == (0.5 if suffix in timed else None)
    np.testing.assert_allclose(piece.time[:2], [10, 10.5] if suffix in timed | {"gro"} else [0, 1], rtol=1e-6)


@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd", "nc", "pdb", "mdcrd", "arc", "cif", "lh5"])
def test_files_without_cells(tmp_path, topology, suffix):
    path = tmp_path / f"a.{suffix}"
    saved(path, cell=False)
    (piece,) = read_frames(inspect_file(path, topology), 0, N_FRAMES, n_frames=100)
    assert piece.lengths is None and piece.angles is None


def test_pdb_files_of_one_frame_and_with_remarks(tmp_path, topology):
    path = tmp_path / "a.pdb"
    trajectory = saved(path, 1)
    lines = path.read_bytes().splitlines(keepends=True)
    single = [line for line in lines if not line.startswith((b"MODEL", b"ENDMDL"))]
    path.write_bytes(b"REMARK one structure\n" + b"".join(single))
    xyz, pieces = joined(inspect_file(path, topology))
    np.testing.assert_allclose(xyz, trajectory.xyz, rtol=0, atol=1e-4)
    np.testing.assert_allclose(pieces[0].lengths, trajectory.unitcell_lengths, rtol=0, atol=1e-3)


def test_pieces_of_many_atoms_are_small(tmp_path, topology, monkeypatch):
    path = tmp_path / "a.xtc"
    saved(path)
    monkeypatch.setattr(reading, "_PIECE_BYTES", 12 * 12 * 4)
    file = inspect_file(path, topology)
    assert [len(p.xyz) for p in read_frames(file, 0, 23, n_frames=100)] == [4] * 5 + [3]
    assert [len(p.xyz) for p in read_frames(file, 0, 23, n_frames=100, stride=2)] == [2] * 6
    assert [len(p.xyz) for p in read_frames(file, 0, 23, n_frames=100, stride=9)] == [1] * 3


def test_the_first_frame(tmp_path, topology):
    path = tmp_path / "a.xtc"
    trajectory = saved(path)
    frame = first_frame(path, topology)
    assert frame.topology is topology and len(frame) == 1 and frame.time == [10]
    np.testing.assert_allclose(frame.xyz, trajectory.xyz[:1], rtol=0, atol=5.1e-4)
    np.testing.assert_allclose(frame.unitcell_lengths, trajectory.unitcell_lengths[:1], rtol=0, atol=1e-5)


def test_two_files_can_be_read_in_turns(tmp_path, topology):
    files = []
    for name in ("a.xtc", "b.dcd"):
        saved(tmp_path / name)
        files.append(inspect_file(tmp_path / name, topology))
    first, second = (read_frames(file, 0, N_FRAMES, n_frames=4) for file in files)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a.xyz, b.xyz, rtol=0, atol=6e-4)
    # one that is left in the middle spoils nothing
    abandoned = read_frames(files[0], 0, N_FRAMES, n_frames=4)
    next(abandoned)
    abandoned.close()
    assert len(joined(files[1])[0]) == N_FRAMES


def test_a_reader_is_used_again(tmp_path, topology):
    path = tmp_path / "a.xtc"
    saved(path)
    file = inspect_file(path, topology)
    joined(file)
    before = reading._IDLE[-1]
    joined(file)
    assert reading._IDLE[-1] is before
    # not if it has ended meanwhile
    before._process.kill()
    before._process.wait()
    assert len(joined(file)[0]) == N_FRAMES and before not in reading._IDLE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_takes_a_reader_of_its_own(tmp_path, topology):
    path = tmp_path / "a.xtc"
    saved(path)
    file = inspect_file(path, topology)
    joined(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of threads in forked processes
        child = os.fork()
    if child == 0:  # pragma: no cover
        os._exit(0 if len(joined(file)[0]) == N_FRAMES else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(joined(file)[0]) == N_FRAMES


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd", "pdb", "xyz", "gro", "mdcrd", "arc", "cif"])
def test_files_that_end_early(tmp_path, topology, suffix):
    whole, cut = tmp_path / f"a.{suffix}", tmp_path / f"cut.{suffix}"
    trajectory = saved(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(0.8 * len(data))])
    with pytest.raises(ValueError, match=rf"cut.{suffix}: .*\d+ frames are whole. .*allow_truncated=True"):
        inspect_file(cut, topology)
    with pytest.warns(UserWarning, match=rf"cut.{suffix}: .*\d+ frames are whole and taken"):
        file = inspect_file(cut, topology, allow_truncated=True)
    assert 0.6 * N_FRAMES < file.n_frames < 0.85 * N_FRAMES
    xyz, _ = joined(file)
    np.testing.assert_allclose(xyz, trajectory.xyz[: file.n_frames], rtol=0, atol=6e-4)


def test_nothing_is_left_of_a_file(tmp_path, topology):
    path = tmp_path / "a.xtc"
    saved(path)
    path.write_bytes(path.read_bytes()[:60])
    with warnings.catch_warnings(), pytest.raises(ValueError, match="a.xtc holds no whole frame; leave it out"):
        warnings.simplefilter("ignore")
        inspect_file(path, topology, allow_truncated=True)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, topology):
    path = tmp_path / "a.dcd"
    saved(path)
    file = inspect_file(path, topology)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a.dcd: expected 23 frames, but reading ends after frame \d+"):
        joined(file)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_positions_that_are_not_finite(tmp_path, topology, number):
    path = tmp_path / "a.dcd"
    trajectory = saved(path)
    trajectory.xyz[17, 3, 1] = number
    trajectory.save(str(path))
    with pytest.raises(ValueError, match=r"a.dcd: positions must be finite, got (nan|inf) for atom 3 in frame 17"):
        joined(inspect_file(path, topology))
    with pytest.raises(ValueError, match="in frame 17"):
        joined(inspect_file(path, topology), 2, 23, 5)


def test_other_atoms_than_the_topology(tmp_path, topology):
    for suffix in ("xtc", "dcd", "nc"):
        saved(tmp_path / f"a.{suffix}", n_atoms=5)
        with pytest.raises(ValueError, match=f"a.{suffix} has 5 atoms, the topology 12; give the topology"):
            inspect_file(tmp_path / f"a.{suffix}", topology)
    # what only the reader can count
    saved(tmp_path / "a.pdb", n_atoms=5)
    with pytest.raises(ValueError, match="a.pdb cannot be read .*frame 0 has 5 atoms instead of 12"):
        joined(inspect_file(tmp_path / "a.pdb", topology))


def test_damaged_files_are_named(tmp_path, topology):
    path = tmp_path / "a.xtc"
    path.write_bytes(b"not a trajectory" * 20)
    with pytest.raises(ValueError, match="a.xtc: frame 0 at byte 0 is damaged: no XTC frame begins there; get the"):
        inspect_file(path, topology)


@pytest.mark.parametrize(
    ("suffix", "package", "name"),
    [
        ("h5", "tables", "HDF5"), ("lh5", "tables", "HDF5"), ("gsd", "gsd", "GSD"), ("mol2", "pandas", "MOL2"),
        ("hoomdxml", "networkx", "HOOMD-blue XML"),
    ],
)  # fmt: skip
def test_packages_that_readers_miss(tmp_path, topology, monkeypatch, suffix, package, name):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"@<TRIPOS>MOLECULE\n" + bytes(100))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = f"a.{suffix}: reading {name} trajectories needs the package {package}; pip install {package}"
    for work in (lambda: inspect_file(path, topology), lambda: load_topology(path)):
        with pytest.raises(ValueError, match=message):
            work()
    monkeypatch.undo()
    # with the package it is a damaged file, and without it mdtraj says so
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ValueError, match=rf"a.{suffix} cannot be read \("):
        inspect_file(path, topology)


def test_hdf5(tmp_path, topology):
    pytest.importorskip("tables")
    path = tmp_path / "a.h5"
    trajectory = saved(path)
    file = inspect_file(path, topology_of_file(path))
    assert (file.n_frames, file.timestep) == (N_FRAMES, 0.5)
    np.testing.assert_array_equal(joined(file)[0], trajectory.xyz)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"a.h5 cannot be read \([^\n]*\); it is damaged"):
        inspect_file(path, topology)


@pytest.fixture
def fresh_readers(monkeypatch):
    """No reader that waits, and none left behind."""
    reading._close_idle()
    yield
    reading._close_idle()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"the reader crashed \(signal SIGSEGV\)"),
        ("import sys; sys.stdin.readline(); print('{\"arr', end=''); sys.exit(3)", r"crashed \(exit status 3\)"),
        ("import sys; sys.stdin.readline(); raise SystemExit('all is lost')", r"\(exit status 1: all is lost\)"),
        ('import sys; sys.stdin.readline(); print(\'{"arrays": [["xyz", "float32", [9]]]}\')', "exit status 0"),
    ],
)
def test_readers_that_crash_take_nobody_with_them(tmp_path, topology, monkeypatch, fresh_readers, code, message):
    path = tmp_path / "a.xtc"
    saved(path)
    file = inspect_file(path, topology)
    monkeypatch.setattr(reading, "_CODE", code)
    with pytest.raises(ValueError, match=rf"a.xtc: .*{message}.*which took only its own process"):
        joined(file)
    monkeypatch.undo()
    assert len(joined(file)[0]) == N_FRAMES


@pytest.mark.parametrize("before", ["", 'print(\'{"arrays": [["xyz", "float32", [9]]]}\', flush=True); '])
def test_readers_that_hang_are_ended(tmp_path, topology, monkeypatch, fresh_readers, before):
    path = tmp_path / "a.xtc"
    saved(path)
    file = inspect_file(path, topology)
    monkeypatch.setattr(reading, "_CODE", f"import time; {before}time.sleep(60)")
    monkeypatch.setattr(reading, "_PATIENCE", 0.2)
    with pytest.raises(ValueError, match=r"a.xtc: nothing was read for 0.2 s, so the reader was ended"):
        joined(file)


def test_a_reader_that_ended_before_it_was_asked(tmp_path, topology, monkeypatch, fresh_readers):
    path = tmp_path / "a.xtc"
    saved(path)
    file = inspect_file(path, topology)
    monkeypatch.setattr(reading, "_CODE", "import os; os.close(0); os._exit(7)")
    start = reading._Reader.__init__

    def started_long_ago(self):
        start(self)
        self._process.wait()

    monkeypatch.setattr(reading._Reader, "__init__", started_long_ago)
    with pytest.raises(ValueError, match=r"a.xtc: the reader crashed \(exit status 7\)"):
        joined(file)


def outcome(path: Path, topology: mdtraj.Topology) -> str:
    """What becomes of a damaged file: "refused" with its name, or how many frames are read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return str(len(joined(inspect_file(path, topology), n_frames=7)[0]))
    except ValueError as error:
        return "refused" if str(path) in str(error) else f"a message without name: {error}"


def between_frames(trajectory: mdtraj.Trajectory, path: Path, data: bytes) -> set[int]:
    """Lengths of files that are those of shorter simulations."""
    if path.name.endswith(".pdb"):
        # also within the word MODEL, and after the last model
        return {n for n in range(len(data)) if data[:n].count(b"MODEL") == data[:n].count(b"ENDMDL") > 0}
    if path.name.endswith(".cif"):
        # comments between the models are no part of them
        frames = [data[:n].rstrip(b"#\n") + b"\n" for n in range(len(data))]
        return {n for n, text in enumerate(frames) if data[:n].startswith(text) and not text.count(b"HETATM") % 12}
    lengths = set()
    for k in range(1, len(trajectory)):
        written(trajectory[:k], path)
        lengths.add(path.stat().st_size)
    return lengths


def damaged(path: Path, topology: mdtraj.Topology, n: int, suffix: str) -> tuple[set[str], set[str]]:
    """Outcomes of one-bit flips, and of cuts that are not between two frames."""
    trajectory = saved(path, 1 if suffix in ONE_FRAME else 9)
    data = path.read_bytes()
    rng = np.random.default_rng(n)
    flips, cuts = set(), set()
    bad = path.with_name(f"bad.{suffix}")
    for place in rng.integers(8 * len(data), size=n):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << (place % 8)
        bad.write_bytes(flipped)
        flips.add(outcome(bad, topology))
    places = sorted(set(range(1, len(data))) - between_frames(trajectory, path.with_name(f"part.{suffix}"), data))
    for length in rng.choice(places, size=n):
        bad.write_bytes(data[:length])
        cuts.add(outcome(bad, topology))
    return flips, cuts


@pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4'")
@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd", "nc", "mdcrd", "arc", "cif"])
def test_damage_is_refused_or_costs_no_frame(tmp_path, topology, suffix):
    flips, cuts = damaged(tmp_path / f"a.{suffix}", topology, 25, suffix)
    assert flips <= {"refused", "9"}
    assert cuts == {"refused"}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4'")
@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix not in ("dtr", "stk")])
def test_much_damage_is_refused_or_costs_no_frame(tmp_path, topology, suffix):
    flips, cuts = damaged(tmp_path / f"a.{suffix}", topology, 200, suffix)
    assert flips <= {"refused", "9"}
    assert cuts == {"refused"}


@pytest.mark.parametrize("suffix", ["rst7", "ncrst", "mol2", "xml", "hoomdxml"])
def test_damage_to_one_frame(tmp_path, topology, suffix):
    flips, cuts = damaged(tmp_path / f"a.{suffix}", topology, 60, suffix)
    assert flips <= {"refused", "1"}
    # a restart without the line of its cell is one without a cell, bonds are not our business
    assert cuts <= {"refused", "1"} and "refused" in cuts


@pytest.mark.parametrize("name", ["timekeys", "frame000000000"])
def test_damage_to_folders_of_desmond(tmp_path, topology, name):
    path = tmp_path / "a.dtr"
    saved(path, 9)
    data = (path / name).read_bytes()
    rng = np.random.default_rng(0)
    flips, cuts = set(), set()
    for place in rng.integers(8 * len(data), size=40):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << (place % 8)
        (path / name).write_bytes(flipped)
        flips.add(outcome(path, topology))
    for length in rng.choice(len(data), size=40):
        (path / name).write_bytes(data[:length])
        cuts.add(outcome(path, topology))
    assert flips <= {"refused", "9"}
    assert cuts == {"refused"}


# ---- names -----------------------------------------------------------------------------------------------------------


def test_patterns_are_sorted_as_people_count(tmp_path):
    for i in (10, 9, 1, 2):
        (tmp_path / f"run{i}.xtc").write_bytes(b"x")
    found = trajectory_paths(str(tmp_path / "run*.xtc"))
    assert [path.name for path in found] == ["run1.xtc", "run2.xtc", "run9.xtc", "run10.xtc"]
    # lists keep their order
    some = trajectory_paths([tmp_path / "run9.xtc", str(tmp_path / "run[12].xtc")])
    assert [path.name for path in some] == ["run9.xtc", "run1.xtc", "run2.xtc"]
    assert trajectory_paths(tmp_path / "run2.xtc") == [tmp_path / "run2.xtc"]


def test_a_name_may_hold_what_looks_like_a_pattern(tmp_path):
    (tmp_path / "run[1].xtc").write_bytes(b"x")
    assert trajectory_paths(tmp_path / "run[1].xtc") == [tmp_path / "run[1].xtc"]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], ValueError, "files must name at least one trajectory"),
        ("*.dcd", ValueError, r"no file matches '.*\*.dcd'; the folder .* holds a.xtc, b.xtc, empty.xtc"),
        ("c.xtc", FileNotFoundError, "there is no file .*c.xtc; its folder holds a.xtc, b.xtc, empty.xtc"),
        ("none/c.xtc", FileNotFoundError, "its folder does not exist"),
        ("sub/c.xtc", FileNotFoundError, "its folder holds no trajectories"),
        (".", ValueError, r"is not a file; name the trajectories in it, as .*/\*.xtc"),
        ("notes.txt", ValueError, r"notes.txt cannot be read as a trajectory: known endings are .xtc, .*convert it"),
        ("empty.xtc", ValueError, "empty.xtc is empty; leave it out"),
        (["a.xtc", "sub/../a.xtc"], ValueError, "named once, got .*a.xtc twice"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, names, error, message):
    (tmp_path / "sub").mkdir()
    for name in ("a.xtc", "b.xtc", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.xtc").touch()
    paths = [str(tmp_path / name) for name in ([names] if isinstance(names, str) else names)]
    with pytest.raises(error, match=message):
        trajectory_paths(paths)


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("none.pdb", None, FileNotFoundError, "there is no topology file .*none.pdb"),
        ("a.xtc", "x", ValueError, r"no topology can be read from .*a.xtc \(.*give a PDB file"),
        ("a.pdb", "REMARK nothing\n", ValueError, "(has no atoms|no topology can be read from).*give a PDB file"),
        ("a.pdb", "ATOM  nonsense\n", ValueError, "no topology can be read from .*a.pdb"),
        ("a.prmtop", "%VERSION\n", ValueError, "(has no atoms|no topology can be read from)"),
    ],
)
def test_files_without_topology(tmp_path, name, text, error, message):
    path = tmp_path / name
    path.write_text(text or "")
    path.unlink() if text is None else None
    with pytest.raises(error, match=message):
        load_topology(path)


def test_formats_that_are_read_are_those_that_are_named():
    assert {f".{suffix}" for suffix in FORMATS} <= set(SUFFIXES)


# ---- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.2, 1.0, 0.004, 12.5, 1 / 3, 100.0])
def test_timesteps_have_no_more_digits_than_the_file(tmp_path, topology, step):
    path = tmp_path / "a.xtc"
    saved(path, 2000, time=1000.0 + step * np.arange(2000))
    found = inspect_file(path, topology).timestep
    # 3000 ps to seven digits over 2000 frames
    assert found == pytest.approx(step, rel=1e-5) and len(str(found)) <= 10
    assert inspect_file(path, topology, need_times=False).timestep is None
    saved(path, 1)
    assert inspect_file(path, topology).timestep is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.__setitem__(slice(9, None), t[9:] + 7), "got 14 ps and then 21.5 ps at frame 9, where 0.5 ps is"),
        (lambda t: t.__setitem__(slice(9, None), t[9:] - 3), "and then 11.5 ps at frame 9"),
        (lambda t: t.__setitem__(slice(None), 3.0), "equal times, got 3 ps and then 3 ps"),
        (lambda t: t.__setitem__(slice(None), t[::-1].copy()), "equal times"),
        (lambda t: t.__setitem__(4, np.nan), "the time of frame 4 is not finite"),
    ],
)
def test_uneven_times_are_refused(tmp_path, topology, change, message):
    time = 10 + 0.5 * np.arange(N_FRAMES)
    change(time)
    path = tmp_path / "a.trr"
    saved(path, time=time)
    with pytest.raises(ValueError, match=rf"a.trr: .*{message}.*timestep="):
        inspect_file(path, topology)
    assert inspect_file(path, topology, need_times=False).n_frames == N_FRAMES


@pytest.mark.parametrize(
    ("lag", "timestep", "frames"),
    [
        ("10 ps", 0.2, 50), ("10ps", 0.2, 50), ("0.5 ns", 0.2, 2500), ("100 fs", 0.1, 1), ("1 us", 100.0, 10_000),
        ("1 µs", 100.0, 10_000), ("1 μs", 100.0, 10_000), ("1e-3 ms", 1000.0, 1000), ("1 frame", None, 1),
        ("20 frames", None, 20), ("20", None, 20), (20, 0.2, 20), (np.int64(3), None, 3), ("0.6 ps", 0.2000001, 3),
    ],
)  # fmt: skip
def test_lags(lag, timestep, frames):
    found = parse_lag(lag, timestep)
    assert found == frames and type(found) is int


@pytest.mark.parametrize(
    ("lag", "timestep", "message"),
    [
        ("5.1 ps", 0.2, r"which are 0.2 ps apart; take 5 ps \(25 frames\) or 5.2 ps \(26 frames\)"),
        ("0.01 ps", 0.2, r"take 0.2 ps \(1 frames\)$"),
        ("0 ps", 0.2, r"take 0.2 ps \(1 frames\)$"),
        ("10 ps", None, "needs the time between frames.*give timestep= in ps"),
        ("ten ps", 0.2, "such as '10 ps', '0.5 ns' or '20 frames', got 'ten ps'"),
        ("10 parsec", 0.2, "got '10 parsec'"),
        ("1.2.3 ps", 0.2, "got '1.2.3 ps'"),
        ("-5 ps", 0.2, "got '-5 ps'"),
        ("", 0.2, "got ''"),
        ("0 frames", 0.2, "positive whole number of frames, got '0 frames'"),
        ("1.5 frames", 0.2, "positive whole number of frames, got '1.5 frames'"),
        (0, 0.2, "positive whole number of frames, got 0"),
        (-3, 0.2, "positive whole number of frames, got -3"),
        (True, 0.2, "got True"),
        (2.5, 0.2, "got 2.5"),
        (None, 0.2, "got None"),
    ],
)
def test_lags_that_are_none(lag, timestep, message):
    with pytest.raises(ValueError, match=message):
        parse_lag(lag, timestep)


@given(st.integers(1, 10**6), st.sampled_from([0.002, 0.1, 0.2, 1.0, 2.5, 1 / 3]))
def test_every_whole_number_of_frames_is_a_lag(frames, timestep):
    assert parse_lag(f"{frames * timestep} ps", timestep) == frames
    assert parse_lag(f"{frames * timestep / 1000} ns", timestep) == frames


@pytest.mark.skipif(
    not (Path(__file__).parents[2].parent / "shared" / "data" / "md").is_dir(),
    reason="needs alanine dipeptide, ../shared/data/md",
)
@pytest.mark.parametrize(("folder", "n", "step"), [("600K", 6, 0.2), ("300K", 2, 1.0), ("msmb_ala2", 10, 1.0)])
def test_real_files(folder, n, step):
    place = Path(__file__).parents[2].parent / "shared" / "data" / "md" / folder
    topology = load_topology(place / "ala2-heavy.pdb")
    paths = trajectory_paths(place / "*.xtc")
    files = [inspect_file(path, topology) for path in paths]
    assert len(files) == n and {file.timestep for file in files} == {step}
    expected = mdtraj.load(str(paths[-1]), top=topology)
    assert files[-1].n_frames == len(expected)
    pieces = itertools.islice(read_frames(files[-1], 0, files[-1].n_frames, n_frames=3000), 2)
    np.testing.assert_array_equal(np.concatenate([piece.xyz for piece in pieces]), expected.xyz[:6000])
