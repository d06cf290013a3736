import numpy as np
import pytest
from rdkit import Chem

from molml.molecules.reconstruction import exact_matches, stochastic_reconstruction

MOLECULES = [Chem.MolFromSmiles(smiles) for smiles in ("CCO", "C[C@H](N)O", "c1ccccc1", "CC")]


def test_exact_matches():
    decoded = ["OCC", "C[C@@H](N)O", Chem.MolFromSmiles("C1=CC=CC=C1"), None]
    assert exact_matches(MOLECULES, decoded).tolist() == [True, False, True, False]
    assert exact_matches(MOLECULES, ["C(C", "", "C.C", "CC"]).tolist() == [False, False, False, True]


@pytest.mark.parametrize(("molecules", "decoded"), [([], []), (MOLECULES, ["CC"])])
def test_lists_that_do_not_fit(molecules, decoded):
    with pytest.raises(ValueError, match="same length of at least 1"):
        exact_matches(molecules, decoded)


def test_ten_times_ten():
    calls = []

    def encode(molecules, seed):
        calls.append(("encode", seed))
        return np.arange(len(molecules))[:, None] + 10.0 * (seed % 2)

    def decode(codes, seed):
        calls.append(("decode", seed))
        # codes drawn with an odd seed are lost; of the others half of the molecules comes back
        return [MOLECULES[int(z)] if z < 2 else None for z in codes[:, 0]]

    rate = stochastic_reconstruction(MOLECULES, encode, decode, seed=3)
    seeds = [seed for kind, seed in calls if kind == "encode"]
    assert len(seeds) == 10
    assert len(calls) == 110
    assert len({seed for _, seed in calls}) == 110
    assert rate == pytest.approx(0.5 * sum(seed % 2 == 0 for seed in seeds) / 10)
    # the control: another seed draws otherwise, the same does not
    assert rate == stochastic_reconstruction(MOLECULES, encode, decode, seed=3)
    assert rate != stochastic_reconstruction(MOLECULES, encode, decode, seed=5)


@pytest.mark.parametrize("numbers", [{"n_encodings": 0}, {"n_decodings": 0}])
def test_no_draws(numbers):
    with pytest.raises(ValueError, match="at least 1"):
        stochastic_reconstruction(MOLECULES, lambda m, seed: m, lambda z, seed: z, **numbers)
