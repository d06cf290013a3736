"""Machine learning for molecules and materials: interatomic potentials, kinetics, molecules.

The package is lazy: nothing heavy is imported before it is used.

Examples
--------
>>> import molml
>>> molml.__version__
'0.1.0'
>>> molml.nn.MLP  # doctest: +ELLIPSIS
<class 'molml.nn...MLP'>
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from molml import datasets, energy, io, kinetics, molecules, nn, training, units

__version__ = "0.1.0"

__all__ = ["__version__", "datasets", "energy", "io", "kinetics", "load", "molecules", "nn", "training", "units"]

_MODULES = ("datasets", "energy", "io", "kinetics", "molecules", "nn", "training", "units")

# which arm knows a kind of model file: the arm's public class of that name has `from_container`
_ARMS = {
    "LinearPotential": "molml.energy",
    "BehlerParrinello": "molml.energy",
    "Committee": "molml.energy",
    "PCA": "molml.kinetics",
    "TICA": "molml.kinetics",
    "VAMP": "molml.kinetics",
    "Autoencoder": "molml.kinetics",
    "TimeLaggedAutoencoder": "molml.kinetics",
    "VariationalTimeLaggedAutoencoder": "molml.kinetics",
    "VAMPNet": "molml.kinetics",
    "ReversibleVAMPNet": "molml.kinetics",
    "GaussianMixtureVAE": "molml.kinetics",
    "KMeans": "molml.kinetics",
    "GaussianMixture": "molml.kinetics",
    "MarkovStateModel": "molml.kinetics",
    "BayesianMarkovStateModel": "molml.kinetics",
    "MoleculeVAE": "molml.molecules",
    "LanguageModel": "molml.molecules",
    "PropertyModel": "molml.molecules",
}

# models that come with the package, by name
_SHIPPED = {"druglike": "molecules/weights/druglike.molml"}


def load(path: "str | os.PathLike[str]") -> Any:
    """Model stored in a file, whatever its class.

    Parameters
    ----------
    path : path-like
        File written by the `save` of any molml model; or ``"druglike"``, the molecule model that comes with the
        package, unless there is a file of that name.

    Returns
    -------
    The model, ready for inference: an object of the class that was saved.

    Raises
    ------
    molml.io.ModelFileError
        If the file is damaged, is no molml file, or holds no model (a training checkpoint, say).
    FileNotFoundError
        If there is no such file.
    """
    from pathlib import Path

    from molml.io import ModelFileError, load_container

    if path in _SHIPPED and not Path(path).exists():
        path = Path(__file__).parent / _SHIPPED[str(path)]
    container = load_container(path)
    if container.kind not in _ARMS:
        raise ModelFileError(
            f"{path} must hold a model, one of {', '.join(_ARMS)}, got kind {container.kind!r}; "
            "`molml info` shows what the file holds"
        )
    return getattr(importlib.import_module(_ARMS[container.kind]), container.kind).from_container(container)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"molml.{name}")
    raise AttributeError(f"module 'molml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
