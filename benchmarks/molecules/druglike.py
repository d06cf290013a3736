"""What the model of drug-like molecules that comes with the package is worth, on molecules it was not trained on.

    python benchmarks/molecules/druglike.py ZINC_VALID ZINC_TRAIN [--model druglike] [--n 30000] [--output FILE.json]

ZINC_VALID are molecules that decided nothing in the training (the JT-VAE validation split of ZINC-250k), ZINC_TRAIN
those it was trained on, for the novelty. One thread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import molml
from molml.molecules.data import as_molecules, canonical, read_molecules
from molml.molecules.evaluation import evaluate, interpolation_metrics, sample_metrics
from molml.molecules.reconstruction import exact_matches, stochastic_reconstruction

EVERYDAY = ("aspirin", "caffeine", "ibuprofen", "paracetamol")
N_STOCHASTIC = 300  # molecules of the protocol of ten encodings times ten decodings


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("valid", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("--model", default="druglike")
    parser.add_argument("--n", type=int, default=30_000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    vae = molml.load(arguments.model)
    valid, train = (read_molecules(path).smiles for path in (arguments.valid, arguments.train))
    found: dict[str, object] = {"n_zinc_valid": len(valid)}
    known = [text for text in valid if not vae.tokenizer.unknown(text)]
    found["unknown_tokens"] = len(valid) - len(known)
    # a molecule that the vocabulary cannot write is one that does not come back
    metrics = evaluate(vae, known, train, n_samples=1000)
    found["reconstruction"] = metrics["reconstruction"] * len(known) / len(valid)
    found |= {name: metrics[name] for name in ("kl", "active_units")}
    found["everyday"] = dict(
        zip(EVERYDAY, exact_matches(as_molecules(EVERYDAY), vae.reconstruct(EVERYDAY)).tolist(), strict=True)
    )
    found["reconstruction_10x10"] = stochastic(vae, known[:: len(known) // N_STOCHASTIC])
    for n in (10_000, arguments.n):
        found[f"samples_{n}"] = sample_metrics(vae, train, n=n)
    found["samples_without_mask"] = sample_metrics(vae, train, n=1000, mask=False)
    found["interpolation"] = interpolation_metrics(vae, known)
    found["near_aspirin"] = around(vae, "aspirin")
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


def stochastic(vae, smiles: list[str]) -> float:
    """Exact matches with codes drawn from the posterior and tokens drawn from the decoder."""

    def encode(molecules, seed: int):
        mean, logvar = vae.posterior(vae.dataset([canonical(mol) for mol in molecules], progress=False))
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
        return (mean + noise * (0.5 * logvar).exp()).double().numpy()

    def decode(codes, seed: int):
        return vae.decode_strings(codes, temperature=1.0, seed=seed)

    return stochastic_reconstruction(as_molecules(smiles), encode, decode)


def around(vae, name: str) -> dict[str, float]:
    """Validity at the distance of the posterior's standard deviation, in 300 directions, with and without mask."""
    (smiles,) = (canonical(mol) for mol in as_molecules(name))
    mean, logvar = vae.posterior(vae.dataset([smiles], progress=False))
    radius = float((0.5 * logvar).exp().norm())
    directions = np.random.default_rng(0).normal(size=(300, vae.n_latent))
    directions *= radius / np.linalg.norm(directions, axis=1, keepdims=True)
    points = mean.double().numpy() + directions
    valid, alone = (np.mean([mol is not None for mol in vae.decode(points, mask=mask)]) for mask in (True, False))
    return {"radius": radius, "validity": float(valid), "validity_without_mask": float(alone)}


if __name__ == "__main__":
    main()
