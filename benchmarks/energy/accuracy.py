"""Errors on the test files of public data sets, with nothing but the defaults, beside published numbers.

    python benchmarks/energy/accuracy.py DATA_FOLDER [--model linear|network] [--members N] [--minutes M] [--seed S]
                                         [--systems Si …]

The folder holds mlearn/{Li,Si,Mo,Cu}_{train,test}.xyz.xz, rmd17/rmd17_{molecule}_01.npz,
acac/{train,test_MD}_300K.xyz.xz, 3bpa/train_300K.xyz.xz, water_pbe0ts/deepmd_water_pbe0ts.xyz.xz and fitsnap/Ta.xyz.xz;
what is not there is skipped by name. Of the last three, which have no test file, the last system (water) or every fifth
structure is the test set. Test structures are read after the fit and decide nothing. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from molml.energy import StructureDataset, evaluate, fit
from molml.energy.fitting import VALID_FRACTION

# energy RMSE and MAE in meV/atom, force RMSE and MAE in meV/Å: Zuo et al., J. Phys. Chem. A 124, 731 (2020), the
# published networks evaluated anew with n2p2; rMD17 force MAE of ANI (Kovács et al., JCTC 17, 7696 (2021))
PUBLISHED = {
    "Li": (0.98, 0.75, 23.4, 16.8),
    "Si": (6.93, 5.63, 169.7, 108.6),
    "Mo": (5.43, 3.65, 203.2, 125.0),
    "Cu": (1.68, 1.15, 63.0, 26.2),
    "ethanol": (None, None, None, 13.4),
    "aspirin": (None, None, None, 40.6),
    "uracil": (None, None, None, 21.4),
    "toluene": (None, None, None, 24.3),
    "3bpa": (None, None, 27.1, None),  # ACE, on a test set of its own
    "acac": (None, None, 5.1, None),  # MACE (Batatia et al., arXiv 2205.06643)
    "water": (None, None, None, None),
    "Ta": (None, None, 161.0, 76.0),  # linear SNAP on its training data (FitSNAP)
}
WITHOUT_TEST = {
    "3bpa": "3bpa/train_300K.xyz.xz",
    "water": "water_pbe0ts/deepmd_water_pbe0ts.xyz.xz",
    "Ta": "fitsnap/Ta.xyz.xz",
}
_WATER_BEFORE = 320  # frames before those of the system data_3


def load(
    folder: Path, system: str
) -> tuple[StructureDataset, StructureDataset | None, Callable[[], StructureDataset]] | None:
    """Training and validation structures, and what reads the test structures; of rMD17 950 and 50 of a split."""
    crystal = folder / "mlearn" / f"{system}_train.xyz.xz"
    if crystal.exists():
        return StructureDataset(crystal), None, lambda: StructureDataset(str(crystal).replace("_train", "_test"))
    molecule = folder / "rmd17" / f"rmd17_{system}_01.npz"
    if molecule.exists():
        data = StructureDataset(molecule)
        return data.subset(range(950)), data.subset(range(950, 1000)), lambda: StructureDataset(f"{molecule}:test")
    acetylacetone = folder / "acac" / "train_300K.xyz.xz"
    if system == "acac" and acetylacetone.exists():
        test = acetylacetone.with_name("test_MD_300K.xyz.xz")
        return StructureDataset(acetylacetone), None, lambda: StructureDataset(test)
    if system in WITHOUT_TEST and (folder / WITHOUT_TEST[system]).exists():
        whole = StructureDataset(folder / WITHOUT_TEST[system])
        aside = [i >= _WATER_BEFORE if system == "water" else i % 5 == 4 for i in range(len(whole))]
        train, test = whole.subset(np.flatnonzero(np.invert(aside))), whole.subset(np.flatnonzero(aside))
        return train, None, lambda: test
    return None


def main() -> None:
    """Fit, evaluate, print a row per system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("linear", "network"), default="linear")
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--systems", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    columns = "".join(f"{name:>9}" for name in ("E RMSE", "E MAE", "F RMSE", "F MAE"))
    print(f"{'system':<9}{columns}{'F max/RMSE (train)':>20}{'CPU s':>8}   published")
    for system in arguments.systems:
        found = load(arguments.folder, system)
        if found is None:
            print(f"{system:<9}skipped: no data in {arguments.folder}")
            continue
        train, valid, test = found
        if valid is None and arguments.model == "network":
            # as fit would by itself; here so that the last column is about structures trained on
            train, valid = train.split(VALID_FRACTION, arguments.seed)
        started = time.process_time()
        potential = fit(
            train,
            valid,
            model=arguments.model,
            members=arguments.members,
            minutes=arguments.minutes,
            seed=arguments.seed,
        )
        seconds = time.process_time() - started
        inside, metrics = evaluate(potential, train).metrics, evaluate(potential, test()).metrics
        figures = [1e3 * metrics[name] for name in ("energy_rmse", "energy_mae", "forces_rmse", "forces_mae")]
        row = "".join(f"{figure:9.2f}" for figure in figures)
        published = " ".join("–" if value is None else f"{value:g}" for value in PUBLISHED[system])
        print(
            f"{system:<9}{row}{inside['forces_max'] / inside['forces_rmse']:20.1f}{seconds:8.0f}   {published}",
            flush=True,
        )


if __name__ == "__main__":
    main()
