# %% [markdown]
# # A potential in i-PI
#
# `molml energy drive` gives energies, forces and virials to any program that speaks i-PI's protocol, over a socket. ASE
# speaks it, too, and plays i-PI here; what i-PI itself needs stands at the end.

# %%
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase.calculators.socketio import SocketIOCalculator
from ase.optimize import BFGS

import molml
from molml.energy import StructureDataset, fit

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/engines")
RESULTS.mkdir(parents=True, exist_ok=True)

folder = molml.datasets.path("ethanol")
train, test = (StructureDataset(folder / f"{name}.xyz.xz") for name in ("train", "test"))
train = train.subset(range(0, 900, 9 if FAST else 3))
potential = fit(train, model="linear", n_functions=100 if FAST else 300, seed=0)
potential.save(RESULTS / "ethanol.molml")
atoms = test.atoms[0]
atoms.calc = potential.calculator(on_extrapolation="ignore")
BFGS(atoms, logfile=None).run(fmax=1e-3, steps=500)
atoms.cell = [50, 50, 50]  # i-PI wants one; the molecule stays what the file says, not periodic
ase.io.write(RESULTS / "start.xyz", atoms, format="extxyz")


def drive(name: str) -> subprocess.Popen:
    """The potential in a process of its own, as a user starts it: molml energy drive MODEL STRUCTURE --unix NAME."""
    model, structure = str(RESULTS / "ethanol.molml"), str(RESULTS / "start.xyz")
    line = ["energy", "drive", model, structure, "--unix", name, "--on-extrapolation", "ignore"]
    return subprocess.Popen([sys.executable, "-m", "molml", *line, "--threads", "1"])


# %% [markdown]
# ## ASE as the server

# %%
with SocketIOCalculator(unixsocket=f"molml_{os.getpid()}", timeout=120) as server:
    driver = drive(f"molml_{os.getpid()}")
    moved = atoms.copy()
    moved.rattle(0.05, seed=0)
    moved.calc = server
    forces = moved.get_forces()
driver.wait()
moved.calc = atoms.calc
difference = np.abs(forces - moved.get_forces()).max()
print(f"largest difference of the forces: {difference:.1e} eV/Å")
assert driver.returncode == 0 and difference < 1e-9, "forces differ"
print("all checks passed; model and structure are in", RESULTS)

# %% [markdown]
# ## i-PI as the server
# In i-PI's input (`pip install ipi`) a `ffsocket` waits for drivers, as many as are started:
#
# ```xml
# <ffsocket name="molml" mode="unix" pbc="False"><address>ethanol</address></ffsocket>
# …
# <forces><force forcefield="molml"/></forces>
# ```
#
# Then `molml energy drive ethanol.molml start.xyz --unix ethanol`. Path integrals reach further than classical dynamics
# at the same temperature: train on structures that do, or take `--on-extrapolation raise`.
