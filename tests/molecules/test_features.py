import csv
import gzip
import json
import lzma
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from molml.molecules.data import MoleculeError, as_molecules, canonical, read_molecules
from molml.molecules.features import GraphFeatures, n_molecules, select, to_molecules
from molml.molecules.names import NAMES

CORNERS = [
    "C",
    "[H][H]",
    "[H+]",
    "[2H]C([2H])([2H])O",
    "[13CH4]",
    "[Na+].[Cl-]",
    "[O-][N+](=O)c1ccccc1",
    "[CH3]",
    "[CH2]",
    "[O][O]",
    "[C-]#[O+]",
    "C[N+](C)(C)C",
    "[Fe+2].[O-]S(=O)(=O)[O-]",
    "F[P-](F)(F)(F)(F)F",
    "[U+6]",
    "N[Pt](N)(Cl)Cl",
    "[NH3]->[Pt](<-[NH3])(Cl)Cl",
    "c1cc[nH]c1",
    "c1cc[n-]c1",
    "c1ccc2[nH]ccc2c1",
    "c1cc[se]c1",
    "C[C@H](N)C(=O)O",
    "C[C@@H](N)C(=O)O",
    "F/C=C/F",
    r"F/C=C\F",
    r"F/C=C\C=C\F.O",
    r"C/C(F)=N/O.C/C(F)=N\O",
    "C[C@H]1CC[C@@H](O)CC1",
    "C[C@H]1CC[C@H](O)CC1.Cl",
    "C/C=C/[C@H](F)/C=C\\C",
    "[Pt@SP1](F)(Cl)(Br)I",
    "[Co@OH12](F)(Cl)(Br)(I)(O)N",
    "C[S@](=O)CC",
    "C[P@@](=O)(O)OC",
    "C1CC1C1CCCCCCCCCCC1",
    "[Cl-].C[C@H](F)Cl",
    "C$C",
    "B1OB(O)OB(O)O1",
]


def state(mol):
    """All that a molecule is, atom by atom and bond by bond."""
    return [
        (
            atom.GetAtomicNum(),
            atom.GetFormalCharge(),
            atom.GetNumExplicitHs(),
            atom.GetTotalNumHs(),
            atom.GetNoImplicit(),
            atom.GetNumRadicalElectrons(),
            atom.GetIsotope(),
            atom.GetIsAromatic(),
            atom.GetChiralTag(),
            atom.GetHybridization(),
            atom.HasProp("_CIPCode") and atom.GetProp("_CIPCode"),
        )
        for atom in mol.GetAtoms()
    ] + [
        (
            bond.GetBeginAtomIdx(),
            bond.GetEndAtomIdx(),
            bond.GetBondType(),
            bond.GetIsAromatic(),
            bond.GetIsConjugated(),
            bond.GetStereo(),
            list(bond.GetStereoAtoms()),
        )
        for bond in mol.GetBonds()
    ]


def round_trip_errors(mols):
    """Molecules that did not come back as they were."""
    back = to_molecules(GraphFeatures()(mols))
    return [
        (canonical(one), canonical(other))
        for one, other in zip(mols, back, strict=True)
        if (canonical(one), state(one)) != (canonical(other), state(other))
    ]


def sanitised(source):
    """Molecules as the features see them: sanitised once more."""
    return as_molecules(as_molecules(source))


@pytest.mark.parametrize("smiles", CORNERS)
def test_corner_cases_come_back_as_they_were(smiles):
    assert round_trip_errors(sanitised(smiles)) == []


def test_everyday_molecules_come_back_as_they_were():
    assert round_trip_errors(sanitised(list(NAMES))) == []


def test_explicit_hydrogens_come_back_as_they_were():
    mols = [Chem.AddHs(mol) for mol in as_molecules([*CORNERS[:4], "aspirin", "alanine", "F/C=C/F"])]
    assert round_trip_errors(sanitised(mols)) == []


@pytest.mark.parametrize("number", range(5))
def test_random_spellings_come_back_as_they_were(number):
    mols = as_molecules(["cholesterol", "morphine", "sucrose", "capsaicin", "[NH3]->[Pt](<-[NH3])(Cl)Cl"])
    spellings = [text for mol in mols for text in Chem.MolToRandomSmilesVect(mol, 3, randomSeed=number)]
    assert round_trip_errors(sanitised(spellings)) == []


def test_the_check_sees_a_lost_configuration():
    batch = GraphFeatures()("F/C=C/F")
    batch.bonds[:, 3] = 0
    assert [canonical(mol) for mol in to_molecules(batch)] == ["FC=CF"]


