# %% [markdown]
# # Linear least squares with feature functions
#
# A model that is linear in its coefficients, E(x) = Σ cᵢ fᵢ(x), is solved for in one step, however bent the feature
# functions fᵢ are. A spring, the energy curve of a diatomic, and a potential for copper are three sizes of one thing.

# %%
import os
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from matplotlib.figure import Figure

from molml.energy import StructureDataset, evaluate, fit
from molml.energy.plots import plot_parity

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/01_least_squares")
RESULTS.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## A spring
# The feature is x²/2, the coefficient the spring constant k. Its standard error is √(σ² (FᵀF)⁻¹), with σ² estimated
# from the residuals: of a hundred repetitions, about 95 must find the true k within two standard errors.


# %%
def least_squares(features, targets):
    """Coefficients and their standard errors."""
    coefficients, *_ = np.linalg.lstsq(features, targets, rcond=None)
    residuals = targets - features @ coefficients
    variance = residuals @ residuals / (len(targets) - features.shape[1])
    return coefficients, np.sqrt(variance * np.diag(np.linalg.inv(features.T @ features)))


k, noise = 3.2, 0.05  # eV/Å², eV
x = np.linspace(-0.5, 0.5, 40)
feature = (x**2 / 2)[:, None]
energies = k * feature[:, 0] + rng.normal(0, noise, len(x))
(found,), (error,) = least_squares(feature, energies)
print(f"spring constant {found:.2f} ± {error:.2f} eV/Å², true {k}")
repeated = [least_squares(feature, k * feature[:, 0] + rng.normal(0, noise, len(x))) for _ in range(1000)]
within = np.mean([abs(c[0] - k) < 2 * e[0] for c, e in repeated])

# %% [markdown]
# ## A diatomic
# HCl as a Morse oscillator, D (1 - exp(-a (r - r₀)))². Polynomials in r - r₀ follow it near the minimum only. With the
# features 1, exp(-a (r - r₀)) and exp(-2 a (r - r₀)) it is linear, so that three points suffice, anywhere.

# %%
D, a, r0 = 4.618, 1.869, 1.275  # eV, 1/Å, Å: Huber and Herzberg, Constants of Diatomic Molecules (1979)


def morse(r):
    return D * (1 - np.exp(-a * (r - r0))) ** 2


def polynomial(r, degree):
    return (r - r0)[:, None] ** np.arange(degree + 1)


def exponentials(r):
    return np.exp(-a * (r - r0))[:, None] ** np.arange(3)


near, far = np.linspace(1.1, 1.6, 30), np.linspace(0.95, 3.0, 200)
fits = {degree: least_squares(polynomial(near, degree), morse(near))[0] for degree in (2, 4, 6)}
three = np.array([1.2, 1.4, 2.0])
exact = np.linalg.solve(exponentials(three), morse(three))
curvature = 2 * fits[6][2]
print(f"force constant {curvature:.2f} eV/Å² from the polynomial of degree 6, exact 2 D a² = {2 * D * a**2:.2f}")

# %% [markdown]
# ## A potential
# The linear potential of molml is the same thing with features of every atom's surroundings: energies and forces are
# both linear in the coefficients. The data: copper, shaken and strained, with energies and forces of ASE's EMT.


# %%
def shaken(seed):
    random = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.set_cell(atoms.cell * (1 + random.normal(0, 0.01, (3, 3))), scale_atoms=True)
    atoms.positions += random.normal(0, 0.08, atoms.positions.shape)
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms


train, test = (
    StructureDataset([shaken(seed) for seed in seeds]) for seeds in (range(6 if FAST else 20), range(100, 110))
)
potential = fit(train, model="linear", n_functions=20 if FAST else 100, seed=0)
evaluation = evaluate(potential, test)

figure = Figure(figsize=(13, 4), layout="constrained")
axes = figure.subplots(1, 3)
axes[0].plot(x, energies, ".", label="measured")
axes[0].plot(x, found * feature[:, 0], label="½ k x²")
axes[0].legend(loc="upper center")
axes[0].set(title=f"k = {found:.2f} ± {error:.2f} eV/Å²", xlabel="x (Å)", ylabel="energy (eV)")
axes[1].plot(far, morse(far), "k", lw=3, label="Morse")
for degree, coefficients in fits.items():
    axes[1].plot(far, polynomial(far, degree) @ coefficients, label=f"polynomial, degree {degree}")
axes[1].plot(far, exponentials(far) @ exact, "--", label="exponentials, three points")
axes[1].plot(three, morse(three), "ko")
axes[1].set(ylim=(-0.3, 6), xlabel="r (Å)", ylabel="energy (eV)", title="a bond")
axes[1].legend(fontsize="small", loc="lower right")
plot_parity(evaluation, "forces", ax=axes[2])
axes[2].set(title="unseen copper")
figure.savefig(RESULTS / "fits.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers

# %%
spread = test.atoms[0].get_forces().std()
relative = evaluation.metrics["forces_rmse"] / spread
print(f"force error of the potential: {relative:.2%} of the forces")
assert 0.93 < within < 0.98, f"two standard errors must hold in 95 % of the repetitions, got {within:.1%}"
assert abs(curvature / (2 * D * a**2) - 1) < 1e-3, f"the force constant must be 2 D a², got {curvature}"
assert np.abs(exponentials(far) @ exact - morse(far)).max() < 1e-9, "a function of the features must be found exactly"
assert relative < (0.1 if FAST else 0.01), f"the potential must know the forces of unseen copper, off by {relative:.1%}"
print("all checks passed; figures are in", RESULTS)
