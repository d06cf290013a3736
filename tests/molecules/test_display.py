"""Grids of molecules: what they hold, write and show."""

import csv
import xml.etree.ElementTree as ElementTree

import pytest
from rdkit import Chem

from molml.molecules.display import MoleculeList


def mols(*smiles):
    return [None if s is None else Chem.MolFromSmiles(s) for s in smiles]


def some():
    return MoleculeList(
        mols("CCO", None, "c1ccccc1", "C[C@H](N)O"),
        {"score": [1.0, None, 2.5, 12345.0]},
        columns=3,
        highlight=[0],
        title="A < B",
    )


def test_it_is_a_list_of_molecules():
    found = some()
    assert len(found) == 4 and found[1] is None
    assert found.smiles == ["CCO", None, "c1ccccc1", "C[C@H](N)O"]
    assert repr(found) == "MoleculeList of 4: CCO, –, c1ccccc1, C[C@H](N)O"
    assert repr(MoleculeList(mols(*["C"] * 9))).endswith(", …")


def test_the_picture_is_well_formed_and_the_same_every_time():
    root = ElementTree.fromstring(some().svg())
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert texts[0] == "A < B"
    assert {"score 1.00", "score 2.50", "score 1.23e+04", "no molecule"} <= set(texts)
    assert some().svg() == some().svg()
    assert some().png() == some().png()


def test_cells_stand_in_columns():
    root = ElementTree.fromstring(some().svg())
    cells = [(float(e.get("x")), float(e.get("y"))) for e in root.iter() if e.get("rx") == "8"]
    assert len(cells) == 4
    assert cells[3][0] == cells[0][0] and cells[3][1] > cells[0][1]
    assert len({y for _, y in cells[:3]}) == 1


def test_only_the_highlighted_cell_has_a_frame():
    root = ElementTree.fromstring(some().svg())
    assert [e.get("stroke-width") for e in root.iter() if e.get("rx") == "8"] == ["2", "1", "1", "1"]


def test_molecules_are_not_changed_by_drawing():
    found = some()
    found.svg()
    assert found[0].GetNumConformers() == 0


def test_long_lists_are_cut_in_the_picture_and_say_so():
    assert "and 5 more" in MoleculeList(mols(*["C"] * 205), columns=20).svg()


def test_empty_list():
    assert ElementTree.fromstring(MoleculeList([]).svg()).get("width") is not None


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("csv", b"smiles,score\nCCO,1\n,"), ("smi", b"CCO\n")]
)
def test_files(tmp_path, suffix, start):
    some().save(tmp_path / f"x.{suffix}")
    assert (tmp_path / f"x.{suffix}").read_bytes().startswith(start)


def test_table():
    rows = list(csv.DictReader(some().table().splitlines()))
    assert [row["smiles"] for row in rows] == ["CCO", "", "c1ccccc1", "C[C@H](N)O"]
    assert rows[2]["score"] == "2.5" and rows[1]["score"] == ""


def test_sdf_can_be_read_back(tmp_path):
    some().save(tmp_path / "x.sdf")
    read = list(Chem.SDMolSupplier(str(tmp_path / "x.sdf")))
    assert [Chem.MolToSmiles(mol) for mol in read] == ["CCO", "c1ccccc1", "C[C@H](N)O"]
    assert read[1].GetProp("score") == "2.5"


def test_notebooks_get_html_with_the_note_escaped():
    found = MoleculeList(mols("C"), note="a < b")
    assert "a &lt; b" in found._repr_html_() and "<svg" in found._repr_html_()
    assert "<p style" not in MoleculeList(mols("C"))._repr_html_()


def test_outside_notebooks_show_prints_the_table(capsys):
    some().show()
    assert capsys.readouterr().out == some().table()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((["CCO"],), {}, TypeError, "must be RDKit molecules or None, got str at 0"),
        ((mols("C"), {"x": [1.0, 2.0]}), {}, ValueError, r"values\['x'\] must have 1 entries"),
        ((mols("C"),), {"columns": 0}, ValueError, "columns must be an integer of at least 1"),
        ((mols("C"),), {"highlight": [1]}, ValueError, "highlight must hold indices"),
    ],
)
def test_what_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        MoleculeList(*arguments, **options)


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"path must end with \.svg, \.png, \.csv, \.smi, \.sdf"):
        some().save(tmp_path / "x.pdf")
