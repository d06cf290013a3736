# %% [markdown]
# # Generative adversarial networks
#
# A generator makes samples, a discriminator tells them from data, and each learns against the other (Goodfellow et al.,
# NIPS 2014). In the game's equilibrium the samples are the data's density and the discriminator can only guess.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import wasserstein_distance
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from molml.nn import MLP
from molml.training import ArrayDataset, Term, Trainer, cosine, play

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/11_gan")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Two players, one objective
# A step of both at once is a step along the gradient of one sum: the discriminator's loss on fixed samples, and the
# generator's loss through a fixed discriminator. So the Trainer plays the game, with a learning rate for each player.
#
# - minimax: the discriminator maximises E log D(x) + E log(1 - D(G(z))), the generator minimises it
# - non-saturating: the generator maximises E log D(G(z)) instead, whose gradient does not vanish when it is losing
# - Wasserstein: the discriminator becomes a critic, whose slope is held at one by a penalty (Gulrajani et al., NIPS
#   2017, eq. 3); the generator moves its samples downhill
#
# `molml.training.adversarial_loss` is this sum, and `play` gives it to the Trainer.

# %% [markdown]
# ## One dimension
# Two bond lengths, as in a double well. After the game the discriminator should find nothing to say.

# %%
random = np.random.default_rng(0)
bonds = np.concatenate([random.normal(-1.0, 0.25, 600), random.normal(1.0, 0.25, 1400)])
bonds = torch.tensor(random.permutation(bonds)[:, None], dtype=torch.float32)
players = [MLP(n, [64, 64], 1, initialisation="kaiming_normal", seed=seed) for seed, n in enumerate((2, 1))]
play(*players, bonds, "non-saturating", 2, max_epochs=5 if FAST else 100, progress=False)
bond_maker, bond_judge = players
with torch.no_grad():
    made = bond_maker(torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)))
distance = wasserstein_distance(made[:, 0], bonds[:, 0])
left = float((made < 0).float().mean())
print(f"one dimension: {distance:.3f} from the data, {left:.2f} of the samples in the smaller well (data 0.30)")

# %% [markdown]
# ## Two dimensions: the modes that a game loses
# Eight places on a circle, as of a ring that puckers in eight equal ways (pseudorotation: amplitude and phase). A
# generator that is good at a few of them fools the discriminator as well, until that learns to look there, and the
# generator moves on: *mode collapse*. The gradient of the non-saturating game does not vanish, but it, too, forgets
# whole modes. A critic with a slope tells from afar how far away a mode is (the Wasserstein distance). Equal players,
# steps and rates for all; the scale of the data matters, for the penalty holds the slope at one *per unit of length*.

# %%
N_MODES, SPREAD = 8, 0.05
angle = 2 * np.pi * np.arange(N_MODES) / N_MODES
modes = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
puckers = modes[random.integers(0, N_MODES, 1024)] + SPREAD * random.normal(size=(1024, 2))
puckers = torch.tensor(puckers, dtype=torch.float32)


def shares(points):
    """Part of the points at each mode, within four standard deviations of its centre."""
    distances = np.linalg.norm(points[:, None] - modes, axis=2)
    return np.bincount(distances.argmin(1)[distances.min(1) < 4 * SPREAD], minlength=N_MODES) / len(points)


places, found = {}, {}
for rule in ("minimax", "non-saturating", "wasserstein"):
    players = [
        MLP(2, [128] * 3, n, activation="relu", initialisation="kaiming_normal", seed=seed)
        for seed, n in ((0, 2), (100, 1))
    ]
    play(
        *players,
        puckers,
        rule,
        2,
        max_epochs=3 if FAST else 240,
        learning_rates=(1e-3, 2e-3),
        lr_schedule=cosine(),
        penalty=0.1,
        progress=False,
    )
    with torch.no_grad():
        places[rule] = players[0](torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))).numpy()
    found[rule] = shares(places[rule])
    print(
        f"{rule:14} {(found[rule] > 0.05).sum()} of {N_MODES} modes, {found[rule].sum():.0%} of the samples at one, "
        f"parts {found[rule].round(2)}"
    )

# %% [markdown]
# ## Digits
# Convolutional players (after Radford, Metz and Chintala, ICLR 2016) on images of 8 x 8 pixels.

# %%
digits = load_digits()
images = torch.tensor(digits.images[:, None] / 8 - 1, dtype=torch.float32)
torch.manual_seed(0)
painter = nn.Sequential(
    *(nn.Linear(16, 128 * 4), nn.Unflatten(1, (128, 2, 2)), nn.BatchNorm2d(128), nn.ReLU()),
    *(nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh()),
)
judge = nn.Sequential(
    *(nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 128, 4, 2, 1), nn.LeakyReLU(0.2)),
    *(nn.Flatten(), nn.Linear(128 * 4, 1)),
)
play(
    painter,
    judge,
    images,
    "wasserstein",
    16,
    max_epochs=2 if FAST else 40,
    learning_rates=(5e-4, 1e-3),
    batch_size=64,
    progress=False,
)
with torch.no_grad():
    painted = painter(torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)))
