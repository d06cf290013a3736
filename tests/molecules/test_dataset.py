import numpy as np
import pytest
import torch

from molml.molecules.data import as_molecules, canonical
from molml.molecules.dataset import ATOM_SIZES, BOND_SIZES, MoleculeDataset, on_device
from molml.molecules.tokens import Tokenizer, UnknownTokenError

SMILES = ["C", "CCO", "c1ccccc1", "C[C@H](N)C(=O)O", "Clc1cc[nH]c1", "CCN"]
TOKENIZER = Tokenizer.from_strings(SMILES)


def test_tokens_are_padded_behind_and_read_back():
    data = MoleculeDataset(SMILES, TOKENIZER)
    batch = data.collate([3, 0, 1])
    assert (batch.tokens[:, 0] == 1).all()
    assert [TOKENIZER.decode(row[1:].tolist()) for row in batch.tokens] == [SMILES[3], SMILES[0], SMILES[1]]
    assert batch.tokens.shape == (3, 1 + 12)
    assert batch.tokens[1].tolist()[2:] == [2] + [0] * 10
    assert data.n_tokens == sum(len(row) for row in TOKENIZER.encode(SMILES))


def test_graphs_of_a_batch_are_those_of_its_molecules():
    data = MoleculeDataset(SMILES, TOKENIZER)
    graph = data.collate([4, 2]).graph
    alone = [data.collate([i]).graph for i in (4, 2)]
    assert graph.atom_counts.tolist() == [6, 6] and graph.bond_counts.tolist() == [6, 6]
    assert torch.equal(graph.atoms, torch.cat([part.atoms for part in alone]))
    assert torch.equal(graph.bonds, torch.cat([part.bonds for part in alone]))
    assert torch.equal(graph.ends, torch.cat([alone[0].ends, alone[1].ends + 6]))
    assert (graph.atoms < torch.tensor(ATOM_SIZES)).all() and (graph.bonds < torch.tensor(BOND_SIZES)).all()


def test_places_are_those_of_the_atoms_symbols():
    graph = MoleculeDataset(SMILES, TOKENIZER).collate([3]).graph
    # C [C@H] ( N ) C ( = O ) O
    assert graph.places.tolist() == [0, 1, 3, 5, 8, 10]


def test_enantiomers_differ_in_the_written_configuration():
    two = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"]
    graph = MoleculeDataset(two, Tokenizer.from_strings(two)).collate([0, 1]).graph
    left, right = graph.atoms.view(2, 6, -1)
    assert (left != right).sum(0).nonzero().flatten().tolist() == [len(ATOM_SIZES) - 2, len(ATOM_SIZES) - 1]


def test_every_molecule_is_in_one_batch_with_neighbours_of_its_length():
    smiles = ["C" * n for n in range(1, 9) for _ in range(5)]
    data = MoleculeDataset(smiles, Tokenizer(["C"]), graphs=False)
    parts = data.batches(5, np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    assert [len({len(smiles[i]) for i in part}) for part in parts] == [1] * 8
    assert [len(smiles[part[0]]) for part in parts] != sorted(len(smiles[part[0]]) for part in parts)
    ordered = [len(smiles[i]) for i in np.concatenate(data.batches(7, None))]
    assert ordered == sorted(ordered)


def test_molecules_change_their_company_between_epochs():
    data = MoleculeDataset(["CCC"] * 40, Tokenizer(["C"]), graphs=False)
    rng = np.random.default_rng(0)
    assert {tuple(sorted(p)) for p in data.batches(5, rng)} != {tuple(sorted(p)) for p in data.batches(5, rng)}


def test_subsets_are_numbered_anew():
    values = np.arange(6.0)[:, None]
    data = MoleculeDataset(SMILES, TOKENIZER, properties=values)
    part = data.subset([4, 1]).subset([1, 0])
    batch = part.collate([0, 1])
    assert len(part) == 2 and part[1] == 1
    assert [TOKENIZER.decode(row[1:].tolist()) for row in batch.tokens] == [SMILES[1], SMILES[4]]
    assert batch.properties.flatten().tolist() == [1.0, 4.0]


def test_on_device_leaves_what_is_there():
    batch = MoleculeDataset(SMILES, TOKENIZER).collate([0])
    assert on_device(batch, torch.device("cpu")) is batch
    moved = on_device(batch, torch.device("meta"))
    assert moved.tokens.device.type == moved.graph.atoms.device.type == moved.properties.device.type == "meta"
    assert on_device(batch._replace(graph=None), torch.device("meta")).graph is None


def test_empty_data_and_wrong_properties_are_refused():
    with pytest.raises(ValueError, match="smiles must not be empty"):
        MoleculeDataset([], TOKENIZER)
    with pytest.raises(ValueError, match="row per molecule, 6, got 5"):
        MoleculeDataset(SMILES, TOKENIZER, properties=np.zeros((5, 1)))


def test_unknown_tokens_are_named():
    with pytest.raises(UnknownTokenError, match="CCBr.*Br"):
        MoleculeDataset(["CCO", "CCBr"], TOKENIZER)


def test_what_is_read_is_the_same_molecules_in_other_spellings():
    data = MoleculeDataset(SMILES, TOKENIZER, spellings=5)
    batch = data.collate([3, 4, 1])
    assert [TOKENIZER.decode(row[1:].tolist()) for row in batch.tokens] == [SMILES[3], SMILES[4], SMILES[1]]
    read = [TOKENIZER.decode(row[1:].tolist()) for row in batch.read.tokens]
    assert [canonical(mol) for mol in as_molecules(read)] == [SMILES[3], SMILES[4], SMILES[1]]
    assert batch.read.graph.atom_counts.tolist() == batch.graph.atom_counts.tolist()
    # a control: without, nothing else is there to read
    assert MoleculeDataset(SMILES, TOKENIZER).collate([3, 4, 1]).read is None


def test_spellings_change_with_the_company_and_are_the_same_again():
    data = MoleculeDataset(SMILES, TOKENIZER, graphs=False, spellings=5)

    def first(items):
        return TOKENIZER.decode(data.collate(items).read.tokens[0, 1:].tolist())

    seen = {first([4, i, j]) for i in range(3) for j in range(3)}
    assert len(seen) > 2
    assert first([4, 0, 1]) == first([4, 0, 1])
    part = data.subset([5, 4])
    assert [
        canonical(mol) for mol in as_molecules(TOKENIZER.decode(part.collate([1]).read.tokens[0, 1:].tolist()))
    ] == [SMILES[4]]


def test_other_seeds_give_other_spellings():
    def read(seed):
        data = MoleculeDataset(SMILES, TOKENIZER, graphs=False, spellings=5, seed=seed)
        return data.collate([0, 1, 2, 3, 4, 5]).read.tokens.tolist()

    assert read(1) == read(1) != read(2)


def test_a_spelling_whose_tokens_are_unknown_is_not_read():
    # no branches are known, which all but two spellings need
    data = MoleculeDataset(["CCCO"], Tokenizer(["C", "O"]), graphs=False, spellings=30)
    strings = {Tokenizer(["C", "O"]).decode(row[1:].tolist()) for row in data._spelled.collate(list(range(31))).tokens}
    assert strings == {"CCCO", "OCCC"}


@pytest.mark.parametrize("spellings", [-1, 1.5, True])
def test_spellings_out_of_range_are_refused(spellings):
    with pytest.raises(ValueError, match="spellings must be an integer of at least 0"):
        MoleculeDataset(SMILES, TOKENIZER, spellings=spellings)
