"""Frame counts: against files of known length that were cut anywhere, and headers that lie."""

import struct
import warnings
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from molml.kinetics.framecounts import DamagedError, contents

FORMATS = (
    "xtc", "trr", "dcd", "nc", "pdb", "pdb.gz", "gro", "xyz", "xyz.gz", "lammpstrj", "dtr", "cif", "cif.gz", "pdbx",
)  # fmt: skip
N_FRAMES = 3


def saved(path: Path, n_atoms: int = 12, n_frames: int = N_FRAMES, seed: int = 0) -> mdtraj.Trajectory:
    """A trajectory of carbon atoms in a box, written; times 10, 10.5, 11, ... ps."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for i in range(n_atoms):
        topology.add_atom(f"C{i}", mdtraj.element.carbon, topology.add_residue("LIG", chain, resSeq=i + 1))
    xyz = np.random.default_rng(seed).normal(size=(n_frames, n_atoms, 3)).astype(np.float32)
    trajectory = mdtraj.Trajectory(
        xyz,
        topology,
        time=10 + 0.5 * np.arange(n_frames),
        unitcell_lengths=np.full((n_frames, 3), 3.0),
        unitcell_angles=np.full((n_frames, 3), 90.0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mdtraj recommends a package for NetCDF
        trajectory.save(str(path))
    return trajectory


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("n_atoms", [1, 3, 9, 10, 40])
def test_whole_files(tmp_path, suffix, n_atoms):
    path = tmp_path / f"whole.{suffix}"
    saved(path, n_atoms)
    found = contents(path, 12)
    assert found.n_frames == N_FRAMES and found.n_atoms in (n_atoms, None) and found.problem is None


@pytest.mark.parametrize("suffix", ["mdcrd", "crd"])
@pytest.mark.parametrize("n_atoms", [2, 3, 10, 40])
@pytest.mark.parametrize("cell", [True, False])
def test_whole_files_that_do_not_tell_their_atoms(tmp_path, suffix, n_atoms, cell):
    path = tmp_path / f"whole.{suffix}"
    trajectory = saved(path, n_atoms)
    trajectory.unitcell_vectors = trajectory.unitcell_vectors if cell else None
    trajectory.save(str(path))
    assert contents(path, n_atoms) == (N_FRAMES, n_atoms, None, None)
    # blank lines at the end do no harm
    path.write_bytes(path.read_bytes() + b"\n \n")
    assert contents(path, n_atoms) == (N_FRAMES, n_atoms, None, None)
    # control: other atoms do not fit
    with pytest.raises(DamagedError, match=r"line \d+ should hold .*atoms of the topology|the cell of frame"):
        contents(path, n_atoms + 1)


@pytest.mark.parametrize("suffix", ["xtc", "trr", "nc", "dtr"])
def test_times_are_those_of_the_file(tmp_path, suffix):
    path = tmp_path / f"timed.{suffix}"
    saved(path)
    np.testing.assert_allclose(contents(path, 12).times, 10 + 0.5 * np.arange(N_FRAMES), rtol=1e-7)
    untimed = tmp_path / "untimed.dcd"
    saved(untimed)
    assert contents(untimed, 12).times is None


@pytest.mark.parametrize("suffix", ["xtc", "trr", "nc"])
def test_files_longer_than_what_is_looked_at_at_once(tmp_path, suffix):
    for n_atoms, n_frames in ((3, 5000), (4, 2621), (30_000, 3)):
        path = tmp_path / f"long{n_atoms}.{suffix}"
        saved(path, n_atoms, n_frames)
        found = contents(path, 12)
        assert (found.n_frames, found.n_atoms, found.problem) == (n_frames, n_atoms, None)
        np.testing.assert_allclose(found.times, 10 + 0.5 * np.arange(n_frames), rtol=1e-6)


# compressed XTC needs ten
ATOMS = {"xtc": 10, "trr": 1}


def prefixes(tmp_path: Path, suffix: str) -> dict[int, int]:
    """Length of the file of the first k frames -> k."""
    lengths = {}
    for k in range(N_FRAMES + 1):
        path = tmp_path / f"first{k}.{suffix}"
        saved(path, ATOMS[suffix])[: max(k, 1)].save(str(path))
        lengths[path.stat().st_size * (k > 0)] = k
    return lengths


def growing(path: Path, data: bytes):
    """Write the data byte by byte; yields how much is there, but not all of it."""
    with open(path, "wb") as file:
        for length in range(1, len(data)):
            file.write(data[length - 1 : length])
            file.flush()
            yield length


@pytest.mark.parametrize("suffix", ["xtc", "trr"])
def test_every_place_to_cut_is_noticed_but_between_frames(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    saved(whole, ATOMS[suffix])
    data, between = whole.read_bytes(), prefixes(tmp_path, suffix)
    cut = tmp_path / f"cut.{suffix}"
    for length in growing(cut, data):
        found = contents(cut, 12)
        assert found.n_frames == max(k for n, k in between.items() if n <= length)
        assert (found.problem is None) == (length in between)
        assert len(found.times) == found.n_frames
    # a file that ends with a whole frame looks like a shorter simulation: nothing in it says otherwise
    assert set(between) >= {0, len(data)} and len(between) == N_FRAMES + 1


@pytest.mark.parametrize(("suffix", "saved_frames"), [("dcd", set(range(N_FRAMES))), ("nc", set())])
def test_every_place_to_cut_is_noticed_where_the_header_counts(tmp_path, suffix, saved_frames):
    whole = tmp_path / f"whole.{suffix}"
    saved(whole, n_atoms=1)
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    outcomes = [_outcome(cut) for _ in growing(cut, data)]
    assert None not in outcomes
    counts = [n for n in outcomes if isinstance(n, int)]
    # nothing can be saved of NetCDF files that were cut off
    assert counts == sorted(counts) and set(counts) == saved_frames


def _outcome(path: Path) -> int | str | None:
    """Frames of a file with a problem, the word "damaged", or None if nothing was noticed."""
    try:
        found = contents(path, 12)
    except DamagedError:
        return "damaged"
    return found.n_frames if found.problem else None


@pytest.mark.parametrize("suffix", ["gro", "xyz", "lammpstrj"])
def test_every_place_to_cut_text_is_noticed_but_between_frames(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    saved(whole, n_atoms=1)
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    unnoticed = []
    for length in growing(cut, data):
        unnoticed += [length] * (_outcome(cut) is None)
    lines = data.splitlines(keepends=True)
    per_frame = len(lines) // N_FRAMES
    assert unnoticed == [len(b"".join(lines[: k * per_frame])) for k in range(1, N_FRAMES)]


@pytest.mark.parametrize("cell", [True, False])
def test_every_place_to_cut_an_amber_file_is_noticed_but_between_frames(tmp_path, cell):
    whole, cut = tmp_path / "whole.mdcrd", tmp_path / "cut.mdcrd"
    trajectory = saved(whole, n_atoms=4)
    trajectory.unitcell_vectors = trajectory.unitcell_vectors if cell else None
    trajectory.save(str(whole))
    data = whole.read_bytes()
    lines = data.splitlines(keepends=True)
    counted = {length: contents(cut, 4) for length in growing(cut, data)}
    unnoticed = [length for length, found in counted.items() if found.problem is None and found.n_frames]
    between = [len(b"".join(lines[: 1 + (2 + cell) * k])) for k in range(N_FRAMES)]
    # in a frame alone nothing tells that there is a cell
    assert unnoticed == [len(b"".join(lines[:3]))] * cell + between[1:]
    assert [counted[length].n_frames for length in (between[1] + 3, between[2] - 1, between[2] + 9)] == [1, 1, 2]


def test_every_place_to_cut_an_mmcif_file_is_noticed_but_between_models(tmp_path):
    whole, cut = tmp_path / "whole.cif", tmp_path / "cut.cif"
    saved(whole, n_atoms=2)
    data = whole.read_bytes()
    start = data.index(b"HETATM")
    for length in (n for n in growing(cut, data) if n > start):
        last = data[:length].rpartition(b"\n")[2].strip(b"#")
        rows = data[:length].count(b"HETATM") - last.startswith(b"HETATM")
        # of a model alone nothing tells how many atoms it has: the topology does
        expected = None if not last and rows in (1, 2, 4, 6) else rows // 2 * (rows > 2)
        assert _outcome(cut) == expected


def test_every_place_to_cut_a_tinker_file_is_noticed_but_between_frames(tmp_path):
    cut = tmp_path / "cut.arc"
    for cell in (b"", b"  30.0  30.0  30.0  90.0  90.0  90.0\n"):
        frame = b"  2 title\n" + cell + b"  1  C  0.1 0.2 0.3  1  2\n  2  C  0.4 0.5 0.6  1  1\n"
        data = 3 * frame
        unnoticed = [length for length in growing(cut, data) if _outcome(cut) is None]
        assert unnoticed == [len(frame), 2 * len(frame)]
        cut.write_bytes(data)
        assert contents(cut, 2) == (3, 2, None, None)


def test_every_place_to_cut_a_restart_is_noticed(tmp_path):
    trajectory = saved(tmp_path / "a.xtc", 5, 1)
    for suffix, kind in (("rst7", mdtraj.formats.AmberRestartFile), ("ncrst", mdtraj.formats.AmberNetCDFRestartFile)):
        whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
        with kind(str(whole), "w") as file:
            file.write(trajectory.xyz, 7.0, trajectory.unitcell_lengths, trajectory.unitcell_angles)
        assert contents(whole, 5) == (1, 5, None, None)
        data = whole.read_bytes()
        lines = data.splitlines(keepends=True)
        unnoticed = [length for length in growing(cut, data) if _outcome(cut) is None]
        # without the line of the cell it is a restart without a cell
        assert unnoticed == {"rst7": [len(b"".join(lines[:-1]))], "ncrst": []}[suffix]


def test_folders_of_desmond_that_are_not_whole(tmp_path):
    path = tmp_path / "a.dtr"
    saved(path)
    keys, frames = (path / "timekeys").read_bytes(), (path / "frame000000000").read_bytes()
    for name, data, message in (
        ("timekeys", keys[:-24], "its file timekeys ends after 2 frames, and there are more"),
        ("timekeys", keys[:-1], "its file timekeys ends after 2 frames, and there are more"),
        ("frame000000000", frames[:-1], "its file timekeys announces 3 frames, but frame 2 is not whole"),
        ("frame000000000", b"", "its file timekeys announces 3 frames, but frame 0 is not whole"),
        ("frame000000000", frames + b"x", "its file timekeys ends after 3 frames, and there are more"),
    ):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(data)
        assert contents(path, 12).problem == message
        (path / name).write_bytes(whole)
    for data, message in (
        (b"DES", "within its header"),
        (b"XXXX" + keys[4:], "timekeys does not begin like one"),
        (keys[:12] + keys[36:60] + keys[12:36], "times in its file timekeys do not increase"),
    ):
        (path / "timekeys").write_bytes(data)
        with pytest.raises(DamagedError, match=message):
            contents(path, 12)
    (path / "timekeys").unlink()
    with pytest.raises(DamagedError, match="its folder holds no file timekeys"):
        contents(path, 12)


def test_lists_of_folders_of_desmond(tmp_path):
    first, second = tmp_path / "a.dtr", tmp_path / "b.dtr"
    saved(first)
    trajectory = saved(second)
    trajectory.time = 11 + 0.5 * np.arange(N_FRAMES)
    trajectory.save(str(second))
    listed = tmp_path / "both.stk"
    listed.write_text(f"{first}\n{second}\n")
    # 10, 10.5 and 11, 11.5, 12: the third frame of the first is there twice
    np.testing.assert_array_equal(contents(listed, 12).times, [10, 10.5, 11, 11.5, 12])
    (second / "timekeys").write_bytes((second / "timekeys").read_bytes()[:-1])
    empty = tmp_path / "empty.dtr"
    saved(empty)
    (empty / "timekeys").write_bytes((empty / "timekeys").read_bytes()[:12])
    (empty / "frame000000000").unlink()
    for names, message in (
        ([first, first], "line 2 names '.*a.dtr', which begins before all those above it"),
        ([first, ""], "line 2 names '', which is not there"),
        ([first, tmp_path / "c.dtr"], "line 2 names '.*c.dtr', which is not there"),
        ([first, second], "line 2 names '.*b.dtr': its file timekeys ends after 2 frames"),
        ([empty], "line 1 names '.*empty.dtr': it holds no frame"),
    ):
        listed.write_text("".join(f"{name}\n" for name in names))
        with pytest.raises(DamagedError, match=message):
            contents(listed, 12)


def test_every_place_to_cut_a_pdb_file_is_noticed_but_between_models(tmp_path):
    whole = tmp_path / "whole.pdb"
    saved(whole, n_atoms=1)
    data = whole.read_bytes()
    cut = tmp_path / "cut.pdb"
    start = data.index(b"MODEL") + 5
    for length in (n for n in growing(cut, data) if n >= start):
        begun, ended = data[:length].count(b"MODEL"), data[:length].count(b"ENDMDL")
        found = contents(cut, 12)
        assert found.n_frames == ended and (found.problem is None) == (begun == ended)


def test_headers_that_announce_other_numbers_of_frames(tmp_path):
    path = tmp_path / "a.dcd"
    saved(path)
    data = bytearray(path.read_bytes())
    for announced, problem in (
        (0, None),  # a program that was stopped
        (2, "its header announces 2 frames, its size is that of 3"),
        (N_FRAMES + 1, "its header announces 4 frames, its size is that of 3"),
    ):
        data[8:12] = struct.pack("<i", announced)
        path.write_bytes(data)
        assert contents(path, 12)[:2] == (N_FRAMES, 12) and contents(path, 12).problem == problem
    path = tmp_path / "a.nc"
    saved(path)
    data = bytearray(path.read_bytes())
    for announced in (2, 9):
        data[4:8] = struct.pack(">I", announced)
        path.write_bytes(data)
        with pytest.raises(DamagedError, match=f"its header announces {announced} frames, its size is that of 3"):
            contents(path, 12)
    data[4:8] = struct.pack(">I", 2**32 - 1)
    path.write_bytes(data)
    # written as a stream
    assert contents(path, 12)[:2] == (N_FRAMES, 12)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize(("cell", "fourth", "n_fixed"), [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 0, 2), (1, 0, 3)])
def test_dialects_of_dcd(tmp_path, order, width, cell, fourth, n_fixed):
    """As CHARMM, NAMD and others write it: either byte order, long records, cells, a fourth dimension, fixed atoms."""
    n_atoms, n_frames = 5, 4

    def record(data):
        marker = struct.pack(order + {4: "i", 8: "q"}[width], len(data))
        return marker + data + marker

    control = [n_frames, 1, 1, n_frames, 0, 0, 0, 0, n_fixed, 0, cell, fourth, *[0] * 7, 24]
    data = record(b"CORD" + struct.pack(order + "20i", *control))
    data += record(struct.pack(order + "i", 1) + b" " * 80) + record(struct.pack(order + "i", n_atoms))
    data += record(bytes(4 * (n_atoms - n_fixed))) if n_fixed else b""
    for frame in range(n_frames):
        moving = n_atoms - n_fixed if frame else n_atoms
        data += record(bytes(48)) if cell else b""
        data += record(bytes(4 * moving)) * (3 + fourth)
    path = tmp_path / "dialect.dcd"
    path.write_bytes(data)
    assert contents(path, 12) == (n_frames, n_atoms, None, None)
    path.write_bytes(data[:-1])
    assert contents(path, 12).n_frames == n_frames - 1


# twelve atoms, without the cell
AMBER = b"title\n" + 3 * (10 * b"   1.000" + b"\n") + 6 * b"   1.000" + b"\n"
CELL = b"  30.000  30.000  30.000\n"
COLUMNS = ("type_symbol", "label_alt_id", "Cartn_x", "Cartn_y", "Cartn_z", "pdbx_PDB_model_num")
CIF = b"data_x\nloop_\n" + b"".join(b"_atom_site.%s\n" % name.encode() for name in COLUMNS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.xtc", b"not a trajectory" * 10, "frame 0 at byte 0 is damaged: no XTC frame"),
        ("a.xtc", struct.pack(">3i", 1995, 0, 1) + bytes(90), "another number of atoms begins there"),
        ("a.xtc", struct.pack(">3i40xi32xi", 1995, 20, 1, 20, -5) + bytes(9), "no XTC frame"),
        ("a.trr", b"not a trajectory" * 10, "frame 0 at byte 0 is damaged: no TRR frame"),
        ("a.trr", struct.pack(">3i12x13i", 1993, 13, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) + bytes(9), "atoms"),
        ("a.trr", struct.pack(">3i12x13i", 1993, 13, 12, -4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0) + bytes(9), "no TRR"),
        ("a.trr", struct.pack(">3i12x13i", 1993, 13, 12, 0, 0, 0, 0, 0, 0, 0, 0, 36, 0, 3, 0, 0) + bytes(99), "no TRR"),
        ("a.dcd", b"not a trajectory", "does not begin like a DCD file of positions"),
        ("a.dcd", b"", "does not begin like a DCD file of positions"),
        ("a.dcd", struct.pack("<i", 84) + b"VELD" + bytes(84), "like a DCD file of positions"),
        ("a.dcd", struct.pack("<i", 84) + b"CORD" + bytes(80), "its header ends early"),
        ("a.dcd", struct.pack("<i", 84) + b"CORD" + bytes(80) + struct.pack("<ih", 84, 1), "within its header"),
        ("a.dcd", struct.pack("<i", 84) + b"CORD" + bytes(80) + struct.pack("<ii", 84, 99999), "a length of 99999"),
        ("a.dcd", struct.pack("<i", 84) + b"CORD" + bytes(80) + struct.pack("<i", 85), "does not end where it should"),
        ("a.nc", b"not a trajectory", "does not begin like a NetCDF file"),
        ("a.nc", b"CDF\x01" + bytes(4), "within its header"),
        ("a.nc", b"CDF\x01" + bytes(4 + 24), "no frames in AMBER's conventions"),
        ("a.nc", b"CDF\x01" + bytes(4) + struct.pack(">II", 10, 99999), "its header is damaged"),
        ("a.nc", b"CDF\x01" + bytes(4) + struct.pack(">III", 10, 1, 999), "its header is damaged"),
        ("a.pdb.gz", b"not compressed", "damaged"),
        ("a.pdb", b"MODEL        1\nMODEL        2\n", "line 2 begins a model within another"),
        ("a.pdb", b"ENDMDL\n", "line 1 ends a model that did not begin"),
        ("a.pdb", b"ATOM      1  C   LIG A   1       1.000   1.00\n", "line 1 ends before the position"),
        ("a.xyz", b"three\n\nC 0 0 0\n", "line 1 should be a number of atoms, got b'three"),
        ("a.xyz", b"1\n\nC 0 0 0\n2\n\nC 0 0 0\nC 0 0 0\n", "line 4 claims 2 atoms in frame 1; the first has 1"),
        ("a.gro", b"title\n-1\n", "line 2 claims -1 atoms"),
        ("a.mdcrd", b"title\n" + b"   1.000" * 9 + b"\n", "line 2 should hold 10 numbers of frame 0, got 9; it is"),
        ("a.mdcrd", AMBER + CELL + AMBER[6:] + b"   1.000   2.000\n", "line 11 should hold the cell of frame 1, got b"),
        ("a.mdcrd", AMBER + b"\n" + AMBER[6:], "line 6 is blank, and others follow"),
        ("a.rst7", b"title\n", "does not begin like a restart of AMBER"),
        ("a.rst7", b"title\n   x  1.0\n", "does not begin like a restart of AMBER"),
        ("a.rst7", b"title\n   3\n" + 7 * b"line\n", "7 lines follow its number of atoms, which is that of no frame"),
        ("a.rst7", b"CDF", "within its header"),
        ("a.ncrst", b"CDF\x02" + bytes(4 + 24), "no frame in AMBER's conventions"),
        ("a.arc", b"title\n", "line 1 should begin with a number of atoms, got b'title"),
        ("a.arc", b"1 t\n1 C 0 0 0 1\n2 t\n", "line 3 claims 2 atoms in frame 1, the first 1"),
        ("a.arc", b"1 t\n1 C 0 0\n", "line 2 should hold an atom and its type"),
        ("a.cif", b"data_x\n", r"no table of atoms \(_atom_site\) with type_symbol"),
        ("a.cif", CIF.replace(b"_atom_site.Cartn_y\n", b""), "with cartn_y"),
        ("a.cif", CIF, "its table of atoms is empty"),
        ("a.cif", CIF + b"C . 0 0 0 1\nC . 0 0 0\n", "line 10 should hold 6 values of an atom, got 5"),
        ("a.cif", CIF + b"C . 0 0 0 1\n" + CIF, "line 12 begins a second table of atoms"),
        ("a.cif", CIF + b"C . 0 0 0 1\n_cell.length_a 3\n", "line 10 tells the cell after the atoms"),
        (
            "a.cif",
            CIF + b"C . 0 0 0 1\nC . 0 0 0 2\nC . 0 0 0 2\nC . 0 0 0 3\n",
            "frame 1 has 2 atoms, the first has 1",
        ),
        ("a.mol2", b"@<TRIPOS>MOLECULE\n" * 2, "must hold one structure, got 2: its reader would take the last"),
        ("a.stk", b"none\n", "line 1 names 'none', which is not there"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=message):
        contents(path, 12)


def test_netcdf_headers_that_cannot_be(tmp_path):
    path = tmp_path / "a.nc"
    saved(path)
    data = path.read_bytes()
    messages = set()
    for i in range(4, 900):
        changed = bytearray(data)
        changed[i] ^= 128
        path.write_bytes(changed)
        messages.add(_reason(path))
    assert {"its header is damaged", "its header claims frames of no length, or beyond its end"} <= messages


def _reason(path: Path) -> str:
    try:
        return contents(path, 12).problem or ""
    except DamagedError as error:
        return str(error)


def test_models_of_different_size_and_atoms_outside(tmp_path):
    atom = b"ATOM      1  C   LIG A   1       1.000   1.000   1.000  1.00  0.00           C\n"
    path = tmp_path / "a.pdb"
    path.write_bytes(b"MODEL 1\n" + atom + b"ENDMDL\nMODEL 2\n" + 2 * atom + b"ENDMDL\n")
    with pytest.raises(DamagedError, match="frame 1 has 2 atoms, the first has 1"):
        contents(path, 12)
    path.write_bytes(b"MODEL 1\n" + atom + b"ENDMDL\n" + atom)
    with pytest.raises(DamagedError, match="1 of its atoms belong to no model"):
        contents(path, 12)
    path.write_bytes(atom)
    assert contents(path, 12).n_frames == 1
    path.write_bytes(b"REMARK nothing\n")
    assert contents(path, 12).n_frames == 0


def test_damage_within_a_file_is_placed(tmp_path):
    for suffix in ("xtc", "trr"):
        path = tmp_path / f"a.{suffix}"
        saved(path, ATOMS[suffix])
        between = sorted(prefixes(tmp_path, suffix))
        data = bytearray(path.read_bytes())
        data[between[2]] ^= 1
        path.write_bytes(data)
        with pytest.raises(DamagedError, match=f"frame 2 at byte {between[2]} is damaged: no {suffix.upper()} frame"):
            contents(path, 12)
        data[between[2]] ^= 1
        data[between[2] + {"xtc": 7, "trr": 67}[suffix]] ^= 1
        path.write_bytes(data)
        with pytest.raises(DamagedError, match=f"frame 2 at byte {between[2]} is damaged: another number of atoms"):
            contents(path, 12)


def test_one_atom_in_a_format_that_cannot_hold_one(tmp_path):
    path = tmp_path / "a.mdcrd"
    saved(path, 1)
    with pytest.raises(DamagedError, match="frames of one atom cannot be told from cells in this format"):
        contents(path, 1)


def test_words_in_quotes_and_a_single_model_in_mmcif(tmp_path):
    path = tmp_path / "a.cif"
    path.write_bytes(CIF + b"C 'a b' 0 0 0 1\n\"O5'\" . 0 0 0 1\nC '5'' 0 0 0 1\n#\nloop_\n_other.x\n1\n")
    assert contents(path, 12) == (1, None, None, None)
    without = CIF.replace(b"_atom_site.pdbx_PDB_model_num\n", b"")
    path.write_bytes(without + b"C . 0 0 0\nC . 0 0 0\n")
    assert contents(path, 12) == (1, None, None, None)


def test_other_formats_are_left_to_their_readers(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF")
    assert contents(path, 12) is None
    newer = tmp_path / "a.nc"
    newer.write_bytes(b"\x89HDF\r\n\x1a\n")
    assert contents(newer, 12) is None
