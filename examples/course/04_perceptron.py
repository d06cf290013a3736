# %% [markdown]
# # The artificial neuron and Rosenblatt's rule
#
# A neuron weighs its inputs, adds a bias and applies an activation. With a step as activation it draws a straight line
# through the plane; Rosenblatt's rule moves the line whenever a point lies on the wrong side. If there is a line that
# separates the points, the rule finds it. If there is none, it never stops.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import Perceptron

from molml.nn import MLP, activation
from molml.nn.activations import ACTIVATIONS
from molml.training import ArrayDataset, Trainer, squared_error

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/04_perceptron")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Activations and their derivatives

# %%
x = torch.linspace(-4, 4, 401, dtype=torch.float64, requires_grad=True)
figure = Figure(figsize=(13, 7), layout="constrained")
for ax, name in zip(figure.subplots(3, 5).flat, ACTIVATIONS, strict=False):
    y = activation(name)(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    ax.plot(x.detach(), y.detach(), label="f")
    ax.plot(x.detach(), slope, "--", label="f'")
    ax.set(title=name, ylim=(-2, 4))
figure.axes[0].legend()
figure.savefig(RESULTS / "activations.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Rosenblatt's rule, step by step
# w ← w + (t - y) x for every point in turn, after Rosenblatt, Psychological Review 65, 386 (1958); scikit-learn's
# `Perceptron` is this rule, one pass at a time.

# %%
corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
gates = {"AND": np.array([0, 0, 0, 1]), "OR": np.array([0, 1, 1, 1]), "XOR": np.array([0, 1, 1, 0])}
lines, mistakes = {}, {}
for name, targets in gates.items():
    neuron = Perceptron(shuffle=False)
    lines[name], mistakes[name] = [], []
    for _ in range(30):
        neuron.partial_fit(corners, targets, classes=[0, 1])
        lines[name].append((*neuron.coef_[0], neuron.intercept_[0]))
        mistakes[name].append(int((neuron.predict(corners) != targets).sum()))
    print(f"{name}: mistakes after each pass {mistakes[name][:12]}")

# %% [markdown]
# ## Two layers can
# XOR is OR but not AND: two neurons in a hidden layer and one above them. Here they are trained by gradients, from
# several starts, for a start can be a bad one.

# %%
data = ArrayDataset(torch.tensor(corners), torch.tensor(gates["XOR"][:, None], dtype=torch.float64))
solved, networks = [], []
for seed in range(4 if FAST else 10):
    network = MLP(2, [2], 1, activation="tanh", seed=seed, dtype=torch.float64)
    Trainer(
        network,
        lambda model, batch: {"value_mse": squared_error(model(batch[0]), batch[1])},
        torch.optim.LBFGS(network.parameters(), line_search_fn="strong_wolfe"),
        batch_size=4,
        max_epochs=30,
        progress=False,
    ).fit(data)
    solved.append(bool(((network(data.inputs) > 0.5) == (data.targets > 0.5)).all()))
    networks.append(network)
best = networks[solved.index(True)]
print(f"a hidden layer of two solves XOR from {sum(solved)} of {len(solved)} starts")

figure = Figure(figsize=(13, 4), layout="constrained")
axes = figure.subplots(1, 4)
grid = np.linspace(-0.5, 1.5, 101)
for ax, name in zip(axes, gates, strict=False):
    for step, (a, b, c) in enumerate(lines[name][:12]):
        if b:
            ax.plot(grid, -(a * grid + c) / b, color="tab:blue", alpha=0.15 + 0.07 * step)
    ax.set_title(f"{name}: a line after every pass")
plane = np.stack(np.meshgrid(grid, grid), -1)
with torch.no_grad():
    surface = best(torch.tensor(plane))[..., 0]
axes[3].contourf(grid, grid, surface, levels=[-10, 0.5, 10], colors=["#dbe8f6", "#fde2cf"])
axes[3].set_title("XOR: two layers")
for ax, targets in zip(axes, [*gates.values(), gates["XOR"]], strict=True):
    ax.scatter(*corners.T, c=targets, cmap="coolwarm", s=80, edgecolors="k", zorder=3)
    ax.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), aspect="equal")
figure.savefig(RESULTS / "boundaries.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# No line separates XOR, so at least one corner is wrong after every pass, for ever; AND and OR stay solved.

# %%
steps = torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float64)
assert activation("binary_step")(steps).tolist() == [0.0, 1.0, 1.0]
for name in ("AND", "OR"):
    assert mistakes[name][-1] == 0 and lines[name][-1] == lines[name][-2], f"{name} must be solved, and stay so"
assert min(mistakes["XOR"]) >= 1, "no single neuron computes XOR"
assert any(solved), "two layers compute XOR"
print("all checks passed; figures are in", RESULTS)
