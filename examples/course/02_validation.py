# %% [markdown]
# # Training error, validation, cross-validation
#
# A model that repeats its training data has no training error and knows nothing. What a model will do on data it has
# not seen is measured by keeping data from it; what its error is made of, by training it again and again.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from matplotlib.figure import Figure

from molml.energy import StructureDataset, evaluate, fit
from molml.training import (
    ArrayDataset,
    bias_variance,
    cross_validate,
    plot_bias_variance,
    resampled_predictions,
    search,
)

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/02_validation")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A torsion profile, measured with noise
# The truth is a sum of three cosines, as in every force field (numbers of the order of butane's, in kcal/mol).

# %%
NOISE = 0.4


def truth(angle):
    return 0.7 * (1 + np.cos(angle)) - 0.3 * (1 - np.cos(2 * angle)) + 1.6 * (1 + np.cos(3 * angle))


def sample(n, seed):
    random = np.random.default_rng(seed)
    angles = random.uniform(-np.pi, np.pi, n)
    values = truth(angles) + random.normal(0, NOISE, n)
    return ArrayDataset(torch.from_numpy(angles), torch.from_numpy(values))


train, test = sample(60, 0), sample(1000, 1)


def squared_error(model, dataset):
    return float(np.mean((model(dataset.inputs.numpy()) - dataset.targets.numpy()) ** 2))


# %% [markdown]
# ## The delta-function model
# A sum of infinitely narrow peaks at the training points: zero training error, and zero everywhere else.


# %%
def fit_deltas(dataset):
    table = dict(zip(dataset.inputs.tolist(), dataset.targets.tolist(), strict=True))
    return lambda angles: np.array([table.get(angle, 0.0) for angle in angles])


def fit_polynomial(dataset, degree):
    return np.polynomial.Polynomial.fit(dataset.inputs.numpy(), dataset.targets.numpy(), degree, domain=[-np.pi, np.pi])


models = {"deltas": fit_deltas(train), **{degree: fit_polynomial(train, degree) for degree in (1, 2, 10)}}
for name, model in models.items():
    print(f"{name!s:>7}: training error {squared_error(model, train):.3f}, test error {squared_error(model, test):.3f}")

# %% [markdown]
# ## The degree, chosen without the test set
# Cross-validation leaves out a fifth at a time; the error on what was left out is the one to go by.

# %%
degrees = list(range(1, 21))
candidates = search(
    lambda data, settings: fit_polynomial(data, **settings), squared_error, train, {"degree": degrees}, k=5, seed=0
)
chosen = candidates[0].settings["degree"]
by_degree = sorted(candidates, key=lambda candidate: candidate.settings["degree"])
print(f"cross-validation chooses degree {chosen}")

# %% [markdown]
# ## What the error is made of
# Train on many samples: the mean prediction is off by the bias, single predictions scatter by the variance, and new
# targets have noise of their own. The three add up to the error.

# %%
grid = np.linspace(-3.1, 3.1, 200)
targets = truth(grid)
random = np.random.default_rng(2)
n_repeats = 200 if FAST else 1000
parts, direct = [], []
for degree in degrees[:14]:
    predictions = np.array([fit_polynomial(sample(60, 1000 + i), degree)(grid) for i in range(n_repeats)])
    measured = targets + random.normal(0, NOISE, (n_repeats, len(grid)))
    parts.append(bias_variance(predictions, measured[0], truth=targets)._replace(noise=NOISE**2))
    direct.append(np.mean((predictions - measured) ** 2))
sums = np.array([part.bias2 + part.variance + part.noise for part in parts])
bootstrap = resampled_predictions(lambda data: fit_polynomial(data, 6), lambda m: m(grid), train, n_samples=50, seed=0)
print(
    f"variance of degree 6: {parts[5].variance:.3f} over new samples, {bootstrap.var(0).mean():.3f} over resampled ones"
)

# %% [markdown]
# ## The same for a potential
# How far an atom sees and how many functions describe its surroundings are hyperparameters as the degree was. Here
# copper, with ASE's EMT as the truth.


# %%
def shaken(seed):
    random = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.positions += random.normal(0, 0.1, atoms.positions.shape)
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms


structures = [shaken(seed) for seed in range(3 if FAST else 12)]


def force_error(potential, dataset):
    return evaluate(potential, dataset).metrics["forces_rmse"]


def validated(cutoff, n_functions):
    """Force errors of potentials that see so far, with so many functions."""
    return cross_validate(
        lambda data: fit(data, model="linear", n_functions=n_functions, seed=0),
        force_error,
        StructureDataset(structures, cutoff=cutoff),
        k=3,
        seed=0,
    )


cutoffs = (3.0, 5.0) if FAST else (3.0, 4.0, 5.0, 6.0)
sizes = (5, 40) if FAST else (5, 10, 20, 40, 80)
errors = [validated(5.0, n) for n in sizes]
reach = [validated(cutoff, 40) for cutoff in cutoffs]

figure = Figure(figsize=(13, 8), layout="constrained")
axes = figure.subplots(2, 3)
axes[0, 0].plot(train.inputs, train.targets, "k.", label="data")
for degree in (1, 2, 10):
    axes[0, 0].plot(grid, models[degree](grid), label=f"degree {degree}")
axes[0, 0].plot(grid, models["deltas"](grid), ":", label="deltas")
axes[0, 0].set(xlabel="torsion (rad)", ylabel="energy (kcal/mol)")
axes[0, 0].legend()
axes[0, 1].plot(degrees, [c.validation.train.mean() for c in by_degree], "o-", label="training")
axes[0, 1].plot(degrees, [c.error for c in by_degree], "s-", label="cross-validation")
axes[0, 1].plot(degrees, [squared_error(fit_polynomial(train, d), test) for d in degrees], "k:", label="test")
axes[0, 1].set(xlabel="degree", ylabel="squared error", yscale="log")
axes[0, 1].legend()
plot_bias_variance(degrees[:14], parts, xlabel="degree", ax=axes[1, 0])
for ax, values, results, xlabel in (
    (axes[1, 1], sizes, errors, "functions"),
    (axes[1, 2], cutoffs, reach, "cutoff (Å)"),
):
    ax.errorbar(values, [e.train.mean() for e in results], [e.train.std() for e in results], label="training")
    ax.errorbar(values, [e.test.mean() for e in results], [e.test.std() for e in results], label="left out")
    ax.set(xlabel=xlabel, ylabel="force RMSE of a potential (eV/Å)", yscale="log")
    ax.legend()
axes[0, 2].bar([str(name) for name in models], [squared_error(model, test) for model in models.values()])
axes[0, 2].set(xlabel="model", ylabel="test error")
figure.savefig(RESULTS / "validation.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers

# %%
nothing = float(np.mean(test.targets.numpy() ** 2))
assert squared_error(models["deltas"], train) == 0.0, "deltas must repeat their training data"
assert abs(squared_error(models["deltas"], test) / nothing - 1) < 1e-12, "and know nothing of any other"
assert 6 <= chosen <= 12, f"three cosines need a degree of at least 6, chosen was {chosen}"
off = np.abs(sums / np.array(direct) - 1).max()
assert off < 0.03, f"bias², variance and noise must add up to the error, off by {off:.1%}"
assert parts[0].bias2 > parts[9].bias2 and parts[0].variance < parts[9].variance, (
    "flexible models trade bias for variance"
)
assert errors[0].test.mean() > errors[-1].test.mean(), "more functions must describe copper better"
assert reach[0].test.mean() > reach[-1].test.mean(), "EMT reaches further than the first shell"
print("all checks passed; figures are in", RESULTS)
