"""Training of the arm's generative models within a given time."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from molml.molecules.data import as_molecules, canonical, normalise, read_molecules, split_by_hash
from molml.molecules.dataset import MoleculeDataset
from molml.molecules.language import LanguageModel
from molml.molecules.loss import ELBO, NOISY, NextToken, fast_precision, log_density
from molml.molecules.model import PRIOR_NOISE, MoleculeVAE
from molml.molecules.names import NAMES
from molml.molecules.tokens import Tokenizer
from molml.nn import CouplingFlow, gaussian
from molml.training import ArrayDataset, Trainer, cosine

# of a model from the start, and of one that is trained further
LEARNING_RATE, FURTHER_RATE = 2e-3, 1e-3
CLIP_NORM = 20.0
MAX_EPOCHS = 100_000
# how often the drugs are seen by the model that comes with the package, and the share of QM9
DRUGS, SMALL = 4, 0.08
DRUGLIKE: dict[str, Any] = {"encoder": "convolutional", "min_count": 20}
"""Settings of `train` for the model of drug-like molecules that comes with the package."""
COLLAPSED = 1.0  # nats; an untrained encoder, too, has no active dimensions, but a large divergence
JUDGED = 2000  # molecules that tell whether the code is used, where none are held out
# the learned prior: codes that it is fitted to, at most and at least, and share of the time it takes
CODES, FEWEST_CODES, PRIOR_BATCH, PRIOR_RATE, PRIOR_SHARE = 200_000, 5_000, 512, 2e-3, 0.05


class LatentStatistics(NamedTuple):
    """Whether and how a model uses its code.

    Attributes
    ----------
    kl : array, shape (n_latent,), nats
        KL(q(z|x) ‖ N(0, 1)) of every dimension, averaged over the molecules.
    active_units : int
        Dimensions whose mean has a variance above 0.01 over the molecules (Burda et al., ICLR 2016, section 5).
        None, or a divergence near 0, is the collapse of the posterior: the decoder ignores the code.
    """

    kl: np.ndarray
    active_units: int


def latent_statistics(model: MoleculeVAE, dataset: MoleculeDataset) -> LatentStatistics:
    """Divergence and active units of a model on some molecules.

    Parameters
    ----------
    model : MoleculeVAE
    dataset : MoleculeDataset
        Of at least two molecules, made by ``model.dataset``.

    Returns
    -------
    LatentStatistics
    """
    mean, logvar = model.posterior(dataset)
    kl = gaussian.kl_divergence(mean[..., None], logvar[..., None]).double().mean(0)
    return LatentStatistics(kl.numpy(), int((mean.double().var(0) > 0.01).sum()))


def train(
    smiles: Sequence[str],
    *,
    minutes: float,
    properties: Mapping[str, Sequence[float]] | None = None,
    encoder: str = "graph",
    kind: Literal["smiles", "selfies"] = "smiles",
    n_latent: int = 64,
    hidden: int = 384,
    beta: float = 0.1,
    free_nats: float = 0.0,
    word_dropout: float = 0.1,
    noisy: float = NOISY,
    spellings: int = 0,
    warm_up: float = 0.25,
    property_weight: float = 1.0,
    batch_size: int = 64,
    learning_rate: float | None = None,
    max_epochs: int = MAX_EPOCHS,
    min_count: int = 1,
    valid_fraction: float | None = None,
    model: MoleculeVAE | None = None,
    prior: bool = True,
    precision: torch.dtype | None = None,
    device: str = "cpu",
    directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> MoleculeVAE:
    """Train a variational autoencoder, or train a given one further, within a given time.

    The learning rate rises over 2 % of the time and falls along half a cosine wave to 2 % of itself; the weight of the
    divergence rises to `beta`. The weights kept are those with the best evidence lower bound of molecules that are
    held out by a hash of their SMILES. Several processes started by torchrun work as one.

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
    beta, free_nats, word_dropout, noisy, property_weight : float
        See `ELBO`.
    spellings : int
        Randomised SMILES of every molecule that the encoder reads beside the canonical one; what the decoder is to
        write stays canonical. Codes then tell molecules rather than strings, but take longer to learn.
    warm_up : float
        Fraction of the time in which the weight of the divergence rises; none for a given model, which reads its code.
    batch_size : int
    learning_rate : float, optional
        By default 2e-3, and 1e-3 for a given model.
    max_epochs : int
        Most passes over the data.
    min_count : int
        Molecules with a token that occurs less often are left out.
    valid_fraction : float, optional
        Share of the molecules to hold out; 0 keeps the weights with the best training figures instead. By default one
        in a hundred, of few molecules more: up to 100, but never more than a fifth.
    model : MoleculeVAE, optional
        Trained further, in place, with its own vocabulary and sizes; molecules with other tokens are left out. Other
        `properties` than its own give it a new predictor.
    prior : bool
        Fit a learned prior to the codes at the end, for a twentieth of the time in addition.
    precision : torch.dtype, optional
        As in `ELBO`; by default bfloat16 where the processor multiplies in it, else float32.
    device : str
        Such as "cuda".
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
        In evaluation mode, on the CPU; its metadata tell how it was trained, and how many nats and dimensions of the
        code are used.

    Warns
    -----
    UserWarning
        If the decoder ignores the code.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or too few molecules are left.
    TrainingInterrupted, ResumeError, TrainingDivergedError
        See `Trainer.fit`.
    """
    names = list(properties or {})
    values = _table(properties or {}, len(smiles))
    if learning_rate is None:
        learning_rate = LEARNING_RATE if model is None else FURTHER_RATE
    if model is not None:
        warm_up = 0.0
    tokenizer = Tokenizer.from_strings(smiles, kind, min_count) if model is None else model.tokenizer
    parts = _split(smiles, tokenizer, valid_fraction)
    if model is None:
        model = MoleculeVAE(tokenizer, encoder=encoder, n_latent=n_latent, hidden=hidden, properties=names, seed=seed)
        _scale_properties(model, values[parts.train])
    elif names and names != model.properties:
        model.set_properties(names, seed=seed)
        _scale_properties(model, values[parts.train])
    if not names:
        values = np.full((len(smiles), len(model.properties)), np.nan)
    data = model.dataset(
        [smiles[i] for i in parts.all], values[parts.all], spellings=spellings, seed=seed, progress=progress
    )
    loss = ELBO(
        beta=beta,
        free_nats=free_nats,
        word_dropout=word_dropout,
        noisy=noisy,
        property_weight=property_weight,
        precision=fast_precision() if precision is None else precision,
    )
    options = {
        "beta": beta,
        "free_nats": free_nats,
        "word_dropout": word_dropout,
        "noisy": noisy,
        "property_weight": property_weight,
        "spellings": spellings,
        "warm_up": warm_up,
    }
    n_train = len(parts.train)
    fit = _trainer(
        model,
        loss,
        weight_schedule=loss.warm_up(warm_up),
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_epochs=max_epochs,
        device=device,
        directory=directory,
        options=options | {"precision": str(loss.precision)},
        smiles=[smiles[i] for i in parts.all],
        seed=seed,
        progress=progress,
    )
    history = fit.fit(
        data.subset(range(n_train)), data.subset(range(n_train, len(data))) if len(parts.valid) else None, resume=resume
    )
    model.to("cpu").eval()
    model.metadata |= {"training": _description(history, parts, options, minutes, seed)}
    judged = range(n_train, len(data)) if len(parts.valid) > 1 else range(min(n_train, JUDGED))
    statistics = latent_statistics(model, data.subset(judged))
    model.metadata |= {"latent": {"kl": float(statistics.kl.sum()), "active_units": statistics.active_units}}
    if statistics.active_units == 0 and statistics.kl.sum() < COLLAPSED:
        warnings.warn(
            f"the decoder ignores the code (posterior collapse: none of {model.n_latent} dimensions is active, the "
            f"divergence is {statistics.kl.sum():.2g} nats); train longer, or with a smaller beta or a longer warm_up",
            stacklevel=2,
        )
    if prior:
        fit_prior(model, data.subset(range(n_train)), minutes=PRIOR_SHARE * minutes, seed=seed, progress=progress)
    return model


def train_language(
    smiles: Sequence[str],
    *,
    minutes: float,
    kind: Literal["smiles", "selfies"] = "smiles",
    hidden: int = 512,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    max_epochs: int = MAX_EPOCHS,
    min_count: int = 1,
    valid_fraction: float | None = None,
    precision: torch.dtype | None = None,
    device: str = "cpu",
    directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> LanguageModel:
    """Train a language model within a given time; parameters and errors as of `train`.

    Returns
    -------
    LanguageModel
        In evaluation mode, on the CPU.
    """
    tokenizer = Tokenizer.from_strings(smiles, kind, min_count)
    parts = _split(smiles, tokenizer, valid_fraction)
    model = LanguageModel(tokenizer, hidden=hidden, seed=seed)
    known = [smiles[i] for i in parts.all]
    data = MoleculeDataset(known, tokenizer, graphs=False, progress=progress)
    n_train = len(parts.train)
    loss = NextToken(precision=fast_precision() if precision is None else precision)
    history = _trainer(
        model,
        loss,
        weight_schedule=None,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_epochs=max_epochs,
        device=device,
        directory=directory,
        options={"precision": str(loss.precision)},
        smiles=known,
        seed=seed,
        progress=progress,
    ).fit(
        data.subset(range(n_train)), data.subset(range(n_train, len(data))) if len(parts.valid) else None, resume=resume
    )
    model.metadata |= {"training": _description(history, parts, {}, minutes, seed)}
    return model.to("cpu").eval()


def fit_prior(
    model: MoleculeVAE,
    dataset: MoleculeDataset,
    *,
    minutes: float,
    max_epochs: int = MAX_EPOCHS,
    seed: int = 0,
    progress: bool | None = None,
) -> None:
    """Give a model a learned prior: a normalizing flow fitted to samples of q(z|x) of many molecules, with noise.

    Parameters
    ----------
    model : MoleculeVAE
        Changed in place.
    dataset : MoleculeDataset
        Made by ``model.dataset``; 200,000 molecules of it at most are used.
    minutes : float
    max_epochs : int
    seed : int
    progress : bool, optional

    References
    ----------
    Aggregated posterior: Hoffman and Johnson, NeurIPS 2016 workshop; Tomczak and Welling, AISTATS 2018.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset))[:CODES]
    mean, logvar = model.posterior(dataset.subset(chosen))
    # samples of q(z|x), with noise; of few molecules several
    wide = torch.log(logvar.exp() + PRIOR_NOISE**2)
    n_valid, copies = len(chosen) // 50, max(1, FEWEST_CODES // len(chosen))
    generator = torch.Generator().manual_seed(seed)
    held_out, codes = (
        gaussian.sample(mean[part].repeat(copies, 1), wide[part].repeat(copies, 1), generator=generator)
        for part in (slice(n_valid), slice(n_valid, None))
    )
    flow = CouplingFlow(model.n_latent, hidden=(128, 128), seed=seed)
    flow.set_scale(codes)
    parts = [ArrayDataset(part, part) for part in (codes, held_out)]
    Trainer(
        flow,
        log_density,
        torch.optim.Adam(flow.parameters(), lr=PRIOR_RATE),
        batch_size=PRIOR_BATCH,
        max_epochs=max_epochs,
        lr_schedule=cosine(warmup=0.02),
        clip_norm=CLIP_NORM,
        minutes=minutes,
        seed=seed,
        progress=progress,
        description="prior",
    ).fit(parts[0], parts[1] if n_valid else None)
    model.prior = flow.eval()


