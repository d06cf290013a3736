"""Files of every kind, well-formed and damaged."""

import bz2
import gzip
import lzma
import re
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from molml.energy.reading import read_structures

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "energy"

FRAME = """2
Lattice="4.0 0.0 0.0 0.0 4.0 0.0 0.0 0.0 4.0" Properties=species:S:1:pos:R:3:forces:R:3 energy=-3.5 pbc="T T T"
Cu 0.0 0.0 0.0 0.1 0.2 0.3
Cu 0.0 0.0 2.0 -0.1 -0.2 -0.3
"""


def crystals(n: int = 3) -> list[Atoms]:
    frames = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.info["group"] = f"g{seed}"
        frames.append(atoms)
    return frames


def refused(message):
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.fixture
def write(tmp_path):
    """Writes text or bytes into a file of that name."""

    def writer(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


def assert_same(read, written, *, digits):
    assert len(read) == len(written)
    for one, other in zip(read, written, strict=True):
        np.testing.assert_array_equal(one.numbers, other.numbers)
        np.testing.assert_array_equal(one.pbc, other.pbc)
        np.testing.assert_allclose(one.positions, other.positions, atol=10.0**-digits, rtol=0)
        np.testing.assert_allclose(one.cell, other.cell, atol=10.0**-digits, rtol=0)
        assert one.calc.results["energy"] == pytest.approx(other.calc.results["energy"], abs=1e-12)
        for name in ("forces", "stress"):
            np.testing.assert_allclose(one.calc.results[name], other.calc.results[name], atol=10.0**-digits, rtol=0)


# ---- every format ----------------------------------------------------------------------------------------------------


# extended XYZ prints eight decimals, the others keep every bit
@pytest.mark.parametrize(("name", "digits"), [("a.xyz", 7), ("a.extxyz", 7), ("a.traj", 15), ("a.db", 15)])
def test_formats_of_ase(tmp_path, name, digits):
    path = tmp_path / name
    ase.io.write(path, crystals(), **({"format": "extxyz"} if "xyz" in name else {}))
    read = read_structures(path)
    assert_same(read, crystals(), digits=digits)


@pytest.mark.parametrize(("suffix", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress)])
@pytest.mark.parametrize("name", ["a.xyz", "A.EXTXYZ"])
def test_compressed_files(write, suffix, pack, name):
    (atoms,) = read_structures(write(name + suffix, pack(FRAME.encode())))
    assert atoms.get_potential_energy() == -3.5
    np.testing.assert_array_equal(atoms.get_forces(), [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])


def test_info_survives(tmp_path):
    for name in ("a.xyz", "a.traj"):
        ase.io.write(tmp_path / name, crystals())
        assert [atoms.info["group"] for atoms in read_structures(tmp_path / name)] == ["g0", "g1", "g2"]


def test_index_chooses_frames(tmp_path):
    frames = crystals(4)
    for name in ("a.xyz", "a.traj", "a.db"):
        ase.io.write(tmp_path / name, frames)
        read = read_structures(tmp_path / name, index=slice(-1, None, -2))
        assert_same(read, [frames[3], frames[1]], digits=7)


def test_database_columns_and_data(tmp_path):
    with connect(tmp_path / "a.db") as database:
        database.write(molecule("H2O"), e_dft=-14.2, data={"f_dft": np.ones((3, 3))}, group="x")
    (atoms,) = read_structures(tmp_path / "a.db", energy_key="e_dft", forces_key="f_dft")
    assert atoms.get_potential_energy() == -14.2
    np.testing.assert_array_equal(atoms.get_forces(), np.ones((3, 3)))
    assert atoms.info == {"group": "x"}


def test_weights(write):
    one, other = read_structures(write("a.xyz", FRAME.replace("energy", "weight=0.25 energy") + FRAME))
    assert one.info["weight"] == 0.25
    assert "weight" not in other.info


def test_other_names_in_extended_xyz(write):
    text = FRAME.replace("energy=", "E_dft=").replace("forces:R:3", "F_dft:R:3")
    (atoms,) = read_structures(write("a.xyz", text), energy_key="E_dft", forces_key="F_dft")
    assert atoms.get_potential_energy() == -3.5
    assert atoms.get_forces()[1, 2] == -0.3


