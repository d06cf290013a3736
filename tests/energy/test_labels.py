"""Labels wherever authors put them, units, and every structure that is refused."""

import re

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from molml.energy.labels import LabelKeys, all_electron_energy, check_structure, label_frames, labelled_atoms

STRESS = np.array([0.1, 0.2, 0.3, 0.04, 0.05, 0.06])
TENSOR = np.array([[0.1, 0.06, 0.05], [0.06, 0.2, 0.04], [0.05, 0.04, 0.3]])


def copper(**results) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, **({"energy": -1.5} | results))
    return atoms


def water(**info) -> Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def label(atoms, *, keys=None, **units):
    return label_frames([("data.xyz:7", atoms)], keys or LabelKeys(), **units)[0]


def refused(message):
    return pytest.raises(ValueError, match=re.escape(message))


# ---- where labels are found ------------------------------------------------------------------------------------------


def test_labels_of_a_calculator():
    forces = np.arange(12.0).reshape(4, 3)
    frame = label(copper(forces=forces, stress=STRESS))
    assert frame.energy == -1.5
    np.testing.assert_array_equal(frame.forces, forces)
    np.testing.assert_array_equal(frame.stress, TENSOR)
    assert frame.weight == 1.0
    assert frame.atoms.calc is None


def test_labels_in_info_and_arrays():
    atoms = water(energy=np.int64(-3), weight=0.25, note="kept")
    atoms.arrays["forces"] = np.ones((3, 3), dtype=np.float32)
    frame = label(atoms)
    assert (frame.energy, frame.weight) == (-3.0, 0.25)
    np.testing.assert_array_equal(frame.forces, np.ones((3, 3)))
    assert frame.forces.dtype == np.float64
    assert frame.atoms.info == {"note": "kept"}
    assert set(frame.atoms.arrays) == {"numbers", "positions"}
    assert set(atoms.arrays) == {"numbers", "positions", "forces"}


def test_names_of_the_users_choice():
    atoms = water(dft=-2.0, energy=-99.0, importance=3)
    atoms.info["push"] = np.full((3, 3), 0.5)
    frame = label(atoms, keys=LabelKeys(energy="dft", forces="push", stress=None, weight="importance"))
    assert (frame.energy, frame.weight) == (-2.0, 3.0)
    np.testing.assert_array_equal(frame.forces, np.full((3, 3), 0.5))
    # the energy that was not wanted does not come back either
    assert frame.atoms.info == {}


def test_labels_that_are_not_wanted_are_left_out():
    frame = label(copper(forces=np.zeros((4, 3)), stress=STRESS), keys=LabelKeys(forces=None, stress=None))
    assert frame.energy == -1.5
    assert frame.forces is None
    assert frame.stress is None


def test_missing_labels_are_none():
    frames = label_frames([("a:0", water(energy=-1.0)), ("a:1", water()), ("a:2", water(energy=None))])
    assert [frame.energy for frame in frames] == [-1.0, None, None]
    assert all(frame.forces is None and frame.stress is None for frame in frames)


def test_no_labels_are_needed_when_none_are_wanted():
    assert label(water(), keys=LabelKeys(energy=None, forces=None)).energy is None


def test_the_same_label_twice_is_one_label():
    atoms = copper()
    atoms.info["energy"] = -1.5
    assert label(atoms).energy == -1.5


@pytest.mark.parametrize("value", [STRESS, TENSOR, TENSOR.ravel(), TENSOR.tolist()])
def test_every_notation_of_stress(value):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(energy=-1.0, stress=value)
    np.testing.assert_array_equal(label(atoms).stress, TENSOR)


def test_rounded_stress_is_made_symmetric():
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(energy=-1.0, stress=TENSOR + [[0, 1e-5, 0], [0, 0, 0], [0, 0, 0]])
    stress = label(atoms).stress
    np.testing.assert_array_equal(stress, stress.T)
    assert stress[0, 1] == pytest.approx(0.06 + 5e-6)


def test_virial_is_minus_stress_times_volume():
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(energy=-1.0, virial=-TENSOR * atoms.get_volume(), stress=99 * TENSOR)
    np.testing.assert_allclose(label(atoms, keys=LabelKeys(virial="virial")).stress, TENSOR, rtol=1e-14)
    # control: left alone unless asked for
    np.testing.assert_allclose(label(atoms).stress, 99 * TENSOR)


def test_virial_of_a_real_calculator_has_that_sign():
    # a compressed crystal pushes outwards: stress negative (ASE), virial positive (QUIP)
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell * 0.97, scale_atoms=True)
    atoms.calc = EMT()
    atoms.get_potential_energy()
    frame = label(atoms)
    assert np.trace(frame.stress) < 0
    forces, positions = frame.forces, atoms.positions
    assert forces.shape == positions.shape


