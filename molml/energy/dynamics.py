"""Molecular dynamics in one call, for looking at what a potential does; ASE itself offers much more."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

__all__ = ["Dynamics", "run_dynamics"]

FRICTION = 0.01
"""1/fs; the thermostat of nvt forgets in a tenth of a picosecond."""

EXPLOSION = 10_000.0
"""K above the temperature asked for; no simulation of a solid, liquid or molecule comes near it and recovers."""


class Dynamics(NamedTuple):
    """Outcome of a simulation, one number per recorded step.

    Attributes
    ----------
    time : ndarray, shape (n_records,), fs
    temperature : ndarray, shape (n_records,), K
    potential_energy, total_energy : ndarray, shape (n_records,), eV
    drift : float, meV/atom/ps
        Slope of the total energy by least squares; a measure of the integration with "nve" only.
    """

    time: np.ndarray
    temperature: np.ndarray
    potential_energy: np.ndarray
    total_energy: np.ndarray
    drift: float


def run_dynamics(
    atoms: Atoms,
    *,
    temperature: float = 300.0,
    steps: int = 1000,
    timestep: float = 0.5,
    ensemble: Literal["nve", "nvt"] = "nvt",
    output: str | os.PathLike[str] | None = None,
    interval: int = 10,
    seed: int = 0,
    report: Callable[[float, float, float, float], None] | None = None,
    until: Callable[[Atoms], bool] | None = None,
) -> Dynamics:
    """Move atoms by their calculator's forces, starting from velocities of the temperature if they have none.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator; moved in place.
    temperature : float, K
    steps : int
    timestep : float, fs
    ensemble : "nve" or "nvt"
        Velocity Verlet, or Langevin dynamics with a friction of 0.01/fs.
    output : path-like, optional
        Extended XYZ file for the frames, with energies and forces; must not exist yet.
    interval : int
        Steps between two records.
    seed : int
        Of the velocities and the thermostat.
    report : callable, optional
        Called at every record with time (fs), temperature (K), potential and total energy (eV).
    until : callable, optional
        Asked at every record, with the atoms; the simulation ends where it says True.

    Returns
    -------
    Dynamics

    Raises
    ------
    ValueError
        If an argument is out of its range or `output` exists.
    ArithmeticError
        If the simulation blows up: temperature more than 10,000 K above the one asked for, or no longer a number.

    References
    ----------
    Swope et al., J. Chem. Phys. 76, 637 (1982); Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006).
    """
    for name, value in (("temperature", temperature), ("steps", steps)):
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be zero or positive, got {value}")
    if not (timestep > 0 and math.isfinite(timestep)):
        raise ValueError(f"timestep must be a positive time in fs, got {timestep}; 0.5 with hydrogen, 1 to 2 without")
    if interval < 1:
        raise ValueError(f"interval must be at least 1, got {interval}")
    if ensemble not in ("nve", "nvt"):
        raise ValueError(f'ensemble must be "nve" or "nvt", got {ensemble!r}')
    if atoms.calc is None:
        raise ValueError('atoms must have a calculator: atoms.calc = molml.load("model.molml").calculator()')
    path = None if output is None else Path(output)
    if path is not None and path.exists():
        raise ValueError(f"output {path} exists already and is not overwritten; choose another name")
    rng = np.random.default_rng(seed)
    if not np.any(atoms.get_momenta()):
        _heat(atoms, temperature, rng)
    dynamics = _integrator(atoms, ensemble, timestep, temperature, rng)
    records: list[tuple[float, float, float, float]] = []
    enough = False

    def record() -> None:
        nonlocal enough
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        row = (dynamics.get_number_of_steps() * timestep, atoms.get_temperature(), potential, potential + kinetic)
        if not all(map(math.isfinite, row)) or row[1] > temperature + EXPLOSION:
            raise ArithmeticError(
                f"the simulation blew up after {row[0]:g} fs, at {row[1]:.0f} K: take a shorter time step, begin with "
                "a relaxed structure, or train on structures like the last ones"
            )
        records.append(row)
        if path is not None:
            # frame by frame: whatever happens later, what there is can be read
            ase.io.write(path, atoms, format="extxyz", append=True)
        if report is not None:
            report(*row)
        enough = until is not None and until(atoms)

    dynamics.attach(record, interval=interval)
    for _ in dynamics.irun(steps):
        if enough:
            break
    time, kelvin, potential_energy, total_energy = np.array(records).T
    return Dynamics(time, kelvin, potential_energy, total_energy, _drift(time, total_energy, len(atoms)))


def _heat(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Velocities of the Maxwell-Boltzmann distribution, at rest as a whole."""
    scale = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * scale[:, None])
    momenta = atoms.get_momenta()
    atoms.set_momenta(momenta - momenta.sum(axis=0) * (atoms.get_masses() / atoms.get_masses().sum())[:, None])


def _integrator(
    atoms: Atoms, ensemble: str, timestep: float, temperature: float, rng: np.random.Generator
) -> VelocityVerlet | Langevin:
    if ensemble == "nve":
        return VelocityVerlet(atoms, timestep=timestep * units.fs)
    return Langevin(
        atoms,
        timestep=timestep * units.fs,
        temperature_K=temperature,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=rng,
    )


def _drift(time: np.ndarray, energy: np.ndarray, n_atoms: int) -> float:
    """Slope in meV/atom/ps; 0 for a single point."""
    if len(time) < 2:
        return 0.0
    return float(np.polyfit(time, energy, 1)[0]) * 1e6 / n_atoms