def druglike_molecules(
    zinc: str | os.PathLike[str],
    drugs: str | os.PathLike[str],
    qm9: str | os.PathLike[str],
    *,
    progress: bool | None = None,
) -> list[str]:
    """Training molecules of the model of drug-like molecules that comes with the package, trained as `DRUGLIKE` says.

    ZINC-250k, drugs and molecules of everyday life (`molml.molecules.names`) several times each, and a part of QM9, so
    that molecules smaller than those of ZINC belong to the model's world. Salts of drugs are stripped; stereochemistry
    and charges stay.

    Parameters
    ----------
    zinc, drugs, qm9 : path-like
        Files for `read_molecules`.
    progress : bool, optional
        Show progress bars; if not given, only if stderr is a terminal.

    Returns
    -------
    list of str
        Canonical SMILES.
    """
    molecules = read_molecules(zinc, progress=progress).smiles
    table = read_molecules(drugs, on_error="skip", progress=progress).smiles
    plain = [canonical(normalise(mol, salts=True)[0]) for mol in as_molecules([*table, *NAMES.values()])]
    small = read_molecules(qm9, progress=progress).smiles
    return molecules + DRUGS * plain + [small[index] for index in split_by_hash(small, SMALL)[1]]


class _Parts(NamedTuple):
    """Indices of molecules to train on and to hold out, all of these in that order, and how many were left out."""

    train: np.ndarray
    valid: np.ndarray
    all: np.ndarray
    n_unknown: int


