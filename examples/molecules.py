# %% [markdown]
# # Molecules as points of a space
#
# A variational autoencoder makes a point of a molecule, and a molecule of a point: one can then look around a molecule,
# walk from one to another, and search for better ones. The weights come with molml. It takes about a minute on one
# core. On the command line the same is `molml molecules near | interpolate | optimize`.

# %%
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import molml
from molml.molecules import MoleculeList, as_molecules, canonical, read_molecules
from molml.molecules.plots import plot_latent_map, plot_properties
from molml.molecules.properties import properties

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/molecules")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Around aspirin
# Random directions from the code of aspirin, decoded, as in figure 2 of Gómez-Bombarelli et al., ACS Cent. Sci. 4, 268
# (2018).

# %%
vae = molml.load("druglike")
around = vae.near("aspirin", n=9 if FAST else 19, seed=0)
around.save(RESULTS / "aspirin.svg")
around  # noqa: B018 (a notebook shows the grid)

# %% [markdown]
# ## Between four molecules
# The corners are what the decoder makes of their codes; in between, codes are averaged.

# %%
between = vae.interpolate(["aspirin", "caffeine", "ibuprofen", "paracetamol"], n=4 if FAST else 7)
between.save(RESULTS / "between.svg")
print(between.note)
between  # noqa: B018 (a notebook shows the grid)

# %% [markdown]
# ## New molecules
# Codes drawn from the learned prior, decoded. Their properties should be spread as those of real molecules are; the
# map shows the codes of real ones, by how greasy they are.

# %%
table = read_molecules(molml.datasets.path("molecules") / "valid.csv.xz")
real = [text for text in table.smiles if not vae.tokenizer.unknown(text)][: 100 if FAST else 1000]
samples = vae.sample(len(real), seed=0)
MoleculeList(samples[:10], title="Samples").save(RESULTS / "samples.svg")
names = ["logP", "QED", "SA"]
known, sampled = properties(real, names), properties(samples, names)

figure = Figure(figsize=(15, 3.6), layout="constrained")
axes = figure.subplots(1, 4)
codes = vae.encode(real)
plot_latent_map(codes, known["logP"].to_numpy(), label="logP", ax=axes[0])
for ax, name in zip(axes[1:], names, strict=True):
    plot_properties({"real molecules": known[name], "samples": sampled[name]}, label=name, ax=ax)
figure.savefig(RESULTS / "properties.png", dpi=150)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Better molecules
# Search the codes around paracetamol for molecules that look more like drugs (QED), and still like paracetamol.

# %%
search = vae.optimize("QED", "paracetamol", similarity=0.3, budget=60 if FAST else 300, seed=0)
print(f"QED {search.start_score:.2f} -> {search.score:.2f}: {canonical(search.best)}")
search.found.save(RESULTS / "better.svg")
search.found  # noqa: B018 (a notebook shows the grid)

# %% [markdown]
# ## Checks
# Codes are the same at every call; everyday molecules come back from theirs; a search never ends below its start. And
# a control: the codes mean something, for those of other molecules do not give these back.

# %%
everyday = ["aspirin", "caffeine", "ibuprofen", "paracetamol"]
points = vae.encode(everyday)
assert np.array_equal(points, vae.encode(everyday)), "encoding must be deterministic"
truth = [canonical(mol) for mol in as_molecules(everyday)]
back = [mol and canonical(mol) for mol in vae.decode(points)]
assert back == truth, f"everyday molecules must come back, got {back}"
assert [mol and canonical(mol) for mol in vae.decode(points[::-1])] != truth, "codes must differ"
assert len({canonical(mol) for mol in samples}) == len(samples), "samples must be different"
assert search.score >= search.start_score, "a search must not end below its start"
print("all checks passed; figures are in", RESULTS)
