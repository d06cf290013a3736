# %% [markdown]
# # A potential in OpenMM
#
# Ethanol, which comes with molml, moved by OpenMM with forces of a potential that is fitted here in seconds. It needs
# `pip install openmm`.

# %%
import os
import sys
from importlib.util import find_spec

import numpy as np

import molml
from molml.energy import StructureDataset, fit, openmm_force
from molml.units import KJ_PER_MOL

if find_spec("openmm") is None:
    print("skipped: OpenMM is not installed; pip install openmm")
    sys.exit()
import openmm

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less

folder = molml.datasets.path("ethanol")
train, test = (StructureDataset(folder / f"{name}.xyz.xz") for name in ("train", "test"))
train = train.subset(range(0, 900, 9 if FAST else 3))
potential = fit(train, model="linear", n_functions=100 if FAST else 300, seed=0)

# %% [markdown]
# ## The system
# Particles with masses, and the force. OpenMM counts in nm, ps and kJ/mol.

# %%
atoms = test.atoms[0]
system = openmm.System()
for mass in atoms.get_masses():
    system.addParticle(mass)
system.addForce(openmm_force(potential, atoms, on_extrapolation="ignore"))
# 0.5 fs; at the temperature of the structure's own simulation
context = openmm.Context(system, openmm.VerletIntegrator(0.0005))
context.setPositions(atoms.positions / 10)
context.setVelocitiesToTemperature(300.0, 1)

# %% [markdown]
# ## The same forces as in ASE

# %%
state = context.getState(energy=True, forces=True)
atoms.calc = potential.calculator(on_extrapolation="ignore")
energy = state.getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole) * KJ_PER_MOL
forces = state.getForces(asNumpy=True)._value * KJ_PER_MOL / 10
print(f"energy {energy:.6f} eV, in ASE {atoms.get_potential_energy():.6f} eV")
difference = np.abs(forces - atoms.get_forces()).max()
print(f"largest difference of the forces: {difference:.1e} eV/Å")

# %% [markdown]
# ## Dynamics
# Without a thermostat, the total energy stays what it is.

# %%
rows = []
for _ in range(20 if FAST else 100):
    context.getIntegrator().step(10)
    state = context.getState(energy=True)
    rows.append([state.getPotentialEnergy()._value, state.getKineticEnergy()._value])
potential_energy, kinetic_energy = 1e3 * KJ_PER_MOL * np.array(rows).T / len(atoms)
total = potential_energy + kinetic_energy
print(f"{5 * len(rows)} fs: the potential energy varies by {np.ptp(potential_energy):.2f} meV/atom,")
print(f"the total energy by {np.ptp(total):.2f} meV/atom")

# %% [markdown]
# ## Checks

# %%
assert abs(energy - atoms.get_potential_energy()) < 1e-6 * abs(energy), "energies differ"
# mixed precision, where OpenMM finds a graphics processor
assert difference < 1e-4, "forces differ"
assert np.ptp(total) < 0.05 * np.ptp(potential_energy), "the total energy is not conserved"
print("all checks passed")
