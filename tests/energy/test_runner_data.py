"""Structure files of RuNNer and n2p2."""

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree
from hypothesis import given, settings
from hypothesis import strategies as st

from molml.energy import StructureDataset, read_structures
from molml.energy.runner_data import read_runner_data, write_runner_data

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "energy" / "n2p2"
TWO = """begin set=train
comment  Cadmium sulphide, twice  as cheap
lattice 8.0 0.0 0.0
lattice 1.0 8.0 0.0
lattice 1.0 1.0 8.0

atom 0.1 0.2 0.3 Cd -0.5 0.0 -0.1 -0.3  0.1
atom 4.0 4.0 4.0 S   0.5 0.0  0.1  0.3 -0.1
energy -123.456
charge 0.0
end
begin
atom 0.0 0.0 0.0 H 0.0 0.0 1e-3 0.0 0.0
atom 1.4 0.0 0.0 H 0.0 0.0 -1e-3 0.0 0.0
energy -1.17
charge 1.0
end
"""


def file_of(folder: Path, text: str, name: str = "input.data") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_everything_is_read_and_converted_once(tmp_path: Path) -> None:
    crystal, hydrogen = read_runner_data(file_of(tmp_path, TWO))
    assert crystal.get_chemical_symbols() == ["Cd", "S"]
    assert crystal.pbc.all() and not hydrogen.pbc.any()
    np.testing.assert_allclose(crystal.cell.array, np.array([[8, 0, 0], [1, 8, 0], [1, 1, 8]]) * Bohr, rtol=1e-15)
    np.testing.assert_allclose(crystal.positions[0], np.array([0.1, 0.2, 0.3]) * Bohr, rtol=1e-15)
    assert crystal.get_potential_energy() == pytest.approx(-123.456 * Hartree, rel=1e-15)
    np.testing.assert_allclose(crystal.get_forces()[0], np.array([-0.1, -0.3, 0.1]) * Hartree / Bohr, rtol=1e-14)
    assert crystal.get_initial_charges().tolist() == [-0.5, 0.5]
    assert crystal.info == {"set": "train", "comment": "Cadmium sulphide, twice  as cheap", "charge": 0.0}
    assert hydrogen.info == {"charge": 1.0}
    assert not hydrogen.has("initial_charges")


def test_other_units(tmp_path: Path) -> None:
    path = file_of(tmp_path, TWO)
    crystal, _ = read_runner_data(path, energy_unit="eV", length_unit="Å")
    assert crystal.cell[0, 0] == 8.0
    assert crystal.get_potential_energy() == -123.456
    assert crystal.get_forces()[1].tolist() == [0.1, 0.3, -0.1]
    with pytest.raises(ValueError, match="energy_unit must be one of eV, hartree"):
        read_runner_data(path, energy_unit="Ha")


def test_some_structures(tmp_path: Path) -> None:
    path = file_of(tmp_path, TWO)
    (hydrogen,) = read_runner_data(path, index=slice(1, None))
    assert hydrogen.get_chemical_symbols() == ["H", "H"]
    with pytest.raises(ValueError, match=r"input.data holds no structures in slice\(5, None, None\)"):
        read_runner_data(path, index=slice(5, None))
    with pytest.raises(ValueError, match="empty.data holds no structures$"):
        read_runner_data(file_of(tmp_path, "\n\n", "empty.data"))


def test_the_general_reader_knows_the_format(tmp_path: Path) -> None:
    path = file_of(tmp_path, TWO)
    (tmp_path / "packed.data.xz").write_bytes(lzma.compress(TWO.encode()))
    (tmp_path / "other.name.gz").write_bytes(gzip.compress(TWO.encode()))
    expected = pytest.approx([-123.456 * Hartree, -1.17 * Hartree])
    for frames in (
        read_structures(path),
        read_structures(tmp_path / "packed.data.xz"),
        read_runner_data(tmp_path / "other.name.gz"),
    ):
        assert [atoms.get_potential_energy() for atoms in frames] == expected
    assert read_structures(path, energy_unit="eV", length_unit="Å")[0].get_potential_energy() == -123.456
    dataset = StructureDataset(path, cutoff=3.0)
    assert len(dataset) == 2 and dataset.sources == ["input.data:0", "input.data:1"]
    assert float(dataset[1].energy[0]) == pytest.approx(-1.17 * Hartree)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("begin set=train", "begin set=valid", r"frame 0 \(line 1\): after 'begin' may follow set=train or set=test"),
        ("begin set=train\n", "", r"input.data \(line 1\): expected 'begin', got 'comment  Cadmium"),
        ("end\nbegin", "begin", r"\(line 11\): 'begin' inside the structure begun in line 1"),
        ("charge 1.0\nend\n", "", r"\(line 12\): this structure has no 'end'; the file is cut off"),
        ("lattice 1.0 8.0 0.0\n", "", "frame 0: expected 3 lattice vectors or none, got 2"),
        (
            "lattice 8.0 0.0 0.0",
            "lattice 8.0 0.0",
            r"\(line 3\): expected a lattice vector of 3 numbers, got '8.0 0.0'",
        ),
        ("lattice 8.0 0.0", "lattice 8.0 0.0d0", "write exponents with E, not D"),
        ("lattice 1.0 1.0 8.0", "lattice 0.0 0.0 0.0", "cell vector c must not be zero"),
        (" Cd ", " Xx ", r"\(line 7\): unknown element 'Xx'"),
        ("-0.3  0.1\n", "-0.3\n", "an atom needs x y z element charge energy fx fy fz, got 8 items"),
        ("-0.3  0.1\n", "-0.3  x\n", r"\(line 7\): expected numbers, got '0.1 0.2 0.3"),
        ("-0.3  0.1\n", "-0.3  nan\n", r"forces\[0, 2\] must be finite"),
        ("energy -123.456", "energy", r"\(line 9\): expected one number for the energy, got ''"),
        ("energy -123.456", "energy -1.0\nenergy -2.0", r"\(line 10\): a second energy in one structure"),
        ("energy -123.456", "energies -123.456", r"\(line 9\): expected atom, lattice, energy, charge, comment or end"),
        ("atom 1.4", "atom 0.01", "positions of atom 0 .H. and atom 1 .H. overlap"),
    ],
)
def test_what_is_wrong_is_said(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, TWO.replace(old, new))
    for read in (read_runner_data, read_structures):
        with pytest.raises(ValueError, match=message):
            read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.data"):
        read_runner_data(tmp_path / "none.data")


