# %% [markdown]
# # Universal approximation, and what depth is for
#
# One hidden layer, wide enough, comes as near to any continuous function as one likes. Layers upon layers do something
# else: each folds the space it is given, so that the number of straight pieces grows exponentially with depth and only
# as a power of the width (Montúfar et al., NIPS 2014).

# %%
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from molml.nn import MLP
from molml.training import ArrayDataset, Trainer, squared_error

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/06_depth")
RESULTS.mkdir(parents=True, exist_ok=True)


def trained(network, data, epochs):
    """Root-mean-square error of a network after training on all the data, from kinks all over the inputs."""
    first = network.layers[0]
    low, high = float(data.inputs.min()), float(data.inputs.max())
    with torch.no_grad():
        place = torch.linspace(low, high, len(first.bias) + 2, dtype=torch.float64)[1:-1]
        first.bias.copy_(-first.weight[:, 0] * place)
    trainer = Trainer(
        network,
        lambda model, batch: {"value_mse": squared_error(model(batch[0]), batch[1])},
        torch.optim.LBFGS(network.parameters(), max_iter=20, history_size=20, line_search_fn="strong_wolfe"),
        batch_size=len(data),
        max_epochs=epochs,
        progress=False,
    )
    trainer.fit(data)
    return trainer.evaluate(data)["value_rmse"]


# %% [markdown]
# ## Width
# The torsion profile of 2-chlorobutane about its middle bond (MMFF94, the rest of the molecule kept as it is) and
# networks with one hidden layer.


