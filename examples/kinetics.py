# %% [markdown]
# # Slow motions of a molecule, and which method finds them
#
# Trajectories go in; out come slow coordinates, how slow they are, and a table that compares the methods on blocks of
# time that they have not seen. The data come with molml: four runs of alanine dipeptide at 600 K
# (`molml data show alanine-dipeptide`). It takes about two minutes on two cores. On the command line the same is
# `molml kinetics compare RUNS --top TOP --lag "5 ps" --output DIR`.

# %%
import os
from functools import partial
from pathlib import Path

import mdtraj
import numpy as np
from matplotlib.figure import Figure

import molml
from molml.kinetics import (
    TICA,
    Positions,
    ReversibleVAMPNet,
    Torsions,
    TrajectoryFiles,
    align,
    compare,
    parse_lag,
    plumed_input,
)
from molml.kinetics.discretisation import markov_model
from molml.kinetics.metrics import canonical_correlations
from molml.kinetics.plots import plot_free_energy, plot_projection, plot_ramachandran, plot_timescales
from molml.kinetics.systems import square_root_model

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/kinetics")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Trajectories become features
# Files are read piece by piece, so that they may be longer than the memory. Torsions are what a chemist would choose;
# the positions of the atoms, superposed, are what one has if one does not know what to choose.

# %%
folder = molml.datasets.path("alanine-dipeptide")
first = mdtraj.load(folder / "topology.pdb")
files = partial(TrajectoryFiles, folder / "*.xtc", topology=first.topology, stride=10 if FAST else 2)
torsions = files(Torsions(first.topology))
positions = files(Positions(first.topology, reference=first))
print(f"{sum(positions.lengths)} frames of {positions.timestep} ps, {positions.n_features} coordinates of atoms")

# %% [markdown]
# ## The comparison
# Every method gets the positions only. The torsions are the reference: how much of them does each method find?

# %%
lagtime = parse_lag("5 ps", positions.timestep)
comparison = compare(
    positions,
    lagtime,
    methods=("pca", "tica", "autoencoder", "tae", "reversible-vampnet"),
    reference=torsions,
    reference_names=torsions.names,
    timestep=positions.timestep,
    n_folds=2 if FAST else 4,
    max_epochs=2 if FAST else 15,
    n_jobs=1 if FAST else 2,
)
comparison  # noqa: B018 (a notebook shows the table)

# %%
print(comparison)
phi, psi = (
    np.concatenate([np.arctan2(x[:, 2 * k + 1], x[:, 2 * k]) for x in comparison.reference.coordinates]) for k in (0, 1)
)
figure = Figure(figsize=(13, 6.6), layout="constrained")
axes = figure.subplots(2, 3)
for column, name in enumerate(("pca", "tica", "reversible-vampnet")):
    coordinate = comparison.methods[name]
    plot_free_energy(coordinate.coordinates, ax=axes[0, column]).set_title(name)
    slow = np.concatenate(coordinate.coordinates)[:, 0]
    plot_ramachandran(phi, psi, slow, label="first coordinate", ax=axes[1, column])
figure.savefig(RESULTS / "landscapes.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## A Markov model
# Cells of the torsions, jumps between them, and the times in which the model forgets. Where the lines are level, the
# lag time is long enough; the shaded corner is what no lag time can see.

# %%
known = torsions.load()
markov = markov_model(known, lagtime, n_cells=50 if FAST else 200)
figure = Figure(figsize=(13, 3.8), layout="constrained")
axes = figure.subplots(1, 2, width_ratios=(1, 2))
step = positions.timestep
plot_timescales(
    markov.lagtimes * step, markov.timescales * step, low=markov.low * step, high=markov.high * step, ax=axes[0]
)
plot_projection(comparison.methods["tica"].coordinates, timestep=step, ax=axes[1])
figure.savefig(RESULTS / "timescales.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Use it for sampling
# A fitted coordinate becomes a PLUMED input, to be biased in any engine that has PLUMED.

# %%
tica = TICA(lagtime, n_components=1).fit(torsions)
(RESULTS / "plumed.dat").write_text(plumed_input(tica, torsions.features))
print((RESULTS / "plumed.dat").read_text())

# %% [markdown]
# ## Checks against known answers
# The square-root model has one slow process whose timescale is known exactly, and is bent, so that nothing linear finds
# it. And a superposed molecule of ten atoms has 3 · 10 - 6 degrees of freedom, whatever the superposition did.

# %%
system = square_root_model()
frames = system.simulate(20_000, seed=1).trajectories[0]
exact = system.slow_function(frames)[:, None]
found = {
    type(method).__name__: canonical_correlations(method.fit_transform(frames), exact)[0]
    for method in (TICA(1, 1), ReversibleVAMPNet(1, 1, seed=0))
}
print("square-root model, correlation with the exact slow function:", found)

aligned = align(torsions.trajectory(0), first).xyz.reshape(-1, 30)
spectrum = np.linalg.eigvalsh(np.cov(aligned.T.astype(np.float64)))
rank = int((spectrum > 1e-6 * spectrum[-1]).sum())
results = {name: coordinate.metrics for name, coordinate in comparison.methods.items()}
reference = comparison.metrics["reference"]["timescales"][0]
assert rank == 24, f"superposed frames have {rank} degrees of freedom"
assert found["TICA"] < 0.9 < 0.98 < found["ReversibleVAMPNet"], f"only a network finds a bent coordinate: {found}"
assert results["tica"]["vamp2"] > results["pca"]["vamp2"], "the slowest coordinate must score more than the largest"
same = abs(results["tica"]["timescales"][0] / reference - 1)
assert FAST or same < 0.15, f"TICA and the torsions must see the same process, {same:.0%} apart"
print("all checks passed; figures are in", RESULTS)
