"""What data sets there are: the cards of the embedded ones and the register of the public ones."""

import difflib
import functools
import tomllib
from pathlib import Path
from typing import Any


def embedded_folder() -> Path:
    """Folder of the data sets that come with molml.

    Inside the package in an installation, beside it in a checkout.
    """
    inside = Path(__file__).parents[1] / "_datasets"
    beside = Path(__file__).parents[2] / "datasets"
    return inside if inside.is_dir() else beside


def embedded_names() -> list[str]:
    """Names of the data sets that come with molml, in alphabetical order."""
    return sorted(path.parent.name for path in embedded_folder().glob("*/card.toml"))


@functools.cache
def _registry() -> dict[str, dict[str, Any]]:
    return tomllib.loads((embedded_folder() / "registry.toml").read_text(encoding="utf-8"))


def public_names() -> list[str]:
    """Names of the public data sets that molml knows, in the order of the register."""
    return list(_registry())


def list_datasets() -> list[str]:
    """Names of all data sets: first the embedded ones, then the public ones."""
    return embedded_names() + public_names()


def card(name: str) -> dict[str, Any]:
    """What is known of a data set.

    Parameters
    ----------
    name : str
        One of `list_datasets`.

    Returns
    -------
    dict
        ``title``, ``kind`` (structures, trajectories, molecules), ``theory``, ``licence``, ``citation``, … and
        ``files``, a list of ``{"name", "bytes", "sha256", …}``. ``embedded`` tells whether the files come with molml;
        for the others ``verified`` tells whether molml can download and check them.

    Raises
    ------
    ValueError
        For an unknown name, with the nearest known ones.
    """
    if name in embedded_names():
        text = (embedded_folder() / name / "card.toml").read_text(encoding="utf-8")
        return {"name": name, "embedded": True, "verified": True, "files": [], **tomllib.loads(text)}
    if name in _registry():
        return {"name": name, "embedded": False, "files": [], **_registry()[name]}
    near = difflib.get_close_matches(name, list_datasets(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`molml data list` shows all"
    raise ValueError(f"name must be a known data set, got {name!r}; {hint}")
