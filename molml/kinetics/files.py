"""Estimators as model files: what was given, what was fitted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from molml.io import Container, ModelFileError, save_container

_FITTED = re.compile(r"[A-Za-z]\w*(?<!_)_")


def save_estimator(estimator: Any, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a fitted estimator.

    Its parameters and every attribute whose name ends with one underscore are stored: arrays, networks and sparse
    matrices as tensors, None, numbers, strings and lists of them as JSON.

    Parameters
    ----------
    estimator : scikit-learn estimator of molml
    path : path-like
    metadata : mapping, optional
        JSON-able description to add: names of the features, the time between frames, metrics.

    Raises
    ------
    TypeError, ValueError
        If it holds something that a file cannot, or is not fitted.
    OSError
        If the file cannot be written; an old one is then intact.
    """
    import torch
    from scipy.sparse import csr_array, issparse
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    tensors, fitted = {}, {}
    for key, value in vars(estimator).items():
        if not _FITTED.fullmatch(key):
            continue
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            # a copy: torch warns of arrays that must not be written to
            tensors[key] = torch.from_numpy(value.copy(order="C"))
        elif issparse(value):
            rows = csr_array(value)
            parts = {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr, "shape": np.array(rows.shape)}
            tensors |= {f"{key}:{part}": torch.from_numpy(array.copy()) for part, array in parts.items()}
        elif isinstance(value, torch.nn.Module):
            tensors |= {f"{key}.{name}": tensor for name, tensor in value.state_dict().items()}
        else:
            fitted[key] = _plain(value)
    params = {key: _plain(value) for key, value in estimator.get_params(deep=False).items()}
    save_container(path, type(estimator).__name__, {"params": params, "fitted": fitted}, tensors, metadata or {})


def _plain(value: Any) -> Any:
    """Numbers and strings of numpy as those of Python."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def load_estimator(cls: Any, container: Container) -> Any:
    """The estimator that `save_estimator` wrote.

    Parameters
    ----------
    cls : class
    container : Container

    Returns
    -------
    instance of cls
        Its networks are made by ``cls._build_networks`` from what else was stored, if it has any. A ValueError of
        ``cls._check_fitted``, if there is one, tells that its methods cannot rely on what was stored.

    Raises
    ------
    molml.io.ModelFileError
        If the file is of another class, or does not hold what the class needs.
    """
    if container.kind != cls.__name__:
        raise ModelFileError(f"expected a file of a {cls.__name__}, got one of a {container.kind}")
    try:
        estimator = cls(**container.config["params"])
        for key, value in container.config["fitted"].items():
            _check_name(cls, key)
            setattr(estimator, key, value)
        states: dict[str, dict[str, Any]] = {}
        matrices: dict[str, dict[str, Any]] = {}
        for key, tensor in container.tensors.items():
            matrix, _, part = key.partition(":")
            if part:
                _check_name(cls, matrix)
                matrices.setdefault(matrix, {})[part] = tensor.numpy()
                continue
            module, _, name = key.partition(".")
            _check_name(cls, module)
            if name:
                states.setdefault(module, {})[name] = tensor
            else:
                setattr(estimator, key, tensor.numpy())
        for key, parts in matrices.items():
            setattr(estimator, key, _sparse(parts))
        if states:
            estimator._build_networks()
            for module, state in states.items():
                getattr(estimator, module).load_state_dict(state)
        if hasattr(cls, "_check_fitted"):
            estimator._check_fitted()
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelFileError(f"the file does not hold a whole {cls.__name__}: {error}; get the file again") from error
    return estimator


def _sparse(parts: Mapping[str, Any]) -> Any:
    from scipy.sparse import csr_array

    matrix = csr_array((parts["data"], parts["indices"], parts["indptr"]), shape=tuple(parts["shape"].tolist()))
    # compiled code trusts the indices
    matrix.check_format(full_check=True)
    return matrix


def check_fitted_shapes(estimator: Any, shapes: Mapping[str, tuple[int, ...] | None], *, sparse: bool = False) -> None:
    """Refuse an estimator that lacks arrays, or has them in other shapes than its methods rely on.

    Parameters
    ----------
    estimator : scikit-learn estimator of molml
    shapes : mapping of str to tuple, or None if nothing would be right
    sparse : bool
        They are sparse matrices.

    Raises
    ------
    ValueError
    """
    from scipy.sparse import csr_array

    for name, shape in shapes.items():
        value = getattr(estimator, name, None)
        found = value.shape if isinstance(value, csr_array if sparse else np.ndarray) else None
        if shape is None or found != shape:
            raise ValueError(f"{name} must be an array of shape {shape}, got {found}")


def _check_name(cls: type[Any], name: str) -> None:
    # a file sets what a fit sets, and nothing else: no methods, no parameters
    if not _FITTED.fullmatch(name) or hasattr(cls, name):
        raise ValueError(f"{name!r} is not the name of a fitted attribute")
