"""A variational autoencoder of molecules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor, nn

from molml.io import Container, ModelFileError, save_container
from molml.molecules.data import MoleculeError, as_molecules, canonical
from molml.molecules.dataset import ATOM_SIZES, BOND_SIZES, MoleculeBatch, MoleculeDataset
from molml.molecules.decoder import END, START, Decoder
from molml.molecules.encoders import ENCODERS, ConvolutionalEncoder, GraphEncoder, RecurrentEncoder
from molml.molecules.tokens import Tokenizer
from molml.nn import MLP

if TYPE_CHECKING:
    pass

BATCH = 256


@final
class MoleculeVAE(nn.Module):
    """Molecules as points of a space, and points as molecules.

    An encoder gives the normal distribution q(z|x) of a molecule's code, a recurrent decoder the canonical SMILES (or
    SELFIES) of a code, token after token, and a small network properties of it.

    Parameters
    ----------
    tokenizer : Tokenizer
    encoder : "graph", "convolutional" or "recurrent"
        The first reads atoms and bonds, the others the tokens.
    n_latent : int
        Width of the code.
    hidden : int
        Width of the decoder's state.
    properties : sequence of str
        Names of properties to predict from the code.
    seed : int
        Of the initial weights.
    metadata : dict, optional
        JSON-able facts that travel with the model: hash of the data, metrics, licence.

    Attributes
    ----------
    decoder : Decoder
    predictor : MLP or None
        Code to standardised properties.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    References
    ----------
    Kingma and Welling, ICLR 2014; Gómez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        encoder: str = "graph",
        n_latent: int = 64,
        hidden: int = 512,
        properties: Sequence[str] = (),
        seed: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}")
        if n_latent < 1:
            raise ValueError(f"n_latent must be at least 1, got {n_latent}; LanguageModel is the model without a code")
        if isinstance(properties, str):
            raise TypeError(
                f"properties must be a list of names, got the string {properties!r}; write [{properties!r}]"
            )
        self.tokenizer = tokenizer
        self.n_latent, self.hidden, self.properties = n_latent, hidden, list(properties)
        self.kind, self.metadata = encoder, dict(metadata or {})
        n = len(tokenizer)
        self.encoder: nn.Module
        if encoder == "graph":
            self.encoder = GraphEncoder(ATOM_SIZES, BOND_SIZES, n_latent, seed=seed)
        elif encoder == "convolutional":
            self.encoder = ConvolutionalEncoder(n, n_latent, seed=seed)
        else:
            self.encoder = RecurrentEncoder(n, n_latent, seed=seed)
        self.decoder = Decoder(n, n_latent, hidden=hidden, seed=seed + 1)
        self.predictor = MLP(n_latent, [64, 64], len(self.properties), seed=seed + 2) if self.properties else None
        self.register_buffer("property_mean", torch.zeros(len(self.properties)))
        self.register_buffer("property_std", torch.ones(len(self.properties)))

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that, with the tensors, rebuilds the model."""
        return {
            "tokenizer": self.tokenizer.config,
            "encoder": self.kind,
            "n_latent": self.n_latent,
            "hidden": self.hidden,
            "properties": self.properties,
        }

    def encode_batch(self, batch: MoleculeBatch) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code of every molecule of a batch, each of shape (n, n_latent)."""
        return cast("tuple[Tensor, Tensor]", self.encoder(batch))

    def dataset(self, smiles: Sequence[str], properties: np.ndarray | None = None) -> MoleculeDataset:
        """Data set of canonical SMILES, as this model reads them."""
        return MoleculeDataset(smiles, self.tokenizer, graphs=self.kind == "graph", properties=properties)

    @torch.no_grad()
    def encode(self, molecules: object) -> np.ndarray:
        """Codes of molecules: the means of q(z|x).

        Parameters
        ----------
        molecules : whatever `as_molecules` takes

        Returns
        -------
        array, shape (n, n_latent), float64

        Raises
        ------
        MoleculeError
            If something is no molecule.
        UnknownTokenError
            If a molecule has a token that the model does not know.
        """
        smiles = [canonical(mol) for mol in as_molecules(molecules)]
        if not smiles:
            return np.zeros((0, self.n_latent))
        dataset = self.dataset(smiles)
        result = np.empty((len(smiles), self.n_latent))
        for indices in dataset.batches(BATCH, None):
            result[indices] = self.encode_batch(dataset.collate(indices.tolist()))[0].numpy()
        return result

    @torch.no_grad()
    def decode_strings(self, z: np.ndarray) -> list[str]:
        """Greedy strings of codes."""
        codes = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        ids = [_greedy(self.decoder, codes[i : i + 1024]) for i in range(0, len(codes), 1024)]
        return [self.tokenizer.decode(row) for part in ids for row in part]

    def decode(self, z: np.ndarray) -> list[Chem.Mol | None]:
        """Molecules of codes, decoded greedily.

        Parameters
        ----------
        z : array, shape (n, n_latent)

        Returns
        -------
        list of rdkit.Chem.Mol or None
            None where the string is no molecule.
        """
        return [_molecule(text) for text in self.decode_strings(z)]

    def reconstruct(self, molecules: object) -> list[Chem.Mol | None]:
        """Molecules encoded and decoded again."""
        return self.decode(self.encode(molecules))

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write to a model file; ``molml.load`` reads it."""
        save_container(path, "MoleculeVAE", self.config, self.state_dict(), {**self.metadata, **(metadata or {})})

    @classmethod
    def from_container(cls, container: Container) -> MoleculeVAE:
        """Rebuild from a model file's content."""
        config = container.config
        try:
            model = cls(
                Tokenizer.from_config(config["tokenizer"]),
                encoder=config["encoder"],
                n_latent=config["n_latent"],
                hidden=config["hidden"],
                properties=config["properties"],
                metadata=container.metadata,
            )
            model.load_state_dict(container.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"the file does not hold a whole MoleculeVAE: {error}; get the file again") from error
        return model.eval()


def _greedy(decoder: Decoder, z: Tensor, most: int = 200) -> np.ndarray:
    n = len(z)
    rows = torch.arange(n)
    result = np.full((n, most), END, np.int64)
    state, ids = decoder.start(z, n), torch.full((n,), START)
    for t in range(most):
        logits, state = decoder.step(ids, state)
        ids = logits.argmax(1)
        result[rows.numpy(), t] = ids.numpy()
        alive = ids != END
        if not alive.any():
            break
        rows, ids, state = rows[alive], ids[alive], tuple(s[alive] for s in state)
    return result


def _molecule(text: str) -> Chem.Mol | None:
    try:
        return as_molecules([text])[0]
    except MoleculeError:
        return None
