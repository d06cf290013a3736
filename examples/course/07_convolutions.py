# %% [markdown]
# # Convolutional networks
#
# A filter slides over an image and answers where it finds its pattern. Filters can be written down (edges, blur), on
# photographs as on maps of molecules; or learned, layer upon layer, as LeNet-5 does for handwritten digits.

# %%
import os
from pathlib import Path

import mdtraj
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import convolve
from sklearn.datasets import load_digits, load_sample_image
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional

import molml
from molml.kinetics import Torsions, TrajectoryFiles
from molml.molecules import Tokenizer, as_molecules, read_molecules
from molml.molecules.dataset import MoleculeDataset
from molml.molecules.encoders import ConvolutionalEncoder
from molml.molecules.properties import properties
from molml.training import ArrayDataset, Term, Trainer, cosine, squared_error, train_test_split

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/07_convolutions")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Filters one can write down
# The same operators on a photograph and on the free energy of alanine dipeptide's torsions: the edges of the second are
# the walls of its basins.

# %%
axis = np.arange(-2, 3)
gaussian = np.exp(-(axis[:, None] ** 2 + axis**2) / 2)
FILTERS = {
    "identity": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "edges": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "box blur": np.ones((3, 3)) / 9,
    "Gaussian blur": gaussian / gaussian.sum(),
}