def embedded(part):
    folder = Path(__file__).parents[2] / "datasets" / "molecules"
    return read_molecules(folder / f"{part}.csv.xz", progress=False).smiles


def test_embedded_molecules_come_back_as_they_were():
    assert round_trip_errors(sanitised(embedded("valid")[::4])) == []


@pytest.mark.long
@pytest.mark.parametrize("part", ["train", "valid"])
def test_every_embedded_molecule_comes_back_as_it_was(part):
    assert round_trip_errors(sanitised(embedded(part))) == []


@pytest.mark.parametrize(
    "name, step",
    [
        ("zinc250k_train.smi.xz", 500),
        ("moses_train.csv.gz", 5000),
        ("qm9_smiles_train.smi.xz", 400),
        ("chembl_drugs.csv.xz", 5),
        ("bbbp_train.csv.xz", 10),
        ("tox21_train.csv.xz", 30),
        ("lipo_train.csv.xz", 20),
        ("bace_train.csv.xz", 10),
    ],
)
def test_public_molecules_come_back_as_they_were(shared_molecules, name, step):
    path = shared_molecules(name)
    with (gzip.open if path.suffix == ".gz" else lzma.open)(path, "rt") as file:
        rows = list(csv.reader(line for line in file if line.strip()))
    column = ([cell.lower() for cell in rows[0]] + ["smiles"]).index("smiles") % len(rows[0])
    mols = []
    for row in rows[1::step]:
        with __import__("contextlib").suppress(MoleculeError):
            mols += sanitised(row[column])
    assert len(mols) > 0.9 * len(rows[1::step])
    assert round_trip_errors(mols) == []


def test_the_columns_of_a_known_molecule():
    batch = GraphFeatures()("C[C@H](N)C(=O)[O-]")
    columns = dict(zip(GraphFeatures.atom_names, batch.atoms.T.tolist(), strict=True))
    assert columns == {
        "element": [6, 6, 7, 6, 8, 8],
        "charge": [8, 8, 8, 8, 8, 7],
        "hydrogens": [3, 1, 2, 0, 0, 0],
        "radicals": [0] * 6,
        "hybridisation": [4, 4, 4, 3, 3, 3],
        "aromatic": [0] * 6,
        "ring": [0] * 6,
        "configuration": [0, 2, 0, 0, 0, 0],
    }
    columns = dict(zip(GraphFeatures.bond_names, batch.bonds.T.tolist(), strict=True))
    assert columns == {"type": [0, 0, 0, 1, 0], "conjugated": [0, 0, 0, 1, 1], "ring": [0] * 5, "stereo": [0] * 5}
    assert batch.ends.tolist() == [[0, 1], [1, 2], [1, 3], [3, 4], [3, 5]]


def test_sizes_of_rings():
    rings = [GraphFeatures()("C1" + "C" * (n - 2) + "C1").atoms[0, 6] for n in (3, 5, 6, 8, 9, 12)]
    assert rings == [1, 3, 4, 6, 7, 7]
    naphthalene_and_cyclopropane = GraphFeatures()("c1ccc2c(c1)C1CC21").atoms[:, 6]
    assert sorted(naphthalene_and_cyclopropane.tolist()) == [1, 1, 1, 2, 2, 4, 4, 4, 4]


def test_all_categories_are_below_the_sizes():
    features = GraphFeatures()
    batch = features(CORNERS + list(NAMES))
    assert (batch.atoms < np.array(features.atom_sizes)).all() and (batch.bonds < np.array(features.bond_sizes)).all()
    assert len(features.names) == len(features.sizes) == batch.atoms.shape[1] + batch.bonds.shape[1]
    assert features.names[0] == "atom element" and features.names[-1] == "bond stereo"


def test_what_the_encoder_reads_does_not_depend_on_the_spelling():
    [mol] = as_molecules("morphine")
    order = np.random.default_rng(0).permutation(mol.GetNumAtoms())
    shuffled = Chem.RenumberAtoms(mol, order.tolist())
    one, other = GraphFeatures()(mol), GraphFeatures()(shuffled)
    np.testing.assert_array_equal(one.atoms[order], other.atoms)


def test_the_configuration_does_not_depend_on_the_spelling_but_the_chiral_tag_does():
    one, other = GraphFeatures()("C[C@H](N)C(=O)O"), GraphFeatures()("N[C@@H](C)C(=O)O")
    assert one.atoms[1, 7] == other.atoms[1, 7] == 2
    assert one.atom_details[1, 3] != other.atom_details[1, 3]