def _split(smiles: Sequence[str], tokenizer: Tokenizer, fraction: float | None) -> _Parts:
    if fraction is None:
        fraction = min(0.2, max(0.01, 100 / max(len(smiles), 1)))
    known = np.array([index for index, text in enumerate(smiles) if not tokenizer.unknown(text)], np.int64)
    rest, held_out = known, known[:0]
    if fraction:
        parts = split_by_hash([smiles[index] for index in known], fraction)
        rest, held_out = known[parts[0]], known[parts[1]]
        # a molecule that stands there several times is held out once
        held_out = held_out[np.sort(np.unique([smiles[index] for index in held_out], return_index=True)[1])]
    if len(rest) == 0 or (fraction and len(held_out) == 0):
        raise ValueError(
            f"training needs molecules on both sides of the split, got {len(rest)} and {len(held_out)} to hold out; "
            "give more molecules, or another valid_fraction (0 holds none out)"
        )
    return _Parts(rest, held_out, np.concatenate([rest, held_out]), len(smiles) - len(known))


def _table(properties: Mapping[str, Sequence[float]], n: int) -> np.ndarray:
    """Columns of properties as an array of shape (n, n_properties)."""
    for name, column in properties.items():
        if len(column) != n:
            raise ValueError(f"property {name!r} must have a number per molecule, {n}, got {len(column)}")
    values = np.array([np.asarray(column, np.float64) for column in properties.values()])
    return values.reshape(len(properties), n).T


