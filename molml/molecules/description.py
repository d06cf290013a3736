"""Everything that the metrics need to know of a list of molecules: found in one pass, by several processes."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import QED, rdMolDescriptors, rdmolops
from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol
from rdkit.Contrib.SA_Score import sascorer

from molml.molecules.chemnet import N_FEATURES, ChemNet
from molml.molecules.filters import Bonds, Screen, passes_filters
from molml.molecules.similarity import morgan_fingerprints
from molml.training.threads import in_processes

__all__ = ["Description", "describe", "joined"]

MAX_CHARACTERS = 1000
CHUNK = 1536
"""Molecules that a process gets at a time; a multiple of ChemNet's batches."""
MIN_RINGS = 2


class Description(NamedTuple):
    """Facts about the valid ones among some molecules.

    Attributes
    ----------
    n_given : int
        Valid or not.
    smiles : list of str, n
        Canonical, of the valid ones, in their order; so is what follows.
    fingerprints : ndarray of uint64, shape (n, 16)
        Morgan, radius 2, 1024 bits.
    features : ndarray of float32, shape (n, 512)
        ChemNet's; (n, 0) if they were not asked for.
    fragments, scaffolds : Counter of str
        SMILES of the BRICS fragments, and of the Murcko scaffolds with two rings or more.
    passes : ndarray of bool, shape (n,)
        Whether the molecule passes MOSES' filters.
    properties : dict of str to ndarray, shape (n,)
        logP, SA, QED, weight (g/mol).
    """

    n_given: int
    smiles: list[str]
    fingerprints: np.ndarray
    features: np.ndarray
    fragments: Counter[str]
    scaffolds: Counter[str]
    passes: np.ndarray
    properties: dict[str, np.ndarray]


def describe(
    smiles: Sequence[str | None], *, chemnet: Path | None, pains: Path | None = None, threads: int
) -> Iterator[Description]:
    """Describe molecules, some at a time, in their order; work starts at once, in processes of its own.

    Parameters
    ----------
    smiles : sequence of str or None
        Whatever is no molecule (None; no SMILES; without atoms; more than 1000 characters) counts as invalid.
    chemnet : Path, optional
        ChemNet's weights; without them there are no features.
    pains : Path, optional
        Patterns of :func:`molml.molecules.filters.pains`.
    threads : int
        Processes; with one, the work is done here.

    Yields
    ------
    Description
        Of at most 1,536 molecules.
    """
    size = max(1, min(CHUNK, math.ceil(len(smiles) / threads)))
    chunks = [smiles[start : start + size] for start in range(0, len(smiles), size)]
    calls = ((chunk, chemnet, pains) for chunk in chunks)
    return in_processes(1 if len(chunks) == 1 else threads, _describe, calls)


def joined(parts: Sequence[Description]) -> Description:
    """One description of several, in their order."""
    return Description(
        n_given=sum(part.n_given for part in parts),
        smiles=[smiles for part in parts for smiles in part.smiles],
        fingerprints=np.concatenate([part.fingerprints for part in parts]),
        features=np.concatenate([part.features for part in parts]),
        fragments=_sum([part.fragments for part in parts]),
        scaffolds=_sum([part.scaffolds for part in parts]),
        passes=np.concatenate([part.passes for part in parts]),
        properties={name: np.concatenate([part.properties[name] for part in parts]) for name in parts[0].properties},
    )


def _sum(counters: Sequence[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _describe(smiles: Sequence[str | None], chemnet: Path | None, pains: Path | None) -> Description:
    # what is no molecule is expected here, and so is RDKit's comment on it
    with rdBase.BlockLogs():
        molecules = [mol for mol in map(_parse, smiles) if mol is not None]
        canonical = [Chem.MolToSmiles(mol) for mol in molecules]
        rows = [_properties(mol) for mol in molecules]
        features = np.empty((len(molecules), 0), dtype=np.float32)
        if chemnet is not None:
            features = _network(chemnet).describe(canonical)
        return Description(
            n_given=len(smiles),
            smiles=canonical,
            fingerprints=morgan_fingerprints(molecules),
            features=features.reshape(len(molecules), N_FEATURES if chemnet is not None else 0),
            fragments=Counter(fragment for mol in molecules for fragment in _fragments(mol)),
            scaffolds=Counter(scaffold for mol in molecules for scaffold in _scaffold(mol)),
            passes=np.array([passes_filters(mol, pains) for mol in molecules], dtype=bool),
            properties={
                name: np.array([row[i] for row in rows], dtype=np.float64)
                for i, name in enumerate(("logP", "SA", "QED", "weight"))
            },
        )


def _parse(smiles: str | None) -> Chem.Mol | None:
    if smiles is None or len(smiles) > MAX_CHARACTERS:
        return None
    mol = Chem.MolFromSmiles(smiles)
    return mol if mol is not None and mol.GetNumAtoms() else None


@functools.cache
def _network(path: Path) -> ChemNet:
    return ChemNet(path)


@functools.cache
def _alerts() -> Screen:
    return Screen(QED.StructuralAlerts)


def _properties(mol: Chem.Mol) -> tuple[float, float, float, float]:
    """logP, SA, QED, weight; the slow parts of QED, which also counts logP and weight, are shared or screened."""
    logp, weight = rdMolDescriptors.CalcCrippenDescriptors(mol)[0], rdMolDescriptors._CalcMolWt(mol)
    plain = Chem.RemoveHs(mol)
    parts = QED.QEDproperties(
        MW=weight,
        ALOGP=logp,
        HBA=sum(len(plain.GetSubstructMatches(pattern)) for pattern in QED.Acceptors),
        HBD=rdMolDescriptors.CalcNumHBD(plain),
        PSA=rdMolDescriptors.CalcTPSA(plain),
        ROTB=rdMolDescriptors.CalcNumRotatableBonds(plain, rdMolDescriptors.NumRotatableBondsOptions.Strict),
        AROM=len(Chem.GetSSSR(Chem.DeleteSubstructs(Chem.Mol(plain), QED.AliphaticRings))),
        ALERTS=_alerts().count(plain, Bonds(plain)),
    )
    return logp, sascorer.calculateScore(mol), QED.qed(plain, qedProperties=parts), weight


def _fragments(mol: Chem.Mol) -> list[str]:
    return str(Chem.MolToSmiles(rdmolops.FragmentOnBRICSBonds(mol))).split(".")


def _scaffold(mol: Chem.Mol) -> list[str]:
    """SMILES of the Murcko scaffold, if it has two rings or more."""
    scaffold = GetScaffoldForMol(mol)
    return [Chem.MolToSmiles(scaffold)] if scaffold.GetRingInfo().NumRings() >= MIN_RINGS else []
