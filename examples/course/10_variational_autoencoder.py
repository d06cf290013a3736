# %% [markdown]
# # The variational autoencoder
#
# A generative model with a hidden variable: z ~ N(0, I), x ~ p(x|z). Its likelihood is an integral nobody can do; the
# evidence lower bound (ELBO) replaces it, E_q[log p(x|z)] - KL(q(z|x) | p(z)), with an encoder q that says which z
# could have made x (Kingma and Welling, ICLR 2014). Here: the bound, both ways; a case in which it can be
# checked against the exact answer; digits; and molecules.

# %%
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional

import molml
from molml.molecules import canonical, read_molecules
from molml.nn import MLP
from molml.nn.gaussian import kl_divergence, log_density, sample
from molml.training import ArrayDataset, Term, Trainer, cosine, plot_history

FAST = bool(os.environ.get("MOLML_FAST"))  # seconds instead of minutes, for the tests; the results are worth less
RESULTS = Path("results/course/10_variational_autoencoder")
RESULTS.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The divergence, two ways
# Between a Gaussian and the standard normal there is a closed form; the mean of log q - log p over samples of q says
# the same, with noise that falls as 1/√n.

# %%
generator = torch.Generator().manual_seed(0)
mean, logvar = torch.tensor([[0.8, -1.5]]).double(), torch.tensor([[-1.0, 0.5]]).double()
closed = float(kl_divergence(mean, logvar))
z = sample(mean.expand(1_000_000, 2), logvar.expand(1_000_000, 2), generator=generator)
zero = torch.zeros(1, 2, dtype=torch.float64)
differences = log_density(z, mean, logvar) - log_density(z, zero, zero)
sizes = np.logspace(1, 6, 11).astype(int)
estimates = [float(differences[:n].mean()) for n in sizes]
errors = [float(differences.std()) / np.sqrt(n) for n in sizes]
print(f"KL in closed form {closed:.4f}, from a million samples {estimates[-1]:.4f} ± {errors[-1]:.4f}")

# %% [markdown]
# ## A case that can be solved
# If the decoder is linear and the noise Gaussian, the model is probabilistic principal component analysis (Tipping and
# Bishop, 1999), whose likelihood is known; and a linear encoder is then exact, so that the bound touches it.


# %%
def elbo(model, batch):
    """Negative ELBO of Gaussian noise or, for a model without one, of pixels that are on or off."""
    (x, _), n = batch, len(batch[0])
    mean, logvar = model["encoder"](x).chunk(2, dim=1)
    output = model["decoder"](sample(mean, logvar) if model.training else mean)
    kl = kl_divergence(mean, logvar).sum()
    if "noise" in model:
        # the mean over q of a quadratic is the quadratic at the mean, plus a trace: no noise of sampling
        noise = model["noise"](torch.ones(1, 1, dtype=x.dtype)).expand_as(x)
        decoder = model["decoder"].layers[0].weight
        spread = ((logvar.exp() @ decoder.square().T) * torch.exp(-noise)).sum() / 2
        reconstruction = spread - log_density(x, model["decoder"](mean), noise).sum()
    else:
        reconstruction = functional.binary_cross_entropy_with_logits(output, x, reduction="sum")
    return {"reconstruction": Term(reconstruction, n), "kl": Term(kl, n)}


random = np.random.default_rng(0)
data = random.normal(size=(2000, 2)) @ random.normal(size=(2, 5)) + 0.3 * random.normal(size=(2000, 5)) + 1.0
x = torch.tensor(data)
linear = nn.ModuleDict(
    {
        "encoder": MLP(5, [], 4, seed=0, dtype=torch.float64),
        "decoder": MLP(2, [], 5, seed=1, dtype=torch.float64),
        "noise": MLP(1, [], 1, seed=2, dtype=torch.float64),
    }
)
trainer = Trainer(
    linear,
    elbo,
    torch.optim.LBFGS(linear.parameters(), max_iter=20, history_size=50, line_search_fn="strong_wolfe"),
    batch_size=len(x),
    max_epochs=40,
    progress=False,
)
trainer.fit(ArrayDataset(x, x))
bound = -trainer.evaluate(ArrayDataset(x, x))["objective"]
exact = PCA(2).fit(data).score(data)
print(f"ELBO of the linear autoencoder {bound:.4f}, exact log likelihood of probabilistic PCA {exact:.4f}")

# %% [markdown]
# ## Digits
# A code of two numbers, so that it can be drawn, and pixels that are on or off.

# %%
digits = load_digits()
pixels = torch.tensor(digits.data > 7, dtype=torch.float32)
images = ArrayDataset(pixels, torch.tensor(digits.target))
train, test = images.subset(range(300, len(images))), images.subset(range(300))
vae = nn.ModuleDict(
    {"encoder": MLP(64, [256, 128], 4, seed=0), "decoder": MLP(2, [128, 256], 64, seed=1)},
)
history = Trainer(
    vae,
    elbo,
    torch.optim.Adam(vae.parameters(), lr=2e-3),
    batch_size=64,
    max_epochs=5 if FAST else 150,
    lr_schedule=cosine(),
    progress=False,
).fit(train)


