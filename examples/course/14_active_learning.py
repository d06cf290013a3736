# %% [markdown]
# # Active learning: which structures to label?
#
# Labels (energies and forces) are what costs; structures are cheap. A committee of potentials that were trained on
# different parts of the data disagrees where it knows little (query by committee: Seung, Opper and Sompolinsky, COLT
# 1992). So: label what it disagrees on most, train again, and go on. Does that pay? The rival is chance.

# %%
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import gmean, spearmanr

import molml
from molml.energy import StructureDataset, evaluate, fit
from molml.energy.selection import automatic_functions

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/14_active_learning")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The pool
# Ethanol, 250 structures at 300 K and only 25 each at 500 and 700 K: a pool as simulations give it, much of the common
# and little of the rare. Its labels are there, but only those of chosen structures are looked at. The test set has all
# temperatures alike, and chooses nothing.

# %%
folder = molml.datasets.path("ethanol")
everything, valid, test = (StructureDataset(folder / f"{name}.xyz.xz") for name in ("train", "valid", "test"))
temperature = np.array([atoms.info["temperature"] for atoms in everything.atoms])
sizes = {300.0: 60, 500.0: 6, 700.0: 6} if FAST else {300.0: 250, 500.0: 25, 700.0: 25}
START, BATCH, ROUNDS = (15, 10, 1) if FAST else (20, 10, 5)
SEEDS = range(1 if FAST else 4)
if FAST:
    test = test.subset(range(0, 360, 12))
print(f"pool of {sum(sizes.values())} structures, test set of {len(test)}")


def pool(seed):
    """Indices of a pool, in random order."""
    random = np.random.default_rng(seed)
    parts = [random.choice(np.flatnonzero(temperature == t), n, replace=False) for t, n in sizes.items()]
    return random.permutation(np.concatenate(parts))


# %% [markdown]
# ## Two ways to choose
# Both start from the same structures, at random, and add ten at a time. The committee has five linear potentials, each
# without a fifth of what is labelled; their symmetry functions are chosen once, on other structures. Where a hot
# molecule is unlike all that is labelled, they are not a little worse but know nothing, with errors of hundreds of
# eV/Å: so errors are compared by their ratios, and means are geometric.

# %%
functions = automatic_functions(
    valid.subset(range(20)).with_cutoff(4.0), n_functions=40 if FAST else 120, n_candidates=80 if FAST else 250
)
N_ATOMS = 9


def worst(vectors):
    """Largest length of a vector (n_structures * n_atoms, 3) on an atom, per structure."""
    return np.linalg.norm(vectors, axis=1).reshape(-1, N_ATOMS).max(axis=1)


def learning(seed, rule):
    """Force errors on the test set and parts of hot structures, as labels are added; what the first committee thinks of
    the pool, and how wrong it is; all that was labelled."""
    order = pool(seed)
    chosen, rest = order[:START], order[START:]
    errors, hot, opinion = [], [], None
    for turn in range(ROUNDS + 1):
        committee = fit(everything.subset(chosen), model="linear", members=5, functions=functions, seed=0)
        errors.append(1e3 * evaluate(committee, test).metrics["forces_rmse"])
        hot.append(np.mean(temperature[chosen] > 300))
        if rule == "committee" and turn < ROUNDS:
            told = evaluate(committee, everything.subset(rest))
            spread = worst(told.forces_std)
            if turn == 0:
                opinion = spread, worst(told.forces - told.forces_reference)
            rest = rest[np.argsort(-spread, kind="stable")]
        chosen, rest = np.concatenate([chosen, rest[:BATCH]]), rest[BATCH:]
    return np.array(errors), np.array(hot), opinion, chosen


results = {rule: [learning(seed, rule) for seed in SEEDS] for rule in ("committee", "chance")}
labels = START + BATCH * np.arange(ROUNDS + 1)
errors = {rule: np.array([run[0] for run in runs]) for rule, runs in results.items()}
hot = {rule: np.array([run[1] for run in runs]) for rule, runs in results.items()}
for rule, values in errors.items():
    print(
        f"{rule:10}", ", ".join(f"{n}: {v:.0f}" for n, v in zip(labels, gmean(values), strict=True)), "meV/Å", end="; "
    )
    print(f"{hot[rule][:, -1].mean():.0%} of the labels are hot")
gain = gmean(errors["chance"] / errors["committee"], axis=1)
print(f"error by chance over error by committee, mean over the rounds: {gain.round(1)} in {len(gain)} runs")
rank = [spearmanr(*run[2]).statistic for run in results["committee"]]
print(f"rank correlation of disagreement and error in the pool: {np.mean(rank):.2f}")

figure = Figure(figsize=(13, 4), layout="constrained")
axes = figure.subplots(1, 3)
for rule, color in (("committee", "C0"), ("chance", "C7")):
    axes[0].plot(labels, errors[rule].T, color=color, lw=0.7, alpha=0.6)
    axes[0].plot(labels, gmean(errors[rule]), "o-", color=color, label=f"{rule}, geometric mean")
    axes[1].plot(labels, hot[rule].mean(0), "o-", color=color, label=rule)
axes[0].set(
    yscale="log", xlabel="labelled structures", ylabel="force RMSE on the test set (meV/Å)", title=f"{len(SEEDS)} runs"
)
axes[0].legend(fontsize="small")
axes[1].axhline(1 - sizes[300.0] / sum(sizes.values()), color="k", ls=":")
axes[1].set(xlabel="labelled structures", ylabel="part of them at 500 and 700 K", ylim=(0, None))
axes[1].set(title="what is chosen; of the pool (dotted)")
spread, wrong = results["committee"][0][2]
axes[2].loglog(1e3 * spread, 1e3 * wrong, ".")
axes[2].set(xlabel="disagreement (meV/Å)", ylabel="error, were it labelled (meV/Å)", title="first committee, its pool")
figure.savefig(RESULTS / "active_learning.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# With nothing chosen yet both must be equal, to the last bit. Disagreement must know where the errors are; and of the
# pool, the hot structures must be what it asks for.

# %%
assert np.array_equal(errors["committee"][:, 0], errors["chance"][:, 0]), "both must start from the same"
assert all(len(np.unique(run[3])) == len(run[3]) for run in sum(results.values(), [])), "nothing is labelled twice"
assert np.mean(rank) > (0 if FAST else 0.3), f"disagreement must tell of errors, rank correlation {np.mean(rank):.2f}"
assert FAST or hot["committee"][:, -1].mean() > 1.5 * hot["chance"][:, -1].mean(), (
    f"hot structures must be found, {hot}"
)
fall = errors["chance"][:, -1] / errors["chance"][:, 0]
assert FAST or (fall < 0.8).all(), f"labels must help, whichever, got errors in the end over those at first {fall}"
assert FAST or (gain > 1).all(), f"choosing must pay, got {gain}"
print("all checks passed; figures are in", RESULTS)
