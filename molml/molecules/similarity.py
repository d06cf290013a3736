"""Tanimoto similarity of fingerprints, 64 bits at a time: nearest neighbours and the diversity of a set."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

__all__ = ["Diversity", "diversity", "morgan_fingerprints", "nearest_similarities"]

# how many fingerprints of the other set stay in the first-level cache while a fingerprint runs over them
BLOCK = 256
ROWS = 512


class Diversity(NamedTuple):
    """One minus the similarity within a set, over all pairs, a molecule and itself among them.

    Attributes
    ----------
    first : float
        1 - mean Tanimoto similarity; MOSES' IntDiv.
    second : float
        1 - mean over molecules of the root mean square similarity; MOSES' IntDiv2.
    """

    first: float
    second: float


def morgan_fingerprints(molecules: Sequence[Chem.Mol], *, radius: int = 2, n_bits: int = 1024) -> np.ndarray:
    """Morgan fingerprints, 64 bits to a word.

    Parameters
    ----------
    molecules : sequence of Mol
    radius : int
        Bonds from the centre of an environment.
    n_bits : int
        A multiple of 64.

    Returns
    -------
    ndarray of uint64, shape (n, n_bits / 64)
    """
    generator = GetMorganGenerator(radius=radius, fpSize=n_bits)
    bits = np.empty((len(molecules), n_bits), dtype=np.uint8)
    for row, molecule in zip(bits, molecules, strict=True):
        row[:] = generator.GetFingerprintAsNumPy(molecule)
    return packed(bits)


def packed(bits: np.ndarray) -> np.ndarray:
    """Fingerprints of zeros and ones (n, n_bits) as words of 64 bits (n, n_bits / 64)."""
    return np.packbits(bits, axis=1).view(np.uint64)


def nearest_similarities(fingerprints: np.ndarray, others: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Tanimoto similarity of every fingerprint to the most similar one of another set.

    Two fingerprints without any bit have similarity 1.

    Parameters
    ----------
    fingerprints, others : ndarray of uint64, shapes (n, n_words) and (m, n_words)
        Of :func:`morgan_fingerprints`.
    threads : int

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    ValueError
        If a set is empty or the widths differ.

    Examples
    --------
    >>> from rdkit import Chem
    >>> ethanol, propanol, benzene = morgan_fingerprints([Chem.MolFromSmiles(s) for s in ("CCO", "CCCO", "c1ccccc1")])
    >>> nearest_similarities(ethanol[None], np.stack([propanol, benzene])).round(2)
    array([0.56])
    """
    _check(fingerprints, others)
    words = np.ascontiguousarray(others.T)
    counts = np.bitwise_count(others).sum(axis=1, dtype=np.float64)
    starts = range(0, len(fingerprints), ROWS)
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda start: _nearest(fingerprints[start : start + ROWS], words, counts), starts)
        return np.concatenate(list(parts))


def diversity(fingerprints: np.ndarray, *, threads: int = 1) -> Diversity:
    """Internal diversity of a set.

    Parameters
    ----------
    fingerprints : ndarray of uint64, shape (n, n_words)
        Of :func:`morgan_fingerprints`.
    threads : int

    Raises
    ------
    ValueError
        If the set is empty.

    References
    ----------
    Polykovskiy et al., Front. Pharmacol. 11, 565644 (2020), section "Metrics".
    """
    _check(fingerprints, fingerprints)
    words = np.ascontiguousarray(fingerprints.T)
    counts = np.bitwise_count(fingerprints).sum(axis=1, dtype=np.float64)
    starts = range(0, len(fingerprints), ROWS)
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda start: _moments(fingerprints[start : start + ROWS], words, counts), starts)
        first, second = np.concatenate(list(parts), axis=1) / len(fingerprints)
    return Diversity(float(1.0 - first.mean()), float(1.0 - np.sqrt(second).mean()))


def _check(fingerprints: np.ndarray, others: np.ndarray) -> None:
    for array in (fingerprints, others):
        if array.ndim != 2 or array.dtype != np.uint64 or not array.size:
            raise ValueError(
                f"fingerprints must be a non-empty array (n, n_words) of uint64 as morgan_fingerprints gives it, got "
                f"shape {array.shape} of {array.dtype}"
            )
    if fingerprints.shape[1] != others.shape[1]:
        raise ValueError(
            f"both sets of fingerprints need the same width, got {64 * fingerprints.shape[1]} and "
            f"{64 * others.shape[1]} bits"
        )


# numba compiles no function for the number of set bits that vector units count eight words at a time
@intrinsic
def _popcount(typingctx: Any, word: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), code


@njit(cache=True, nogil=True)
def _shared(fingerprint, words, start, stop, shared):  # type: ignore[no-untyped-def]
    """Bits that a fingerprint shares with each of words[:, start:stop]."""
    shared[:] = 0.0
    # four words at a time, so that what is counted stays in registers; columns one by one, or nothing is vectorised
    whole = len(fingerprint) - len(fingerprint) % 4
    for word in range(0, whole, 4):
        a, b, c, d = fingerprint[word : word + 4]
        a_, b_ = words[word, start:stop], words[word + 1, start:stop]
        c_, d_ = words[word + 2, start:stop], words[word + 3, start:stop]
        for j in range(stop - start):
            shared[j] += _popcount(a & a_[j]) + _popcount(b & b_[j]) + _popcount(c & c_[j]) + _popcount(d & d_[j])
    for word in range(whole, len(fingerprint)):
        for j in range(stop - start):
            shared[j] += _popcount(fingerprint[word] & words[word, start + j])


@njit(cache=True, nogil=True)
def _counts(fingerprints):  # type: ignore[no-untyped-def]
    counts = np.zeros(len(fingerprints))
    for i in range(len(fingerprints)):
        for word in fingerprints[i]:
            counts[i] += _popcount(word)
    return counts


@njit(cache=True, nogil=True, error_model="numpy")
def _nearest(fingerprints, words, counts):  # type: ignore[no-untyped-def]
    n, m = len(fingerprints), len(counts)
    best = np.zeros(n)
    own = _counts(fingerprints)
    shared = np.zeros(BLOCK)
    for start in range(0, m, BLOCK):
        stop = min(start + BLOCK, m)
        for i in range(n):
            _shared(fingerprints[i], words, start, stop, shared)
            # a block seldom improves the best, and a question without division is asked of many at once
            better = False
            for j in range(stop - start):
                union = own[i] + counts[start + j] - shared[j]
                better |= (shared[j] > best[i] * union) | (union == 0.0)
            if better:
                for j in range(stop - start):
                    union = own[i] + counts[start + j] - shared[j]
                    best[i] = max(best[i], shared[j] / union if union > 0.0 else 1.0)
    return best


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})
def _moments(fingerprints, words, counts):  # type: ignore[no-untyped-def]
    """Sums of the similarities and of their squares over all others."""
    n, m = len(fingerprints), len(counts)
    sums = np.zeros((2, n))
    own = _counts(fingerprints)
    shared = np.zeros(BLOCK)
    for start in range(0, m, BLOCK):
        stop = min(start + BLOCK, m)
        for i in range(n):
            _shared(fingerprints[i], words, start, stop, shared)
            first, second = 0.0, 0.0
            for j in range(stop - start):
                union = own[i] + counts[start + j] - shared[j]
                similarity = shared[j] / union if union > 0.0 else 1.0
                first += similarity
                second += similarity * similarity
            sums[0, i] += first
            sums[1, i] += second
    return sums