def test_units_are_converted():
    atoms = bulk("Cu", cubic=True)
    expected = label(copper(forces=np.ones((4, 3)), stress=STRESS))
    ha, bohr = ase.units.Hartree, ase.units.Bohr
    atoms.set_cell(atoms.cell / bohr, scale_atoms=True)
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1.5 / ha, forces=np.ones((4, 3)) * bohr / ha, stress=STRESS * bohr**3 / ha
    )
    frame = label(atoms, energy_unit="Hartree", length_unit="Bohr")
    assert frame.energy == pytest.approx(expected.energy, rel=1e-14)
    np.testing.assert_allclose(frame.forces, expected.forces, rtol=1e-14)
    np.testing.assert_allclose(frame.stress, expected.stress, rtol=1e-14)
    np.testing.assert_allclose(frame.atoms.positions, expected.atoms.positions, rtol=1e-14)
    np.testing.assert_allclose(frame.atoms.cell, expected.atoms.cell, rtol=1e-14)


@pytest.mark.parametrize(
    ("unit", "ev"), [("eV", 1.0), ("kcal/mol", 0.0433641), ("kJ/mol", 0.01036427), ("hartree", 27.211386)]
)
def test_energy_units(unit, ev):
    assert label(water(energy=1.0), energy_unit=unit).energy == pytest.approx(ev, rel=1e-6)


def test_labelled_atoms_are_read_back_unchanged():
    atoms = copper(forces=np.arange(12.0).reshape(4, 3), stress=STRESS)
    atoms.info.update(weight=0.5, group="bulk")
    frame = label(atoms)
    again = label(labelled_atoms(frame))
    assert (again.energy, again.weight, again.atoms.info) == (frame.energy, 0.5, {"group": "bulk"})
    np.testing.assert_array_equal(again.forces, frame.forces)
    np.testing.assert_array_equal(again.stress, frame.stress)


def test_constraints_do_not_silence_forces():
    from ase.constraints import FixAtoms

    atoms = copper(forces=np.ones((4, 3)))
    atoms.set_constraint(FixAtoms([0, 1]))
    np.testing.assert_array_equal(label(atoms).forces, np.ones((4, 3)))


# ---- labels refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"energy": "abc"}, "data.xyz, frame 7: energy must be one number, got 'abc'"),
        ({"energy": True}, "data.xyz, frame 7: energy must be one number, got True"),
        ({"energy": [1.0, 2.0]}, "data.xyz, frame 7: energy must be one number, got [1.0, 2.0]"),
        ({"energy": np.nan}, "data.xyz, frame 7: energy must be finite, got nan"),
        ({"energy": np.float64(-np.inf)}, "data.xyz, frame 7: energy must be finite, got -inf"),
        (
            {"forces": np.zeros((2, 3))},
            "data.xyz, frame 7: forces must have shape (3, 3), one row per atom, got (2, 3)",
        ),
        ({"forces": np.diag([1.0, np.nan, 1.0])}, "data.xyz, frame 7: forces[1, 1] must be finite, got nan"),
        ({"forces": "abc"}, "data.xyz, frame 7: forces must be numbers, got 'abc'"),
        ({"energy": 1.0, "weight": -0.5}, "data.xyz, frame 7: weight must not be negative, got -0.5"),
        ({"energy": 1.0, "weight": "much"}, "data.xyz, frame 7: weight must be one number, got 'much'"),
        (
            {"energy": 1.0, "stress": np.zeros(5)},
            "data.xyz, frame 7: stress must have 6 components (xx yy zz yz xz xy), 9",
        ),
        ({"energy": 1.0, "stress": np.arange(9.0)}, "stress must be symmetric, got [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]"),
        ({"energy": 1.0, "stress": [np.inf] * 6}, "data.xyz, frame 7: stress[0] must be finite, got inf"),
    ],
)
def test_wrong_labels(info, message):
    with refused(message):
        label(water(**info))


def test_virial_needs_a_cell():
    with refused(
        "data.xyz, frame 7: virial becomes a stress only in a cell with three periodic directions, got pbc=[Fal"
    ):
        label(water(energy=1.0, virial=np.zeros(6)), keys=LabelKeys(virial="virial"))


def test_contradicting_labels():
    atoms = copper()
    atoms.info["energy"] = -2.5
    with refused(
        "data.xyz, frame 7: energy is given twice, as -2.5 and as -1.5; remove one from info, arrays or the calc"
    ):
        label(atoms)


def test_labels_of_another_geometry():
    atoms = copper()
    atoms.positions[0, 0] += 0.1
    with refused(
        "data.xyz, frame 7: energy and forces in the calculator belong to another geometry, the atoms were chang"
    ):
        label(atoms)


def test_no_labels_at_all():
    with refused("no structure of data.xyz has an energy under 'energy' or forces under 'forces'; there is "
                 "'E_dft', 'note': name the labels with energy_key and forces_key"):  # fmt: skip
        label_frames([("data.xyz:0", water(E_dft=-1.0)), ("data.xyz:1", water(note="x"))])


def test_no_labels_and_nothing_else():
    with refused(
        "no structure of the list has an energy under 'energy' or forces under 'forces'; there is nothing but pos"
    ):
        label_frames([("structures[0]", water())])


