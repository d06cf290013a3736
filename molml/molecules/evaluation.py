"""What a trained model is worth: reconstruction, samples, and whether its code is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from molml.molecules.data import canonical
from molml.molecules.generation import generate, parse

if TYPE_CHECKING:
    from molml.molecules.language import LanguageModel
    from molml.molecules.model import MoleculeVAE

__all__ = ["evaluate_language_model", "evaluate_vae", "samples"]

# a latent coordinate whose mean varies by less over molecules says nothing of them (Burda et al., ICLR 2016, sec. 5.2)
ACTIVE = 0.01


def samples(
    model: MoleculeVAE | LanguageModel, train: Sequence[str], *, n: int = 1000, mask: bool = True, seed: int = 0
) -> dict[str, float]:
    """Shares of n strings, each the model's first try, that are molecules, different and new.

    Parameters
    ----------
    model : MoleculeVAE or LanguageModel
    train : sequence of str
        Canonical SMILES of the training molecules.
    n : int
    mask : bool
        Forbid what cannot become a molecule while a string is written.
    seed : int

    Returns
    -------
    dict of str to float
        `validity` of all strings; `uniqueness` of the valid ones; `novelty` of the different ones.
    """
    strings = model.sample_strings(n, seed=seed, mask=mask)
    found = [canonical(mol) for mol in map(parse, strings) if mol is not None]
    distinct = set(found)
    return {
        "validity": len(found) / n,
        "uniqueness": len(distinct) / max(len(found), 1),
        "novelty": len(distinct - set(train)) / max(len(distinct), 1),
    }
