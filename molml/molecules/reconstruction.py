"""How often an autoencoder gives back the molecule it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rdkit import Chem, rdBase

__all__ = ["exact_matches", "stochastic_reconstruction"]


def exact_matches(molecules: Sequence[Chem.Mol], decoded: Sequence[Chem.Mol | str | None]) -> np.ndarray:
    """Which molecules came back as they were; the mean is the greedy reconstruction if the decoding was greedy.

    Parameters
    ----------
    molecules : sequence of Mol
    decoded : sequence of Mol, str or None
        What they were decoded to; None and strings that are no molecule match nothing.

    Returns
    -------
    ndarray of bool, shape (n,)
        Whether both have the same canonical SMILES, stereochemistry included.

    Raises
    ------
    ValueError
        For none, or for lists of different lengths.

    Examples
    --------
    >>> from rdkit import Chem
    >>> exact_matches([Chem.MolFromSmiles("CCO"), Chem.MolFromSmiles("CCN")], ["OCC", "CCC"])
    array([ True, False])
    """
    if not len(molecules) or len(molecules) != len(decoded):
        raise ValueError(
            f"molecules and decoded must have the same length of at least 1, got {len(molecules)} and {len(decoded)}"
        )
    pairs = zip(molecules, decoded, strict=True)
    return np.array([_smiles(other) == Chem.MolToSmiles(mol) for mol, other in pairs])


def stochastic_reconstruction(
    molecules: Sequence[Chem.Mol],
    encode: Callable[[Sequence[Chem.Mol], int], np.ndarray],
    decode: Callable[[np.ndarray, int], Sequence[Chem.Mol | str | None]],
    *,
    n_encodings: int = 10,
    n_decodings: int = 10,
    seed: int = 0,
) -> float:
    """Fraction of exact matches when codes and decodings are drawn at random: ten times ten in the literature.

    Parameters
    ----------
    molecules : sequence of Mol
    encode : callable, (molecules, seed) -> array (n, d)
        Draws one code of every molecule's posterior.
    decode : callable, (array (n, d), seed) -> n of Mol, str or None
        Draws one molecule for every code.
    n_encodings, n_decodings : int
        Codes of a molecule, and molecules of a code.
    seed : int
        Every call gets a seed of its own.

    Raises
    ------
    ValueError
        For no molecules, or numbers below 1.

    References
    ----------
    Kusner, Paige, Hernández-Lobato, ICML 2017, arXiv:1703.01925; Jin, Barzilay, Jaakkola, ICML 2018, arXiv:1802.04364.
    """
    if n_encodings < 1 or n_decodings < 1:
        raise ValueError(f"n_encodings and n_decodings must be at least 1, got {n_encodings} and {n_decodings}")
    seeds = np.random.default_rng(seed).integers(2**31, size=(n_encodings, 1 + n_decodings)).tolist()
    rates = []
    for first, *others in seeds:
        codes = encode(molecules, first)
        rates += [exact_matches(molecules, decode(codes, other)).mean() for other in others]
    return float(np.mean(rates))


def _smiles(decoded: Chem.Mol | str | None) -> str | None:
    if isinstance(decoded, str):
        with rdBase.BlockLogs():
            decoded = Chem.MolFromSmiles(decoded)
    return None if decoded is None else str(Chem.MolToSmiles(decoded))
