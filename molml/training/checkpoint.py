"""Checkpoints: the whole state of a training run in one verified file, without pickle."""

import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molml import io


class ResumeError(ValueError):
    """A checkpoint that does not belong to the run that wants to continue from it."""


def save_checkpoint(path: str | os.PathLike[str], settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    path : path-like
    settings : mapping
        What a resumed run must have in common with this one; JSON-able.
    state : mapping
        Nested dict, list, tuple and Counter of None, bool, int, float, str and Tensor, such as the `state_dict` of
        an optimiser. Restored exactly, with integers as keys, tuples, NaN and infinity.

    Raises
    ------
    TypeError
        If the state holds anything else; the message names it.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "state", tensors)
    io.save_container(path, "checkpoint", settings, tensors, {"state": tree})


def load_checkpoint(path: str | os.PathLike[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint's state, on the CPU.

    Parameters
    ----------
    path : path-like
    settings : mapping
        Settings of the run that wants to continue.

    Returns
    -------
    dict
        As it was given to `save_checkpoint`.

    Raises
    ------
    ResumeError
        If the file is no checkpoint, or was written with other settings; the message names those that differ.
    ModelFileError
        If the file is damaged.
    """
    container = io.load_container(path)
    if container.kind != "checkpoint":
        raise ResumeError(f"{path} must be a checkpoint, got a {container.kind}; give the folder of a training run")
    changes = differences(container.config, settings)
    if changes:
        raise ResumeError(
            f"cannot continue from {path}, because the run has changed:\n  "
            + "\n  ".join(changes)
            + "\nundo the change, or start anew without resume"
        )
    return _unflatten(container.metadata["state"], container.tensors)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two settings do not share, one line per entry.

    Examples
    --------
    >>> differences({"optimizer": {"lr": 0.1}, "seed": 0}, {"optimizer": {"lr": 0.2}, "seed": 0})
    ['optimizer.lr: 0.1 in the checkpoint, 0.2 now']
    """
    left, right = _leaves(before, ""), _leaves(now, "")
    return [
        f"{name}: {left.get(name, 'absent')!s} in the checkpoint, {right.get(name, 'absent')!s} now"
        for name in left | right
        # 1 == True in Python, but not as a setting
        if (name in left) != (name in right) or repr(left[name]) != repr(right[name])
    ]


def describe(value: Any) -> Any:
    """JSON-able image of settings, to compare them by; of an object, its class."""
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Tensor):
        return describe(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def environment(n_processes: int) -> dict[str, Any]:
    """What decides about the last bits of a result beside the settings."""
    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "processes": n_processes,
    }


def _leaves(tree: Any, name: str) -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        inner = [_leaves(value, f"{name}.{key}" if name else str(key)) for key, value in tree.items()]
        return {key: value for leaves in inner for key, value in leaves.items()}
    if isinstance(tree, list | tuple):
        # JSON gives tuples back as lists; short lists read better whole
        return {name: [*map(_as_list, tree)]}
    return {name: tree}


def _as_list(value: Any) -> Any:
    return [*map(_as_list, value)] if isinstance(value, list | tuple) else value


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON tree of a state; its tensors go to `tensors`. Everything that JSON would change is tagged."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor):
        key = f"{len(tensors):06d}"
        value = value.detach().cpu()
        if bool(torch.isfinite(value).all()):
            tensors[key] = value
            return {"tensor": key}
        # the container refuses NaN and infinity, which a mask or a range may rightly hold
        tensors[key] = value.contiguous().reshape(-1).view(torch.uint8)
        return {"bytes": key, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    if isinstance(value, dict):
        tag = "counter" if isinstance(value, Counter) else "dict"
        return {tag: [[key, _flatten(item, f"{name}[{key!r}]", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        tag = "list" if isinstance(value, list) else "tuple"
        return {tag: [_flatten(item, f"{name}[{index}]", tensors) for index, item in enumerate(value)]}
    raise TypeError(
        f"{name} cannot be stored in a checkpoint: expected dict, list, tuple, Tensor, number, string or None, "
        f"got {type(value).__name__}"
    )


def _unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "bytes" in tree:
        return tensors[tree["bytes"]].view(getattr(torch, tree["dtype"])).reshape(tree["shape"])
    ((tag, value),) = tree.items()
    if tag == "tensor":
        return tensors[value]
    if tag == "float":
        return float(value)
    if tag in ("dict", "counter"):
        result = {key: _unflatten(item, tensors) for key, item in value}
        return Counter(result) if tag == "counter" else result
    items = [_unflatten(item, tensors) for item in value]
    return tuple(items) if tag == "tuple" else items
