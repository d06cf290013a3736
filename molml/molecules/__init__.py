"""Molecules as graphs and strings: representations, generative models, metrics.

The public names, in the order one meets them. Nothing heavy is imported before one of them is used.
"""

from typing import TYPE_CHECKING

from molml.lazy import lazy_names

if TYPE_CHECKING:
    from molml.molecules.data import (
        MoleculeError,
        MoleculeTable,
        as_molecules,
        canonical,
        normalise,
        read_molecules,
        split_by_hash,
    )
    from molml.molecules.display import MoleculeList
    from molml.molecules.evaluation import evaluate
    from molml.molecules.exploration import interpolate, near
    from molml.molecules.features import GraphBatch, GraphFeatures
    from molml.molecules.fitting import train, train_language
    from molml.molecules.language import LanguageModel
    from molml.molecules.model import MoleculeVAE
    from molml.molecules.optimisation import optimize
    from molml.molecules.prediction import FingerprintModel, PropertyModel, scaffold_folds
    from molml.molecules.reinforcement import reinforce
    from molml.molecules.tokens import Tokenizer, UnknownTokenError

_HOMES = {
    "as_molecules": "data",
    "read_molecules": "data",
    "canonical": "data",
    "normalise": "data",
    "split_by_hash": "data",
    "MoleculeError": "data",
    "MoleculeTable": "data",
    "Tokenizer": "tokens",
    "UnknownTokenError": "tokens",
    "GraphFeatures": "features",
    "GraphBatch": "features",
    "PropertyModel": "prediction",
    "FingerprintModel": "prediction",
    "scaffold_folds": "prediction",
    "MoleculeVAE": "model",
    "LanguageModel": "language",
    "train": "fitting",
    "train_language": "fitting",
    "near": "exploration",
    "interpolate": "exploration",
    "optimize": "optimisation",
    "reinforce": "reinforcement",
    "MoleculeList": "display",
    "evaluate": "evaluation",
}

__all__ = [
    "FingerprintModel",
    "GraphBatch",
    "GraphFeatures",
    "LanguageModel",
    "MoleculeError",
    "MoleculeList",
    "MoleculeTable",
    "MoleculeVAE",
    "PropertyModel",
    "Tokenizer",
    "UnknownTokenError",
    "as_molecules",
    "canonical",
    "evaluate",
    "interpolate",
    "near",
    "normalise",
    "optimize",
    "read_molecules",
    "reinforce",
    "scaffold_folds",
    "split_by_hash",
    "train",
    "train_language",
]

__getattr__, __dir__ = lazy_names("molml.molecules", _HOMES)
