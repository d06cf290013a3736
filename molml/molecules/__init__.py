"""Molecules as graphs and strings: representations, generative models, metrics.

The public names, in the order one meets them. Nothing heavy is imported before one of them is used.
"""

import importlib
from typing import Any

_HOMES: dict[str, str] = {}

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"molml.molecules.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'molml.molecules' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(_HOMES)
