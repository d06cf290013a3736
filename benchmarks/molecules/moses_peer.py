"""The code of the MOSES package, which needs some names of older libraries, made importable for the benchmarks."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

INSTALL = "pip install --no-deps molsets==0.3.1 fcd-torch==1.0.7"


def missing() -> str | None:
    """What to say where the packages are not installed."""
    absent = [name for name in ("moses", "fcd_torch") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)}: not installed, left out ({INSTALL})" if absent else None


def revive() -> Any:
    """Import moses, with what it needs of rdkit, numpy, pandas, scipy and torch put back.

    Its own code is as published: the additions are the names that libraries have dropped since.
    """
    import numpy as np
    import pandas as pd
    import scipy.linalg
    import torch
    from rdkit import RDLogger
    from rdkit.Chem import AllChem, rdFingerprintGenerator, rdMolDescriptors

    RDLogger.DisableLog("rdApp.*")
    six: Any = types.ModuleType("rdkit.six")
    six.iteritems = lambda mapping: mapping.items()
    sys.modules["rdkit.six"] = six
    pd.DataFrame.append = lambda self, other, sort: pd.concat([self, other], sort=sort)
    np.NaN, np.row_stack = np.nan, np.vstack

    def bits(mol: Any, radius: int, nBits: int) -> np.ndarray:
        return rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=nBits).GetFingerprintAsNumPy(mol)

    def counts(mol: Any, radius: int) -> Any:
        return rdFingerprintGenerator.GetMorganGenerator(radius=radius).GetSparseCountFingerprint(mol)

    AllChem.GetMorganFingerprintAsBitVect, rdMolDescriptors.GetMorganFingerprint = bits, counts
    load, root = torch.load, scipy.linalg.sqrtm
    torch.load = lambda path: load(path, weights_only=False)
    scipy.linalg.sqrtm = lambda matrix, disp=True: root(matrix) if disp else (root(matrix), None)
    # sampling inverts a mask of uint8
    zeros = torch.zeros
    torch.zeros = lambda *size, dtype=None, **rest: zeros(
        *size, dtype=torch.bool if dtype == torch.uint8 else dtype, **rest
    )
    import moses

    return moses