def test_without_details_the_rest_is_the_same():
    exact, plain = GraphFeatures()(list(NAMES)), GraphFeatures(exact=False)(list(NAMES))
    for name in ("atoms", "bonds", "ends", "atom_counts", "bond_counts"):
        np.testing.assert_array_equal(getattr(exact, name), getattr(plain, name))
    assert plain.atom_details.shape == (len(plain.atoms), 0) and plain.bond_details.shape == (len(plain.bonds), 0)


def test_features_are_rebuilt_from_their_config_and_pickled():
    features = GraphFeatures(exact=False)
    assert GraphFeatures.from_config(json.loads(json.dumps(features.config))) == features
    assert pickle.loads(pickle.dumps(features)) == features != GraphFeatures()


def test_features_do_not_change_their_input():
    mol = Chem.MolFromSmiles("C[C@H](N)[CH3:1]")
    before = mol.ToBinary()
    GraphFeatures()(mol)
    assert mol.ToBinary() == before


@given(st.lists(st.integers(0, len(CORNERS) - 1), max_size=8))
def test_selected_graphs_are_those_of_the_selected_molecules(indices):
    batch = GraphFeatures()(CORNERS)
    expected = GraphFeatures()([CORNERS[i] for i in indices])
    for one, other in zip(select(batch, indices), expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_a_batch_may_be_empty():
    batch = GraphFeatures()([])
    assert n_molecules(batch) == 0 and to_molecules(batch) == [] and n_molecules(select(batch, [])) == 0


@pytest.mark.parametrize("indices", [[0, 2], [-1]])
def test_select_refuses_molecules_that_are_not_there(indices):
    with pytest.raises(IndexError, match="indices must lie in 0…1, got"):
        select(GraphFeatures()(["C", "CC"]), indices)


@pytest.mark.parametrize(
    "smiles, message", [("[C+9]", r"charge \+9"), ("[CH16]", "16 hydrogens"), ("[C-12]", "charge -12")]
)
def test_what_has_no_category_is_refused(smiles, message):
    atom = Chem.AtomFromSmiles(smiles.replace("H16", ""))
    atom.SetNumExplicitHs(16 * ("H16" in smiles))
    atom.SetNoImplicit(True)
    mol = Chem.RWMol()
    mol.AddAtom(Chem.Atom(92) if "H16" in smiles else atom)
    mol.GetAtomWithIdx(0).SetNumExplicitHs(atom.GetNumExplicitHs())
    with pytest.raises(MoleculeError, match=rf"molecules\[1\], .*has an atom .*{message}"):
        GraphFeatures()(["C", mol.GetMol()])


def test_what_is_no_molecule_is_refused_with_its_number():
    with pytest.raises(MoleculeError, match=r"molecules\[1\] must be a molecule"):
        GraphFeatures()(["C", "C("])


def test_the_way_back_needs_the_details():
    with pytest.raises(ValueError, match="exact=False"):
        to_molecules(GraphFeatures(exact=False)("CC"))


def test_arrays_that_do_not_fit_are_refused():
    batch = GraphFeatures()(["CC", "C"])
    with pytest.raises(ValueError, match="3 atoms and 1 bonds that are counted, got 2 and 1"):
        to_molecules(batch._replace(atoms=batch.atoms[:2], atom_details=batch.atom_details[:2]))
    with pytest.raises(ValueError, match="a bond between two molecules"):
        to_molecules(batch._replace(ends=np.array([[0, 2]], dtype=np.int32)))


@pytest.mark.parametrize("name, column, value", [("atoms", 0, 119), ("bonds", 0, 6), ("atom_details", 3, 99)])
def test_categories_that_do_not_exist_are_refused(name, column, value):
    batch = GraphFeatures()("CC")
    getattr(batch, name)[:, column] = value
    with pytest.raises(ValueError, match=f"{name} must be categories"):
        to_molecules(batch)


def test_a_graph_that_is_no_molecule_is_refused_in_silence(capfd):
    batch = GraphFeatures()(["C", "C=O"])
    batch.bonds[:, 0] = 4
    with pytest.raises(MoleculeError, match="graph 1 is no molecule: Explicit valence"):
        to_molecules(batch)
    assert capfd.readouterr() == ("", "")


def test_a_bond_to_itself_is_no_molecule():
    batch = GraphFeatures()("CC")
    with pytest.raises(MoleculeError, match="graph 0 is no molecule"):
        to_molecules(batch._replace(ends=np.array([[0, 0]], dtype=np.int32)))
