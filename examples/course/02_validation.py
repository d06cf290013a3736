# %% [markdown]
# # Training error, validation, cross-validation
#
# A model that repeats its training data has no training error and knows nothing. What a model will do on data it has
# not seen is measured by keeping data from it; what its error is made of, by training it again and again.

# %%
import os
from itertools import combinations_with_replacement, product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import molml
from molml.energy import StructureDataset, SymmetryFunctions, evaluate, fit
from molml.energy.features import G2, ThreeBody
from molml.energy.selection import shells
from molml.training import (
    ArrayDataset,
    bias_variance,
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
# targets have noise of their own. The three add up to the error; here to that of other models, so that the sum could
# be wrong.


# %%
def decomposed(predictions, targets, noise):
    """Parts of the error of models (n_models, n_points), and by how many standard errors half of them miss the rest."""
    random = np.random.default_rng(2)
    errors = np.mean((predictions - targets - random.normal(0, noise, predictions.shape)) ** 2, axis=1)
    middle = len(errors) // 2
    half = bias_variance(predictions[:middle], targets, truth=targets)
    difference = half.bias2 + half.variance + noise**2 - errors[middle:].mean()
    off = difference / (errors.std(ddof=1) * np.sqrt(1 / middle + 1 / (len(errors) - middle)))
    whole = bias_variance(predictions, targets, truth=targets)
    return whole._replace(noise=noise**2, error=whole.error + noise**2), off


grid = np.linspace(-3.1, 3.1, 200)
n_repeats = 200 if FAST else 1000
parts, off = zip(
    *(
        decomposed(
            np.array([fit_polynomial(sample(60, 1000 + i), d)(grid) for i in range(n_repeats)]), truth(grid), NOISE
        )
        for d in degrees[:14]
    ),
    strict=True,
)
bootstrap = resampled_predictions(lambda data: fit_polynomial(data, 6), lambda m: m(grid), train, n_samples=50, seed=0)
print(
    f"variance of degree 6: {parts[5].variance:.3f} over new samples, {bootstrap.var(0).mean():.3f} over resampled ones"
)

# %% [markdown]
# ## The same for a potential
# How far an atom sees and how many functions describe its surroundings are hyperparameters as the degree was. Here
# ethanol: linear potentials of pairs and triples of atoms, each trained on thirty structures of its own. What they say
# of the forces in other structures is compared; the labels have no noise.


# %%
def pairs_and_triples(n_shells, cutoff):
    """Functions of so many distances, from a bond of hydrogen to the cutoff, for neighbours and pairs of neighbours."""
    near = list(product("HCO", shells(n_shells, 0.9, cutoff)))
    triples = [
        ThreeBody((a, b), (g, h), degree)
        for ((a, g), (b, h)) in combinations_with_replacement(near, 2)
        for degree in range(3)
    ]
    return SymmetryFunctions(dict.fromkeys("HCO", [G2(a, *g) for a, g in near] + triples), cutoff=cutoff)


folder = molml.datasets.path("ethanol")
everything, valid = (StructureDataset(folder / f"{name}.xyz.xz") for name in ("train", "valid"))
valid = valid.subset(range(0, len(valid), 30 if FAST else 4))
n_potentials, n_structures = (4, 10) if FAST else (12, 30)
order = np.random.default_rng(0).permutation(len(everything))
samples = order[: n_potentials * n_structures].reshape(n_potentials, n_structures)


def of_potentials(n_shells, cutoff):
    """Number of functions of an atom, parts of the force error, (eV/Å)², and how far their sum is off."""
    data, seen, functions = (
        everything.with_cutoff(cutoff),
        valid.with_cutoff(cutoff),
        pairs_and_triples(n_shells, cutoff),
    )
    evaluations = [
        evaluate(fit(data.subset(s), model="linear", functions=functions, seed=0, progress=False), seen)
        for s in samples
    ]
    predictions = np.array([e.forces.ravel() for e in evaluations])
    return functions.n_functions("C"), *decomposed(predictions, evaluations[0].forces_reference.ravel(), 0.0)


numbers = (1, 2) if FAST else (1, 2, 3, 4)
cutoffs = (2.5, 4.0) if FAST else (2.0, 2.5, 3.0, 4.0)
by_number = [of_potentials(n, 4.0) for n in numbers]
by_cutoff = [by_number[1] if cutoff == 4.0 else of_potentials(2, cutoff) for cutoff in cutoffs]

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
plot_bias_variance([n for n, _, _ in by_number], [part for _, part, _ in by_number], xlabel="functions", ax=axes[1, 1])
plot_bias_variance(cutoffs, [part for _, part, _ in by_cutoff], xlabel="cutoff (Å)", ax=axes[1, 2])
axes[1, 0].set_title("polynomials")
for ax in axes[1, 1:]:
    ax.set(ylabel="squared force error (eV²/Å²)", title="potentials for ethanol")
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
missed = np.abs([*off, *(miss for _, _, miss in ([] if FAST else by_number + by_cutoff))])
print(f"bias², variance and noise miss the error by {missed.max():.1f} standard errors at most")
assert missed.max() < 5, f"bias², variance and noise must add up to the error, off by {missed.round(1)} standard errors"
assert parts[0].bias2 > parts[9].bias2 and parts[0].variance < parts[9].variance, (
    "flexible models trade bias for variance"
)
bias2 = [part.bias2 for _, part, _ in by_number]
assert bias2 == sorted(bias2, reverse=True), f"more functions must describe ethanol better, bias² {bias2}"
total = dict(zip(cutoffs, (part.error for _, part, _ in by_cutoff), strict=True))
assert FAST or min(total, key=total.get) in (2.5, 3.0), (
    f"two shells must serve a cutoff that is neither small nor large, {total}"
)
print("all checks passed; figures are in", RESULTS)
