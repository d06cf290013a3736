import pytest
from rdkit import Chem
from rdkit.Chem import QED

from molml.molecules.filters import PATTERNS_MCF, Bonds, Screen, pains, passes_filters

# a drug-like molecule, an isothiocyanate, a nitroso, a rhodanine (PAINS), a peroxide, a catechol, salts, metals, ions
MOLECULES = [
    "CC(=O)Nc1ccc(O)cc1",
    "S=C=NCC",
    "O=Nc1ccccc1",
    "O=C1NC(=S)SC1=Cc1ccccc1",
    "CC(C)(C)OOC(C)(C)C",
    "Oc1ccccc1O",
    "[Na+].CC(=O)[O-]",
    "C[Hg]Cl",
    "C[N+](C)(C)CC",
    "FC(F)(F)C(F)(F)C(F)(F)F",
    "ClC(Cl)(Cl)Cl",
    "BrCC(Br)CBr",
    "C1CO1",
    "C1CN1",
    "CC=O",
    "N#CC=C",
    "[2H]C([2H])Cl",
    "[H][H]",
    "O=C1C=CC(=O)C=C1",
    "CN(C)c1ccc(cc1)N=Nc1ccccc1",
]


@pytest.mark.parametrize("smarts", [[*PATTERNS_MCF, *pains()], [Chem.MolToSmarts(p) for p in QED.StructuralAlerts]])
def test_screening_loses_no_match(smarts, shared_smiles):
    patterns = [Chem.MolFromSmarts(text) for text in smarts]
    screen = Screen(patterns)
    n_candidates = n_matches = 0
    for smiles in [*MOLECULES, *shared_smiles("zinc250k_valid.smi.xz", step=250)]:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        bonds = Bonds(mol)
        matches = sum(mol.HasSubstructMatch(pattern) for pattern in patterns)
        assert screen.count(mol, bonds) == matches
        assert screen.any(mol, bonds) == (matches > 0)
        n_candidates += len(screen.candidates(bonds))
        n_matches += matches
    # the control: the screen does leave out most, and there was something to be found
    n_molecules = len(MOLECULES) + 98
    assert n_matches > 20
    assert n_candidates < 0.5 * len(patterns) * n_molecules


def test_a_screen_that_asks_too_much_would_be_noticed():
    screen = Screen([Chem.MolFromSmarts("[#6]-[#8]")])
    ethanol, ethane = (Chem.MolFromSmiles(smiles) for smiles in ("CCO", "CC"))
    assert [len(screen.candidates(Bonds(mol))) for mol in (ethanol, ethane)] == [1, 0]


@pytest.mark.parametrize(
    ("smarts", "smiles"),
    [
        # each matches, and none may be screened out: alternatives, recursion, ring bonds, wildcards, charges, isotopes
        ("[#6,#7]-[#8]", "NO"),
        ("[$([#7]),$([#8])]-[#6]", "CN"),
        ("[#6]=,:[#6]", "c1ccccc1"),
        ("cc", "c1ccccc1-c1ccccc1"),
        ("[!#6]~[#7+]", "C[N+](=O)[O-]"),
        ("[C,H1]", "C"),
        ("[#7;!H0,$([#7]-[#6])]", "CNC"),
        ("[#6]-&!@[#6]", "CC"),
        ("[#6]!@[#6]", "C=C"),
        ("*~[#92]", "O[U]"),
        ("[#6].[#6]", "C.C"),
    ],
)
def test_no_need_is_invented(smarts, smiles):
    pattern, mol = Chem.MolFromSmarts(smarts), Chem.MolFromSmiles(smiles)
    assert mol.HasSubstructMatch(pattern)
    assert Screen([pattern]).any(mol, Bonds(mol))


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CC(=O)Nc1ccc(O)cc1", True),
        ("C1CCCCCC1", True),
        ("C1CCCCCCC1", False),
        ("CC[O-]", False),
        ("CC[Si](C)(C)C", False),
        ("CC=O", False),
        ("O=C1NC(=S)SC1=Cc1ccccc1", False),
    ],
)
def test_filters(smiles, expected):
    assert passes_filters(Chem.MolFromSmiles(smiles)) is expected


def test_patterns_are_all_there():
    assert len(PATTERNS_MCF) == 22
    assert len(set(pains())) == 480
    assert all(Chem.MolFromSmarts(text) is not None for text in [*PATTERNS_MCF, *pains()])


def test_no_patterns():
    with pytest.raises(ValueError, match="at least one pattern"):
        Screen([])


def test_patterns_of_a_file(tmp_path):
    path = tmp_path / "pains.csv"
    path.write_text('"[#6]-[#8]-[#1]"   ,"<regId=alcohol>"\n[#7]-[#6],"<regId=amine>"\n')
    assert pains(path) == ["[#6]-[#8]-[#1]", "[#7]-[#6]"]
    ethanol = Chem.MolFromSmiles("CCO")
    assert passes_filters(ethanol)
    assert not passes_filters(ethanol, path)


def test_damaged_file(tmp_path):
    path = tmp_path / "pains.csv"
    path.write_text("[#6](,x\n")
    with pytest.raises(ValueError, match="no SMARTS; install molsets"):
        passes_filters(Chem.MolFromSmiles("CCO"), path)