@pytest.mark.parametrize(
    "stress",
    [
        'stress="1 2 3 4 5 6"',
        "stress=[1, 2, 3, 4, 5, 6]",
        'stress="1 6 5 6 2 4 5 4 3"',
        'my_stress="1 2 3 4 5 6"',
        'my_stress="1 6 5 6 2 4 5 4 3"',
    ],
)
def test_notations_of_stress_in_extended_xyz(write, stress):
    path = write("a.xyz", FRAME.replace("energy", f"{stress} energy"))
    (atoms,) = read_structures(path, stress_key=stress.split("=")[0])
    np.testing.assert_array_equal(atoms.get_stress(), [1, 2, 3, 4, 5, 6])


def test_virial_in_extended_xyz(write):
    path = write("a.xyz", FRAME.replace("energy", 'virial="64 0 0 0 64 0 0 0 128" energy'))
    (atoms,) = read_structures(path, virial_key="virial")
    np.testing.assert_allclose(atoms.get_stress(), [-1, -1, -2, 0, 0, 0])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n\n  \n",
        lambda text: "\n" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("Cu ", "cu "),
    ],
)
def test_harmless_oddities(write, change):
    (atoms,) = read_structures(write("a.xyz", change(FRAME)))
    assert atoms.get_potential_energy() == -3.5


def test_blank_lines_between_frames_do_not_end_the_file(write):
    # ase.io.read stops at the first blank line and says nothing
    assert len(read_structures(write("a.xyz", FRAME + "\n" + FRAME))) == 2


def test_cell_vectors_as_pseudo_atoms(tmp_path):
    atoms = bulk("Cu", cubic=True)
    ase.io.write(tmp_path / "a.xyz", [atoms, atoms], format="extxyz", vec_cell=True)
    read = read_structures(tmp_path / "a.xyz", energy_key=None, forces_key=None)
    assert len(read) == 2
    np.testing.assert_allclose(read[1].cell, atoms.cell)


# ---- NumPy archives --------------------------------------------------------------------------------------------------

R = np.random.default_rng(0).normal(size=(5, 3, 3)) * 3
E = -14.0 - np.arange(5.0)
F = np.random.default_rng(1).normal(size=(5, 3, 3)).astype(np.float32)
Z = np.array([8, 1, 1], dtype=np.uint8)


@pytest.mark.parametrize(
    "names",
    [
        ("numbers", "coords", "energies", "forces"),
        ("nuclear_charges", "coords", "energies", "forces"),
        ("z", "R", "E", "F"),
        ("numbers", "positions", "energy", "forces"),
    ],
)
@pytest.mark.parametrize("energies", [E, E[:, None]])
def test_archives(tmp_path, names, energies):
    np.savez(tmp_path / "a.npz", **dict(zip(names, (Z, R, energies, F), strict=True)), name="water")
    read = read_structures(tmp_path / "a.npz")
    assert [atoms.get_potential_energy() for atoms in read] == E.tolist()
    np.testing.assert_array_equal([atoms.positions for atoms in read], R)
    np.testing.assert_array_equal([atoms.get_forces() for atoms in read], F.astype(np.float64))
    assert str(read[0].symbols) == "OH2"
    assert not read[0].pbc.any()


def test_archive_with_species_of_every_structure(tmp_path):
    np.savez(tmp_path / "a.npz", z=np.array([[8, 1, 1], [7, 1, 1], [6, 1, 1], [5, 1, 1], [4, 1, 1]]), R=R, E=E)
    assert [str(atoms.symbols) for atoms in read_structures(tmp_path / "a.npz", index=slice(1, 3))] == ["NH2", "CH2"]


def test_parts_of_an_archive(tmp_path):
    np.savez(tmp_path / "a.npz", numbers=Z, train_coords=R[:3], train_energies=E[:3], train_forces=F[:3],
             test_coords=R[3:], test_energies=E[3:], test_forces=F[3:], train_old_indices=np.arange(3))  # fmt: skip
    path = str(tmp_path / "a.npz")
    assert [atoms.get_potential_energy() for atoms in read_structures(path)] == E[:3].tolist()
    assert [atoms.get_potential_energy() for atoms in read_structures(path + ":train")] == E[:3].tolist()
    assert [atoms.get_potential_energy() for atoms in read_structures(path + ":test")] == E[3:].tolist()


def test_units_of_an_archive(tmp_path):
    np.savez(tmp_path / "a.npz", z=Z, R=R, E=E, F=F, e_unit="kcal/mol", r_unit="Ang")
    kcal = 0.0433641
    read = read_structures(tmp_path / "a.npz")
    assert read[1].get_potential_energy() == pytest.approx(-15.0 * kcal, rel=1e-6)
    np.testing.assert_allclose(read[0].get_forces(), F[0] * kcal, rtol=1e-6)
    # what the user says counts more than what the file says
    assert read_structures(tmp_path / "a.npz", energy_unit="eV")[1].get_potential_energy() == -15.0


