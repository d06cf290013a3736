"""What a trained model is worth: how well it reconstructs, what it samples, and whether its code is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molml.molecules.data import as_molecules, canonical
from molml.molecules.exploration import CANDIDATES, interpolate, similarities
from molml.molecules.fitting import latent_statistics
from molml.molecules.generation import generate, molecules
from molml.molecules.model import MoleculeVAE
from molml.molecules.reconstruction import exact_matches

if TYPE_CHECKING:
    from molml.molecules.language import LanguageModel

__all__ = ["evaluate", "interpolation_metrics", "sample_metrics"]


def evaluate(
    model: MoleculeVAE | LanguageModel,
    valid: Sequence[str],
    train: Sequence[str],
    *,
    n_samples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Metrics of a model on molecules that it was not trained on.

    Parameters
    ----------
    model : MoleculeVAE or LanguageModel
    valid : sequence of str
        Canonical SMILES of two molecules at least; for an autoencoder those with tokens it does not know are left out.
    train : sequence of str
        Canonical SMILES of the training molecules.
    n_samples : int
    seed : int

    Returns
    -------
    dict of str to float
        `validity`, `validity_without_mask`, `uniqueness`, `novelty`: see `sample_metrics`. Of an autoencoder also
        `reconstruction`, the share of molecules that come back from their mean code, decoded greedily; `kl`, nats per
        molecule; `active_units`. Of a language model `log_likelihood`, nats per molecule.

    Raises
    ------
    ValueError
        If there are too few molecules.
    """
    known = [text for text in valid if not model.tokenizer.unknown(text)]
    if len(known) < 2:
        raise ValueError(f"valid must hold at least two molecules whose tokens the model knows, got {len(known)}")
    result: dict[str, float] = {}
    if isinstance(model, MoleculeVAE):
        back = model.decode(model.encode(known))
        result["reconstruction"] = float(exact_matches(as_molecules(known), back).mean())
        statistics = latent_statistics(model, model.dataset(known, progress=False))
        result |= {"kl": float(statistics.kl.sum()), "active_units": statistics.active_units}
    else:
        result["log_likelihood"] = float(np.mean(model.log_likelihood(known)))
    result |= sample_metrics(model, train, n=n_samples, seed=seed)
    result["validity_without_mask"] = sample_metrics(model, train, n=n_samples, mask=False, seed=seed)["validity"]
    return result | {"n_valid": len(known), "n_samples": n_samples}


def sample_metrics(
    model: MoleculeVAE | LanguageModel, train: Sequence[str], *, n: int = 1000, mask: bool = True, seed: int = 0
) -> dict[str, float]:
    """Shares of n samples, each the model's first try, that are molecules, different, and new.

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
        `validity` of all samples, `uniqueness` of the valid ones, `novelty` of the different ones.
    """
    if isinstance(model, MoleculeVAE):
        strings = model.sample_strings(n, mask=mask, seed=seed)
    else:
        strings = generate(model.decoder, model.tokenizer, n, mask=mask, seed=seed)
    found = [canonical(mol) for mol in molecules(strings) if mol is not None]
    distinct = set(found)
    return {
        "validity": len(found) / n,
        "uniqueness": len(distinct) / max(len(found), 1),
        "novelty": len(distinct - set(train)) / max(len(distinct), 1),
    }


def interpolation_metrics(
    model: MoleculeVAE,
    smiles: Sequence[str],
    *,
    n_pairs: int = 60,
    n_points: int = 11,
    spherical: bool = False,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> dict[str, float]:
    """How smooth paths between random pairs of molecules are.

    Parameters
    ----------
    model : MoleculeVAE
    smiles : sequence of str
        Canonical SMILES to draw the pairs from.
    n_pairs, n_points : int
        Paths, and points on each, ends included.
    spherical, candidates
        As of `interpolate`.
    seed : int

    Returns
    -------
    dict of str to float
        `validity` of the points; `adjacent_similarity`, the mean Tanimoto similarity of neighbouring points that are
        molecules (Morgan fingerprints, radius 2), and `step_similarity`, that of those which are different molecules;
        `distinct`, different molecules per path.
    """
    known = [text for text in smiles if not model.tokenizer.unknown(text)]
    if len(known) < 2:
        raise ValueError(f"smiles must hold at least two molecules whose tokens the model knows, got {len(known)}")
    rng = np.random.default_rng(seed)
    pairs = [rng.choice(len(known), 2, replace=False) for _ in range(n_pairs)]
    options: dict[str, Any] = {"spherical": spherical, "candidates": candidates}
    paths = [list(interpolate(model, [known[i] for i in pair], n_points, **options)) for pair in pairs]
    found = [mol for path in paths for mol in path]
    steps_taken = [
        (float(similarities(a, [b])[0] or 0.0), canonical(a) != canonical(b))
        for path in paths
        for a, b in zip(path, path[1:], strict=False)
        if a is not None and b is not None
    ]
    distinct = [len({canonical(mol) for mol in path if mol is not None}) for path in paths]
    return {
        "validity": float(np.mean([mol is not None for mol in found])),
        "adjacent_similarity": _mean([alike for alike, _ in steps_taken]),
        "step_similarity": _mean([alike for alike, moved in steps_taken if moved]),
        "distinct": float(np.mean(distinct)),
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