def test_bounds(n_samples):
    """Per test digit: ELBO with the divergence in closed form, ELBO from samples alone, its standard error, and the
    tighter bound of n importance samples (Burda et al., ICLR 2016, eq. 8)."""
    with torch.no_grad():
        x = test.inputs
        mean, logvar = vae["encoder"](x).chunk(2, dim=1)
        likelihoods, divergences = [], []
        for _ in range(n_samples):
            z = sample(mean, logvar, generator=generator)
            logits = vae["decoder"](z)
            likelihoods.append(-functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1))
            divergences.append(log_density(z, mean, logvar) - log_density(z, torch.zeros_like(z), torch.zeros_like(z)))
        likelihoods, divergences = torch.stack(likelihoods), torch.stack(divergences)
        closed = float(likelihoods.mean() - kl_divergence(mean, logvar).mean())
        error = float(divergences.mean(1).std()) / np.sqrt(n_samples)
        tighter = ((likelihoods - divergences).logsumexp(0) - np.log(n_samples)).mean()
        return closed, float((likelihoods - divergences).mean()), error, float(tighter)


lower, sampled, sampling_error, tighter = test_bounds(50 if FAST else 500)
print(f"test digits: ELBO {lower:.3f}, with the divergence from samples {sampled:.3f} ± {sampling_error:.3f} nats;")
print(f"importance-weighted bound {tighter:.2f} nats")

# %% [markdown]
# ## Molecules
# The autoencoder that comes with molml: a graph goes in, a SMILES comes out. Its divergence is measured both ways, too;
# its codes are told apart so well that molecules come back, and between the codes of two molecules lie others.

# %%
names = read_molecules(molml.datasets.path("molecules") / "valid.csv.xz").smiles[: 100 if FAST else 200]
chemist = molml.load("druglike")
encoded = chemist.dataset(names, progress=False)
mean_code, logvar_code = chemist.posterior(encoded)
molecular_kl = kl_divergence(mean_code, logvar_code)
z = sample(mean_code.expand(300, -1, -1), logvar_code.expand(300, -1, -1), generator=generator)
zeros = torch.zeros_like(mean_code)
samples = log_density(z, mean_code, logvar_code) - log_density(z, zeros, zeros)
molecular_off = float((samples.mean() - molecular_kl.mean()).abs() / (samples.mean(1).std() / np.sqrt(len(samples))))
again = [None if mol is None else canonical(mol) for mol in chemist.reconstruct(names)]
reconstructed = np.mean([a == b for a, b in zip(names, again, strict=True)])
print(f"molecules: KL {molecular_kl.mean():.1f} nats, from samples {samples.mean():.1f}; {reconstructed:.1%} come back")
chemist.interpolate(["aspirin", "caffeine"], n=10).save(RESULTS / "between.svg")

figure = Figure(figsize=(14, 8), layout="constrained")
top, bottom = figure.subfigures(2, 1)
axes = top.subplots(1, 3)
axes[0].errorbar(sizes, estimates, errors, fmt="o", label="samples")
axes[0].axhline(closed, color="k", ls=":", label="closed form")
axes[0].set(xscale="log", xlabel="samples", ylabel="KL (nats)")
axes[0].legend()
plot_history(history, ax=axes[1])
with torch.no_grad():
    codes = vae["encoder"](pixels)[:, :2].numpy()
    steps = torch.linspace(-2.2, 2.2, 9)
    manifold = torch.sigmoid(vae["decoder"](torch.cartesian_prod(steps, steps))).reshape(9, 9, 8, 8)
shown = axes[2].scatter(*codes.T, c=digits.target, cmap="tab10", s=5)
top.colorbar(shown, ax=axes[2], label="digit")
axes[2].set(xlabel="z₁", ylabel="z₂", title="codes")
axes = bottom.subplots(1, 3)
tiles = functional.pad(manifold, (1, 1, 1, 1))
axes[0].imshow(tiles.permute(0, 2, 1, 3).reshape(90, 90).numpy(), cmap="gray_r")
axes[0].set(title="the decoder over the plane of codes", xticks=[], yticks=[])
with torch.no_grad():
    again = torch.sigmoid(vae["decoder"](vae["encoder"](test.inputs[:10])[:, :2]))
pairs = torch.cat([test.inputs[:10].reshape(10, 8, 8), again.reshape(10, 8, 8)], dim=1)
axes[1].imshow(torch.cat(list(pairs), dim=1).numpy(), cmap="gray_r")
axes[1].set(title="test digits and what became of them", xticks=[], yticks=[])
axes[2].plot(molecular_kl, samples.mean(0), ".")
axes[2].axline((float(molecular_kl.mean()),) * 2, slope=1, color="k", ls=":")
axes[2].set(xlabel="KL in closed form (nats)", ylabel="KL from 300 samples (nats)", title="molecules")
figure.savefig(RESULTS / "autoencoder.png", dpi=120)
figure  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## Checks against known answers

# %%
independent = -np.log(2) * 64  # a model that says one half for every pixel
assert abs(estimates[-1] - closed) < 4 * errors[-1], f"the two KL must agree, {estimates[-1]} and {closed}"
assert -1e-5 < exact - bound < 1e-3, f"the bound must touch the exact likelihood from below, {bound} and {exact}"
assert abs(sampled - lower) < 4 * sampling_error, f"the two ELBO of digits must agree, {sampled} and {lower}"
assert molecular_off < 4, f"the two KL of molecules must agree, {molecular_off:.1f} standard errors apart"
assert reconstructed > 0.8, f"molecules must come back from their codes, {reconstructed:.0%} do"
assert tighter > lower, "more importance samples must tighten the bound"
assert lower > independent + (1 if FAST else 15), f"the codes must tell something of the pixels, ELBO {lower:.1f}"
print("all checks passed; figures are in", RESULTS)
