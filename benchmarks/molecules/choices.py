"""What the exploring functions do by default, against what else they could do, on molecules not trained on.

    python benchmarks/molecules/choices.py ZINC_VALID [--model druglike] [--n 2000]

Samples of the learned prior beside those of the normal one, and of a Gaussian of the codes with more or less noise and
other temperatures: molecules at the first try with and without the mask, and the Fréchet ChemNet distance of N of them
from twice as many of ZINC_VALID (all have the same bias). Straight paths beside
spherical ones: 60 pairs, 11 points; the similarity of neighbours, and of those neighbours that are not one and the same
molecule. One thread. The distance needs the packages that `molml molecules metrics` reads its weights from.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch

import molml
from molml.molecules.chemnet import ChemNet, frechet_distance, gaussian_of
from molml.molecules.data import canonical, read_molecules
from molml.molecules.evaluation import interpolation_metrics
from molml.molecules.exploration import CANDIDATES
from molml.molecules.generation import molecules
from molml.molecules.model import NOISE, TEMPERATURE
from molml.molecules.moses import chemnet_file


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("valid", type=Path)
    parser.add_argument("--model", default="druglike")
    parser.add_argument("--n", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    vae = molml.load(arguments.model)
    valid = read_molecules(arguments.valid).smiles
    for candidates in (CANDIDATES, 1):
        for spherical in (False, True):
            found = interpolation_metrics(vae, valid, spherical=spherical, candidates=candidates)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
            print(f"{'spherical' if spherical else 'straight':<10} {candidates:>3} codes a point  {shown}", flush=True)
    network = ChemNet(chemnet_file())
    chosen = np.random.default_rng(0).permutation(len(valid))[: 2 * arguments.n]
    reference = gaussian_of(network.describe([valid[i] for i in chosen]))
    normal = copy.copy(vae)
    normal._modules = {**vae._modules, "prior": None}

    def judge(name: str, codes: np.ndarray, noise: float, temperature: float) -> None:
        rates, smiles = {}, []
        for mask in (True, False):
            strings = vae.decode_strings(codes, noise=noise, mask=mask, temperature=temperature)
            found = [mol for mol in molecules(strings) if mol is not None]
            rates[mask] = len(found) / len(codes)
            smiles = smiles or [canonical(mol) for mol in found]
        distance = frechet_distance(gaussian_of(network.describe(smiles)), reference)
        print(
            f"{name:<10} noise {noise:3.1f} temperature {temperature:3.1f}  valid {rates[True]:.4f}  without mask "
            f"{rates[False]:.4f}  different {len(set(smiles)) / len(smiles):.4f}  FCD {distance:.3f} of {len(smiles)}",
            flush=True,
        )

    for name, model in (("learned", vae), ("normal", normal)):
        judge(name, model.sample_codes(arguments.n), NOISE, TEMPERATURE)
    mean, logvar = vae.posterior(vae.dataset([valid[i] for i in chosen], progress=False))
    rng = np.random.default_rng(1)
    codes = (mean + (0.5 * logvar).exp() * torch.from_numpy(rng.normal(size=mean.shape)).float()).double().numpy()
    for temperature in (0.0, 0.7, 1.0):
        for noise in (0.0, 0.5, 1.0, 1.5, 2.0):
            covariance = np.cov(codes.T) + noise**2 * np.eye(vae.n_latent)
            drawn = rng.multivariate_normal(codes.mean(0), covariance, size=arguments.n)
            judge("Gaussian", drawn, noise, temperature)


if __name__ == "__main__":
    main()
