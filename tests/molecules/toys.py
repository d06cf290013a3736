"""An autoencoder whose codes one can read: chains of carbon atoms that end with oxygen atoms."""

import numpy as np
import torch
from rdkit import Chem


class Chains:
    """Code (a, b, …): round(a) carbon and round(b) oxygen atoms in a row; out of range it is no molecule."""

    properties = ("heavy_atoms",)
    property_mean, property_std = torch.tensor([3.0]), torch.tensor([2.0])

    def __init__(self, n_latent=2, std=0.4, most=12):
        self.n_latent, self.std, self.most, self.decoded = n_latent, std, most, 0

    def encode(self, source):
        return np.array([self._code(Chem.MolToSmiles(mol)) for mol in source], dtype=float)

    def _code(self, smiles):
        return [smiles.count("C"), smiles.count("O")] + [0] * (self.n_latent - 2)

    def decode(self, z):
        self.decoded += len(z)
        counts = np.rint(z[:, :2]).astype(int)
        return [
            Chem.MolFromSmiles("C" * carbon + "O" * oxygen) if 1 <= carbon <= self.most and 0 <= oxygen <= 3 else None
            for carbon, oxygen in counts
        ]

    def dataset(self, smiles):
        return smiles

    def posterior(self, dataset):
        mean = torch.tensor([self._code(smiles) for smiles in dataset], dtype=torch.float32)
        return mean, torch.full_like(mean, 2 * np.log(self.std))

    def predictor(self, z):
        # standardised
        return (z[:, :2].sum(1, keepdim=True) - 3.0) / 2.0
