"""Property models on MoleculeNet tables: message passing beside a linear baseline, random and scaffold splits.

Every figure is the mean over five folds of the training parts of the tables, with its standard error; nothing was
chosen on them. Run: `python benchmarks/molecules/properties.py FOLDER` with FOLDER holding the tables
(esol_train.csv.xz, …), or with the names of some: `--tables esol bbbp`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas

from molml.molecules.data import read_molecules
from molml.molecules.prediction import FingerprintModel, PropertyModel, cross_validate, random_folds, scaffold_folds

TOX21 = ["NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma", "SR-ARE", "SR-ATAD5"]
TABLES = {
    "freesolv": ("regression", ["dG_hyd_exp_kcal"]),
    "esol": ("regression", ["logS"]),
    "bace": ("regression", ["pIC50"]),
    "lipo": ("regression", ["logD"]),
    "bbbp": ("classification", ["bbb_permeable"]),
    "tox21": ("classification", [*TOX21, "SR-HSE", "SR-MMP", "SR-p53"]),
}
# so many molecules are seen in training, within these bounds of epochs: the same effort for small and large tables
SEEN, FEWEST, MOST = 40_000, 15, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    results = []
    for table in arguments.tables:
        kind, names = TABLES[table]
        data = read_molecules(arguments.folder / f"{table}_train.csv.xz", properties=names, on_error="skip")
        n = len(data.smiles)
        epochs = min(max(SEEN // n, FEWEST), MOST)
        makers = {
            "ridge" if kind == "regression" else "logistic": lambda fold: FingerprintModel(names, kind=kind),  # noqa: B023
            "graph": lambda fold: _Graph(names, kind, fold, epochs),  # noqa: B023
        }
        splits = {"random": random_folds(n, arguments.folds), "scaffold": scaffold_folds(data.smiles, arguments.folds)}
        for split, folds in splits.items():
            for model, make in makers.items():
                started = time.process_time()
                figures = cross_validate(make, data.smiles, data.properties, folds, kind=kind)
                seconds = time.process_time() - started
                results.append({"table": table, "n": n, "split": split, "model": model, "cpu_s": round(seconds)})
                results[-1] |= {name: figures[name].tolist() for name in figures}
                shown = [
                    f"{name} {mean:.3f} ± {error:.3f}"
                    for name, mean, error in zip(figures, *_summary(figures), strict=True)
                ]
                print(f"{table:9} n {n:5}  {split:9} {model:9} {'  '.join(shown)}  {seconds:.0f} CPU-s", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1))


def _summary(figures: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return figures.mean().to_numpy(), (figures.std(ddof=1) / len(figures) ** 0.5).to_numpy()


class _Graph:
    def __init__(self, names: list[str], kind: str, seed: int, epochs: int) -> None:
        self.model, self.epochs = PropertyModel(names, kind=kind, seed=seed), epochs

    def fit(self, mols: object, values: pandas.DataFrame) -> None:
        self.model.fit(mols, values, max_epochs=self.epochs)

    def predict(self, mols: object) -> pandas.DataFrame:
        return self.model.predict(mols)


if __name__ == "__main__":
    main()