def test_original_md17_is_not_taken_for_ev(tmp_path):
    # ethanol in kcal/mol, as distributed
    ethanol = molecule("CH3CH2OH")
    np.savez(tmp_path / "a.npz", z=ethanol.numbers, R=ethanol.positions[None], E=np.array([[-97208.4]]))
    with refused("energies of a.npz must be in eV, but they are 23.") as caught:
        read_structures(tmp_path / "a.npz")
    assert "say energy_unit='kcal/mol'" in str(caught.value)
    (atoms,) = read_structures(tmp_path / "a.npz", energy_unit="kcal/mol")
    assert atoms.get_potential_energy() == pytest.approx(-4215.35, abs=0.1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"R": R, "E": E}, "a.npz has no numbers under any of numbers, nuclear_charges, z,"),
        ({"z": Z, "E": E}, "a.npz has no positions under any of coords, R, positions,"),
        ({"z": Z, "R": R[0], "E": E}, "a.npz: positions must have shape (n_structures, n_atoms, 3), got (3, 3)"),
        ({"z": Z[:2], "R": R, "E": E}, "a.npz: numbers must be integers of shape (3,), got uint8 of shape (2,)"),
        ({"z": Z * 1.0, "R": R, "E": E}, "a.npz: numbers must be integers of shape (3,), got float64 of shape (3,)"),
        ({"z": Z, "R": R, "E": E[:2]}, "a.npz: energies must be 5 numbers, got shape (2,)"),
        ({"z": Z, "R": R, "F": F[:2]}, "a.npz: forces must have shape (5, 3, 3), got (2, 3, 3)"),
        ({"z": Z, "R": R}, "no structure of a.npz has an energy under 'energy' or forces under 'forces'"),
        ({"z": Z, "R": R, "E": E, "lattice": np.eye(3)}, "a.npz holds 'lattice', and archives do not say whether rows"),
        ({"z": Z, "R": R * np.nan, "E": E}, "a.npz, frame 0: positions must be finite"),
        ({"z": Z, "R": R[:0], "E": E[:0]}, "a.npz holds no structures"),
        (
            {"z": Z, "R": R, "E": E, "e_unit": "mRy"},
            "energy_unit must be one of eV, hartree, kcal/mol, kJ/mol, got 'mRy'",
        ),
    ],
)
def test_wrong_archives(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with refused(message):
        read_structures(tmp_path / "a.npz")


def test_part_that_is_not_there(tmp_path):
    np.savez(tmp_path / "a.npz", z=Z, R=R, E=E)
    with refused("a.npz:test asks for test_* arrays; there is 'E', 'R', 'z'"):
        read_structures(str(tmp_path / "a.npz") + ":test")


def test_pickled_objects_are_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", z=Z, R=R, E=np.array([{"a": 1}] * 5, dtype=object))
    with refused("a.npz: not a readable NumPy archive (ValueError: Object arrays cannot be loaded"):
        read_structures(tmp_path / "a.npz")


# ---- damaged and malicious files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2\nL", "3\nL", "a.xyz, frame 1 (line 5): announces 3 atoms, but only 2 lines of them follow; the file"),
        ("2\nL", "1\nL", "a.xyz, frame 2 (line 8): expected the number of atoms of the next structure, got 'Cu 0.0 0"),
        ("2\nL", "0\nL", "a.xyz, frame 1 (line 5): the number of atoms must be positive, got 0"),
        ("2\nL", "-1\nL", "a.xyz, frame 1 (line 5): the number of atoms must be positive, got -1"),
        ("2\nL", "two\nL", "a.xyz, frame 1 (line 5): expected the number of atoms of the next structure, got 'two'"),
        ("Cu 0.0 0.0 2.0", "Xx 0.0 0.0 2.0", "a.xyz, frame 1 (line 8): unknown element 'Xx'"),
        ("Cu 0.0 0.0 2.0", "X 0.0 0.0 2.0", "a.xyz, frame 1: atomic numbers must lie in 1…118, got 0 for atom 1"),
        ("0.0 0.0 2.0", "0.0 0.0 2.0D+00", "pos must be numbers, got '2.0D+00'; write exponents with E, not D"),
        ("0.0 0.0 2.0", "0.0 0.0 two", "a.xyz, frame 1 (line 8): pos must be numbers, got 'two'"),
        ("0.0 0.0 2.0 -0.1", "0.0 0.0", "a.xyz, frame 1 (line 8): expected 7 columns (species:S:1:pos:R:3:forces:R:3)"),
        ("0.0 0.0 2.0", "0.0 0.0 nan", "a.xyz, frame 1: positions must be finite, got [0.0, 0.0, nan] for atom 1"),
        ("0.0 0.0 2.0", "0.0 0.0 0.01", "a.xyz, frame 1: positions of atom 0 (Cu) and atom 1 (Cu) overlap"),
        ("-0.2 -0.3", "-inf -0.3", "a.xyz, frame 1: forces[1, 1] must be finite, got -inf"),
        ("forces:R:3", "forces:R:2", "a.xyz, frame 1: forces must have shape (2, 3), one row per atom, got (2, 2)"),
        ("forces:R:3", "forces:Q:3", "a.xyz, frame 1 (line 6): Properties must list name:type:columns with type R"),
        ('pbc="T T T"', 'pbc="T T"', "a.xyz, frame 1 (line 6): ASE cannot make a structure of this frame: Val"),
        ("forces:R:3", "tag:I:3", "a.xyz, frame 1 (line 7): tag must be integers, got '0.1'"),
        ("energy=-3.5", "energy=abc", "a.xyz, frame 1: energy must be one number, got 'abc'"),
        ("energy=-3.5", "energy=nan", "a.xyz, frame 1: energy must be finite, got nan"),
        ("energy=-3.5", "energy=1e999", "a.xyz, frame 1: energy must be finite, got inf"),
        ("energy=-3.5", "energy", "a.xyz, frame 1: energy must be one number, got True"),
        ('0.0 4.0"', '0.0 0.0"', "a.xyz, frame 1: cell vector c must not be zero where pbc=(True, True, True)"),
        ('0.0 0.0 4.0"', '0.0 4.0 0.0"', "a.xyz, frame 1: cell is singular"),
        (' 0.0 4.0"', ' 4.0"', "a.xyz, frame 1 (line 6): Lattice must be 9 numbers, got '4.0 0.0 0.0 0.0 4."),
        ('0.0 4.0"', '0.0 x"', "a.xyz, frame 1 (line 6): Lattice must be 9 numbers, got '4.0 0.0"),
        ("energy", 'stress="1 2" energy', "a.xyz, frame 1 (line 6): stress must be 9 numbers, got '1 2'"),
        ("energy", 'stress="1 2 3 4 5 6 7 8 9" energy', "stress must be symmetric, got [[1.0, 4.0, 7.0]"),
    ],
)  # fmt: skip
def test_wrong_frames(write, old, new, message):
    assert old in FRAME
    path = write("a.xyz", FRAME + FRAME.replace(old, new, 1))
    with refused(message):
        read_structures(path)


