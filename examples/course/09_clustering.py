# %% [markdown]
# # Clustering with a Gaussian-mixture autoencoder
#
# k-means and Gaussian mixtures cut the space they are given. A variational autoencoder with a mixture as its prior
# learns the space and the clusters together. Two data sets with known answers: the conformations of alanine dipeptide
# and handwritten digits.

# %%
import os
from pathlib import Path

import mdtraj
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA as ScikitPCA
from sklearn.metrics import adjusted_rand_score

import molml
from molml.kinetics import GaussianMixture, GaussianMixtureVAE, KMeans, Torsions, TrajectoryFiles
from molml.kinetics.plots import plot_ramachandran

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/09_clustering")
RESULTS.mkdir(parents=True, exist_ok=True)


def accuracy(labels, clusters):
    """Part of the items that the best one-to-one naming of the clusters gets right (Yang et al., 2010)."""
    table = np.zeros((labels.max() + 1, clusters.max() + 1))
    np.add.at(table, (labels, clusters), 1)
    return table[linear_sum_assignment(-table)].sum() / len(labels)


# %% [markdown]
# ## Conformations
# Every method gets cos and sin of φ and ψ and is asked for three clusters. What they should find: the left-handed
# region, φ > 0, and two basins with φ < 0 that differ by ψ (the border is where hardly any frame is).

# %%
folder = molml.datasets.path("alanine-dipeptide")
topology = mdtraj.load(folder / "topology.pdb").topology
torsions = np.concatenate(TrajectoryFiles(folder / "*.xtc", Torsions(topology), topology=topology, stride=10).load())
phi, psi = np.arctan2(torsions[:, 1], torsions[:, 0]), np.arctan2(torsions[:, 3], torsions[:, 2])
epochs = 2 if FAST else None
methods = {
    "k-means": KMeans(3, seed=0),
    "Gaussian mixture": GaussianMixture(3, seed=0),
    "mixture autoencoder": GaussianMixtureVAE(3, 2, max_epochs=epochs, progress=False, seed=0),
}
clusters = {name: method.fit_predict(torsions) for name, method in methods.items()}
conformations = np.where(phi > 0, 2, np.where(np.cos(psi - 2.2) > np.cos(1.7), 0, 1))
right = {name: accuracy(conformations, found) for name, found in clusters.items()}
print("frames in the right cluster:", ", ".join(f"{name} {value:.1%}" for name, value in right.items()))

figure = Figure(figsize=(13, 4), layout="constrained")
for ax, (name, found) in zip(figure.subplots(1, 3), clusters.items(), strict=True):
    plot_ramachandran(phi, psi, found, label="cluster", ax=ax).set_title(f"{name}: {right[name]:.0%} right")
figure.savefig(RESULTS / "conformations.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Digits
# 1,797 images of 8 x 8 pixels. Nobody is told what a digit is; a cluster is then named after what most of it is.

# %%
digits = load_digits()
X, truth = digits.data / 16, digits.target
if FAST:
    X, truth = X[:500], truth[:500]
readers = {
    "k-means": KMeans(10, seed=0),
    "Gaussian mixture": GaussianMixture(10, seed=0),
    "mixture autoencoder": GaussianMixtureVAE(10, 10, max_epochs=epochs, progress=False, seed=0),
}
# the covariances of 64 pixels, many always empty, are singular
reduced = ScikitPCA(20, random_state=0).fit_transform(X)
read = {name: method.fit_predict(reduced if name == "Gaussian mixture" else X) for name, method in readers.items()}
scores = {name: (accuracy(truth, found), adjusted_rand_score(truth, found)) for name, found in read.items()}
for name, (part, rand) in scores.items():
    print(f"{name:>20}: {part:.1%} of the digits right, adjusted Rand index {rand:.2f}")

figure = Figure(figsize=(13, 4.5), layout="constrained")
axes = figure.subplots(3, 10)
for row, (name, found) in enumerate(read.items()):
    for k in range(10):
        if (found == k).any():
            axes[row, k].imshow(X[found == k].mean(axis=0).reshape(8, 8), cmap="gray_r")
        axes[row, k].set(xticks=[], yticks=[])
    axes[row, 0].set_ylabel(f"{name}\n{scores[name][0]:.0%} right")
figure.savefig(RESULTS / "digits.png", dpi=120)
figure  # noqa: B018 (a notebook shows the mean image of every cluster)

# %% [markdown]
# ## Checks against known answers
# Two well separated clouds must be told apart by all; a permutation of the names changes nothing; and the frames with
# φ > 0 are a cluster of their own.

# %%
random = np.random.default_rng(0)
clouds = np.concatenate([random.normal(-4, 1, (300, 2)), random.normal(4, 1, (300, 2))])[random.permutation(600)]
halves = (clouds[:, 0] > 0).astype(int)
for method in (KMeans(2, seed=0), GaussianMixture(2, seed=0), GaussianMixtureVAE(2, 2, progress=False, max_epochs=20)):
    assert accuracy(halves, method.fit_predict(clouds)) > 0.99, f"{type(method).__name__} must part two clouds"
assert accuracy(truth, (truth + 3) % 10) == 1.0, "names of clusters must not matter"
assert accuracy(truth, random.permutation(truth)) < 0.2, "chance must be seen to be chance"
assert accuracy(truth, np.zeros_like(truth)) < 0.2, "a cluster has one name"
left = max(adjusted_rand_score(phi > 0, clusters["mixture autoencoder"] == k) for k in range(3))
print(f"agreement of a cluster with φ > 0: {left:.2f}")
assert FAST or right["mixture autoencoder"] > 0.85, f"three conformations must be found, {right}"
assert FAST or left > 0.9, f"the left-handed region must be a cluster, agreement {left:.2f}"
assert FAST or scores["mixture autoencoder"][0] > 0.75, f"most digits must be clustered rightly, {scores}"
print("all checks passed; figures are in", RESULTS)
