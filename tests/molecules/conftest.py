"""Molecules for the tests of the arm."""

import lzma
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "molecules"


@pytest.fixture(scope="session")
def shared_molecules():
    """Function: name of a shared file -> its path; skips by name when it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.is_file():
            pytest.skip(f"needs {path}")
        return path

    return find


@pytest.fixture(scope="session")
def shared_smiles(shared_molecules):
    """Function (name, step) -> every step-th SMILES of a shared .smi.xz file."""

    def read(name: str, step: int = 1) -> list[str]:
        with lzma.open(shared_molecules(name), "rt") as file:
            return [line.split()[0] for line in file.read().splitlines()[::step]]

    return read
