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
from matplotlib import colormaps
from matplotlib.figure import Figure

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
axes = figure.subplots(3, 5).flat
for ax in axes[len(ACTIVATIONS) :]:
    ax.axis("off")
for ax, name in zip(axes, ACTIVATIONS, strict=False):
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
# w ← w + (t - y) x for one point after the other, after Rosenblatt, Psychological Review 65, 386 (1958); x has a 1 for
# the bias.

# %%
corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
inputs = np.column_stack([corners, np.ones(4)])
gates = {"AND": np.array([0, 0, 0, 1]), "OR": np.array([0, 1, 1, 1]), "XOR": np.array([0, 1, 1, 0])}
lines, mistakes = {}, {}
for name, targets in gates.items():
    weights, lines[name], mistakes[name] = np.zeros(3), [], []
    for step in range(30 * 4):
        x, target = inputs[step % 4], targets[step % 4]
        weights = weights + (target - (x @ weights > 0)) * x
        lines[name].append(weights)
        mistakes[name].append(int(((inputs @ weights > 0) != targets).sum()))
    print(f"{name}: mistakes after every pass {mistakes[name][3:48:4]}")

# %% [markdown]
# ## Two layers can
# XOR is OR but not AND: two neurons in a hidden layer and one above them. Here they are trained by gradients, from
# several starts, for a start can be a bad one.

# %%
data = ArrayDataset(torch.tensor(corners), torch.tensor(gates["XOR"][:, None], dtype=torch.float64))


def trained(seed, steps):
    """Network after so many steps, and whether it computes XOR."""
    network = MLP(2, [2], 1, activation="tanh", seed=seed, dtype=torch.float64)
    Trainer(
        network,
        lambda model, batch: {"value_mse": squared_error(model(batch[0]), batch[1])},
        torch.optim.LBFGS(network.parameters(), max_iter=1, line_search_fn="strong_wolfe"),
        batch_size=4,
        max_epochs=steps,
        progress=False,
    ).fit(data)
    return network, bool(((network(data.inputs) > 0.5) == (data.targets > 0.5)).all())


solved = [trained(seed, 100)[1] for seed in range(10)]
best = solved.index(True)
print(f"a hidden layer of two solves XOR from {sum(solved)} of {len(solved)} starts")

# %% [markdown]
# The lines of a single neuron, step by step from dark to bright, and those of the network: the same training, stopped
# earlier.

# %%
snapshots = {steps: trained(best, steps)[0] for steps in (2, 5, 10, 14, 30)}
figure = Figure(figsize=(16, 4.4), layout="constrained")
axes = figure.subplots(1, 4)
grid = np.linspace(-0.5, 1.5, 101)
colors = colormaps["viridis"](np.linspace(0, 1, 48))
for ax, name in zip(axes, gates, strict=False):
    for color, (a, b, c) in zip(colors, lines[name], strict=False):
        if b:
            ax.plot(grid, -(a * grid + c) / b, color=color, lw=1)
        elif a:
            ax.axvline(-c / a, color=color, lw=1)
    ax.set_title(f"{name}: the line after every step")
plane = torch.tensor(np.stack(np.meshgrid(grid, grid), -1))
colors = colormaps["viridis"](np.linspace(0, 1, len(snapshots)))
for color, (steps, network) in zip(colors, snapshots.items(), strict=True):
    with torch.no_grad():
        surface = network(plane)[..., 0]
    axes[3].contour(grid, grid, surface, levels=[0.5], colors=[color])
    axes[3].plot([], [], color=color, label=f"{steps}")
axes[3].legend(title="steps", fontsize="small", loc="lower left")
axes[3].set_title("XOR: the boundaries of two layers")
for ax, targets in zip(axes, [*gates.values(), gates["XOR"]], strict=True):
    ax.scatter(*corners.T, c=targets, cmap="coolwarm", s=80, edgecolors="k", zorder=3)
    ax.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), aspect="equal")
figure.savefig(RESULTS / "boundaries.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# With |x|² at most R² and a line that keeps all points at least γ away, the rule changes the line at most R²/γ² times
# (Novikoff, 1962): here R² = 3, and γ² = 1/17 for AND (x + y = 3/2), 1/9 for OR (x + y = 1/2). No line separates XOR:
# a corner is wrong after every step, for ever, and the same lines come again.

# %%
steps = torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float64)
assert activation("binary_step")(steps).tolist() == [0.0, 1.0, 1.0]
for name, most in (("AND", 3 * 17), ("OR", 3 * 9)):
    path = np.array([np.zeros(3), *lines[name]])
    changes = int((path[1:] != path[:-1]).any(axis=1).sum())
    print(f"{name}: the line was changed {changes} times, {most} at most")
    assert mistakes[name][-4:] == [0] * 4, f"{name} must be solved, and stay so"
    assert 0 < changes <= most, f"{name} may need {most} changes, needed {changes}"
assert min(mistakes["XOR"]) >= 1, "no single neuron computes XOR"
assert any(np.array_equal(lines["XOR"][-1], line) for line in lines["XOR"][3:-4:4]), "the lines of XOR must come again"
assert any(solved), "two layers compute XOR"
print("all checks passed; figures are in", RESULTS)