def test_absurd_number_of_atoms_costs_no_time(write):
    path = write("a.xyz", FRAME + FRAME.replace("2\n", "1000000000000\n", 1))
    start = time.process_time()
    with refused("a.xyz, frame 1 (line 5): announces 1000000000000 atoms, but only 2 lines of them follow"):
        read_structures(path)
    assert time.process_time() - start < 1.0


def test_text_that_is_not_utf8(write):
    with refused("a.xyz (line 2): byte 0xe9 is not UTF-8 text; save the file as UTF-8"):
        read_structures(write("a.xyz", FRAME.replace("energy", "group=recuit\u00e9 energy").encode("latin-1")))


@pytest.mark.parametrize(("suffix", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress)])
def test_damaged_compression(write, suffix, pack):
    packed = pack(FRAME.encode())
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0x10
    for content in (packed[:-9], bytes(flipped), b"not compressed"):
        with refused(f"a.xyz{suffix} cannot be unpacked, it is damaged or cut off: "):
            read_structures(write("a.xyz" + suffix, content))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.traj", "a.traj, frame 0: not a readable ASE trajectory ("),
        ("a.db", "a.db, frame 0: not a readable ASE database ("),
        ("a.npz", "a.npz: not a readable NumPy archive ("),
        ("a.xyz", "a.xyz, frame 0 (line 1): expected the number of atoms of the next structure, got 'garbage"),
    ],
)
def test_files_of_another_kind(write, name, message):
    with refused(message):
        read_structures(write(name, b"garbage, and more garbage of some length" * 40))


