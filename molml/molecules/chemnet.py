"""ChemNet, a recurrent network that turns a molecule's SMILES into 512 numbers, and the Fréchet distance between two
sets of molecules described by them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from scipy.linalg import eigh, eigvalsh
from torch import Tensor
from torch.nn.functional import conv1d, one_hot, pad, selu

__all__ = ["ChemNet", "Gaussian", "frechet_distance", "frechet_distance_limit", "gaussian_of"]

# in the order of the first layer's columns; X stands for every other token
TOKENS = "C N O H F Cl P B Br S I Si # ( ) + - 1 2 3 4 5 6 7 8 = [ ] @ c n o s X .".split()
TOKEN_IDS = {token: i for i, token in enumerate(TOKENS)}
UNKNOWN, END, PADDING = TOKEN_IDS["X"], TOKEN_IDS["."], len(TOKENS)
# any character takes a following r, i or l with it
TOKEN = re.compile(r".[ril]|.")

N_FIRST, N_FEATURES = 128, 512
MAX_LENGTH = 350
"""Tokens; the network was trained on strings filled up to this length."""
N_STEPS = 88
"""Length of the sequence behind the two convolutions of stride 2: 350 → 175 → 88."""
BATCH = 384


class Gaussian(NamedTuple):
    """Mean and covariance of a set of molecules.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)
        With n - 1 in the denominator.
    n : int
        Molecules.
    """

    mean: np.ndarray
    covariance: np.ndarray
    n: int


def gaussian_of(features: np.ndarray) -> Gaussian:
    """Mean and covariance of the rows.

    Parameters
    ----------
    features : ndarray, shape (n, d)

    Raises
    ------
    ValueError
        For fewer than two rows.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 molecules, got {len(features)}")
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return Gaussian(mean, centred.T @ centred / (len(features) - 1), len(features))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet (Wasserstein-2) distance between two Gaussians.

    |m_a - m_b|² + tr(C_a + C_b - 2 (C_a^½ C_b C_a^½)^½). The roots are those of symmetric matrices, so there is no
    complex part to be dropped, also where covariances are singular.

    Parameters
    ----------
    a, b : Gaussian

    References
    ----------
    Dowson, Landau, J. Multivar. Anal. 12, 450 (1982); Preuer et al., J. Chem. Inf. Model. 58, 1736 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> one, two = Gaussian(np.zeros(2), np.eye(2), 9), Gaussian(np.ones(2), 4 * np.eye(2), 9)
    >>> frechet_distance(one, two)  # 2 of the means and 2 (2 - 1)² of the widths
    4.0
    """
    values, vectors = eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    overlap = eigvalsh(root @ b.covariance @ root)
    shift = a.mean.astype(np.float64) - b.mean
    cross = np.sqrt(np.maximum(overlap, 0.0)).sum()
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross)


def frechet_distance_limit(features: np.ndarray, reference: Gaussian, *, seed: int = 0) -> float:
    """Estimate of the Fréchet distance that infinitely many molecules of the same kind would have.

    The distance of n molecules is larger than that, by c₁/n + c₂/n² + … . Both terms drop out of
    (8 F(n) - 6 F(n/2) + F(n/4)) / 3, where F(n/2) and F(n/4) are means over the halves and the quarters of the shuffled
    set.

    Parameters
    ----------
    features : ndarray, shape (n, d)
        At least 8 d rows, lest quarters are so small that the expansion fails.
    reference : Gaussian
    seed : int
        Of the shuffling.

    Returns
    -------
    float
        May be slightly negative for a distance near zero.

    Raises
    ------
    ValueError
        For too few rows.

    References
    ----------
    Chong, Forsyth, CVPR 2020, arXiv:1911.07023 (bias of the Fréchet distance in 1/n).
    """
    n, d = features.shape
    if n < 8 * d:
        raise ValueError(f"the limit of many molecules needs at least {8 * d} of them, got {n}")
    shuffled = features[np.random.default_rng(seed).permutation(n)]
    whole, halves, quarters = (
        np.mean([frechet_distance(reference, gaussian_of(part)) for part in np.array_split(shuffled, n_parts)])
        for n_parts in (1, 2, 4)
    )
    return float((8.0 * whole - 6.0 * halves + quarters) / 3.0)


def token_ids(smiles: str) -> list[int]:
    """Numbers of the tokens and the end; what follows a dot is not read, nor what follows token 349."""
    read = TOKEN.findall(smiles.partition(".")[0])[: MAX_LENGTH - 1]
    return [TOKEN_IDS.get(token, UNKNOWN) for token in read] + [END]


def n_steps(n_tokens: int) -> int:
    """How many of the 88 steps see a token; the others see padding only."""
    return min((n_tokens // 2 + 1) // 2 + 1, N_STEPS)


@final
class ChemNet:
    """The part of ChemNet that describes a molecule: two convolutions and two LSTMs, in single precision.

    Most of the 88 steps are padding behind the molecule, the same for all of them. The first LSTM reads backwards, so
    its states over the padding are computed once; the second reads forwards, so its input over the padding is.

    Parameters
    ----------
    path : Path
        Weights as the package fcd-torch brings them, ``ChemNet_v0.13_pretrained.pt``.

    Raises
    ------
    ValueError
        If the file is not that.

    References
    ----------
    Mayr et al., Chem. Sci. 9, 5441 (2018); Preuer et al., J. Chem. Inf. Model. 58, 1736 (2018).
    """

    def __init__(self, path: Path) -> None:
        try:
            # (kind of layer, (weights, …)) of the two convolutions and of the two LSTMs
            weights = [layer[1][0] for layer in torch.load(path, map_location="cpu", weights_only=True)]
            self._kernels = [weights[i]["weight"] for i in (0, 1)]
            self._backwards, self._forwards = (
                _Lstm(w["weight_ih_l0"], w["weight_hh_l0"], (w["bias_ih_l0"] + w["bias_hh_l0"])[:, None])
                for w in weights[2:]
            )
            state = _State(*torch.zeros(2, N_FIRST, 1))
            self._padding = [state.copy()]
            for _ in range(N_STEPS):
                state.step(self._backwards, torch.zeros(32, 1))
                self._padding.append(state.copy())
        except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold ChemNet's weights; install fcd-torch 1.0.7 again") from error

    def describe(self, smiles: Sequence[str]) -> np.ndarray:
        """Describe molecules given by their canonical SMILES.

        Parameters
        ----------
        smiles : sequence of str

        Returns
        -------
        ndarray of float32, shape (n, 512)
        """
        ids = [token_ids(s) for s in smiles]
        features = np.zeros((len(ids), N_FEATURES), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                longest = len(ids[rows[-1]])
                batch = torch.tensor([ids[i] + [PADDING] * (longest - len(ids[i])) for i in rows])
                features[rows] = self._features(batch).numpy()
        return features

    def _features(self, ids: Tensor) -> Tensor:
        """Features (n, 512) of tokens (n, n_tokens) filled up with padding."""
        n, n_tokens = ids.shape
        steps = n_steps(n_tokens)
        # each convolution pads one step on the left, and on the right what makes 175 and 88 steps of the whole
        ids = pad(ids, (0, min(4 * steps + 2, MAX_LENGTH) - n_tokens), value=PADDING)
        x = one_hot(ids, len(TOKENS) + 1)[:, :, :-1].float().transpose(1, 2) / len(TOKENS)
        x = selu(conv1d(pad(x, (1, 1)), self._kernels[0], stride=2))
        x = selu(conv1d(pad(x, (1, 2)), self._kernels[1], stride=2))

        state = self._padding[N_STEPS - steps].repeated(n)
        inputs = [self._padding[N_STEPS - step].hidden for step in range(N_STEPS)]
        for step in reversed(range(steps)):
            state.step(self._backwards, x[:, :, step].T)
            inputs[step] = state.hidden.clone()
        state = _State(*torch.zeros(2, N_FEATURES, n))
        for values in inputs:
            state.step(self._forwards, values)
        return state.hidden.T


class _Lstm(NamedTuple):
    """Weights of the gates in, forget, new and out (4 d rows) for the inputs and for the hidden state, and bias."""

    inputs: Tensor
    hidden: Tensor
    bias: Tensor


@final
class _State:
    """Hidden and cell state (d, n) of an LSTM; features come first, so that gates are blocks that lie together.

    Everything is written in place: memory that is asked for anew at every step costs a third of the time.
    """

    def __init__(self, hidden: Tensor, cell: Tensor) -> None:
        self.hidden, self.cell = hidden, cell
        self._gates = hidden.new_empty(4 * len(hidden), hidden.shape[1])

    def copy(self) -> _State:
        return _State(self.hidden.clone(), self.cell.clone())

    def repeated(self, n: int) -> _State:
        """The same state for n molecules."""
        return _State(self.hidden.repeat(1, n), self.cell.repeat(1, n))

    def step(self, lstm: _Lstm, inputs: Tensor) -> None:
        """One step; inputs (n_inputs, n or 1) may be the same for all molecules."""
        torch.mm(lstm.hidden, self.hidden, out=self._gates)
        self._gates.add_(torch.addmm(lstm.bias, lstm.inputs, inputs))
        into, forget, new, out = self._gates.chunk(4)
        self.cell.mul_(forget.sigmoid_()).addcmul_(into.sigmoid_(), new.tanh_())
        torch.tanh(self.cell, out=self.hidden).mul_(out.sigmoid_())