def _scale_properties(model: MoleculeVAE, values: np.ndarray) -> None:
    """Mean and standard deviation of the known values become those of the model."""
    for index, name in enumerate(model.properties):
        known = values[np.isfinite(values[:, index]), index]
        if len(known) < 2 or known.std() == 0:
            raise ValueError(f"property {name!r} must have at least two different values, got {len(known)} known ones")
        cast(Tensor, model.property_mean)[index] = float(known.mean())
        cast(Tensor, model.property_std)[index] = float(known.std())


def _trainer(
    model: MoleculeVAE | LanguageModel,
    loss: ELBO | NextToken,
    *,
    weight_schedule: Callable[[float], dict[str, float]] | None,
    minutes: float,
    batch_size: int,
    learning_rate: float,
    max_epochs: int,
    device: str,
    directory: str | os.PathLike[str] | None,
    options: dict[str, Any],
    smiles: Sequence[str],
    seed: int,
    progress: bool | None,
) -> Trainer:
    model.to(device)
    return Trainer(
        model,
        loss,
        torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.99), fused=True),
        batch_size=batch_size,
        max_epochs=max_epochs,
        lr_schedule=cosine(warmup=0.02, end=0.02),
        weight_schedule=weight_schedule,
        clip_norm=CLIP_NORM,
        minutes=minutes,
        seed=seed,
        directory=None if directory is None else Path(directory),
        config=model.config | options,
        data_hash=hashlib.sha256("\n".join(smiles).encode()).hexdigest(),
        progress=progress,
    )


def _description(history: Any, parts: _Parts, options: dict[str, Any], minutes: float, seed: int) -> dict[str, Any]:
    best = history[history.best_epoch - 1]
    return {
        "n_train": len(parts.train),
        "n_valid": len(parts.valid),
        "n_unknown_tokens": parts.n_unknown,
        "minutes": minutes,
        "seed": seed,
        "epochs": len(history),
        "best": {key: value for key, value in best.items() if value is not None},
        **options,
    }
