"""Training of the arm's generative models within a given time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from molml.molecules.data import as_molecules, canonical, normalise, read_molecules, split_by_hash
from molml.molecules.dataset import MoleculeDataset
from molml.molecules.loss import ELBO
from molml.molecules.model import MoleculeVAE
from molml.molecules.names import NAMES
from molml.molecules.tokens import Tokenizer
from molml.training import Trainer, cosine

LEARNING_RATE = 2e-3
# the recipe of the model that comes with the package: how often the drugs are seen, and the share of QM9
DRUGS, SMALL, MIN_COUNT = 4, 0.08, 20
CLIP_NORM = 20.0
MAX_EPOCHS = 100_000


def train(
    smiles: Sequence[str],
    *,
    minutes: float,
    properties: Mapping[str, Sequence[float]] | None = None,
    encoder: str = "graph",
    kind: Literal["smiles", "selfies"] = "smiles",
    n_latent: int = 64,
    hidden: int = 512,
    beta: float = 0.05,
    free_nats: float = 0.0,
    word_dropout: float = 0.1,
    warm_up: float = 0.5,
    batch_size: int = 128,
    learning_rate: float = LEARNING_RATE,
    max_epochs: int = MAX_EPOCHS,
    min_count: int = 1,
    valid_fraction: float = 0.01,
    model: MoleculeVAE | None = None,
    precision: torch.dtype | None = None,
    directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> MoleculeVAE:
    """Train a variational autoencoder, or train a given one further, within a given time.

    The learning rate rises over 2 % of the time and falls along half a cosine wave to 2 % of itself; the weight of the
    divergence rises to `beta`. The weights kept are those with the best evidence lower bound of molecules that are
    held out by a hash of their SMILES.

    Parameters
    ----------
    smiles : sequence of str
        Canonical SMILES; one that stands there several times counts so often.
    minutes : float
        Time for training; preparing the data comes on top of it.
    properties : mapping of str to sequence of float, optional
        Properties to predict from the code, a number per molecule, NaN where unknown.
    encoder : "graph", "convolutional" or "recurrent"
    kind : "smiles" or "selfies"
        What the decoder writes.
    n_latent, hidden : int
        Widths of the code and of the decoder's state.
    beta, free_nats, word_dropout : float
        See `ELBO`.
    warm_up : float
        Fraction of the time in which the weight of the divergence rises.
    batch_size : int
    learning_rate : float
    max_epochs : int
        Most passes over the data.
    min_count : int
        Molecules with a token that occurs less often are left out.
    valid_fraction : float
        Share of the molecules to hold out; 0 keeps the weights with the best training figures instead.
    model : MoleculeVAE, optional
        Trained further, with its own vocabulary and sizes; molecules with other tokens are left out.
    precision : torch.dtype, optional
        As in `ELBO`; by default bfloat16 where the processor multiplies in it, else float32.
    directory : path-like, optional
        Folder for the checkpoint and the history.
    resume : bool
        Continue the run in `directory`.
    seed : int
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    MoleculeVAE
        In evaluation mode; its metadata tell how it was trained.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or too few molecules are left.
    TrainingInterrupted, ResumeError, TrainingDivergedError
        See `Trainer.fit`.
    """
    if not minutes > 0:
        raise ValueError(f"minutes must be positive, got {minutes}")
    names = list(properties or {})
    values = np.array([list(map(float, column)) for column in (properties or {}).values()], np.float64)
    values = values.reshape(len(names), -1).T if names else np.zeros((len(smiles), 0))
    if len(values) != len(smiles):
        raise ValueError(f"properties must have a number per molecule, {len(smiles)}, got {len(values)}")
    tokenizer = Tokenizer.from_strings(smiles, kind, min_count) if model is None else model.tokenizer
    known = [index for index, text in enumerate(smiles) if not tokenizer.unknown(text)]
    smiles, values = [smiles[index] for index in known], values[known]
    rest, held_out = np.arange(len(smiles)), np.arange(0)
    if valid_fraction:
        rest, held_out = split_by_hash(smiles, valid_fraction)
    if len(rest) == 0 or (valid_fraction and len(held_out) == 0):
        raise ValueError(
            f"training needs molecules on both sides of the split, got {len(rest)} and {len(held_out)} to hold out; "
            "give more molecules, or another valid_fraction"
        )
    if model is None:
        model = MoleculeVAE(tokenizer, encoder=encoder, n_latent=n_latent, hidden=hidden, properties=names, seed=seed)
        with torch.no_grad():
            mean, std = np.nanmean(values[rest], 0), np.nanstd(values[rest], 0)
            cast(Tensor, model.property_mean).copy_(torch.from_numpy(mean))
            cast(Tensor, model.property_std).copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))
    elif names != model.properties:
        raise ValueError(f"properties must be those of the model, {model.properties}, got {names}")
    data = MoleculeDataset(smiles, tokenizer, graphs=model.kind == "graph", properties=values, progress=progress)
    # a molecule that stands there several times is held out once
    held_out = held_out[np.unique([smiles[index] for index in held_out], return_index=True)[1]]
    precision = fast_precision() if precision is None else precision
    loss = ELBO(beta=beta, free_nats=free_nats, word_dropout=word_dropout, precision=precision)
    trainer = Trainer(
        model,
        loss,
        torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.99)),
        batch_size=batch_size,
        max_epochs=max_epochs,
        lr_schedule=cosine(warmup=0.02, end=0.02),
        weight_schedule=loss.warm_up(warm_up),
        clip_norm=CLIP_NORM,
        minutes=minutes,
        seed=seed,
        directory=None if directory is None else Path(directory),
        config={**model.config, "beta": beta, "free_nats": free_nats, "word_dropout": word_dropout, "warm_up": warm_up}
        | {"precision": str(precision)},
        data_hash=hashlib.sha256("\n".join(smiles).encode()).hexdigest(),
        progress=progress,
    )
    trainer.fit(data.subset(rest), data.subset(held_out) if len(held_out) else None, resume=resume)
    return model.eval()


def druglike_recipe(
    zinc: str | os.PathLike[str],
    drugs: str | os.PathLike[str],
    qm9: str | os.PathLike[str],
    *,
    minutes: float,
    directory: str | os.PathLike[str],
    encoder: str = "convolutional",
    n_latent: int = 64,
    hidden: int = 512,
    beta: float = 0.05,
    word_dropout: float = 0.1,
    batch_size: int = 128,
    learning_rate: float = LEARNING_RATE,
    resume: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> MoleculeVAE:
    """The model of drug-like molecules that comes with the package.

    Trained on ZINC-250k, on drugs and molecules of everyday life (`molml.molecules.names`) several times each, and on
    a part of QM9, so that molecules smaller than those of ZINC belong to its world. Salts of drugs are stripped;
    stereochemistry and charges stay.

    Parameters
    ----------
    zinc, drugs, qm9 : path-like
        Files for `read_molecules`.
    minutes : float
    directory : path-like
        Folder for the checkpoint and the history.
    encoder, n_latent, hidden, beta, word_dropout, batch_size, learning_rate, resume, seed, progress
        As in `train`.

    Returns
    -------
    MoleculeVAE
    """
    molecules = read_molecules(zinc, progress=progress).smiles
    table = read_molecules(drugs, on_error="skip", progress=progress).smiles
    plain = [canonical(normalise(mol, salts=True)[0]) for mol in as_molecules([*table, *NAMES.values()])]
    small = read_molecules(qm9, progress=progress).smiles
    small = [small[index] for index in split_by_hash(small, SMALL)[1]]
    return train(
        molecules + DRUGS * plain + small,
        minutes=minutes,
        encoder=encoder,
        n_latent=n_latent,
        hidden=hidden,
        beta=beta,
        word_dropout=word_dropout,
        batch_size=batch_size,
        learning_rate=learning_rate,
        min_count=MIN_COUNT,
        directory=directory,
        resume=resume,
        seed=seed,
        progress=progress,
    )


def fast_precision() -> torch.dtype:
    """bfloat16 where this processor multiplies in it (AVX512-BF16 or AMX), else float32."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
