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
from torch import nn
from torch.nn import functional

import molml
from molml.kinetics import Torsions, TrajectoryFiles
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


def filtered(image, name):
    """Convolution of an image (height, width) with a filter; zeros around it."""
    kernel = torch.tensor(FILTERS[name], dtype=torch.float64)
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

figure = Figure(figsize=(14, 6), layout="constrained")
axes = figure.subplots(2, len(FILTERS))
for column, name in enumerate(FILTERS):
    axes[0, column].imshow(filtered(photograph, name), cmap="gray", vmin=0, vmax=1)
    axes[0, column].set(title=name, xticks=[], yticks=[])
    axes[1, column].imshow(filtered(landscape, name).T, origin="lower", extent=(-180, 180, -180, 180))
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
# ## A filter on molecular maps
# Short pieces of a trajectory, as histograms of φ and ψ; the network is told which part of the time each piece spent
# with φ > 0, and not where on the map that is. One convolution and the mean over the map: the filter's answer, pixel by
# pixel, must then be the map of that conformation.

# %%
LENGTH = 50
pieces = [x[i : i + LENGTH, :2] for x in runs for i in range(0, len(x) - LENGTH, LENGTH)]
maps = np.array([np.histogram2d(*piece.T, bins=[edges, edges])[0] for piece in pieces]) / LENGTH
fractions = np.array([(piece[:, 0] > 0).mean() for piece in pieces])
ramachandran = ArrayDataset(torch.tensor(maps[:, None]).float(), torch.tensor(fractions[:, None]).float())
learn, unseen = train_test_split(ramachandran, 0.3, seed=0)
torch.manual_seed(0)
coordinates = torch.linspace(-1, 1, BINS)
position = torch.stack(torch.meshgrid(coordinates, coordinates, indexing="ij"))[None]


class Locator(nn.Module):
    """Weighs every pixel of a map by a small convolutional network of where it is, and adds up."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, maps):
        return (maps * self.weigh(position)).sum(dim=(2, 3))


locator = Locator()
judge = Trainer(
    locator,
    lambda model, batch: {"fraction_mse": squared_error(model(batch[0]), batch[1])},
    torch.optim.Adam(locator.parameters(), lr=1e-2),
    batch_size=32,
    max_epochs=10 if FAST else 40,
    lr_schedule=cosine(),
    progress=False,
)
judge.fit(learn)
error = judge.evaluate(unseen)["fraction_rmse"]
print(f"fraction with φ > 0: {error:.3f} off in unseen pieces, whose own spread is {unseen.targets.std():.3f}")

figure = Figure(figsize=(9, 4), layout="constrained")
axes = figure.subplots(1, 2)
with torch.no_grad():
    weights = locator.weigh(position)[0, 0].numpy()
    axes[1].plot(unseen.targets, locator(unseen.inputs), ".", [0, 1], [0, 1], "k:")
shown = axes[0].imshow(weights.T, origin="lower", extent=(-180, 180, -180, 180), cmap="coolwarm")
figure.colorbar(shown, ax=axes[0])
axes[0].set(title="what the filter looks for", xlabel="φ (°)", ylabel="ψ (°)")
axes[1].set(xlabel="fraction with φ > 0", ylabel="predicted")
figure.savefig(RESULTS / "ramachandran.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers
# Our convolutions against scipy's; a Laplacian of a plane is nothing; and the digits.

# %%
for name, kernel in FILTERS.items():
    same = np.abs(filtered(photograph, name) - convolve(photograph, kernel, mode="constant")).max()
    assert same < 1e-12, f"{name} must be scipy's convolution, {same} apart"
plane = np.add.outer(np.arange(9.0), 2 * np.arange(9.0))
assert np.abs(filtered(plane, "edges")[1:-1, 1:-1]).max() < 1e-12, "a plane has no edges"
assert accuracy > (0.4 if FAST else 0.985), f"LeNet-5 must read the digits, got {accuracy:.2%}"
assert error < 0.3 * float(unseen.targets.std()), f"the filter must find the conformation, error {error:.3f}"
print("all checks passed; figures are in", RESULTS)