# %%
def profile(smiles, torsion, degrees):
    """Energy in kcal/mol at angles of the torsion about four atoms."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=0)
    AllChem.MMFFOptimizeMolecule(mol)
    energies = []
    for angle in degrees:
        rdMolTransforms.SetDihedralDeg(mol.GetConformer(), *torsion, float(angle))
        field = AllChem.MMFFGetMoleculeForceField(mol, AllChem.MMFFGetMoleculeProperties(mol))
        energies.append(field.CalcEnergy())
    return np.array(energies) - min(energies)


degrees = np.arange(-180, 181)
angles = torch.tensor(np.radians(degrees))[:, None]
energies = torch.tensor(profile("CC[C@H](C)Cl", (0, 1, 2, 4), degrees))[:, None]
torsion = ArrayDataset(angles, energies)
widths = (1, 4, 32) if FAST else (1, 2, 4, 8, 16, 32)
networks = {w: MLP(1, [w], 1, activation="tanh", seed=1, dtype=torch.float64) for w in widths}
errors = {w: trained(network, torsion, 10 if FAST else 60) for w, network in networks.items()}
print("width and error of the torsion profile:", {w: round(e, 4) for w, e in errors.items()})

# %% [markdown]
# ## Depth
# The tent map t(x) = 1 - |1 - 2 x| folds [0, 1] in two; applied k times it has 2ᵏ straight pieces. Two neurons of
# relu make a tent, so that 2 k neurons, k layers deep, make them all; a single layer needs 2ᵏ - 1 neurons, one per
# kink. Here is the deep one, its weights written down.


# %%
def tents(depth):
    """Network of `depth` hidden layers of two neurons that folds [0, 1] so many times."""
    network = MLP(1, [2] * depth, 1, activation="relu", dtype=torch.float64)
    tent = torch.tensor([[2.0, -4.0]], dtype=torch.float64)  # 2 relu(x) - 4 relu(x - 1/2)
    with torch.no_grad():
        for i, layer in enumerate(network.layers):
            into = torch.ones(1, 1, dtype=torch.float64) if i == 0 else tent
            last = i == len(network.layers) - 1
            layer.weight.copy_(into if last else into.repeat(2, 1))
            layer.bias.copy_(torch.tensor([0.0] if last else [0.0, -0.5], dtype=torch.float64))
    return network


def n_regions(network, n=2**14):
    """Straight pieces of a network of one input on [0, 1]: patterns of active neurons along the line."""
    x = torch.linspace(0, 1, n + 1, dtype=network.layers[0].weight.dtype)[:, None]
    x = (x[1:] + x[:-1]) / 2
    patterns = []
    with torch.no_grad():
        for layer in network.layers[:-1]:
            x = torch.relu(layer(x))
            patterns.append(x > 0)
    pattern = torch.cat(patterns, dim=1)
    return 1 + int((pattern[1:] != pattern[:-1]).any(dim=1).sum())


depths = range(1, 8)
pieces = [n_regions(tents(depth)) for depth in depths]
print("layers of two neurons and straight pieces:", dict(zip(depths, pieces, strict=True)))

# %% [markdown]
# ## Equal numbers of parameters
# Six folds: the deep network, written down, has 37 parameters and is exact. A single layer of as many parameters has
# twelve neurons, hence at most thirteen straight pieces for 64, however it is trained. That the deep one exists
# does not mean that training finds it: from random weights it does not.

# %%
x = torch.linspace(0, 1, 1025, dtype=torch.float64)[:, None]
with torch.no_grad():
    folded = ArrayDataset(x, tents(6)(x))
found = {"deep, written down": (tents(6), 0.0)}
for name, hidden in (("shallow, trained", [12]), ("deep, trained", [2] * 6)):
    starts = [
        MLP(1, hidden, 1, activation="relu", initialisation="kaiming_normal", seed=seed, dtype=torch.float64)
        for seed in range(2 if FAST else 8)
    ]
    scores = [trained(network, folded, 5 if FAST else 20) for network in starts]
    best = int(np.argmin(scores))
    found[name] = (starts[best], scores[best])
n_parameters = {name: sum(p.numel() for p in network.parameters()) for name, (network, _) in found.items()}
for name, (network, error) in found.items():
    print(f"{name}: {n_parameters[name]} parameters, {n_regions(network)} pieces, error {error:.3f}")

figure = Figure(figsize=(16, 4), layout="constrained")
axes = figure.subplots(1, 4)
axes[0].plot(angles, energies, "k", lw=3, label="profile")
with torch.no_grad():
    for w in (widths[1], widths[-1]):
        axes[0].plot(angles, networks[w](angles), label=f"{w} neurons")
    for name, (network, error) in found.items():
        axes[3].plot(x, network(x), lw=1.2, label=f"{name}: error {error:.2f}")
axes[0].set(xlabel="torsion (rad)", ylabel="energy (kcal/mol)", ylim=(None, 15), title="a torsion profile")
axes[0].legend(ncols=3, fontsize="small", loc="upper center", columnspacing=1, handlelength=1.2)
axes[1].semilogy(range(len(errors)), list(errors.values()), "o-")
axes[1].set_xticks(range(len(errors)), labels=[str(w) for w in errors])
axes[1].set(xlabel="neurons in the layer", ylabel="error of the profile (kcal/mol)", title="how wide?")
axes[2].semilogy(depths, pieces, "o-", label="deep: two neurons a layer")
axes[2].semilogy(depths, [2 * depth + 1 for depth in depths], "s--", label="shallow: as many neurons")
axes[2].set(xlabel="layers", ylabel="straight pieces", title="pieces of tents")
axes[2].legend(fontsize="small")
axes[3].set(xlabel="x", ylabel="f(x)", ylim=(-0.05, 1.5), yticks=(0, 0.5, 1), title="six folds: 64 pieces")
axes[3].legend(fontsize="small", loc="upper center")
figure.savefig(RESULTS / "depth.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers

# %%
point = torch.rand(100, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    folds = tents(3)(point)
    expected = point
    for _ in range(3):
        expected = 1 - (1 - 2 * expected).abs()
assert torch.allclose(folds, expected, atol=1e-12), "the network of tents must be the tent map"
assert pieces == [2**depth for depth in depths], f"every layer must double the pieces, got {pieces}"
assert n_regions(MLP(1, [10], 1, activation="relu", seed=0)) <= 11, "a layer of ten has at most eleven pieces"
assert errors[widths[-1]] < 0.3 * errors[widths[0]], f"width must help: {errors}"
assert FAST or errors[widths[-1]] < 0.03, f"a wide layer must reproduce the profile, error {errors[widths[-1]]}"
shallow, error = found["shallow, trained"]
assert n_parameters["deep, written down"] == n_parameters["shallow, trained"], (
    f"equal numbers of parameters, {n_parameters}"
)
assert n_regions(tents(6)) == 64 and n_regions(shallow) <= 13, "a single layer has a piece per neuron, and one more"
assert error > 0.2, f"thirteen pieces cannot be 64, yet the error is {error}"
print("all checks passed; figures are in", RESULTS)
