"""MOSES' metrics of N molecules: CPU seconds and values, molml beside the MOSES package.

    python benchmarks/molecules/metrics.py FILE [N]

One thread each, reading of the reference sets and the training set included. FILE is anything that `read_molecules`
reads. Needs the two packages that molml's own metrics read their weights and statistics from.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import sys
import time
import warnings

import torch
from moses_peer import missing, revive

from molml.molecules.data import read_molecules
from molml.molecules.metrics import metrics


def main(path: str, n: int) -> None:
    """Measure."""
    torch.set_num_threads(1)
    smiles = read_molecules(path).smiles[:n]
    # compiled functions are read or made here
    metrics(smiles[:10], reference=smiles[10:20], fcd=False, threads=1)
    if (reason := missing()) is not None:
        raise SystemExit(reason)
    start = time.process_time()
    mine = metrics(smiles, threads=1)
    seconds = time.process_time() - start
    print(f"{len(smiles)} molecules, one thread\nmolml  {seconds:8.1f} CPU s", flush=True)
    warnings.simplefilter("ignore")
    moses = revive()
    start = time.process_time()
    theirs = moses.get_all_metrics(smiles)
    peer = time.process_time() - start
    print(f"MOSES  {peer:8.1f} CPU s   {peer / seconds:.1f} times as long")
    worst = 0.0
    for name in mine.values:
        difference = abs(mine.values[name] - theirs[name])
        worst = max(worst, difference)
        print(f"{name:14s} {mine.values[name]:12.7g} {theirs[name]:12.7g}   {difference:.1e}")
    print(f"largest difference {worst:.1e}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3_000)
