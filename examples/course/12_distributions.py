# %% [markdown]
# # Probability measures, and learning a distribution
#
# How far apart are two densities? There is more than one answer, and which one is minimised decides what is learned:
# one side of the Kullback-Leibler divergence covers everything, the other chooses a single mode. Then normalizing
# flows learn the Boltzmann densities of a double well and of a molecule's torsions, well enough to be reweighted to
# exact free-energy differences: small Boltzmann generators (Noé et al., Science 365, eaaw1147 (2019)).

# %%
import os
from pathlib import Path

import mdtraj
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm, wasserstein_distance

import molml
from molml.kinetics import Torsions, TrajectoryFiles
from molml.nn import CouplingFlow
from molml.training import ArrayDataset, Term, Trainer, cosine

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/12_distributions")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Distances between densities
# Two Gaussians, one moved away: the Kullback-Leibler divergence grows with the square of the shift, the Wasserstein
# distance is the shift, and the maximum mean discrepancy (MMD, with a Gaussian kernel) no longer sees the difference
# between far and farther.

# %%
grid = np.linspace(-12, 12, 4801)
step = grid[1] - grid[0]


def kullback_leibler(p, q):
    """KL(p | q) of densities on the grid."""
    inside = p > 0
    return float(step * np.sum(p[inside] * (np.log(p[inside]) - np.log(np.maximum(q[inside], 1e-300)))))


def wasserstein(p, q):
    return float(wasserstein_distance(grid, grid, p, q))


def mean_discrepancy(p, q, width=1.0):
    kernel = np.exp(-((grid[::10, None] - grid[None, ::10]) ** 2) / (2 * width**2))
    difference = 10 * step * (p - q)[::10]
    return float(np.sqrt(max(difference @ kernel @ difference, 0.0)))


shifts = np.linspace(0, 4, 9)
standard = norm.pdf(grid)
curves = {
    name: np.array([distance(standard, norm.pdf(grid, shift)) for shift in shifts])
    for name, distance in (("KL", kullback_leibler), ("Wasserstein", wasserstein), ("MMD", mean_discrepancy))
}

# %% [markdown]
# ## Which side of the divergence?
# A single Gaussian, fitted to a density with two modes. KL(p | q), which is maximum likelihood, must cover both; the
# reverse, KL(q | p), must not be where p is not, and chooses one.

# %%
p = 0.6 * norm.pdf(grid, -2.5, 0.7) + 0.4 * norm.pdf(grid, 2.5, 0.7)


def fitted(distance):
    return minimize(
        lambda v: distance(norm.pdf(grid, v[0], np.exp(v[1]))),
        [-1.5, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-5},
    ).x


forward = fitted(lambda q: kullback_leibler(p, q))
reverse = fitted(lambda q: kullback_leibler(q, p))

# %% [markdown]
# ## A Boltzmann generator
# The energy u(x, y) = (x² - 1)² h + t x + (y - x)² 2, in units of kT: two wells, a barrier of several kT, tilted. The
# flow is trained on samples of both wells *in equal numbers*, so that it has to be told by reweighting, with weights
# exp(-u) / q, how much each well is worth.

# %%
HEIGHT, TILT = 6.0, 0.6


def energy(x):
    return HEIGHT * (x[..., 0] ** 2 - 1) ** 2 + TILT * x[..., 0] + 2 * (x[..., 1] - x[..., 0]) ** 2


def exact_difference():
    """Free energy of the right well over the left one, kT, by integration; y integrates to a constant."""
    x = np.linspace(-3, 3, 60001)
    weight = np.exp(-(HEIGHT * (x**2 - 1) ** 2 + TILT * x))
    return float(-np.log(weight[x > 0].sum() / weight[x < 0].sum()))


def well(side, n, random):
    """Samples of one well by rejection: what a simulation gives that never crosses the barrier."""
    x = side * random.uniform(0, 2, 40 * n)
    highest = np.exp(-(HEIGHT * (np.linspace(0, 2, 2001) ** 2 - 1) ** 2 + TILT * side * np.linspace(0, 2, 2001))).max()
    kept = x[random.uniform(0, highest, len(x)) < np.exp(-(HEIGHT * (x**2 - 1) ** 2 + TILT * x))][:n]
    return np.stack([kept, kept + random.normal(0, 0.5, len(kept))], axis=1)


