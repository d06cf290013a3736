"""Metrics of generated molecules: the ones of the MOSES benchmark, by their names there, for any list of molecules."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from scipy.stats import wasserstein_distance
from tqdm import tqdm

from molml.molecules.chemnet import N_FEATURES, frechet_distance, frechet_distance_limit, gaussian_of
from molml.molecules.description import Description, describe, joined
from molml.molecules.moses import Reference, chemnet_file, moses_reference, moses_training_smiles, pains_file
from molml.molecules.similarity import diversity, nearest_similarities

__all__ = ["Metrics", "metrics"]

MOSES = "moses"
PROPERTIES = ("logP", "SA", "QED", "weight")


class Metrics(NamedTuple):
    """Metrics of a list of molecules.

    Attributes
    ----------
    values : dict of str to float
        By MOSES' names and in MOSES' order:

        - ``valid``: fraction that is molecules; all others are about these
        - ``unique@k``: distinct fraction of the first k valid ones; left out where there are fewer, and then
          ``unique@n`` of all n stands for it
        - ``FCD/Test``: Fréchet distance of ChemNet's features; it depends on ``n_valid``: compare equal numbers
        - ``SNN/Test``: mean Tanimoto similarity to the nearest molecule of the reference
        - ``Frag/Test``, ``Scaf/Test``: cosine similarity of the counts of BRICS fragments and of Murcko scaffolds with
          two rings or more, which is left out where one side has none
        - ``…/TestSF``: the same against MOSES' scaffold test set
        - ``IntDiv``, ``IntDiv2``: internal diversity
        - ``Filters``: fraction that passes MCF, PAINS and MOSES' other filters; PAINS as MOSES spells them if it is
          the reference, else as RDKit does
        - ``logP``, ``SA``, ``QED``, ``weight``: Wasserstein-1 distances of the properties to the reference (test)
        - ``Novelty``: fraction of the distinct ones that is not among the training molecules
    n, n_valid : int
        Molecules given, and valid ones among them.
    fcd_limits : dict of str to float
        ``FCD/Test``, … extrapolated to infinitely many molecules; empty for fewer than 4,096 valid ones.
    """

    values: dict[str, float]
    n: int
    n_valid: int
    fcd_limits: dict[str, float]

    def __str__(self) -> str:
        lines = [f"{self.n:,} molecules, {self.n_valid:,} of them valid"]
        width = max(map(len, self.values))
        for name, value in self.values.items():
            note = f"   (n = {self.n_valid:,}" if name.startswith("FCD") else ""
            if name in self.fcd_limits:
                note += f"; about {self.fcd_limits[name]:.4f} for n → ∞"
            lines.append(f"{name:<{width}}  {value:10.6g}{note + ')' if note else ''}")
        return "\n".join(lines)

    def json(self) -> str:
        """The metrics as a JSON object: the values by name, and ``n``, ``n_valid``, ``fcd_limits``."""
        return json.dumps(
            {**self.values, "n": self.n, "n_valid": self.n_valid, "fcd_limits": self.fcd_limits}, indent=1
        )


def metrics(
    molecules: Iterable[str | Chem.Mol | None],
    *,
    reference: str | Iterable[str | Chem.Mol] = MOSES,
    train: Iterable[str | Chem.Mol] | None = None,
    n_unique: Sequence[int] = (1_000, 10_000),
    fcd: bool = True,
    files: str | os.PathLike[str] | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: bool | None = None,
) -> Metrics:
    """Metrics of generated molecules.

    The values are those of the MOSES package for the same list. Weights, reference sets and training set of MOSES are
    read from two packages: ``pip install --no-deps molsets==0.3.1 fcd-torch==1.0.7``. With ``fcd=False`` and molecules
    as reference nothing is needed.

    Parameters
    ----------
    molecules : iterable of str, Mol or None
        Generated SMILES or molecules; what is no molecule, and None, count as invalid.
    reference : "moses" or iterable of str or Mol
        MOSES' two test sets, or molecules of your own, all valid; then the names still say Test.
    train : iterable of str or Mol, optional
        Training molecules, for the novelty. If not given: MOSES' training set, if the reference is MOSES, and else no
        novelty. MOSES' molecules are compared as spelled in its file, others by their canonical SMILES.
    n_unique : sequence of int
        Numbers of molecules for the uniqueness.
    fcd : bool
        Whether to compute the Fréchet ChemNet distance, more than half of the time.
    files : path-like, optional
        Folder with the two packages, as ``pip install --target`` makes it; the installed ones if not given.
    seed : int
        Of the shuffling for the extrapolated FCD; nothing else is random.
    threads : int, optional
        Processes; as many as there are processors, if not given.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Raises
    ------
    TypeError
        For what is neither str, Mol nor None.
    ValueError
        If fewer than two molecules are valid, for a reference or training molecule that is none, or settings that
        make no sense.
    FileNotFoundError
        If a package is needed and not there, with the command that brings it.

    References
    ----------
    Polykovskiy et al., Front. Pharmacol. 11, 565644 (2020).

    Examples
    --------
    >>> found = metrics(["CCO", "CCCO", "CCCCO", "C(C"], reference=["CCO", "CCN"], fcd=False, threads=1)
    >>> found.values["valid"], round(found.values["SNN/Test"], 3)
    (0.75, 0.657)
    """
    smiles = _strings(molecules, "molecules")
    n_unique = sorted(n_unique)
    if not n_unique or n_unique[0] < 1:
        raise ValueError(f"n_unique must hold numbers from 1, got {n_unique}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    threads = threads or os.cpu_count() or 1
    folder = None if files is None else Path(files)
    if isinstance(reference, str) and reference != MOSES:
        raise ValueError(
            f"reference must be {MOSES!r} or a list of molecules, got {reference!r}; give read_molecules(path).smiles"
        )
    network = chemnet_file(folder) if fcd else None

    # tqdm's None: only if stderr is a terminal
    silent = None if progress is None else not progress
    with tqdm(desc="describing", unit=" molecules", total=len(smiles), disable=silent) as bar:
        references: dict[str, Reference] = {}
        known: set[str] | None
        if isinstance(reference, str):
            work = describe(smiles, chemnet=network, pains=pains_file(folder), threads=threads)
            # read while the other processes work
            references = {"Test": moses_reference("test", folder), "TestSF": moses_reference("test_scaffolds", folder)}
            known = set(moses_training_smiles(folder)) if train is None else _canonical(train)
        else:
            others = _strings(reference, "reference")
            bar.total += len(others)
            work = describe(smiles, chemnet=network, threads=threads)
            known = None if train is None else _canonical(train)
        found = _watched(work, bar)
        if len(found.smiles) < 2:
            raise ValueError(f"metrics need at least two valid molecules, got {len(found.smiles)} of {found.n_given}")
        if not isinstance(reference, str):
            references["Test"] = _reference(_watched(describe(others, chemnet=network, threads=threads), bar))
        bar.set_description("comparing")
        values, limits = _values(found, references, n_unique, threads, seed)
    if known is not None:
        distinct = set(found.smiles)
        values["Novelty"] = len(distinct - known) / len(distinct)
    return Metrics(values, found.n_given, len(found.smiles), limits)


def _values(
    found: Description, references: dict[str, Reference], n_unique: Sequence[int], threads: int, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """All metrics but the novelty, and the limits of the Fréchet distances."""
    n = len(found.smiles)
    values: dict[str, float] = {"valid": n / found.n_given}
    limits: dict[str, float] = {}
    for k in [k for k in n_unique if k <= n] or [n]:
        values[f"unique@{k}"] = len(set(found.smiles[:k])) / k
    own = gaussian_of(found.features) if found.features.size else None
    for name, other in references.items():
        if own is not None and other.gaussian is not None:
            values[f"FCD/{name}"] = frechet_distance(other.gaussian, own)
            if n >= 8 * N_FEATURES:
                limits[f"FCD/{name}"] = frechet_distance_limit(found.features, other.gaussian, seed=seed)
        nearest = nearest_similarities(found.fingerprints, other.fingerprints, threads=threads)
        values[f"SNN/{name}"] = float(nearest.mean())
        values[f"Frag/{name}"] = cosine_similarity(found.fragments, other.fragments)
        if found.scaffolds and other.scaffolds:
            values[f"Scaf/{name}"] = cosine_similarity(found.scaffolds, other.scaffolds)
    values["IntDiv"], values["IntDiv2"] = diversity(found.fingerprints, threads=threads)
    values["Filters"] = float(found.passes.mean())
    for name in PROPERTIES:
        values[name] = float(wasserstein_distance(references["Test"].properties[name], found.properties[name]))
    return values, limits


def cosine_similarity(a: Counter[str], b: Counter[str]) -> float:
    """Cosine of the angle between two sets of counts.

    Examples
    --------
    >>> cosine_similarity(Counter("aab"), Counter("aac"))
    0.8
    """
    shared = sum(count * b[key] for key, count in a.items() if key in b)
    squares = (sum(count * count for count in counts.values()) for counts in (a, b))
    return float(shared / np.sqrt(np.prod(np.array(list(squares), dtype=np.float64))))


def _strings(molecules: object, what: str) -> list[str | None]:
    """SMILES of all items; None for None."""
    if isinstance(molecules, str | os.PathLike | Chem.Mol) or not isinstance(molecules, Iterable):
        raise TypeError(
            f"{what} must be a list of SMILES or molecules, got {molecules!r}; "
            "read files with read_molecules(path).smiles"
        )
    strings: list[str | None] = []
    for i, item in enumerate(molecules):
        if isinstance(item, Chem.Mol):
            item = Chem.MolToSmiles(item)
        if item is not None and not isinstance(item, str):
            raise TypeError(f"{what}[{i}] must be a SMILES, a Mol, or None for an invalid one, got {item!r}")
        strings.append(item)
    if not strings:
        raise ValueError(f"{what} must hold molecules, got an empty list")
    return strings


def _watched(parts: Iterable[Description], bar: tqdm) -> Description:
    done = []
    for part in parts:
        bar.update(part.n_given)
        done.append(part)
    return joined(done)


def _reference(found: Description) -> Reference:
    if len(found.smiles) < found.n_given or found.n_given < 2:
        raise ValueError(
            f"reference must hold two molecules or more, all valid, got {len(found.smiles)} valid ones of "
            f"{found.n_given}"
        )
    gaussian = gaussian_of(found.features) if found.features.size else None
    return Reference(gaussian, found.fingerprints, found.fragments, found.scaffolds, found.properties)


def _canonical(train: Iterable[str | Chem.Mol]) -> set[str]:
    known = set()
    for i, smiles in enumerate(_strings(train, "train")):
        mol = Chem.MolFromSmiles(smiles) if smiles else None
        if mol is None:
            raise ValueError(f"train[{i}] must be a molecule, got {smiles!r}")
        known.add(Chem.MolToSmiles(mol))
    return known
