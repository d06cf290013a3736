"""Data files of the MOSES benchmark and of ChemNet, read as data: no code of theirs is run."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
import zlib
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from molml.molecules.chemnet import Gaussian
from molml.molecules.similarity import packed

__all__ = ["INSTALL", "Reference", "chemnet_file", "moses_reference", "moses_training_smiles", "pains_file"]

MOLSETS, FCD = "molsets", "fcd-torch"
VERSIONS = {MOLSETS: "0.3.1", FCD: "1.0.7"}
# molsets asks for a package that no longer builds, and its code no longer runs: only its data are wanted
INSTALL = "pip install --no-deps " + " ".join(f"{name}=={version}" for name, version in VERSIONS.items())
_DAMAGES = (
    OSError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
PROPERTIES = ("logP", "SA", "QED", "weight")


class Reference(NamedTuple):
    """What generated molecules are compared with.

    Attributes
    ----------
    gaussian : Gaussian or None
        Of ChemNet's features.
    fingerprints : ndarray of uint64, shape (n, 16)
    fragments, scaffolds : Counter of str
        SMILES of the BRICS fragments, and of the Murcko scaffolds with two rings or more.
    properties : dict of str to ndarray, shape (n,)
        logP, SA, QED, weight (g/mol).
    """

    gaussian: Gaussian | None
    fingerprints: np.ndarray
    fragments: Counter[str]
    scaffolds: Counter[str]
    properties: dict[str, np.ndarray]


def chemnet_file(files: Path | None = None) -> Path:
    """ChemNet's weights in the package fcd-torch.

    Parameters
    ----------
    files : Path, optional
        Folder with the unpacked packages; the installed ones if not given.

    Raises
    ------
    FileNotFoundError
        If it is not there; the message has the command that brings it.
    """
    return _find(FCD, "fcd_torch/ChemNet_v0.13_pretrained.pt", files)


def pains_file(files: Path | None = None) -> Path:
    """MOSES' PAINS patterns, for :func:`molml.molecules.filters.pains`.

    Parameters, errors as in :func:`chemnet_file`.
    """
    return _find(MOLSETS, "moses/metrics/wehi_pains.csv", files)


def moses_training_smiles(files: Path | None = None) -> list[str]:
    """The 1,584,663 training molecules of MOSES, as spelled there.

    Parameters, errors as in :func:`chemnet_file`.
    """
    path = _find(MOLSETS, "moses/dataset/data/train.csv.gz", files)
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            lines = file.read().split()
    except _DAMAGES as error:
        raise _damaged(path) from error
    return [line.partition(",")[0] for line in lines[1:]]


def moses_reference(split: str, files: Path | None = None) -> Reference:
    """Statistics of a test set of MOSES, as published with it.

    Parameters
    ----------
    split : str
        ``test`` or ``test_scaffolds``, whose molecules have scaffolds that the training set lacks.
    files : Path, optional
        As in :func:`chemnet_file`.

    Raises
    ------
    FileNotFoundError
        As there.
    ValueError
        For a damaged file.
    """
    path = _find(MOLSETS, f"moses/dataset/data/{split}_stats.npz", files)
    try:
        with zipfile.ZipFile(path) as archive, archive.open("stats.npy") as member:
            np.lib.format.read_magic(member)
            np.lib.format.read_array_header_1_0(member)
            statistics = _Unpickler(io.BytesIO(member.read())).load().item()
        fingerprints = packed(statistics["SNN"]["fps"])
        gaussian = Gaussian(statistics["FCD"]["mu"], statistics["FCD"]["sigma"], len(fingerprints))
        properties = {name: np.asarray(statistics[name]["values"], dtype=np.float64) for name in PROPERTIES}
        fragments, scaffolds = statistics["Frag"]["frag"], statistics["Scaf"]["scaf"]
    except _DAMAGES as error:
        raise _damaged(path) from error
    return Reference(gaussian, fingerprints, fragments, scaffolds, properties)


@final
class _Unpickler(pickle.Unpickler):
    """Reads arrays, counters and plain values, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("collections", "Counter"): Counter,
            ("_codecs", "encode"): _encoded,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a table of numbers")
        return allowed[module, name]


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    return np.ndarray(shape, np.dtype(code.decode()))


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


def _find(package: str, name: str, files: Path | None) -> Path:
    if files is None:
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError as error:
            raise FileNotFoundError(
                f"{Path(name).name} of the package {package} is needed, which is not installed; {INSTALL}"
            ) from error
        if distribution.version != VERSIONS[package]:
            raise FileNotFoundError(
                f"{package} {VERSIONS[package]} is needed, got version {distribution.version}; {INSTALL}"
            )
        path = Path(str(distribution.locate_file(name)))
    else:
        path = Path(files) / name
    if not path.is_file():
        target = f" --target {files}" if files is not None else ""
        raise FileNotFoundError(f"there is no {path}; {INSTALL}{target}")
    return path


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is damaged; install {MOLSETS} {VERSIONS[MOLSETS]} again")
