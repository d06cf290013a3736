# %% [markdown]
# # A Markov state model is a linear regression
#
# Let a trajectory be in one of n states. With χ(t), the vector that is one at the present state and zero elsewhere, the
# matrix T that minimises Σ |χ(t + 1) - Tᵀ χ(t)|² is found by linear least squares; and it is the matrix of transition
# probabilities, the counts of jumps divided by the visits. Its eigenvalues are the times in which the system forgets.

# %%
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression

from molml.kinetics import MarkovStateModel, implied_timescales
from molml.kinetics.plots import plot_timescales
from molml.kinetics.systems import double_well

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/03_markov_regression")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A particle in a double well
# Its exact timescale is known: the operator of the diffusion is diagonalised on a grid.

# %%
system = double_well()
frames = system.simulate(5_000 if FAST else 50_000, n_trajectories=4, seed=0).trajectories
edges = np.linspace(-1.5, 1.5, 19)
states = [np.digitize(x[:, 0], edges) for x in frames]
n = len(edges) + 1

# %% [markdown]
# ## Least squares, by a library that knows nothing of jumps

# %%
lagtime = 5
indicator = np.eye(n)
before = np.concatenate([indicator[s[:-lagtime]] for s in states])
after = np.concatenate([indicator[s[lagtime:]] for s in states])
visited = before.any(axis=0)
regression = LinearRegression(fit_intercept=False).fit(before[:, visited], after).coef_.T
markov = MarkovStateModel(lagtime, reversible=False).fit(states)
reversible = MarkovStateModel(lagtime).fit(states)

# %% [markdown]
# ## Timescales against the lag time
# Discretisation makes them too short at short lags; with longer lags they rise to the exact one.

# %%
its = implied_timescales(states, [1, 2, 3, 5, 8, 12], n_timescales=1, seed=0)
exact = system.timescales(1)[0]

figure = Figure(figsize=(13, 4), layout="constrained")
axes = figure.subplots(1, 3)
axes[0].plot(frames[0][:2000, 0], lw=0.5)
axes[0].set(xlabel="time (frames)", ylabel="x", title="one trajectory, its beginning")
shown = axes[1].imshow(regression, origin="lower", cmap="Blues")
figure.colorbar(shown, ax=axes[1], label="transition probability")
ticks = range(0, n, 5)
axes[1].set(title=f"lag of {lagtime} frames", xlabel="to state", ylabel="from state", xticks=ticks, yticks=ticks)
plot_timescales(its.lagtimes, its.timescales, low=its.low, high=its.high, reference=[exact], unit="frames", ax=axes[2])
axes[2].set(yscale="linear", ylim=(0, 1.3 * exact), title="timescales, the exact one dashed")
figure.savefig(RESULTS / "markov.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# The regression gives the matrix of counted jumps, to rounding; its rows add up to one though nothing asked for that.
# The timescale is the exact one, within the uncertainty that the data leave.

# %%
difference = np.abs(regression[:, visited] - markov.transition_matrix).max()
found, low, high = its.timescales[-1, 0], its.low[-1, 0], its.high[-1, 0]
print(f"regression and counts differ by {difference:.1e}")
print(
    f"timescale {found:.1f} ({low:.1f} to {high:.1f}) frames, exact {exact:.1f}; reversible {reversible.timescales(1)}"
)
assert difference < 1e-10, f"least squares must give the counted probabilities, {difference} apart"
assert np.abs(regression.sum(axis=1) - 1).max() < 1e-10, "probabilities must add up to one"
assert abs(found - exact) < 2 * (high - low), f"timescale {found} must be the exact one, {exact}"
assert FAST or abs(found / exact - 1) < 0.15, f"timescale {found} must be the exact one, {exact}"
print("all checks passed; figures are in", RESULTS)
