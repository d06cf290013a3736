"""Public names of a package that are imported when they are first used (PEP 562)."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    Parameters
    ----------
    package : str
        Its full name.
    homes : mapping of str to str
        Public name to the module of the package that has it.

    Returns
    -------
    getattr, dir : callables

    Examples
    --------
    >>> get, names = lazy_names("molml", {"BOHR": "units", "HARTREE": "units"})
    >>> names(), round(get("HARTREE"), 3)
    (['BOHR', 'HARTREE'], 27.211)
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: list(homes)
