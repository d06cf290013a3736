# %% [markdown]
# # PCA against the autoencoder, TICA against the time-lagged autoencoder
#
# Principal components are the directions of largest variance, time-lagged independent components those of slowest
# change. Both are what a linear autoencoder finds: one that reproduces its input, or one that predicts the next frame
# (Wehmeyer and Noé, J. Chem. Phys. 148, 241703 (2018)). Nonlinear ones go further, if what they are asked for is what
# one wants. `examples/kinetics.py` does the same for a molecule.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.linalg import subspace_angles

from molml.kinetics import PCA, TICA, Autoencoder, ReversibleVAMPNet, TimeLaggedAutoencoder
from molml.kinetics.metrics import canonical_correlations
from molml.kinetics.plots import plot_scores
from molml.kinetics.systems import square_root_model, swiss_roll_model

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/08_slow_and_large")
RESULTS.mkdir(parents=True, exist_ok=True)
N_FRAMES = 5_000 if FAST else 30_000
settings = {"max_epochs": 3} if FAST else {}

# %% [markdown]
# ## Linear autoencoders
# Without hidden layers the autoencoder must span the principal components, and the time-lagged one the solution of
# whitened regression of the next frame on this one. Angles between the spaces tell.

# %%
random = np.random.default_rng(0)
mixing = random.normal(size=(6, 6))
hidden = np.zeros((N_FRAMES, 6))
memory = np.array([0.99, 0.95, 0.8, 0.5, 0.2, 0.0])
size = np.sqrt(1 - memory**2)
for t in range(1, N_FRAMES):
    hidden[t] = memory * hidden[t - 1] + size * random.normal(size=6)
frames = hidden * np.array([0.3, 0.5, 1.0, 2.0, 3.0, 4.0]) @ mixing
pairs = {
    "PCA": (PCA(2), Autoencoder(2, hidden=(), seed=0, progress=False)),
    "TICA": (TICA(1, 2), TimeLaggedAutoencoder(1, 2, hidden=(), seed=0, progress=False)),
}
angles = {}
for name, (linear, network) in pairs.items():
    linear.fit(frames)
    module = network.fit(frames).as_module()
    origin, unit = torch.zeros(1, 6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    weights = (module(unit) - module(origin)).detach().numpy()  # the module is linear: one row per feature
    angles[name] = float(np.degrees(subspace_angles(linear.components_.T, weights).max()))
print("largest angle between a linear autoencoder's space and that of", angles, "degrees")

# %% [markdown]
# ## What is large, and what is slow
# Two systems of the paper, in which the slow process is bent or is small. The correlation of the one coordinate that
# each method finds with the exact slow function:

# %%
systems = {"square root": square_root_model(), "swiss roll": swiss_roll_model()}
methods = {
    "PCA": lambda: PCA(1),
    "TICA": lambda: TICA(1, 1),
    "autoencoder": lambda: Autoencoder(1, seed=0, progress=False, **settings),
    "time-lagged autoencoder": lambda: TimeLaggedAutoencoder(1, 1, seed=0, progress=False, **settings),
    "reversible VAMPnet": lambda: ReversibleVAMPNet(1, 1, seed=0, progress=False, **settings),
}
found, coordinates, data = {}, {}, {}
for system, model in systems.items():
    data[system] = model.simulate(N_FRAMES, seed=1).trajectories[0]
    exact = model.slow_function(data[system])[:, None]
    for name, make in methods.items():
        coordinates[system, name] = make().fit_transform(data[system])
        found[system, name] = float(canonical_correlations(coordinates[system, name], exact)[0])
    print(system, {name: round(found[system, name], 3) for name in methods})

figure = Figure(figsize=(15, 8), layout="constrained")
axes = figure.subplots(2, 4)
for row, system in enumerate(systems):
    x = data[system][::5]
    scores = {name: (found[system, name], None) for name in methods}
    plot_scores(scores, label=f"{system}: correlation", ax=axes[row, 0])
    for ax, name in zip(axes[row, 1:], ("TICA", "time-lagged autoencoder", "reversible VAMPnet"), strict=True):
        # the last column is the second of the square root, and the roll seen along its axis
        ax.scatter(x[:, 0], x[:, -1], c=coordinates[system, name][::5, 0], s=2, cmap="coolwarm")
        ax.set(title=f"{name}: {found[system, name]:.2f}")
figure.savefig(RESULTS / "methods.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers

# %%
assert max(angles.values()) < (15 if FAST else 3), f"linear autoencoders must be PCA and TICA, {angles} degrees apart"
assert found["square root", "PCA"] < 0.1 and found["swiss roll", "TICA"] < 0.1, "what fails must fail"
assert FAST or found["square root", "time-lagged autoencoder"] > 0.95, "a bent coordinate needs a network"
assert FAST or found["swiss roll", "time-lagged autoencoder"] < 0.8, "predicting what is large misses what is slow"
assert FAST or min(found[s, "reversible VAMPnet"] for s in systems) > 0.98, "asked for what is slow, a network finds it"
print("all checks passed; figures are in", RESULTS)