nearest = torch.cdist(painted.flatten(1), images.flatten(1)).min(dim=1)
drawn = np.bincount(digits.target[nearest.indices.numpy()], minlength=10) / len(painted)
print(f"digits: {(drawn > 0.02).sum()} of 10 kinds; nearest real one at {nearest.values.mean():.1f}")

figure = Figure(figsize=(15, 7.4), layout="constrained")
top, bottom = figure.subfigures(2, 1)
axes = top.subplots(1, 5)
axes[0].hist(bonds[:, 0].numpy(), 60, density=True, alpha=0.4, label="data")
axes[0].hist(made[:, 0].numpy(), 60, density=True, histtype="step", lw=2, label="generator")
axes[0].set(xlabel="bond")
axes[0].legend()
line_of_bonds = torch.linspace(-2, 2, 121)
with torch.no_grad():
    axes[1].plot(line_of_bonds, torch.sigmoid(bond_judge(line_of_bonds[:, None])[:, 0]))
axes[1].set(xlabel="bond", ylabel="discriminator in the end", ylim=(0, 1))
for ax, pictures, title in ((axes[2], images, "digits"), (axes[3], painted, "painted")):
    ax.imshow(pictures[:64, 0].reshape(8, 8, 8, 8).permute(0, 2, 1, 3).reshape(64, 64).numpy(), cmap="gray_r")
    ax.set(title=title, xticks=[], yticks=[])
axes[4].bar(range(10), drawn)
axes[4].set(xlabel="digit that is nearest", ylabel="part of the painted ones")
axes = bottom.subplots(1, 4)
steps = torch.linspace(-3, 3, 121)
with torch.no_grad():
    height = players[1](torch.cartesian_prod(steps, steps)).reshape(121, 121).T
shown = axes[2].contourf(steps, steps, height, 20, cmap="BrBG", alpha=0.7)
bottom.colorbar(shown, ax=axes[2], label="critic in the end")
for place, (rule, points) in enumerate(places.items()):
    axes[place].plot(*points.T, ".", ms=1.5, color=f"C{place}", alpha=0.3)
    axes[place].plot(*modes.T, "k+", ms=9)
    axes[place].set(title=rule, xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="q cos φ", ylabel="q sin φ")
    axes[3].bar(np.arange(N_MODES) + 0.27 * (place - 1), found[rule], 0.25, label=rule)
axes[3].axhline(1 / N_MODES, color="k", ls=":", lw=1)
axes[3].set(xlabel="mode", ylabel="part of the samples")
axes[3].legend(fontsize="small")
figure.savefig(RESULTS / "gan.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# For fixed samples the best discriminator is D = p / (p + q) (Goodfellow et al., proposition 1), which is known for two
# Gaussians: log D/(1 - D) is then linear in x.

# %%
p, q = torch.randn(20_000, 1) - 1, torch.randn(20_000, 1) + 1
umpire = nn.ModuleDict({"generator": nn.Identity(), "discriminator": MLP(1, [], 1, seed=0)})
two = ArrayDataset(torch.cat([p, q]), torch.cat([torch.ones(20_000), torch.zeros(20_000)])[:, None])
Trainer(
    umpire["discriminator"],
    lambda model, batch: {
        "wrong": Term(
            functional.binary_cross_entropy_with_logits(model(batch[0]), batch[1], reduction="sum"), len(batch[0])
        )
    },
    torch.optim.LBFGS(umpire["discriminator"].parameters(), max_iter=50),
    batch_size=40_000,
    max_epochs=3,
    progress=False,
).fit(two)
slope = float(umpire["discriminator"].layers[0].weight.detach())
assert abs(slope + 2) < 0.1, f"log p/q of Gaussians at -1 and 1 is -2 x, got {slope:.2f} x"
assert FAST or distance < 0.2, f"the generator must make the data's density, {distance:.3f} away"
assert FAST or abs(left - 0.3) < 0.08, f"both wells must have their share, got {left:.2f}"
cured = found["wasserstein"]
assert FAST or cured.min() > 0.03, f"no mode may be lost with a penalty on the slope, got parts {cured}"
assert FAST or cured.sum() > 0.65, f"most samples must be at a mode, got {cured.sum():.0%}"
for rule in ("minimax", "non-saturating"):
    lost = (found[rule] < 0.02).sum()
    assert FAST or lost > 0, f"the {rule} game is the control: it must lose a mode, got parts {found[rule]}"
assert FAST or (drawn > 0.02).sum() >= 9, f"nearly all digits must be painted, got shares {drawn}"
print("all checks passed; figures are in", RESULTS)
