"""Units of molml in terms of everybody else's: multiply by the constant to get Å, eV, fs and what follows from them.

The values are CODATA 2014 (Mohr, Newell, Taylor, Rev. Mod. Phys. 88, 035009 (2016)), because ASE uses these: a
potential fitted here and a molecular dynamics run there must agree to the last digit. CODATA 2018 differs from them by
less than 2e-8 (Boltzmann's constant: 4e-7).

Examples
--------
>>> from molml.units import HARTREE, KCAL_PER_MOL
>>> round(HARTREE / KCAL_PER_MOL, 4)  # kcal/mol in one hartree
627.5095
"""

from math import pi

__all__ = ["BOHR", "DALTON", "GPA", "HARTREE", "KBAR", "KCAL_PER_MOL", "KELVIN", "KJ_PER_MOL", "RYDBERG"]

# CODATA 2014, in SI
_ELEMENTARY_CHARGE = 1.6021766208e-19  # C
_ELECTRON_MASS = 9.10938356e-31  # kg
_PLANCK = 6.62607004e-34  # J s
_BOLTZMANN = 1.38064852e-23  # J/K
_AVOGADRO = 6.022140857e23  # 1/mol
_ATOMIC_MASS = 1.66053904e-27  # kg
_LIGHT = 299792458.0  # m/s
_VACUUM_PERMITTIVITY = 1 / (4e-7 * pi * _LIGHT**2)  # F/m

_BOHR_SI = _VACUUM_PERMITTIVITY * _PLANCK**2 / (pi * _ELECTRON_MASS * _ELEMENTARY_CHARGE**2)  # m

BOHR = _BOHR_SI * 1e10
"""Å in one bohr."""

HARTREE = _ELEMENTARY_CHARGE / (4 * pi * _VACUUM_PERMITTIVITY * _BOHR_SI)
"""eV in one hartree."""

RYDBERG = HARTREE / 2
"""eV in one rydberg."""

KJ_PER_MOL = 1000 / _AVOGADRO / _ELEMENTARY_CHARGE
"""eV in one kJ/mol."""

KCAL_PER_MOL = 4.184 * KJ_PER_MOL
"""eV in one (thermochemical) kcal/mol."""

KELVIN = _BOLTZMANN / _ELEMENTARY_CHARGE
"""eV in k_B · 1 K."""

GPA = 1e9 * 1e-30 / _ELEMENTARY_CHARGE
"""eV/Å³ in one GPa."""

KBAR = GPA / 10
"""eV/Å³ in one kbar."""

DALTON = 1e10 * _ATOMIC_MASS / _ELEMENTARY_CHARGE
"""eV fs² / Å² in one dalton (atomic mass unit): mass × velocity² in Å and fs gives eV."""
