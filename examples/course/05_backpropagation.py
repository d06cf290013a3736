# %% [markdown]
# # Backpropagation and stochastic gradient descent
#
# The gradient of a loss with respect to all weights of a network costs about as much as the loss itself: the chain
# rule, from the last layer to the first. Written out once by hand it is what autograd does; then mini-batches, whose
# gradients are the true one plus noise, and the learning rate, which is too small or too large or just right.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from molml.nn import MLP
from molml.training import ArrayDataset, Term, Trainer, TrainingDivergedError, plot_history, squared_error

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/05_backpropagation")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Layer by layer
# h₀ = x, aₗ = Wₗ hₗ₋₁ + bₗ, hₗ = tanh(aₗ), and the output is the last a. The loss is Σ (a - y)² / n + λ Σ W². From
# the back: δ = ∂L/∂a of a layer gives ∂L/∂W = δᵀ h + 2 λ W, ∂L/∂b = Σ δ, and the δ below is (δ W) (1 - h²).


# %%
def gradients_by_hand(network, x, y, decay):
    """Gradient of the loss with respect to every weight and bias, in the order of `parameters()`."""
    with torch.no_grad():
        layers, values = list(network.layers), [x]
        for layer in layers[:-1]:
            values.append(torch.tanh(values[-1] @ layer.weight.T + layer.bias))
        output = values[-1] @ layers[-1].weight.T + layers[-1].bias
        delta = 2 * (output - y) / y.numel()
        gradients = []
        for layer, below in zip(reversed(layers), reversed(values), strict=True):
            gradients = [delta.T @ below + 2 * decay * layer.weight, delta.sum(0), *gradients]
            delta = (delta @ layer.weight) * (1 - below**2)
        return gradients


def loss_of(network, x, y, decay):
    return (network(x) - y).square().mean() + decay * sum(layer.weight.square().sum() for layer in network.layers)


generator = torch.Generator().manual_seed(0)
x = 2 * torch.rand(500, 2, generator=generator, dtype=torch.float64) - 1
y = torch.sin(3 * x[:, :1]) * torch.cos(2 * x[:, 1:])
network = MLP(2, [30, 20, 10], 1, activation="tanh", seed=0, dtype=torch.float64)
differences = {}
for decay in (0.0, 1e-2):
    automatic = torch.autograd.grad(loss_of(network, x, y, decay), list(network.parameters()))
    pairs = list(zip(gradients_by_hand(network, x, y, decay), automatic, strict=True))
    differences[decay] = max(float((a - b).abs().max()) for a, b in pairs)
print("largest difference between the hand and autograd:", differences)

# %% [markdown]
# ## The noise of mini-batches
# A batch of n items gives the gradient of the whole set on average, with a variance that falls as 1/n (drawn with
# replacement).

# %%
whole = torch.cat([g.flatten() for g in gradients_by_hand(network, x, y, 0.0)])
sizes = [1, 2, 5, 10, 20, 50, 100]
noise, bias = [], []
for size in sizes:
    samples = []
    for _ in range(300 if FAST else 2000):
        batch = torch.randint(len(x), (size,), generator=generator)
        samples.append(torch.cat([g.flatten() for g in gradients_by_hand(network, x[batch], y[batch], 0.0)]))
    samples = torch.stack(samples)
    noise.append(float((samples - whole).square().sum(1).mean()))
    bias.append(float((samples.mean(0) - whole).norm() / whole.norm()))
slope = np.polyfit(np.log(sizes), np.log(noise), 1)[0]
print(f"variance of the gradient falls as size^{slope:.3f}")

# %% [markdown]
# ## Learning rates
# Plain stochastic gradient descent, the same start and the same batches, rates from too small to too large.

# %%
data = ArrayDataset(x.float(), y.float())
histories, diverged = {}, []
for rate in (1e-3, 1e-2, 1e-1, 1.0):
    learner = MLP(2, [30, 20, 10], 1, activation="tanh", seed=0, dtype=torch.float32)
    trainer = Trainer(
        learner,
        lambda model, batch: {"value_mse": squared_error(model(batch[0]), batch[1])},
        torch.optim.SGD(learner.parameters(), lr=rate),
        batch_size=10,
        max_epochs=5 if FAST else 60,
        seed=0,
        progress=False,
    )
    try:
        histories[rate] = trainer.fit(data)
    except TrainingDivergedError as error:
        diverged.append(rate)
        print(f"learning rate {rate:g}: {str(error).split('. ')[0]}")

figure = Figure(figsize=(13, 4), layout="constrained")
axes = figure.subplots(1, 3)
axes[0].loglog(sizes, noise, "o-", label="measured")
axes[0].loglog(sizes, noise[0] / np.array(sizes), "k:", label="1 / size")
axes[0].set(xlabel="batch size", ylabel="variance of the gradient")
axes[0].legend()
for rate, history in histories.items():
    axes[1].plot([row["epoch"] for row in history], [row["train_value_mse"] for row in history], label=f"rate {rate:g}")
axes[1].set(xlabel="epoch", ylabel="mean squared training error", yscale="log", ylim=(None, 0.4))
axes[1].legend(ncols=3, fontsize="small", loc="upper center")
plot_history(histories[0.1], name="value_rmse", ax=axes[2])
axes[2].set(ylabel="root mean square error", title="rate 0.1")
figure.savefig(RESULTS / "gradients.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# On a parabola, gradient descent converges if and only if the rate is below 2 over the curvature.


# %%
def distance_after(rate, curvature=4.0, steps=200):
    point = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.ones_(point.weight)
    Trainer(
        point,
        lambda model, batch: {"energy": Term(0.5 * curvature * model.weight.square().sum(), 1)},
        torch.optim.SGD(point.parameters(), lr=rate),
        batch_size=1,
        max_epochs=steps,
        progress=False,
    ).fit(ArrayDataset(torch.zeros(1, 1), torch.zeros(1, 1)))
    return abs(float(point.weight.detach()))


final = {rate: history[-1]["train_value_mse"] for rate, history in histories.items()}
assert max(differences.values()) < 1e-12, f"backpropagation by hand must be autograd's, {differences}"
assert abs(slope + 1) < 0.1, f"the variance must fall as 1 / size, got size^{slope}"
assert max(bias) < 0.3, f"mini-batches must give the true gradient on average, off by {max(bias):.0%}"
assert final[1e-1] < final[1e-2] < final[1e-3], f"here a larger rate, below the limit, is the faster one: {final}"
assert diverged == [1.0], f"the largest rate is too large, and nothing else is: {diverged}"
assert distance_after(0.45) < 1e-10, "below 2 / curvature, gradient descent must converge"
assert distance_after(0.5) > 0.99, "at 2 / curvature it must not"
print("all checks passed; figures are in", RESULTS)
