"""Checks of an installation: versions, threads, writing, a small self-test."""

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

__all__ = ["Check", "checks"]


class Check(NamedTuple):
    """Result of one check.

    Attributes
    ----------
    name, text : str
        What was looked at and what was found.
    good : bool
        Whether molml can work with it.
    """

    name: str
    text: str
    good: bool


def checks() -> Iterator[Check]:
    """Check the installation, one thing after the other.

    Yields
    ------
    Check
    """
    from molml import __version__

    yield Check("molml", f"{__version__} in {Path(__file__).parent}", True)
    yield Check("python", f"{platform.python_version()} on {platform.platform()}", True)
    for name, extra in _requirements():
        yield _package(name, extra)
    yield from _torch()
    yield _data()
    yield _writing(Path.cwd())
    yield _forces()


def _requirements() -> list[tuple[str, str | None]]:
    """Packages that are always needed, with None, and then those that are needed for something, with that extra."""
    # an uninstalled checkout has no metadata; then the self-test below is all there is
    try:
        requirements = metadata.requires("molml-lab") or []
    except metadata.PackageNotFoundError:
        return []
    found: dict[str, str | None] = {}
    for text in requirements:
        name = re.split(r"[^\w-]", text)[0]
        extra = re.search(r"extra == ['\"](\w+)", text)
        if extra is None:
            found[name] = None
        # what the tests need is of no use to others
        elif extra[1] != "test":
            found.setdefault(name, extra[1])
    return sorted(found.items(), key=lambda item: (item[1] is not None, item[0]))


def _package(name: str, extra: str | None) -> Check:
    try:
        return Check(name, metadata.version(name), True)
    except metadata.PackageNotFoundError:
        if extra is None:
            return Check(name, f"missing; pip install {name}", False)
        return Check(name, f"not installed (optional, for {extra})", True)


def _torch() -> Iterator[Check]:
    import torch

    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    limit = os.environ.get("OMP_NUM_THREADS")
    yield Check("threads", threads + (f" (OMP_NUM_THREADS={limit})" if limit else ""), True)
    yield Check("gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "none; molml uses the CPU", True)


def _data() -> Check:
    import molml.datasets

    try:
        return Check("data", str(molml.datasets.path("ethanol")), True)
    except (OSError, ValueError) as error:
        return Check("data", str(error), False)


def _writing(folder: Path) -> Check:
    import torch

    from molml.io import load_container, save_container

    try:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            file = Path(temporary) / "model.molml"
            save_container(file, "Doctor", {}, {"x": torch.arange(3)}, {})
            same = load_container(file).tensors["x"].tolist() == [0, 1, 2]
    except (OSError, ValueError) as error:
        return Check("writing", str(error), False)
    return Check("writing", f"model files can be written to and read from {folder}", same)


def _forces() -> Check:
    """Second derivatives, on which training on forces stands, in closed form: d²(x³)/dx² = 6x."""
    import torch

    x = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return Check("derivatives", "second derivatives are right", torch.equal(second, 6 * x.detach()))