@pytest.mark.parametrize("field", LabelKeys._fields)
def test_keys_that_occur_nowhere(field):
    message = f"{field}_key='other' occurs in no structure of data.xyz; there is 'energy', 'note'"
    with refused(message):
        label(water(energy=-1.0, note="x"), keys=LabelKeys()._replace(**{field: "other"}))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"energy_unit": "Ry"}, "energy_unit must be one of eV, hartree, kcal/mol, kJ/mol, got 'Ry'"),
        ({"length_unit": "pm"}, "length_unit must be one of Å, bohr, nm, got 'pm'"),
    ],
)
def test_unknown_units(units, message):
    with refused(message):
        label(water(energy=1.0), **units)


# ---- energies that cannot be eV --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "hartree"),
    # exact nonrelativistic energies, Chakravorty et al., Phys. Rev. A 47, 3649 (1993)
    [
        ("H", -0.5),
        ("C", -37.845),
        ("O", -75.0673),
        ("Ne", -128.9376),
        ("Si", -289.359),
        ("Ar", -527.54),
    ],
)
def test_energy_of_free_atoms(symbol, hartree):
    assert all_electron_energy(Atoms(symbol).numbers) == pytest.approx(hartree * ase.units.Hartree, rel=0.02)


@pytest.mark.parametrize("unit", ["kcal/mol", "kJ/mol"])
def test_total_energies_in_other_units_are_refused(unit):
    # water, PBE: -76.4 hartree
    energy = (
        -76.4
        * ase.units.Hartree
        / {"kcal/mol": ase.units.kcal / ase.units.mol, "kJ/mol": ase.units.kJ / ase.units.mol}[unit]
    )
    with refused(f"as if in {unit}; say energy_unit='{unit}', or energy_unit='eV' if they really are"):
        label(water(energy=energy))
    assert label(water(energy=energy), energy_unit=unit).energy == pytest.approx(-76.4 * ase.units.Hartree)
    assert label(water(energy=energy), energy_unit="eV").energy == energy


@pytest.mark.parametrize("energy", [-76.4 * ase.units.Hartree, -14.2, -10.0, 0.0, 5.0, -466.0])
def test_energies_in_ev_pass(energy):
    # all electrons, valence electrons (VASP), atomisation, difference, pseudopotential
    assert label(water(energy=energy)).energy == energy


# ---- geometries refused ----------------------------------------------------------------------------------------------


def with_changes(**changes) -> Atoms:
    return Atoms(
        **({"symbols": "Cu2", "positions": [[0, 0, 0], [0, 0, 2.0]], "cell": [4, 4, 4], "pbc": True} | changes)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symbols": "", "positions": []}, "data.xyz, frame 7: a structure needs at least one atom, got none"),
        (
            {"symbols": None, "numbers": [29, 0]},
            "data.xyz, frame 7: atomic numbers must lie in 1…118, got 0 for atom 1",
        ),
        ({"symbols": None, "numbers": [119, 29]}, "atomic numbers must lie in 1…118, got 119 for atom 0"),
        (
            {"positions": [[0, 0, 0], [0, np.nan, 0]]},
            "data.xyz, frame 7: positions must be finite, got [0.0, nan, 0.0] for",
        ),
        ({"positions": [[np.inf, 0, 0], [0, 0, 2]]}, "positions must be finite, got [inf, 0.0, 0.0] for atom 0"),
        ({"cell": None}, "data.xyz, frame 7: cell vectors a, b, c must not be zero where pbc=(True, True, True)"),
        ({"cell": [[4, 0, 0], [4, 0, 0], [0, 0, 4]]}, "data.xyz, frame 7: cell is singular"),
        ({"cell": [4, np.nan, 4]}, "data.xyz, frame 7: cell must be finite"),
        (
            {"positions": [[0, 0, 0], [0, 0, 0.05]]},
            "positions of atom 0 (Cu) and atom 1 (Cu) overlap: they are 0.05 Å apart",
        ),
        (
            {"positions": [[0, 0, 0.02], [0, 0, 3.99]]},
            "positions of atom 0 (Cu) and the periodic image of atom 1 (Cu) overlap: they are 0.03 Å apart; is the "
            "atom doubled, the cell too small or the unit not Å?",
        ),
    ],
)
def test_impossible_geometries(changes, message):
    with refused(message):
        check_structure(with_changes(**changes), "data.xyz:7")


def test_control_the_unchanged_geometry_passes():
    assert check_structure(with_changes()) == np.inf
    assert check_structure(with_changes(positions=[[0, 0, 0], [0, 0, 0.3]])) == pytest.approx(0.3)


def test_distances_between_half_and_one_angstrom_are_not_close():
    assert check_structure(molecule("H2")) == np.inf


def test_infinite_geometry_is_refused_through_the_data_set_as_well():
    atoms = copper()
    atoms.calc = None
    atoms.info["energy"] = 1.0
    atoms.positions[2, 1] = np.nan
    with refused("data.xyz, frame 7: positions must be finite"):
        label(atoms)
