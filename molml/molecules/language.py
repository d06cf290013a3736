"""A language model of molecules: the decoder of the autoencoder without a code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from rdkit import Chem
from torch import nn

from molml.io import Container, ModelFileError, save_container
from molml.molecules.data import as_molecules, canonical
from molml.molecules.dataset import MoleculeDataset
from molml.molecules.decoder import Decoder
from molml.molecules.generation import generate, molecules
from molml.molecules.loss import fast_precision, token_losses
from molml.molecules.tokens import Tokenizer

SCORED = 256  # molecules at a time


@final
class LanguageModel(nn.Module):
    """Recurrent network that writes molecules, token after token.

    It knows no code and so cannot encode or interpolate; it is the reference for how well the distribution of the
    training molecules can be met.

    Parameters
    ----------
    tokenizer : Tokenizer
    hidden : int
        Width of the network's state.
    seed : int
        Of the initial weights.
    metadata : mapping, optional
        JSON-able facts that travel with the model.

    References
    ----------
    Segler et al., ACS Cent. Sci. 4, 120 (2018).
    """

    def __init__(
        self, tokenizer: Tokenizer, *, hidden: int = 512, seed: int = 0, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.tokenizer, self.hidden, self.metadata = tokenizer, hidden, dict(metadata or {})
        self.decoder = Decoder(len(tokenizer), 0, hidden=hidden, seed=seed)

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that, with the tensors, rebuilds the model."""
        return {"tokenizer": self.tokenizer.config, "hidden": self.hidden}

    @torch.inference_mode()
    def log_likelihood(self, source: object) -> np.ndarray:
        """Logarithm of the probability that the model writes the canonical string of a molecule.

        Parameters
        ----------
        source : Mol, str, or iterable of these

        Returns
        -------
        array, shape (n,), float64, nats

        Raises
        ------
        MoleculeError
            If something is no molecule.
        UnknownTokenError
            If a molecule has a token that the model does not know.
        """
        smiles = [canonical(mol) for mol in as_molecules(source)]
        result = np.empty(len(smiles))
        if smiles:
            dataset = MoleculeDataset(smiles, self.tokenizer, graphs=False)
            for indices in dataset.batches(SCORED, None):
                tokens = dataset.collate(indices.tolist()).tokens
                result[indices] = -token_losses(self.decoder(tokens[:, :-1]), tokens).sum(1).double().numpy()
        return result

    def sample(self, n: int, *, seed: int = 0, temperature: float = 1.0, mask: bool = True) -> list[Chem.Mol | None]:
        """Molecules that the model writes, in bfloat16 where the processor has it.

        Parameters
        ----------
        n : int
        seed : int
        temperature : float
        mask : bool
            Allow only tokens after which the string can become a molecule.

        Returns
        -------
        list of rdkit.Chem.Mol or None
            None where the string is no molecule; the same molecule may come several times.
        """
        strings = generate(
            self.decoder,
            self.tokenizer,
            n,
            temperature=temperature,
            mask=mask,
            seed=seed,
            mixed_precision=fast_precision() == torch.bfloat16,
        )
        return molecules(strings)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write to a model file; ``molml.load`` reads it."""
        save_container(path, "LanguageModel", self.config, self.state_dict(), {**self.metadata, **(metadata or {})})

    @classmethod
    def from_container(cls, container: Container) -> LanguageModel:
        """Rebuild from a model file's content.

        Raises
        ------
        ModelFileError
            If the file does not hold a whole model.
        """
        config = container.config
        try:
            model = cls(
                Tokenizer.from_config(config["tokenizer"]), hidden=config["hidden"], metadata=container.metadata
            )
            model.load_state_dict(container.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"the file does not hold a whole LanguageModel: {error}; get the file again"
            ) from error
        return model.eval()
