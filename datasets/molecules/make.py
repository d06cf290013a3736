"""Recipe of the data set `molecules`: molecules of MOSES drawn by a hash, with three properties from RDKit.

Run it with `molml data make molecules` or as a script: `python make.py --seed 0 --output DIR` (about a minute, and a
download of 52 MB by pip unless `molml data add moses WHEEL` was done before).
"""

import argparse
import gzip
import hashlib
import heapq
import subprocess
import sys
import tempfile
from pathlib import Path

from rdkit import Chem
from tqdm import tqdm

from molml.datasets import add, card, path
from molml.datasets.sampling import write_tables
from molml.molecules.properties import properties

N_TRAIN = 10_000
N_VALID = 1_000
PROPERTIES = ("logP", "QED", "SA")


def source() -> Path:
    """The training molecules of MOSES, checked against their hash."""
    try:
        folder = path("moses")
    except FileNotFoundError:
        with tempfile.TemporaryDirectory() as wheels:
            package = card("moses")["package"]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package]
            subprocess.run(command, cwd=wheels, check=True)
            [wheel] = Path(wheels).glob("*.whl")
            folder = add("moses", wheel)[0].parent
    return folder / "train.csv.gz"


def draw(file: Path, seed: int) -> list[str]:
    """Molecules with the smallest hashes of seed and string, in the order of the hashes."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        next(lines)
        strings = (line.strip() for line in tqdm(lines, desc="molecules", unit=" lines"))
        return heapq.nsmallest(
            N_TRAIN + N_VALID, strings, key=lambda text: hashlib.sha1(f"{seed} {text}".encode()).digest()
        )


def table(strings: list[str]) -> list[tuple[str | float, ...]]:
    mols = [Chem.MolFromSmiles(text) for text in strings]
    numbers = properties(mols, PROPERTIES).to_numpy()
    return [(Chem.MolToSmiles(mol), *map(float, row)) for mol, row in zip(mols, numbers, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("molecules"))
    arguments = parser.parse_args()
    strings = draw(source(), arguments.seed)
    parts = {"train": table(strings[:N_TRAIN]), "valid": table(strings[N_TRAIN:])}
    write_tables(arguments.output, ("smiles", *PROPERTIES), parts, Path(__file__).parent / "card.toml")


if __name__ == "__main__":
    main()