def labelled(atoms: Atoms, seed: int = 0) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms.calc = SinglePointCalculator(atoms, energy=-17.3, forces=rng.normal(size=(len(atoms), 3)))
    return atoms


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    atoms = Atoms("OH", [[0, 0, 0], [Bohr, 0, 0]], info={"comment": "two\nlines", "set": "test", "charge": -1})
    atoms.set_initial_charges([-0.75, -0.25])
    atoms.calc = SinglePointCalculator(atoms, energy=-Hartree, forces=[[0, 0, 0], [Hartree / Bohr, 0, 0]])
    write_runner_data(tmp_path / "a.data", [atoms])
    zero = "  0.0000000000000000E+00"
    assert (tmp_path / "a.data").read_text().splitlines() == [
        "begin set=test",
        "comment two lines",
        f"atom {zero} {zero} {zero}  O  -7.5000000000000000E-01 {zero} {zero} {zero} {zero}",
        f"atom   1.0000000000000000E+00 {zero} {zero}  H  -2.5000000000000000E-01 {zero}   1.0000000000000000E+00 "
        f"{zero} {zero}",
        "energy  -1.0000000000000000E+00",
        "charge  -1.0000000000000000E+00",
        "end",
    ]


@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), unit=st.sampled_from(["hartree bohr", "eV Å", "kJ/mol nm"]))
@settings(max_examples=20, deadline=None)
def test_round_trip(seed: int, n: int, unit: str, random_structures, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("round") / "some.data"
    energy_unit, length_unit = unit.split()
    frames = random_structures(7, seed=seed)[-n:]
    for k, atoms in enumerate(frames):
        atoms.pbc = atoms.pbc.all()
        atoms.info["comment"] = f"frame {k}"
        atoms.set_initial_charges(np.random.default_rng(seed).normal(size=len(atoms)))
        labelled(atoms, seed)
    write_runner_data(path, frames, energy_unit=energy_unit, length_unit=length_unit)
    again = read_runner_data(path, energy_unit=energy_unit, length_unit=length_unit)
    assert len(again) == len(frames)
    for one, other in zip(frames, again, strict=True):
        assert one.get_chemical_symbols() == other.get_chemical_symbols()
        assert (one.pbc == other.pbc).all() and other.info["comment"] == one.info["comment"]
        np.testing.assert_allclose(other.positions, one.positions, rtol=1e-15)
        np.testing.assert_allclose(other.cell.array[one.pbc], one.cell.array[one.pbc], rtol=1e-15)
        np.testing.assert_allclose(other.get_forces(), one.get_forces(), rtol=1e-14)
        np.testing.assert_array_equal(other.get_initial_charges(), one.get_initial_charges())
        assert other.get_potential_energy() == pytest.approx(one.get_potential_energy(), rel=1e-15)


def test_structures_to_predict_need_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.data"
    write_runner_data(path, [molecule("H2O"), labelled(bulk("Cu"))], labels=False)
    water, copper = read_runner_data(path)
    assert water.get_potential_energy() == copper.get_potential_energy() == 0.0
    assert not copper.get_forces().any()
    np.testing.assert_allclose(water.positions, molecule("H2O").positions, rtol=1e-15)


def partly(**labels: object) -> Atoms:
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ([], "structures must be a list of one or more Atoms, got"),
        (molecule("H2O"), "structures must be a list of one or more Atoms, got"),
        ([labelled(molecule("H2O")), partly(energy=1.0)], r"structures\[1\] has no forces, and the format has no word"),
        ([partly(forces=np.zeros((3, 3)))], r"structures\[0\] has no energy"),
        ([labelled(Atoms("H", cell=[5, 5, 5], pbc=[1, 1, 0]))], "in three directions or in none, got pbc="),
        (
            [labelled(Atoms("H", cell=[5, 5, 5], pbc=True, info={"charge": 1.0}))],
            "must not be charged .*got charge 1.0",
        ),
    ],
)
def test_what_cannot_be_written(structures: list[Atoms], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_runner_data(tmp_path / "a.data", structures)
    assert not (tmp_path / "a.data").exists()


def test_published_structures() -> None:
    path = SHARED / "H2O_RPBE-D3_train20" / "input.data.xz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    frames = read_runner_data(path)
    assert len(frames) == 20 and sum(map(len, frames)) == 2064
    first = frames[0]
    # the first lines of the file, in its units
    np.testing.assert_allclose(first.positions[0] / Bohr, [3.735290838, 2.327841157, 3.501304856], rtol=1e-14)
    np.testing.assert_allclose(
        first.get_forces()[0] * Bohr / Hartree, [-0.006530137, -0.002852459, -0.027992554], rtol=1e-13
    )
    assert first.get_initial_charges()[:2].tolist() == [-0.226389360, 0.120793430]
    # molecules of water: the atoms attract as they should, 0.96 Å
    assert 0.9 < first.get_distance(0, 1, mic=True) < 1.1
