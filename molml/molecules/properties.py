"""Properties of molecules that follow from their graph alone, by name."""

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import QED, rdMolDescriptors

from molml.molecules.data import iterate_molecules

if TYPE_CHECKING:
    import pandas

__all__ = ["PROPERTIES", "properties", "sa_score"]


def sa_score(mol: Chem.Mol) -> float:
    """Synthetic accessibility, from 1 (easy) to 10 (hard): frequency of fragments less a penalty for complexity.

    Parameters
    ----------
    mol : rdkit.Chem.Mol

    Returns
    -------
    float

    References
    ----------
    Ertl and Schuffenhauer, J. Cheminform. 1, 8 (2009).

    Examples
    --------
    >>> round(sa_score(Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")), 3)
    1.58
    """
    # read with the first molecule: the table of fragments takes half a second
    from rdkit.Contrib.SA_Score import sascorer

    return float(sascorer.calculateScore(mol))


#: Name → function of a molecule. Masses in Da, areas in Å², the rest are numbers without unit.
PROPERTIES: dict[str, Callable[[Chem.Mol], float]] = {
    # Wildman and Crippen, J. Chem. Inf. Comput. Sci. 39, 868 (1999)
    "logP": lambda mol: rdMolDescriptors.CalcCrippenDescriptors(mol)[0],
    "refractivity": lambda mol: rdMolDescriptors.CalcCrippenDescriptors(mol)[1],
    # Bickerton et al., Nat. Chem. 4, 90 (2012)
    "QED": QED.qed,
    "SA": sa_score,
    "MW": lambda mol: rdMolDescriptors._CalcMolWt(mol),
    # Ertl, Rohde, Selzer, J. Med. Chem. 43, 3714 (2000)
    "TPSA": rdMolDescriptors.CalcTPSA,
    "HBD": rdMolDescriptors.CalcNumHBD,
    "HBA": rdMolDescriptors.CalcNumHBA,
    "rotatable_bonds": rdMolDescriptors.CalcNumRotatableBonds,
    "rings": rdMolDescriptors.CalcNumRings,
    "aromatic_rings": rdMolDescriptors.CalcNumAromaticRings,
    "heavy_atoms": rdMolDescriptors.CalcNumHeavyAtoms,
    "heteroatoms": rdMolDescriptors.CalcNumHeteroatoms,
    "fraction_sp3": rdMolDescriptors.CalcFractionCSP3,
    "charge": Chem.GetFormalCharge,
}


def properties(
    mols: object, names: Sequence[str] = ("logP", "QED", "SA", "MW", "TPSA"), *, progress: bool | None = None
) -> "pandas.DataFrame":
    """Table of properties of molecules.

    Parameters
    ----------
    mols : Mol, str, or iterable of these
        As in `as_molecules`.
    names : sequence of str
        Columns, of `PROPERTIES`.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    pandas.DataFrame, shape (n, n_names)
        float64, one row per molecule in their order.

    Raises
    ------
    MoleculeError
        If something is no molecule.
    TypeError, ValueError
        If a name is unknown, there twice, or `names` is a string.

    Examples
    --------
    >>> properties(["aspirin", "caffeine"], ["logP", "HBD"]).round(2)
         logP  HBD
    0    1.31  1.0
    1   -1.03  0.0
    """
    import pandas
    from tqdm import tqdm

    if isinstance(names, str):
        raise TypeError(f"names must be a list of properties, got the string {names!r}; write [{names!r}]")
    for name in names:
        if name not in PROPERTIES:
            near = difflib.get_close_matches(str(name), PROPERTIES, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"names must be properties, got {name!r}; {hint}Known are {', '.join(PROPERTIES)}")
    if len(set(names)) != len(names):
        raise ValueError(f"names must be different, got {list(names)}")
    functions = [PROPERTIES[name] for name in names]
    # tqdm's None: only if stderr is a terminal; only what takes longer than two seconds shows a bar
    silent = None if progress is None else not progress
    delay = 0 if progress else 2
    rows = []
    with rdBase.BlockLogs():
        for mol in tqdm(iterate_molecules(mols), desc="properties", unit=" molecules", disable=silent, delay=delay):
            rows.append([function(mol) for function in functions])
    return pandas.DataFrame(np.array(rows, dtype=np.float64).reshape(len(rows), len(names)), columns=list(names))
