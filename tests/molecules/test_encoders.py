import pytest
import torch

from molml.molecules.dataset import ATOM_SIZES, BOND_SIZES, MoleculeDataset
from molml.molecules.encoders import ConvolutionalEncoder, GraphEncoder, RecurrentEncoder
from molml.molecules.tokens import Tokenizer

SMILES = ["C", "CCO", "c1ccccc1", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "Clc1cc[nH]c1", "C/C=C/C", "C/C=C\\C"]
TOKENIZER = Tokenizer.from_strings(SMILES)
DATA = MoleculeDataset(SMILES, TOKENIZER)


def encoder(kind):
    n = len(TOKENIZER)
    made = {
        "graph": lambda: GraphEncoder(ATOM_SIZES, BOND_SIZES, 6, width=16, n_layers=2, seed=1),
        "convolutional": lambda: ConvolutionalEncoder(n, 6, channels=8, max_length=16, seed=1),
        "recurrent": lambda: RecurrentEncoder(n, 6, hidden=16, seed=1),
    }
    return made[kind]().eval()


@pytest.mark.parametrize("kind", ["graph", "convolutional", "recurrent"])
def test_codes_do_not_depend_on_the_company(kind):
    network = encoder(kind)
    mean, logvar = network(DATA.collate(list(range(len(SMILES)))))
    assert mean.shape == logvar.shape == (len(SMILES), 6)
    for i in range(len(SMILES)):
        alone = network(DATA.collate([i]))
        # float32; the padding of a batch must not be read
        torch.testing.assert_close(alone[0][0], mean[i], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone[1][0], logvar[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["graph", "convolutional", "recurrent"])
def test_different_molecules_have_different_codes(kind):
    mean, _ = encoder(kind)(DATA.collate(list(range(len(SMILES)))))
    distances = torch.cdist(mean, mean) + torch.eye(len(SMILES))
    assert distances.min() > 1e-4


@pytest.mark.parametrize("kind", ["graph", "convolutional", "recurrent"])
def test_all_weights_take_part(kind):
    network = encoder(kind)
    mean, logvar = network(DATA.collate(list(range(len(SMILES)))))
    (mean.square().sum() + logvar.square().sum()).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


@pytest.mark.parametrize("kind", ["graph", "convolutional", "recurrent"])
def test_it_starts_with_little_noise(kind):
    _, logvar = encoder(kind)(DATA.collate([0, 1]))
    assert (torch.exp(0.5 * logvar) < 0.3).all()


def test_a_graph_encoder_without_places_would_not_tell_apart_what_needs_them():
    # control: the same molecule with its atoms at other places of the string has another code
    network = encoder("graph")
    batch = DATA.collate([1])
    moved = batch._replace(graph=batch.graph._replace(places=batch.graph.places + 1))
    assert (network(batch)[0] - network(moved)[0]).abs().max() > 1e-3


def test_a_graph_encoder_needs_graphs():
    batch = MoleculeDataset(SMILES, TOKENIZER, graphs=False).collate([0])
    with pytest.raises(ValueError, match="needs graphs"):
        encoder("graph")(batch)


def test_long_strings_are_cut_by_convolutions():
    network = encoder("convolutional")
    two = MoleculeDataset(["C" * 20 + "O", "C" * 20 + "N"], Tokenizer(["C", "O", "N"]), graphs=False)
    small = ConvolutionalEncoder(6, 4, channels=4, max_length=16, seed=0)
    mean, _ = small(two.collate([0, 1]))
    assert torch.equal(mean[0], mean[1])
    assert network.max_length == 16
