"""The automaton of SMILES: it refuses no molecule, and what it lets through are molecules."""

import lzma

import numpy as np
import pytest
from rdkit import Chem, rdBase

from molml.molecules.automaton import MOST
from molml.molecules.grammar import Grammar
from molml.molecules.names import NAMES
from molml.molecules.tokens import Tokenizer, split_smiles

DRUGLIKE = Tokenizer(
    ["#", "(", ")", "-", "/", "1", "2", "3", "4", "=", "Br", "C", "Cl", "F", "N", "O", "S", "[C@@H]", "[C@H]", "[N+]"]
    + ["[NH+]", "[O-]", "[S@@]", "[nH]", "[n+]", "[n-]", "\\", "c", "n", "o", "s", ".", "[Na+]", "P", "[2H]"]
)


def refused(smiles, tokenizer=DRUGLIKE, max_length=100):
    """The token at which a string is refused, and those before it."""
    tokens = [*split_smiles(smiles), "<end>"]
    ids = np.array([tokenizer.vocabulary.index(token) for token in tokens])
    place = Grammar(tokenizer, max_length).refusal(ids)
    return None if place is None else "".join(tokens[: place + 1])


def is_molecule(smiles):
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles) is not None


@pytest.mark.parametrize(
    "smiles",
    [
        "C",
        "CC(C)(C)C",
        "C1CC1",
        "C1CC=1",
        "C=1CC=1",
        "c1ccccc1",
        "c1ccc2ccccc2c1",
        "c1ccc2cccc-2cc1",
        "c1ccc(-c2ccccc2)cc1",
        "c1cc[nH]c1",
        "Cn1cccc1",
        "O=c1cc[nH]cc1",
        "c1ccn2cccc2c1",
        "O=C1C=CC(=O)C=C1",
        "c12CCCc1cccc2",
        "CC(=O)/N=c1/sc(S(N)(=O)=O)nn1C",
        "C[S@@](=O)c1ccccc1",
        "C[n+]1ccccc1.[O-]C",
        "[O-][N+](=O)c1ccccc1",
        "N[C@@H](C)C(=O)O",
        "[Na+].[O-]C",
        "C1CC2CCC1CC2",
        "[2H]C",
    ],
)
def test_molecules_are_allowed(smiles):
    assert is_molecule(smiles)
    assert refused(smiles) is None


@pytest.mark.parametrize(
    ("smiles", "at"),
    [
        ("=C", "="),
        ("(C)C", "("),
        ("C()C", "C()"),
        ("C((C)C)C", "C(("),
        ("C)C", "C)"),
        ("C(C", "C(C<end>"),
        ("C=", "C=<end>"),
        ("C==C", "C=="),
        ("CC=)C", "CC=)"),
        ("1CC1", "1"),
        ("C11", "C11"),
        ("C1C1", "C1C1"),
        ("C12CC12", "C12CC12"),
        ("C1CC", "C1CC<end>"),
        ("C-1CC=1", "C-1CC=1"),
        ("C(C)1CC1", "C(C)1"),
        ("C(C1)C1", "C(C1)"),
        ("C(C)(C)(C)(C)C", "C(C)(C)(C)(C)C"),
        ("CFC", "CFC"),
        ("N(C)(C)(C)C", "N(C)(C)(C)C"),
        ("O=C=O=C", "O=C=O="),
        ("C1CC1.C1.C1", "C1CC1.C1."),
        ("N[C@@H]C", "N[C@@H]C"),
        ("N[C@@H](=O)C", "N[C@@H](="),
        ("c", "c<end>"),
        ("cc", "cc"),
        ("Cc1ccC", "Cc1ccC"),
        ("c1cccc1", "c1cccc1<end>"),
        ("c1cccccc1", "c1cccccc1<end>"),
        ("Cc1cccc1C", "Cc1cccc1C"),
        ("Cn1ccccc1", "Cn1ccccc1<end>"),
        ("[nH]1ccccc1", "[nH]1ccccc1<end>"),
        ("c1ccocc1", "c1ccocc1"),
        ("c1ccc2cccc2cc1C", None),
        ("c1ccccc1c1ccccc1", "c1ccccc1c"),
    ],
)
def test_what_is_no_molecule_is_refused_at_once(smiles, at):
    assert refused(smiles) == at


def test_table_valence_of_every_token_is_that_of_rdkit():
    grammar = Grammar(DRUGLIKE, 40)
    for token in ("C", "N", "O", "F", "S", "P", "[N+]", "[NH+]", "[O-]"):
        index = DRUGLIKE.vocabulary.index(token)
        most = int(grammar._tables[index, MOST])
        assert is_molecule(token + "(C)" * most)
        assert not is_molecule(token + "(C)" * (most + 1))


@pytest.mark.parametrize("random", [False, True])
def test_no_everyday_molecule_is_refused(random):
    mols = [Chem.MolFromSmiles(smiles) for smiles in NAMES.values()]
    strings = [text for mol in mols for text in written(mol, random)]
    tokenizer = Tokenizer.from_strings(strings)
    grammar = Grammar(tokenizer, max(map(len, tokenizer.encode(strings))) + 40)
    assert [
        s for s, ids in zip(strings, tokenizer.encode(strings), strict=True) if grammar.refusal(ids) is not None
    ] == []