random = np.random.default_rng(0)
n_samples = 1000 if FAST else 10_000
samples = torch.tensor(np.concatenate([well(side, n_samples // 2, random) for side in (-1, 1)]), dtype=torch.float32)


def likelihood(model, batch):
    return {"nll": Term(-model.log_density(batch[0]).sum(), len(batch[0]))}


def learned(samples, epochs, seed=0):
    """Flow fitted by maximum likelihood."""
    flow = CouplingFlow(samples.shape[1], n_layers=8, hidden=(64, 64), seed=seed)
    flow.set_scale(samples)
    Trainer(
        flow,
        likelihood,
        torch.optim.Adam(flow.parameters(), lr=3e-3),
        batch_size=256,
        max_epochs=epochs,
        lr_schedule=cosine(),
        clip_norm=5.0,
        progress=False,
    ).fit(ArrayDataset(samples, samples))
    return flow


def reweighted(flow, energy, n, seed):
    """Samples of the flow, and logarithms of the weights with which they are those of the Boltzmann density."""
    with torch.no_grad():
        x = flow.sample(n, generator=torch.Generator().manual_seed(seed))
        return x, (-energy(x) - flow.log_density(x)).double()


def free_energy_difference(flow, energy, is_right, n, seed):
    """Free energy of right over left by reweighting, kT, and the part of the samples that count."""
    x, log_weight = reweighted(flow, energy, n, seed)
    weight = log_weight.softmax(0)
    right = is_right(x)
    difference = -np.log(float(weight[right].sum() / weight[~right].sum()))
    return difference, float(weight.sum() ** 2 / (weight.square().sum() * n))


flow = learned(samples, 5 if FAST else 60)
exact = exact_difference()
n_drawn = 5000 if FAST else 50_000
of_wells = [free_energy_difference(flow, energy, lambda x: x[:, 0] > 0, n_drawn, seed) for seed in range(5)]
estimates = np.array([difference for difference, _ in of_wells])
print(f"free-energy difference {estimates.mean():.3f} ± {estimates.std():.3f} kT, exact {exact:.3f}")
print(f"{of_wells[0][1]:.0%} of the samples count; the training data say 0 kT")

# %% [markdown]
# ## Torsions of alanine dipeptide
# The same with a molecule: the Boltzmann density of φ and ψ at 600 K is what all trajectories together say, smoothed by
# a Gaussian. Again the flow is trained on left (φ < 0) and right in equal numbers, and reweighting has to tell what
# they are worth. A torsion is a point on a circle; the flow gets points (r cos φ, r sin φ) of a ring, with log r from
# N(0, 0.2²), whose density is that of the torsions over r² for either of them.

# %%
WIDTH, CELLS = 0.2, 120  # of log r; cells per torsion
folder = molml.datasets.path("alanine-dipeptide")
topology = mdtraj.load(folder / "topology.pdb").topology
files = TrajectoryFiles(folder / "*.xtc", Torsions(topology), topology=topology)
torsions = np.concatenate([np.arctan2(x[:, 1:4:2], x[:, 0:4:2]) for x in files.load()])
counts = np.histogram2d(*torsions.T, bins=CELLS, range=[(-np.pi, np.pi)] * 2)[0]
# nowhere zero: where nothing was seen, a count of a thousandth
surface = -np.log(gaussian_filter(counts, 1.0, mode="wrap") + 1e-3)


def ring(angles, random):
    """Points (n, 4) of two rings for torsions (n, 2)."""
    log_r = random.normal(0, WIDTH, angles.shape)
    return np.stack([np.exp(log_r) * np.cos(angles), np.exp(log_r) * np.sin(angles)], axis=2).reshape(-1, 4)


def torsion_energy(x):
    """Energy of points (n, 4) of the rings, kT, from the cells of the surface."""
    x = x.reshape(-1, 2, 2)
    cells = ((torch.atan2(x[..., 1], x[..., 0]) / (2 * np.pi) + 0.5) * CELLS).long().clamp(0, CELLS - 1)
    log_r = x.square().sum(2).log() / 2
    radial = (log_r.square() / (2 * WIDTH**2) + 2 * log_r).sum(1)
    return torch.tensor(surface, dtype=x.dtype)[cells[:, 0], cells[:, 1]] + radial


left, right = (torsions[side] for side in (torsions[:, 0] < 0, torsions[:, 0] > 0))
equal = np.concatenate([side[random.integers(len(side), size=n_samples)] for side in (left, right)])
rings = torch.tensor(ring(equal, random), dtype=torch.float32)
ramachandran = learned(rings, 3 if FAST else 40)
of_torsions = [
    free_energy_difference(ramachandran, torsion_energy, lambda x: x[:, 1] > 0, n_drawn, seed) for seed in range(5)
]
torsion_estimates = np.array([difference for difference, _ in of_torsions])
half = CELLS // 2
exact_torsions = float(logsumexp(-surface[:half]) - logsumexp(-surface[half:]))
print(
    f"φ > 0 over φ < 0: {torsion_estimates.mean():.3f} ± {torsion_estimates.std():.3f} kT, exact {exact_torsions:.3f}"
)
print(
    f"{of_torsions[0][1]:.0%} of the samples count; counted in the trajectories {np.log(len(left) / len(right)):.3f} kT"
)
drawn, log_weight = reweighted(ramachandran, torsion_energy, n_drawn, 0)
torsion_weight = log_weight.softmax(0).numpy()
drawn = torch.atan2(drawn[:, 1::2], drawn[:, ::2]).numpy()

figure = Figure(figsize=(14, 7), layout="constrained")
axes = figure.subplots(2, 4)
for name, values in curves.items():
    axes[0, 0].plot(shifts, values, "o-", label=name)
axes[0, 0].set(xlabel="shift of a Gaussian", ylabel="distance", ylim=(0, 8))
axes[0, 0].legend()
axes[0, 1].plot(grid, p, "k", label="p")
for name, (mean, width) in (("KL(p | q)", forward), ("KL(q | p)", reverse)):
    axes[0, 1].plot(grid, norm.pdf(grid, mean, np.exp(width)), "--", label=name)
axes[0, 1].set(xlim=(-6, 6), title="one Gaussian for two modes")
axes[0, 1].legend()
plane = torch.cartesian_prod(torch.linspace(-2.2, 2.2, 200), torch.linspace(-3, 3, 200))
with torch.no_grad():
    learned_energy = -flow.log_density(plane)
for ax, values, title in (
    (axes[0, 2], energy(plane), "energy (kT)"),
    (axes[0, 3], learned_energy, "what the flow has learned"),
):
    height = (values - values.min()).reshape(200, 200).T.numpy()
    shown = ax.contourf(np.linspace(-2.2, 2.2, 200), np.linspace(-3, 3, 200), height, levels=np.arange(0, 13))
    ax.set(title=title, xlabel="x", ylabel="y")
figure.colorbar(shown, ax=axes[0, 3])
x, log_weight = reweighted(flow, energy, n_drawn, 5)
line = np.linspace(-2, 2, 401)
boltzmann = np.exp(-(HEIGHT * (line**2 - 1) ** 2 + TILT * line))
for weights, label in ((None, "flow"), (log_weight.softmax(0).numpy(), "reweighted")):
    axes[1, 0].hist(x[:, 0].numpy(), bins=60, range=(-2, 2), density=True, alpha=0.4, weights=weights, label=label)
axes[1, 0].plot(line, boltzmann / (boltzmann.sum() * (line[1] - line[0])), "k", label="exact")
axes[1, 0].set(xlabel="x", xlim=(-2, 2))
axes[1, 0].legend()
for place, (values, truth) in enumerate(((estimates, exact), (torsion_estimates, exact_torsions))):
    axes[1, 1].errorbar(place, values.mean(), values.std(), fmt="o", color="C0", label="reweighted")
    axes[1, 1].hlines(truth, place - 0.3, place + 0.3, color="k", ls=":", label="exact")
    axes[1, 1].plot(place, 0, "s", color="C7", label="training data")
handles, labels = axes[1, 1].get_legend_handles_labels()
named = dict(zip(labels, handles, strict=True))
axes[1, 1].legend(named.values(), named.keys())
axes[1, 1].set(xticks=[0, 1], xticklabels=["double well", "sign of φ"], xlim=(-0.5, 1.5))
axes[1, 1].set(ylabel="free-energy difference (kT)")
for ax, weights, title in (
    (axes[1, 2], None, "torsions of the flow"),
    (axes[1, 3], torsion_weight, "reweighted"),
):
    made = np.histogram2d(*np.degrees(drawn).T, bins=72, range=[(-180, 180)] * 2, weights=weights, density=True)[0]
    with np.errstate(divide="ignore"):
        free = -np.log(made) + np.log(made.max())
    shown = ax.imshow(free.T, origin="lower", extent=(-180, 180, -180, 180), vmax=8)
    centres = np.degrees((np.arange(CELLS) + 0.5) * 2 * np.pi / CELLS - np.pi)
    ax.contour(centres, centres, (surface - surface.min()).T, levels=[1, 3, 5], colors="w", linewidths=0.8)
    ax.set(title=title, xlabel="φ (°)", ylabel="ψ (°)")
figure.colorbar(shown, ax=axes[1, 3], label="kT; contours: the surface")
figure.savefig(RESULTS / "distributions.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# KL of Gaussians a shift apart is shift²/2, the Wasserstein distance is the shift, and the MMD of a Gaussian kernel has
# a closed form, too. KL(p | q) is least at the mean and variance of p.

# %%
discrepancy = np.sqrt(2 / np.sqrt(3) * (1 - np.exp(-(shifts**2) / 6)))
mean = float(step * np.sum(grid * p))
width = np.sqrt(step * np.sum((grid - mean) ** 2 * p))
assert np.abs(curves["KL"] - shifts**2 / 2).max() < 1e-6, "KL of two Gaussians must be half the square of the shift"
assert np.abs(curves["Wasserstein"] - shifts).max() < 1e-6, "moving everything by a shift must cost the shift"
assert np.abs(curves["MMD"] - discrepancy).max() < 1e-3, "MMD of two Gaussians has a closed form"
assert abs(forward[0] - mean) < 1e-2 and abs(np.exp(forward[1]) - width) < 1e-2, "KL(p | q) must cover both modes"
assert abs(reverse[0] + 2.5) < 0.1 and abs(np.exp(reverse[1]) - 0.7) < 0.1, "KL(q | p) must choose one mode"
assert abs(exact) > 0.5, "the wells must differ, or there is nothing to find"
off = abs(estimates.mean() - exact)
assert off < (0.5 if FAST else 0.1), f"the reweighted free-energy difference must be exact to 0.1 kT, off by {off:.3f}"
# the mean weight is the partition function, ∫ exp(-u); y contributes √(π / 2)
log_z = float(log_weight.logsumexp(0)) - np.log(n_drawn)
exact_log_z = np.log(boltzmann.sum() * (line[1] - line[0]) * np.sqrt(np.pi / 2))
assert abs(log_z - exact_log_z) < (0.2 if FAST else 0.05), f"log ∫ exp(-u) must be {exact_log_z:.3f}, got {log_z:.3f}"
off = abs(torsion_estimates.mean() - exact_torsions)
assert exact_torsions > 1, "φ > 0 must be rare, or there is nothing to find"
assert off < (1.0 if FAST else 0.1), f"the molecule's free-energy difference must be exact to 0.1 kT, off by {off:.3f}"
assert abs(exact_torsions - np.log(len(left) / len(right))) < 0.1, (
    "smoothing must leave the free energies what they are"
)
print("all checks passed; figures are in", RESULTS)
