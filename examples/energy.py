# %% [markdown]
# # A potential for ethanol, from structures to molecular dynamics
#
# Structures with energies and forces go in, a potential comes out that any ASE simulation can use. The data come with
# molml: molecular dynamics of ethanol at 300, 500 and 700 K with forces from GFN2-xTB (`molml data show ethanol`).
# It takes about three minutes on two cores. On the command line the same is `molml energy fit … --output ethanol`.

# %%
import os
from pathlib import Path

import numpy as np
from ase.calculators.fd import calculate_numerical_forces
from matplotlib.figure import Figure

import molml
from molml.energy import StructureDataset, evaluate, fit
from molml.energy.dynamics import run_dynamics
from molml.energy.plots import plot_force_error_by_element, plot_parity

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/energy")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The data
# Three files that share no trajectory, so that the test set is a fair one.

# %%
folder = molml.datasets.path("ethanol")
train, valid, test = (StructureDataset(folder / f"{name}.xyz.xz") for name in ("train", "valid", "test"))
if FAST:
    train, valid, test = train.subset(range(0, 900, 9)), valid.subset(range(20)), test.subset(range(0, 360, 9))
print(train)

# %% [markdown]
# ## Two potentials
# The linear one is solved for in seconds. The network starts from it and learns the rest; the more time, the better.

# %%
linear = fit(train, valid, model="linear", n_functions=400, seed=0)
network = fit(train, valid, functions=linear.features, minutes=0.1 if FAST else 1.0, seed=0)
network.save(RESULTS / "ethanol.molml")

# %% [markdown]
# ## How good are they?
# On structures that neither of them has seen.

# %%
results = {name: evaluate(potential, test) for name, potential in (("linear", linear), ("network", network))}
for name, result in results.items():
    metrics = result.metrics
    energy, forces = 1e3 * metrics["energy_mae"], 1e3 * metrics["forces_mae"]
    print(f"{name:8} energy MAE {energy:6.3f} meV/atom, force MAE {forces:6.2f} meV/Å")

figure = Figure(figsize=(13, 4.2), layout="constrained")
axes = figure.subplots(1, 3)
plot_parity(results["network"], "energy", ax=axes[0])
plot_parity(results["network"], "forces", ax=axes[1])
plot_force_error_by_element(results, ax=axes[2])
figure.savefig(RESULTS / "accuracy.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## As an ASE calculator
# A file needs no class name to be loaded. Forces are the derivatives of the energy: finite differences prove it.

# %%
atoms = test.atoms[0]
# it warns when an atom's surroundings are unlike all training data
atoms.calc = molml.load(RESULTS / "ethanol.molml").calculator(on_extrapolation="ignore" if FAST else "warn")
difference = np.abs(atoms.get_forces() - calculate_numerical_forces(atoms, eps=1e-4)).max()
print(f"largest difference to finite differences: {difference:.1e} eV/Å")

# %% [markdown]
# ## Molecular dynamics
# First without a thermostat: the total energy must stay what it is. Then at 300 K: bonds must be as long, and vibrate
# as far, as in the reference dynamics at that temperature, which the potential was trained on but never told about.

# %%
free = run_dynamics(atoms, temperature=300, steps=200 if FAST else 2000, timestep=0.5, ensemble="nve")
print(f"drift of the total energy: {free.drift:.2g} meV/atom/ps")

PAIRS = {"O–H": (2, 3), "C–O": (1, 2), "C–C": (0, 1)}
sampled: dict[str, list[float]] = {name: [] for name in PAIRS}


def sample(*_: float) -> None:
    for name, pair in PAIRS.items():
        sampled[name].append(atoms.get_distance(*pair))


hot = run_dynamics(atoms, temperature=300, steps=200 if FAST else 12_000, timestep=0.5, report=sample, seed=1)

# %%
reference = [frame for part in (train, valid, test) for frame in part.atoms if frame.info["temperature"] == 300]
figure = Figure(figsize=(13, 3.8), layout="constrained")
axes = figure.subplots(1, 3)
axes[0].plot(free.time / 1e3, 1e3 * (free.potential_energy - free.potential_energy[0]), label="potential", lw=0.8)
axes[0].plot(free.time / 1e3, 1e3 * (free.total_energy - free.total_energy[0]), label="total")
axes[0].set(xlabel="time (ps)", ylabel="energy (meV)", title="without a thermostat")
axes[0].legend(frameon=False)
axes[1].plot(hot.time / 1e3, hot.temperature, lw=0.8)
axes[1].axhline(300, color="black", lw=0.8, ls=":")
axes[1].set(xlabel="time (ps)", ylabel="temperature (K)", title="at 300 K")
for place, (name, pair) in enumerate(PAIRS.items()):
    bins = np.linspace(0.85, 1.75, 91)
    axes[2].hist([frame.get_distance(*pair) for frame in reference], bins, density=True, alpha=0.4, color=f"C{place}")
    axes[2].hist(sampled[name], bins, density=True, histtype="step", color=f"C{place}", label=name)
axes[2].set(xlabel="distance (Å)", ylabel="density", title="bonds: reference (filled), this run (lines)")
axes[2].legend(frameon=False)
figure.savefig(RESULTS / "dynamics.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers

# %%
shifts = {
    name: abs(np.mean(sampled[name][len(sampled[name]) // 10 :]) - np.mean([a.get_distance(*pair) for a in reference]))
    for name, pair in PAIRS.items()
}
assert difference < 1e-6, "forces are not the derivatives of the energy"
assert abs(free.drift) < (50 if FAST else 0.5), "the total energy drifts"
assert max(shifts.values()) < (0.1 if FAST else 0.01), f"bond lengths differ from the reference: {shifts}"
print("all checks passed; figures and model are in", RESULTS)