def written(mol, random):
    return Chem.MolToRandomSmilesVect(mol, 20, randomSeed=1) if random else [Chem.MolToSmiles(mol)]


@pytest.mark.parametrize("name", ["zinc250k_valid.smi.xz", "qm9_smiles_train.smi.xz", "chembl_drugs.csv.xz"])
@pytest.mark.parametrize("random", [False, True])
def test_no_molecule_of_the_data_sets_is_refused(shared_molecules, name, random):
    with lzma.open(shared_molecules(name), "rt") as file:
        lines = [line.split(",")[0].strip() for line in file][1:501]
    strings = [written(Chem.MolFromSmiles(line), random)[0] for line in lines]
    tokenizer = Tokenizer.from_strings(strings)
    encoded = tokenizer.encode(strings)
    grammar = Grammar(tokenizer, max(map(len, encoded)) + 40)
    assert [s for s, ids in zip(strings, encoded, strict=True) if grammar.refusal(ids) is not None] == []


def test_rows_can_be_dropped_and_repeated():
    grammar = Grammar(DRUGLIKE, 40)
    ids = {token: k for k, token in enumerate(DRUGLIKE.vocabulary)}
    state = grammar.advance(grammar.start(2), np.array([ids["C"], ids["F"]]))
    both = grammar.allowed(state, 30)
    turned = type(state)(*(array[[1, 0, 1]] for array in state))
    np.testing.assert_array_equal(grammar.allowed(turned, 30), both[[1, 0, 1]])
    assert not np.array_equal(both[0], both[1])


def test_after_the_end_there_is_padding():
    grammar = Grammar(DRUGLIKE, 40)
    state = grammar.advance(grammar.start(1), np.array([DRUGLIKE.vocabulary.index("C")]))
    state = grammar.advance(state, np.array([2]))
    assert np.flatnonzero(grammar.allowed(state, 30)[0]).tolist() == [0]


def test_no_rows():
    grammar = Grammar(DRUGLIKE, 40)
    assert grammar.allowed(grammar.start(0), 30).shape == (0, len(DRUGLIKE))


@pytest.mark.parametrize(
    ("tokenizer", "max_length", "message"),
    [
        (Tokenizer(["[C]"], "selfies"), 40, "which need no mask"),
        (Tokenizer(["C"]), 1, "max_length must be an integer in 2"),
        (Tokenizer(["(", ")"]), 40, "must have a token of an atom"),
    ],
)
def test_what_is_refused(tokenizer, max_length, message):
    with pytest.raises(ValueError, match=message):
        Grammar(tokenizer, max_length)


def test_wrong_number_of_tokens():
    grammar = Grammar(DRUGLIKE, 40)
    with pytest.raises(ValueError, match=r"ids must have shape \(2,\), got \(3,\)"):
        grammar.advance(grammar.start(2), np.array([3, 4, 5]))


def test_forbidden_token():
    grammar = Grammar(DRUGLIKE, 40)
    with pytest.raises(ValueError, match="ids must be tokens that may come next, got a forbidden one"):
        grammar.advance(grammar.start(1), np.array([DRUGLIKE.vocabulary.index(")")]))


def test_vocabulary_without_a_molecule():
    with pytest.raises(ValueError, match="must have the tokens of a molecule of at most 40"):
        Grammar(Tokenizer(["c", "("]), 40)


def test_accepted_are_strings_that_end_in_time():
    tokenizer = Tokenizer(["C", "F", "(", ")", "=", "1"])
    grammar = Grammar(tokenizer, max_length=6)
    ids = np.full((5, 8), 2)
    for row, text in zip(ids, ("CCF", "CFC", "CCCCC", "CCCCCC", "CC(=C)"), strict=True):
        encoded = tokenizer.encode([text])[0]
        row[: len(encoded)] = encoded
    ids[0, 4:] = tokenizer.encode(["C)(F"])[0][:4]  # what follows the end does not count
    assert grammar.accept(ids).tolist() == [True, False, True, False, False]
    assert grammar.accept(ids[:1, :3]).tolist() == [False]
    assert grammar.accept(ids[:0]).shape == (0,)


def test_accepted_are_strings_of_which_nothing_is_refused():
    rng = np.random.default_rng(0)
    strings = [text for text in map(Chem.CanonSmiles, NAMES.values()) if len(text) < 80]
    tokenizer = Tokenizer.from_strings(strings)
    grammar, ids = Grammar(tokenizer, 100), np.full((8 * len(strings), 90), 2)
    for row, encoded in zip(ids, tokenizer.encode(strings) * 8, strict=True):
        row[: len(encoded)] = encoded
    # molecules, and the same with one token changed, dropped or doubled
    for row in ids[len(strings) :]:
        at, n = rng.integers(np.argmax(row == 2)), len(tokenizer)
        change = rng.integers(3)
        if change == 0:
            row[at] = rng.integers(3, n)
        elif change == 1:
            row[at:-1] = row[at + 1 :].copy()
        else:
            row[at + 1 :] = row[at:-1].copy()
    expected = [grammar.refusal(row[: np.argmax(row == 2) + 1]) is None for row in ids]
    assert grammar.accept(ids).tolist() == expected
    assert all(expected[: len(strings)]) and 0.2 < np.mean(expected[len(strings) :]) < 0.8
