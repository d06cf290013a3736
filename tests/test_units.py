import math

import ase.units
import pytest

import molml.units


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BOHR", ase.units.Bohr),
        ("HARTREE", ase.units.Hartree),
        ("RYDBERG", ase.units.Rydberg),
        ("KJ_PER_MOL", ase.units.kJ / ase.units.mol),
        ("KCAL_PER_MOL", ase.units.kcal / ase.units.mol),
        ("KELVIN", ase.units.kB),
        ("GPA", ase.units.GPa),
        ("KBAR", 1e8 * ase.units.Pascal),
        ("DALTON", 1 / ase.units.fs**2),
    ],
)
def test_units_are_those_of_ase(name, expected):
    # the last digits depend on the order of multiplication
    assert getattr(molml.units, name) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # CODATA 2014 as printed (Rev. Mod. Phys. 88, 035009, table XXXII ff.)
        ("BOHR", 0.52917721067),
        ("HARTREE", 27.21138602),
        ("KELVIN", 8.6173303e-5),
        # CODATA 2018, later values: the same within what the docstring says
        ("BOHR", 0.529177210903),
        ("HARTREE", 27.211386245988),
        ("KELVIN", 8.617333262e-5),
    ],
)
def test_units_are_the_published_ones(name, published):
    tolerance = {"BOHR": 1e-9, "HARTREE": 1e-8, "KELVIN": 5e-7}[name]
    assert getattr(molml.units, name) == pytest.approx(published, rel=tolerance)


def test_every_unit_is_public_and_positive():
    assert all(math.isfinite(value) and value > 0 for value in map(vars(molml.units).get, molml.units.__all__))