def filtered(image, kernel):
    """Convolution of an image (height, width) with a filter; zeros around it."""
    kernel = torch.tensor(kernel, dtype=torch.float64)
    # torch calls convolution what is a correlation: the filter is not flipped
    turned = kernel.flip(0, 1)[None, None]
    return functional.conv2d(torch.tensor(image)[None, None], turned, padding=len(kernel) // 2)[0, 0].numpy()


photograph = load_sample_image("flower.jpg").mean(axis=2)[::2, ::2] / 255
folder = molml.datasets.path("alanine-dipeptide")
topology = mdtraj.load(folder / "topology.pdb").topology
files = TrajectoryFiles(folder / "*.xtc", Torsions(topology), topology=topology)
runs = [np.arctan2(x[:, 1::2], x[:, ::2]) for x in files.load()]
BINS = 24
edges = np.linspace(-np.pi, np.pi, BINS + 1)
counts = np.histogram2d(*np.concatenate(runs)[:, :2].T, bins=[edges, edges])[0]
landscape = -np.log(np.maximum(counts, 1) / counts.max())

figure = Figure(figsize=(14, 5.2), layout="constrained")
axes = figure.subplots(2, len(FILTERS))
for column, (name, kernel) in enumerate(FILTERS.items()):
    axes[0, column].imshow(filtered(photograph, kernel), cmap="gray", vmin=0, vmax=1)
    axes[0, column].set(title=name, xticks=[], yticks=[])
    axes[1, column].imshow(filtered(landscape, kernel).T, origin="lower", extent=(-180, 180, -180, 180))
    axes[1, column].set(xlabel="φ (°)", ylabel="ψ (°)")
figure.savefig(RESULTS / "filters.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## LeNet-5 on handwritten digits
# Two convolutions with pooling, then three dense layers (LeCun et al., Proc. IEEE 86, 2278 (1998), fig. 2), with relu
# and maxima instead of the tanh and means of its time. The images, 8 x 8 pixels, come with scikit-learn; they are made
# larger and, in training, moved by a pixel, which a digit survives.

# %%
digits = load_digits()
images = functional.interpolate(
    torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), size=20, mode="bilinear"
)
everything = ArrayDataset(images, torch.tensor(digits.target))
train, test = train_test_split(everything, 0.2, seed=0)
train, valid = train_test_split(train, 0.1, seed=0)
if FAST:
    train = train.subset(range(400))
torch.manual_seed(0)
lenet = nn.Sequential(
    *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(288, 120), nn.ReLU(), nn.Dropout(0.3), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
)


def moved(images):
    """Every image moved by up to two pixels in either direction."""
    n, size = len(images), images.shape[-1]
    shifts = torch.randint(0, 5, (2, n))
    pixels = torch.arange(size)
    rows, columns = (shifts[k][:, None] + pixels for k in (0, 1))
    padded = functional.pad(images, (2, 2, 2, 2))
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def classification(model, batch):
    images, labels = batch
    logits = model(moved(images) if model.training else images)
    wrong = (logits.argmax(1) != labels).sum().float()
    return {
        "cross_entropy": Term(functional.cross_entropy(logits, labels, reduction="sum"), len(labels)),
        "error_rate": Term(wrong, len(labels), 0.0),
    }


trainer = Trainer(
    lenet,
    classification,
    torch.optim.AdamW(lenet.parameters(), lr=2e-3),
    batch_size=32,
    max_epochs=6 if FAST else 40,
    lr_schedule=cosine(),
    progress=False,
)
trainer.fit(train, valid)
accuracy = 1 - trainer.evaluate(test)["error_rate"]
print(f"{accuracy:.2%} of the test digits are read correctly")

# %% [markdown]
# ## What does a unit detect?
# The first filters are edges of all directions. For the second layer: the test images that excite a unit most.

# %%
figure = Figure(figsize=(14, 5), layout="constrained")
axes = figure.subplots(4, 12)
with torch.no_grad():
    second = lenet[:5](test.inputs).amax(dim=(2, 3))
for k in range(12):
    axes[0, k].imshow(lenet[0].weight[k, 0].detach().numpy(), cmap="coolwarm")
    for row, index in enumerate(second[:, k].topk(3).indices.tolist(), start=1):
        axes[row, k].imshow(test.inputs[index, 0].numpy(), cmap="gray_r")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("filters, layer 1")
axes[1, 0].set_ylabel("what excites\nunits of layer 2")
figure.savefig(RESULTS / "units.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Molecular maps
# Short pieces of trajectories, as histograms of φ and ψ; the network, whose convolutions go round the edges as the
# torsions do, is told which part of the time each piece spent with φ > 0, and not where on the map that is. Its
# gradient with respect to the map, pixel by pixel, tells where it looks. The last run is kept for the test.

# %%
LENGTH, STEP = 50, 10
pieces = [[x[i : i + LENGTH, :2] for i in range(0, len(x) - LENGTH, STEP)] for x in runs]


def maps_and_fractions(pieces):
    maps = np.array([np.histogram2d(*piece.T, bins=[edges, edges])[0] for piece in pieces]) / LENGTH
    fractions = np.array([(piece[:, 0] > 0).mean() for piece in pieces])
    return ArrayDataset(torch.tensor(maps[:, None]).float(), torch.tensor(fractions[:, None]).float())


def fitted(model, loss, data, *, learning_rate, batch_size, epochs):
    """Trainer that has trained a model."""
    trainer = Trainer(
        model,
        loss,
        torch.optim.Adam(model.parameters(), lr=learning_rate),
        batch_size=batch_size,
        max_epochs=3 if FAST else epochs,
        lr_schedule=cosine(),
        progress=False,
    )
    trainer.fit(data)
    return trainer


learn, unseen = maps_and_fractions(sum(pieces[:-1], [])), maps_and_fractions(pieces[-1])
torch.manual_seed(0)
cartographer = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AvgPool2d(2)),
    *(nn.Conv2d(8, 16, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AvgPool2d(2)),
    *(nn.Flatten(), nn.Linear(16 * (BINS // 4) ** 2, 1)),
)
judge = fitted(
    cartographer,
    lambda model, batch: {"fraction_mse": squared_error(model(batch[0]), batch[1])},
    learn,
    learning_rate=3e-3,
    batch_size=32,
    epochs=15,
)
error = judge.evaluate(unseen)["fraction_rmse"]
print(f"fraction with φ > 0: {error:.3f} off in the unseen run, whose own spread is {unseen.targets.std():.3f}")
pixels = unseen.inputs.clone().requires_grad_(True)
attention = torch.autograd.grad(cartographer(pixels).sum(), pixels)[0].mean(dim=(0, 1)).numpy()
positive = edges[:-1] > -1e-9
sides = [np.average(attention[side], weights=counts[side]) for side in (positive, ~positive)]
print(f"a frame counts {sides[0]:.2f} where φ > 0 and {sides[1]:.2f} where φ < 0; exactly it would be 1 and 0")

# %% [markdown]
# ## Molecules as strings
# SMILES have one dimension: the convolutional encoder of molml's molecules slides its filters along the tokens. Here
# it learns the octanol-water partition coefficient (Crippen's model, a sum over atoms and what they are bound to). To
# know the tokens alone is the control: neighbours count.

# %%
table = read_molecules(molml.datasets.path("molecules") / "train.csv.xz").smiles[: 300 if FAST else 3000]
log_p = np.array(properties(as_molecules(table), ["logP"])["logP"])
tokenizer = Tokenizer.from_strings(table)
strings = MoleculeDataset(table, tokenizer, graphs=False, properties=(log_p - log_p.mean())[:, None] / log_p.std())
read, unread = train_test_split(strings, 0.25, seed=0)
encoder = ConvolutionalEncoder(len(tokenizer), 1, seed=0)
reader = fitted(
    encoder,
    lambda model, batch: {"log_p_mse": squared_error(model(batch)[0], batch.properties)},
    read,
    learning_rate=2e-3,
    batch_size=64,
    epochs=12,
)
left_over = reader.evaluate(unread)["log_p_mse"]
bags = [data.collate(list(range(len(data)))) for data in (read, unread)]
bags = [(functional.one_hot(bag.tokens, len(tokenizer)).sum(1).numpy(), bag.properties[:, 0].numpy()) for bag in bags]
alone = np.mean((Ridge(1.0).fit(*bags[0]).predict(bags[1][0]) - bags[1][1]) ** 2)
print(f"variance of log P that is left: {left_over:.3f} by convolutions, {alone:.3f} if only the tokens are counted")

figure = Figure(figsize=(14, 4), layout="constrained")
axes = figure.subplots(1, 3)
shown = axes[0].imshow(
    np.where(counts > 0, attention, np.nan).T, origin="lower", extent=(-180, 180, -180, 180), cmap="coolwarm"
)
figure.colorbar(shown, ax=axes[0])
axes[0].set(title="what a frame here counts", xlabel="φ (°)", ylabel="ψ (°)")
with torch.no_grad():
    axes[1].plot(unseen.targets, cartographer(unseen.inputs), ".", [0, 1], [0, 1], "k:")
    batch = unread.collate(list(range(len(unread))))
    axes[2].plot(batch.properties, encoder(batch)[0], ".", ms=3)
axes[2].axline((0, 0), slope=1, color="k", ls=":")
axes[1].set(xlabel="fraction with φ > 0", ylabel="predicted", title="pieces of an unseen run")
axes[2].set(xlabel="log P (standardised)", ylabel="predicted", title="unseen molecules, from their SMILES")
figure.savefig(RESULTS / "molecules.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# Our convolutions against scipy's; a Laplacian of a plane is nothing; and the digits.

# %%
# all of the five are symmetric: the sixth is not
for name, kernel in (FILTERS | {"slope": np.array([[-1, 0, 1], [-2, 0, 2], [-3, 0, 1]])}).items():
    same = np.abs(filtered(photograph, kernel) - convolve(photograph, kernel, mode="constant")).max()
    assert same < 1e-12, f"{name} must be scipy's convolution, {same} apart"
plane = np.add.outer(np.arange(9.0), 2 * np.arange(9.0))
assert np.abs(filtered(plane, FILTERS["edges"])[1:-1, 1:-1]).max() < 1e-12, "a plane has no edges"
assert accuracy > (0.4 if FAST else 0.985), f"LeNet-5 must read the digits, got {accuracy:.2%}"
assert FAST or error < 0.2 * float(unseen.targets.std()), f"the conformation must be found, error {error:.3f}"
assert FAST or sides[0] - sides[1] > 0.5, f"the network must look at φ > 0 alone, {sides}"
assert FAST or left_over < 0.5 * alone, f"neighbours must count, {left_over:.3f} against {alone:.3f}"
print("all checks passed; figures are in", RESULTS)
