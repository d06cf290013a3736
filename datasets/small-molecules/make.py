"""Recipe of the data set `small-molecules`: molecules of QM9 drawn by a hash.

Run it with `molml data make small-molecules` or as a script: `python make.py --seed 0 --output DIR` (a minute, and a
download of 3 MB unless `molml data download qm9-smiles` was done before).
"""

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path

from rdkit import Chem
from tqdm import tqdm

from molml.datasets import download
from molml.datasets.sampling import write_tables

N_TRAIN = 10_000
N_VALID = 1_000
HELD_OUT = 26  # of 256 parts


def draw(strings: Iterable[str], seed: int) -> list[str]:
    """Canonical SMILES of different molecules without charges, those with the smallest hashes, in their order.

    A tenth of the strings, by their own hash, are never drawn, so that they can test a model of all others.
    """
    found = set()
    for text in tqdm(strings, desc="molecules", unit=" lines"):
        if hashlib.sha1(text.encode()).digest()[0] >= HELD_OUT:
            mol = Chem.MolFromSmiles(text)
            if not any(atom.GetFormalCharge() for atom in mol.GetAtoms()):
                found.add(Chem.MolToSmiles(mol))
    return sorted(found, key=lambda text: hashlib.sha1(f"{seed} {text}".encode()).digest())[: N_TRAIN + N_VALID]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("small-molecules"))
    arguments = parser.parse_args()
    # a file that is there already is not downloaded again
    lines = (download("qm9-smiles") / "qm9_smiles.csv").read_text(encoding="utf-8").split()[1:]
    rows = [(text,) for text in draw((line.split(",")[-1] for line in lines), arguments.seed)]
    parts = {"train": rows[:N_TRAIN], "valid": rows[N_TRAIN:]}
    write_tables(arguments.output, ("smiles",), parts, Path(__file__).parent / "card.toml")


if __name__ == "__main__":
    main()
