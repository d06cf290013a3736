import numpy as np
import pytest

from molml.molecules.data import MoleculeError, as_molecules
from molml.molecules.properties import PROPERTIES, properties, sa_score


def test_numbers_of_aspirin():
    table = properties("aspirin", list(PROPERTIES))
    [row] = table.to_dict("records")
    # mass from the atomic masses of C9H8O4; TPSA is 63.6 in every catalogue; QED of the paper's table is 0.55
    assert row["MW"] == pytest.approx(9 * 12.011 + 8 * 1.008 + 4 * 15.999, abs=0.01)
    assert row["TPSA"] == pytest.approx(63.6, abs=0.05)
    assert row["QED"] == pytest.approx(0.55, abs=0.01)
    counts = {
        "HBD": 1,
        "HBA": 3,
        "rings": 1,
        "aromatic_rings": 1,
        "heavy_atoms": 13,
        "heteroatoms": 4,
        "charge": 0,
        "fraction_sp3": pytest.approx(1 / 9),
    }
    assert {name: row[name] for name in counts} == counts


def test_logp_is_the_sum_of_published_contributions():
    # Wildman and Crippen, table 1: methane is C1 (0.1441) and four H1 (0.1230)
    assert properties("methane", ["logP"]).iloc[0, 0] == pytest.approx(0.1441 + 4 * 0.1230)


def test_the_simple_is_easy_to_make_and_the_natural_product_is_not():
    # orders of the paper's figure 5; the scale is from 1 to 10
    easy, drug, hard = (sa_score(mol) for mol in as_molecules(["ethyl acetate", "paracetamol", "morphine"]))
    assert 1 <= easy < 2.5 and 1 <= drug < 2.5 and 4 < hard <= 10


def test_rows_are_in_order_and_numbers_are_floats():
    table = properties(["C", "aspirin", "C"], ["heavy_atoms", "MW"])
    assert list(table.columns) == ["heavy_atoms", "MW"] and (table.dtypes == np.float64).all()
    assert list(table["heavy_atoms"]) == [1, 13, 1]


def test_no_molecules_give_no_rows():
    assert properties([], ["logP"]).shape == (0, 1)
    assert properties(["C", "C"], []).shape == (2, 0)


@pytest.mark.parametrize(
    "names, error, message",
    [
        ("logP", TypeError, r"write \['logP'\]"),
        (["logp"], ValueError, "got 'logp'; did you mean 'logP'"),
        (["price"], ValueError, "got 'price'; .*Known are logP"),
        (["MW", "MW"], ValueError, "must be different"),
    ],
)
def test_wrong_names_are_refused(names, error, message):
    with pytest.raises(error, match=message):
        properties("C", names)


def test_what_is_no_molecule_is_refused():
    with pytest.raises(MoleculeError, match=r"molecules\[1\]"):
        properties(["C", "C("])


def test_a_progress_bar_on_request(capfd):
    properties(["C"], progress=True)
    assert "properties" in capfd.readouterr().err
