import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molml.molecules.tokens import SPECIAL, Tokenizer, UnknownTokenError, split_smiles

DRUGS = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@@H](N)C(=O)[O-].[Na+]",
    r"C/C=C\Br",
    "C%10CCCCC%10Cl",
    "O=c1[nH]cnc2ccccc12",
    "N->[Pt]",
]


def test_split_gives_the_symbols():
    assert split_smiles(r"[13C@@H]%12(/Cl)->Br%(123)") == ["[13C@@H]", "%12", "(", "/", "Cl", ")", "->", "Br", "%(123)"]


@pytest.mark.parametrize("smiles", DRUGS)
def test_splitting_loses_nothing(smiles):
    assert "".join(split_smiles(smiles)) == smiles


@given(st.text(max_size=40))
def test_any_text_is_split_or_refused_by_name(text):
    try:
        assert "".join(split_smiles(text)) == text
    except UnknownTokenError as error:
        assert error.molecule == text and len(error.token) <= 1


@pytest.mark.parametrize("text, position", [("CCX", 3), ("[CH", 1), ("C%1", 2), ("C C", 2), ("é", 1), ("C\0", 2)])
def test_split_says_where_it_failed(text, position):
    with pytest.raises(UnknownTokenError, match=f"at character {position} is no symbol"):
        split_smiles(text)


def test_a_long_string_is_shown_shortened():
    with pytest.raises(UnknownTokenError) as caught:
        split_smiles("C" * 10**6 + "!")
    assert len(str(caught.value)) < 300


def test_the_special_tokens_come_first_whether_given_or_not():
    assert Tokenizer(["C", "N"]).vocabulary == SPECIAL + ("C", "N") == Tokenizer([*SPECIAL, "C", "N"]).vocabulary
    assert len(Tokenizer(["C"])) == 4


@pytest.mark.parametrize("kind", ["smiles", "selfies"])
def test_encode_and_decode_are_inverse(kind):
    smiles = DRUGS[:5]
    tokenizer = Tokenizer.from_strings(smiles, kind)
    decoded = [tokenizer.decode(ids) for ids in tokenizer.encode(smiles)]
    from molml.molecules.data import as_molecules, canonical

    assert [canonical(mol) for mol in as_molecules(decoded)] == [canonical(mol) for mol in as_molecules(smiles)]


def test_smiles_come_back_letter_by_letter():
    tokenizer = Tokenizer.from_strings(DRUGS)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(DRUGS)] == DRUGS


def test_encoded_molecules_end_with_the_end():
    tokenizer = Tokenizer.from_strings(DRUGS)
    for ids, smiles in zip(tokenizer.encode(DRUGS), DRUGS, strict=True):
        assert ids.dtype == np.int16 and len(ids) == len(split_smiles(smiles)) + 1
        assert ids[-1] == 2 and not np.isin(ids[:-1], [0, 1, 2]).any()


def test_decode_stops_at_the_end():
    assert Tokenizer(["C"]).decode([3, 2, 3, 99]) == "C"


def test_special_tokens_inside_make_no_molecule_in_smiles_and_mean_nothing_in_selfies():
    assert Tokenizer(["C"]).decode([3, 0, 1, 3]) == "C<pad><start>C"
    assert Tokenizer(["[C]"], "selfies").decode([3, 0, 1, 3]) == "CC"


@given(st.permutations(DRUGS))
def test_the_order_of_the_molecules_does_not_matter(smiles):
    assert Tokenizer.from_strings(smiles) == Tokenizer.from_strings(DRUGS)


def test_rare_tokens_can_be_left_out():
    tokenizer = Tokenizer.from_strings(["CCO", "CCN", "CO"], min_count=2)
    assert tokenizer.vocabulary[3:] == ("C", "O")
    assert tokenizer.unknown("CNNO") == ["N"]
    assert tokenizer.unknown("CO") == []


def test_a_config_makes_the_same_tokenizer():
    tokenizer = Tokenizer.from_strings(DRUGS[:5], "selfies")
    again = Tokenizer.from_config(tokenizer.config)
    assert again == tokenizer and hash(again) == hash(tokenizer) and again != Tokenizer(["C"])
    assert repr(Tokenizer(["C"])) == "Tokenizer(1 smiles tokens)"


def test_an_unknown_token_is_named_with_its_molecule():
    with pytest.raises(UnknownTokenError, match=r"molecule 1, 'C\[Si\]', has the token '\[Si\]'") as caught:
        Tokenizer(["C"]).encode(["C", "C[Si]"])
    assert (caught.value.molecule, caught.value.token) == ("C[Si]", "[Si]")


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Tokenizer("CN"), TypeError, "list of non-empty strings"),
        (lambda: Tokenizer(["C", ""]), TypeError, "list of non-empty strings"),
        (lambda: Tokenizer(["C", 3]), TypeError, "list of non-empty strings"),
        (lambda: Tokenizer(["C"], "inchi"), ValueError, "'smiles' or 'selfies', got 'inchi'"),
        (lambda: Tokenizer(["C", "N", "C"]), ValueError, "'C' twice"),
        (lambda: Tokenizer(["C", "<end>"]), ValueError, "'<end>' twice"),
        (lambda: Tokenizer([]), ValueError, "1 to 32764 tokens, got 0"),
        (lambda: Tokenizer([f"[{i}C]" for i in range(40000)]), ValueError, "got 40000"),
        (lambda: Tokenizer.from_strings("CCO"), TypeError, r"write \['CCO'\]"),
        (lambda: Tokenizer.from_strings(["C"], min_count=0), ValueError, "at least 1, got 0"),
        (lambda: Tokenizer.from_strings(["C"], min_count=2), ValueError, "lower min_count"),
        (lambda: Tokenizer.from_strings([3]), TypeError, "must be strings, got int 3"),
        (lambda: Tokenizer.from_strings(["C("], "selfies"), UnknownTokenError, "cannot be written as SELFIES"),
        (lambda: Tokenizer(["C"]).encode("CCO"), TypeError, r"write \['CCO'\]"),
        (lambda: Tokenizer(["C"]).decode([4]), ValueError, "lie in 0…3, got 4"),
        (lambda: Tokenizer(["C"]).decode([-1]), ValueError, "got -1"),
    ],
)
def test_wrong_use_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "selfies", None)
    with pytest.raises(ImportError, match=r"pip install molml-lab\[selfies\]"):
        Tokenizer(["[C]"], "selfies")


@pytest.mark.long
def test_a_quarter_of_a_million_molecules_take_less_than_ten_seconds():
    smiles = DRUGS[:5] * 44_000
    started = time.process_time()
    Tokenizer.from_strings(smiles).encode(smiles)
    assert time.process_time() - started < 10