@pytest.mark.parametrize("name", ["a.cif", "a.xyz.zip", "a.traj.gz", "POSCAR"])
def test_unknown_endings(write, name):
    with refused(
        f"cannot read {name}: known endings are .xyz, .extxyz, .data (also with .xz, .gz, .bz2), .db, .traj and .npz"
    ):
        read_structures(write(name, FRAME))


@pytest.mark.parametrize("name", ["none.xyz", "none.xyz.gz", "none.db", "none.traj", "none.npz", "none.npz:test"])
def test_missing_files(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="none"):
        read_structures(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_empty_files_and_empty_choices(write, tmp_path):
    with refused("a.xyz holds no structures"):
        read_structures(write("a.xyz", "\n"))
    with refused("b.xyz holds no structures in slice(5, 9, None)"):
        read_structures(write("b.xyz", FRAME), index=slice(5, 9))


def test_keys_present_are_listed(write):
    path = write("a.xyz", FRAME.replace("energy", "E_dft").replace("forces", "F_dft").replace("pbc", "note=x pbc"))
    with refused(
        "no structure of a.xyz has an energy under 'energy' or forces under 'forces'; there is 'E_dft', 'F_dft', 'note'"
    ):
        read_structures(path)
    with refused("energy_key='E' occurs in no structure of a.xyz; there is 'E_dft', 'F_dft', 'note'"):
        read_structures(path, energy_key="E")


@pytest.mark.parametrize("name", ["a.xyz", "a.xyz.gz", "a.traj", "a.db", "a.npz"])
def test_random_damage_is_refused_with_the_name_of_the_file_or_harmless(tmp_path, name):
    frames = crystals()
    writers = {
        "a.xyz": lambda path: ase.io.write(path, frames, format="extxyz"),
        "a.xyz.gz": lambda path: ase.io.write(path, frames, format="extxyz"),
        "a.traj": lambda path: ase.io.write(path, frames),
        "a.db": lambda path: ase.io.write(path, frames),
        "a.npz": lambda path: np.savez(path, z=Z, R=R, E=E, F=F),
    }
    writers[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    refusals = []
    for trial in range(60):
        damaged = bytearray(content[: rng.integers(len(content))] if trial % 3 == 0 else content)
        position = rng.integers(len(damaged) + 1)
        damaged[position : position + 1] = rng.bytes(trial % 3)
        (tmp_path / name).write_bytes(damaged)
        try:
            read_structures(tmp_path / name)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 15
    assert all(name in message for message in refusals)


# ---- real data -------------------------------------------------------------------------------------------------------


def real(name, n_structures, n_atoms, energy, **first):
    mark = pytest.mark.skipif(not (SHARED / name).exists(), reason=f"{name} is not here")
    return pytest.param(name, n_structures, n_atoms, energy, first, marks=mark, id=name)


@pytest.mark.parametrize(
    ("name", "n_structures", "n_atoms", "energy", "first"),
    [
        real("mlearn/Si_train.xyz.xz", 214, 13233, -295.49753016, position=0.295084, force=-2.981873, stress=0.0041075),
        real("3bpa/train_300K.xyz.xz", 500, 13500, -17660.461737861464, position=0.32656990, force=0.17092934),
        real("acac/isolated_atoms.xyz.xz", 3, 3, -13.568422178253735, position=0.0),
        real("fitsnap/Ta.xyz.xz", 363, 4224, -754.0221, position=10.5987200, force=-0.231571),
        real("rmd17/rmd17_ethanol_01.npz", 1000, 9000, -4209.78494139, position=-0.17406277, force=-0.76525986),
    ],
)  # fmt: skip
def test_real_data(name, n_structures, n_atoms, energy, first):
    read = read_structures(SHARED / name)
    assert (len(read), sum(map(len, read))) == (n_structures, n_atoms)
    results = read[0].calc.results
    got = {
        "position": read[0].positions[0, 0],
        "force": results.get("forces", np.full((1, 3), np.nan))[0, 0],
        "stress": results.get("stress", [np.nan])[0],
    }
    assert results["energy"] == pytest.approx(energy, abs=1e-8)
    assert {key: got[key] for key in first} == pytest.approx(first, abs=1e-6)


def test_atoms_of_a_reader_are_as_ase_likes_them(tmp_path):
    ase.io.write(tmp_path / "a.xyz", crystals(1))
    (atoms,) = read_structures(tmp_path / "a.xyz")
    assert isinstance(atoms.calc, SinglePointCalculator)
    ase.io.write(tmp_path / "b.db", atoms)
    assert_same(read_structures(tmp_path / "b.db"), [atoms], digits=12)
