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
from torch.func import functional_call
from torch.nn import functional

from molml.nn import MLP
from molml.training import ArrayDataset, Term, Trainer

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


# %%
def fixed(module, x):
    """Output of a module whose weights are not to be trained by it."""
    return functional_call(module, {name: weight.detach() for name, weight in module.named_parameters()}, (x,))


def game(rule, n_latent):
    """Loss of both players, by one of the three rules."""

    def loss(model, batch):
        real = batch[0]
        n = len(real)
        made = model["generator"](torch.randn(n, n_latent))
        discriminator = model["discriminator"]
        on_real, on_made, seen = discriminator(real), discriminator(made.detach()), fixed(discriminator, made)
        if rule == "wasserstein":
            share = torch.rand(n, *[1] * (real.ndim - 1))
            between = (share * real + (1 - share) * made.detach()).requires_grad_(True)
            (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=model.training)
            penalty = 10.0 * (slope.flatten(1).norm(dim=1) - 1).square()
            return {
                "critic": Term((on_made - on_real).sum() + penalty.sum(), n),
                "generator": Term(-seen.sum(), n),
            }
        wrong = -functional.logsigmoid(on_real).sum() - functional.logsigmoid(-on_made).sum()
        answer = functional.logsigmoid(-seen).sum() if rule == "minimax" else -functional.logsigmoid(seen).sum()
        return {"critic": Term(wrong, n), "generator": Term(answer, n)}

    return loss


def played(generator, discriminator, data, rule, n_latent, epochs, rates=(1e-3, 1e-3), batch_size=128):
    """Both players after a game; the generator is the last one, for no objective says which one is best."""
    players = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    groups = [{"params": players[name].parameters(), "lr": r} for name, r in zip(players, rates, strict=True)]
    last = {}

    def loss(model, batch):
        last.update({name: value.detach().clone() for name, value in model.state_dict().items()})
        return game(rule, n_latent)(model, batch)

    Trainer(
        players,
        loss,
        torch.optim.Adam(groups, betas=(0.5, 0.9)),
        batch_size=batch_size,
        max_epochs=epochs,
        progress=False,
    ).fit(ArrayDataset(data, data))
    players.load_state_dict(last)
    return players


# %% [markdown]
# ## One dimension
# Two bond lengths, as in a double well. After the game the discriminator should find nothing to say.

# %%
random = np.random.default_rng(0)
bonds = np.concatenate([random.normal(-1.0, 0.25, 600), random.normal(1.0, 0.25, 1400)])
bonds = torch.tensor(random.permutation(bonds)[:, None], dtype=torch.float32)
players = [MLP(n, [64, 64], 1, initialisation="kaiming_normal", seed=seed) for seed, n in enumerate((2, 1))]
line = played(*players, bonds, "non-saturating", 2, epochs=5 if FAST else 100)
with torch.no_grad():
    made = line["generator"](torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)))
distance = wasserstein_distance(made[:, 0], bonds[:, 0])
left = float((made < 0).float().mean())
print(f"one dimension: {distance:.3f} from the data, {left:.2f} of the samples in the smaller well (data 0.30)")

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
art = played(painter, judge, images, "wasserstein", 16, epochs=2 if FAST else 60, rates=(5e-4, 1e-3), batch_size=64)
with torch.no_grad():
    painted = art["generator"].eval()(torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)))
nearest = torch.cdist(painted.flatten(1), images.flatten(1)).min(dim=1)
drawn = np.bincount(digits.target[nearest.indices.numpy()], minlength=10) / len(painted)
print(f"digits: {(drawn > 0.02).sum()} of 10 kinds; nearest real one at {nearest.values.mean():.1f}")

figure = Figure(figsize=(15, 3.6), layout="constrained")
axes = figure.subplots(1, 5)
axes[0].hist(bonds[:, 0].numpy(), 60, density=True, alpha=0.4, label="data")
axes[0].hist(made[:, 0].numpy(), 60, density=True, histtype="step", lw=2, label="generator")
axes[0].set(xlabel="bond")
axes[0].legend()
plane = torch.linspace(-2, 2, 121)
with torch.no_grad():
    axes[1].plot(plane, torch.sigmoid(line["discriminator"](plane[:, None])[:, 0]))
axes[1].set(xlabel="bond", ylabel="discriminator in the end", ylim=(0, 1))
for ax, pictures, title in ((axes[2], images, "digits"), (axes[3], painted, "painted")):
    ax.imshow(pictures[:64, 0].reshape(8, 8, 8, 8).permute(0, 2, 1, 3).reshape(64, 64).numpy(), cmap="gray_r")
    ax.set(title=title, xticks=[], yticks=[])
axes[4].bar(range(10), drawn)
axes[4].set(xlabel="digit that is nearest", ylabel="part of the painted ones")
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
assert FAST or (drawn > 0.02).sum() >= 9, f"nearly all digits must be painted, got shares {drawn}"
print("all checks passed; figures are in", RESULTS)
