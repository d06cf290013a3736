# %% [markdown]
# # An adversarial network in a space of molecules
#
# A latent GAN (Prykhodko et al., J. Cheminform. 11, 74 (2019)): the game of lesson 11 is played for codes, of which a
# decoder makes molecules that was trained before. The code is that of the model of drug-like molecules that comes with
# molml; the data are small molecules, of nine heavy atoms at most, which lie in a corner of it.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import molml
from molml.molecules import MoleculeList, canonical, read_molecules
from molml.molecules.metrics import metrics
from molml.molecules.plots import plot_properties
from molml.molecules.properties import properties
from molml.nn import MLP
from molml.training import cosine, play

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/11_latent_gan")
RESULTS.mkdir(parents=True, exist_ok=True)
MOST = 9  # heavy atoms of a molecule of the data
noise = torch.Generator().manual_seed(0)

# %% [markdown]
# ## The game
# The generator starts as the Gaussian that has mean and covariance of the codes: all that a linear model can know of
# them. What it has to learn is the rest. The decoder's part in this is nothing; it sees no code before the end.

# %%
vae = molml.load("druglike")
folder = molml.datasets.path("small-molecules")
small, unseen = (read_molecules(folder / f"{part}.csv.xz").smiles for part in ("train", "valid"))
small, unseen = small[: 512 if FAST else None], unseen[: 100 if FAST else None]
codes = torch.from_numpy(vae.encode(small)).float()
mean, scale = codes.mean(0), codes.std()
data = (codes - mean) / scale
covariance = torch.cov(data.T)
variances, directions = torch.linalg.eigh(covariance)


class Maker(nn.Module):
    """Noise to codes: a Gaussian, and what a network adds to it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("linear", directions * variances.clamp_min(0).sqrt())
        self.network = MLP(vae.n_latent, [256, 256], vae.n_latent, seed=0)
        nn.init.zeros_(self.network.layers[-1].weight)

    def forward(self, z):
        return z @ self.linear.T + self.network(z)


gaussian, maker = Maker(), Maker()
play(
    maker,
    MLP(vae.n_latent, [256, 256], 1, seed=1),
    data,
    "wasserstein",
    vae.n_latent,
    max_epochs=1 if FAST else 40,
    learning_rates=(3e-4, 1e-3),
    batch_size=64,
    lr_schedule=cosine(),
    progress=False,
)

# %% [markdown]
# ## Molecules
# Four origins of codes: the prior N(0, I) of the model, the Gaussian, the game, and molecules that are in no training
# here. With the rules of SMILES the decoder makes a molecule of any code, so validity says nothing about codes. Two
# things do: whether the molecules are small, as the data are; and whether the decoder writes molecules *without* the
# rules, which it has learned for codes of molecules only.

# %%
n_drawn = 100 if FAST else 1000
origins = {"prior": torch.randn(n_drawn, vae.n_latent, generator=noise)}
with torch.no_grad():
    for name, made in (("Gaussian", gaussian), ("latent GAN", maker)):
        origins[name] = mean + scale * made(torch.randn(n_drawn, vae.n_latent, generator=noise))
origins["molecules"] = torch.from_numpy(vae.encode(unseen)).float()
results, likeness, shown = {}, {}, {}
print("codes of      valid  unique   novel | small  valid without rules | logP, SA away, fragments alike")
for name, z in origins.items():
    shown[name] = [mol for mol in vae.decode(z.double().numpy()) if mol is not None]
    alone = [mol for mol in vae.decode(z.double().numpy(), mask=False) if mol is not None]
    away = metrics(shown[name], reference=unseen, train=small, fcd=False, threads=1, progress=False).values
    results[name] = {
        "valid": len(shown[name]) / n_drawn,
        "unique": len({canonical(mol) for mol in shown[name]}) / len(shown[name]),
        "novel": away["Novelty"],
        "small": np.mean([mol.GetNumHeavyAtoms() <= MOST for mol in shown[name]]),
        "valid alone": len(alone) / n_drawn,
    }
    likeness[name] = away["Frag/Test"]
    valid, unique, novel, little, free = results[name].values()
    print(
        f"{name:12} {valid:6.1%} {unique:7.1%} {novel:7.1%} | {little:5.1%} {free:20.1%} | "
        f"{away['logP']:.2f}, {away['SA']:.2f}, {likeness[name]:.3f}"
    )
MoleculeList(shown["latent GAN"][:10], title="Decoded from codes of the game").save(RESULTS / "molecules.svg")

# %%
figure = Figure(figsize=(14, 4), layout="constrained")
axes = figure.subplots(1, 3)
edges = np.arange(0.5, 35.5)
for name, mols in shown.items():
    heavy = np.clip([mol.GetNumHeavyAtoms() for mol in mols], 1, 34)
    axes[0].hist(heavy, edges, density=True, histtype="step", lw=2, label=name)
axes[0].axvline(MOST + 0.5, color="k", ls=":", lw=1)
axes[0].set(xlabel="heavy atoms (34 or more in the last bar)", ylabel="part of the molecules per atom")
axes[0].legend()
for place, (name, values) in enumerate(results.items()):
    axes[1].bar(np.arange(5) + 0.2 * (place - 1.5), values.values(), 0.19, label=name)
axes[1].set(xticks=range(5), xticklabels=("valid", "unique", "novel", "small", "valid\nwithout rules"), ylabel="part")
logp = {name: properties(mols, ["logP"])["logP"].to_numpy() for name, mols in shown.items()}
plot_properties(logp, label="logP", ax=axes[2])
figure.savefig(RESULTS / "latent.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks
# For the goals of a GAN on such molecules, 98 % valid, 40 % unique and 90 % novel, the rules and the large space of
# codes are enough: the prior reaches them, too, and knows nothing of the data. What the game must do is to make more
# *small* molecules than the Gaussian, with fragments more like theirs, while mean and covariance stay as they were. It
# closes a fifth of the gap in half a minute, a quarter in two; logP is no nearer, and no more is written without
# rules. Codes of molecules are a thin set among all codes, and that is hard to learn.

# %%
with torch.no_grad():
    made = maker(torch.randn(20_000, vae.n_latent, generator=noise))
turned = float((torch.cov(made.T) - covariance).norm() / covariance.norm())
moved = float(made.mean(0).norm() / variances.sum().sqrt())
print(f"the game has moved the mean by {moved:.2f} of the spread, and the covariance by {turned:.2f}")
game, control = results["latent GAN"], results["Gaussian"]
assert FAST or (game["valid"] > 0.98 and game["unique"] > 0.4 and game["novel"] > 0.9), f"goals are missed, got {game}"
assert FAST or game["small"] > control["small"] + 0.07, f"the game must teach what is small, got {game} for {control}"
assert FAST or likeness["latent GAN"] > likeness["Gaussian"] + 0.03, f"fragments must be more alike, got {likeness}"
assert FAST or results["molecules"]["small"] > 0.8, "codes of unseen molecules are the control: they must stay small"
assert moved < 0.2 and turned < 0.2, "mean and covariance, known at the start, must not be lost in the game"
print("all checks passed; figures are in", RESULTS)
