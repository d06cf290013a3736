"""Decoding with decoders whose strings are known."""

import numpy as np
import pytest
import torch
from rdkit import Chem

from molml.molecules.generation import different_molecules, generate, molecules
from molml.molecules.tokens import Tokenizer

TOKENIZER = Tokenizer(["C", "O", "F", "(", ")", "=", "1", "c", "n"])
IDS = {token: k for k, token in enumerate(TOKENIZER.vocabulary)}


class Fixed:
    """Writes the texts of a list, the z-th one for code z, with so much confidence."""

    def __init__(self, texts, sharpness=20.0):
        rows = [[IDS[token] for token in text] + [2] * (40 - len(text)) for text in texts]
        self.texts, self.sharpness = torch.tensor(rows), sharpness

    def start(self, z, n):
        which = torch.zeros(n, dtype=torch.long) if z is None else z[:, 0].long()
        return which, torch.zeros(n, dtype=torch.long)

    def step(self, ids, state):
        which, place = state
        logits = self.sharpness * torch.nn.functional.one_hot(self.texts[which, place.clamp(max=39)], len(TOKENIZER))
        return logits.float(), (which, place + 1)


class Markov:
    """Next token by the one before, with fixed random logits: as wrong as a decoder can be."""

    def __init__(self, seed=0, scale=1.0, n_tokens=12):
        self.logits = scale * torch.randn(n_tokens, n_tokens, generator=torch.Generator().manual_seed(seed))

    def start(self, z, n):
        return (torch.zeros(n, 1),)

    def step(self, ids, state):
        return self.logits[ids], state


def codes(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None]


def test_greedy_writes_what_the_decoder_says_in_the_order_of_the_codes():
    texts = ["CCO", "c1ccccc1", "C(F)F", "C"]
    assert generate(Fixed(texts), TOKENIZER, codes(3, 1, 0, 2, 1), temperature=0) == [
        "C",
        "c1ccccc1",
        "CCO",
        "C(F)F",
        "c1ccccc1",
    ]


def test_the_mask_mends_what_is_no_molecule_and_without_it_nothing_is_mended():
    decoder = Fixed(["CFCC", "c1cccc1", "C(C"])
    assert generate(decoder, TOKENIZER, codes(0, 1, 2), temperature=0, mask=False) == ["CFCC", "c1cccc1", "C(C"]
    mended = generate(decoder, TOKENIZER, codes(0, 1, 2), temperature=0)
    assert [Chem.MolFromSmiles(text) is not None for text in mended] == [True] * 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_mask_leaves_alone_what_is_a_molecule(temperature):
    options = {"seed": 2, "max_length": 30, "temperature": temperature}
    z = codes(*range(3)) if temperature == 0 else 2_000
    decoder = Fixed(["CFCC", "CCO", "c1ccccc1"]) if temperature == 0 else Markov()
    without, mended = (generate(decoder, TOKENIZER, z, mask=mask, **options) for mask in (False, True))
    valid = [mol is not None for mol in molecules(without)]
    assert 0 < sum(valid) < len(valid)
    assert [a for a, v in zip(without, valid, strict=True) if v] == [a for a, v in zip(mended, valid, strict=True) if v]
    assert without != mended


def test_the_mask_takes_no_steps_where_it_is_not_needed():
    steps = []

    class Counted(Fixed):
        def step(self, ids, state):
            steps.append(len(ids))
            return super().step(ids, state)

    taken = {}
    for mask in (False, True):
        steps.clear()
        generate(Counted(["CFCC", "CCO", "c1ccccc1"]), TOKENIZER, codes(1, 2), temperature=0, mask=mask)
        taken[mask] = list(steps)
    assert taken[True] == taken[False]
    generate(Counted(["CFCC"]), TOKENIZER, codes(0), temperature=0)
    assert len(steps) > len("CFCC") + 1 + len(taken[True])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_samples_do_not_depend_on_the_size_of_the_batch(batch_size):
    expected = generate(Markov(), TOKENIZER, 50, seed=3, max_length=60)
    assert generate(Markov(), TOKENIZER, 50, seed=3, max_length=60, batch_size=batch_size) == expected
    assert generate(Markov(), TOKENIZER, 50, seed=4, max_length=60) != expected


def test_samples_follow_the_probabilities():
    decoder = Markov(seed=1)
    first = [text[:1] for text in generate(decoder, TOKENIZER, 20_000, mask=False, temperature=2.0, max_length=2)]
    logits = decoder.logits[1].double() / 2
    logits[:2] = -torch.inf
    expected = torch.softmax(logits, 0)
    for token in ("C", "O", "F"):
        p = float(expected[IDS[token]])
        # five standard deviations of a binomial frequency
        assert first.count(token) / 20_000 == pytest.approx(p, abs=5 * (p * (1 - p) / 20_000) ** 0.5)


@pytest.mark.parametrize("max_length", [16, 20, 30])
def test_with_little_room_all_that_is_written_are_molecules(max_length):
    # a bond symbol as the last token, with the atom after it and the end one too many, once got through
    written = [text for seed in range(3) for text in generate(Markov(seed), TOKENIZER, 1_000, max_length=max_length)]
    assert [text for text, mol in zip(written, molecules(written), strict=True) if mol is None] == []
    assert max(len(TOKENIZER.encode([text])[0]) for text in written) <= max_length


class Astray:
    """Writes "O" half of the time, "C" a quarter, and "C(", which is no molecule, a quarter."""

    def start(self, z, n):
        return (torch.zeros(n, 1),)

    def step(self, ids, state):
        table = torch.full((len(TOKENIZER), len(TOKENIZER)), -30.0)
        table[1, IDS["C"]] = table[1, IDS["O"]] = table[IDS["C"], 2] = table[IDS["C"], IDS["("]] = 0.0
        table[IDS["O"], 2] = table[IDS["("], 2] = 0.0
        return table[ids], state


def test_a_string_that_goes_astray_is_drawn_anew():
    n = 4_000
    written = generate(Astray(), TOKENIZER, n, seed=5, max_length=20)
    # of the molecules two thirds are water; had the mask told the strings how to go on, it would be half of them
    draws = [0.25**k for k in range(3)]
    expected = 0.5 * sum(draws)
    # a "C(" that is left after three draws goes on as the mask says
    assert written.count("O") / n == pytest.approx(expected, abs=5 * (expected * (1 - expected) / n) ** 0.5)
    assert abs(written.count("O") / n - 0.5) > 10 * (0.25 / n) ** 0.5
    assert all(mol is not None for mol in molecules(written))
    assert {"O", "C"} < set(written)


class Garden:
    """The most probable first token leads into a string that is less probable than another."""

    def start(self, z, n):
        return (torch.zeros(n, 1),)

    def step(self, ids, state):
        table = torch.full((len(TOKENIZER), len(TOKENIZER)), -30.0)
        table[1, IDS["C"]], table[1, IDS["O"]] = np.log(0.6), np.log(0.4)
        for token in "COFn":
            table[IDS["C"], IDS[token]] = np.log(0.25)
        table[IDS["O"], 2] = np.log(1.0)
        table[IDS["F"], 2] = table[IDS["n"], 2] = 0.0
        return table[ids], state


def test_beam_search_finds_the_most_probable_string():
    assert generate(Garden(), TOKENIZER, 2, temperature=0, beam=4) == ["O", "O"]
    assert generate(Garden(), TOKENIZER, 2, temperature=0)[0].startswith("C")


def test_beam_of_certain_decoders_is_greedy():
    texts = ["CCO", "c1ccccc1", "C(F)F"]
    z = codes(0, 2, 1)
    assert generate(Fixed(texts), TOKENIZER, z, temperature=0, beam=3) == ["CCO", "C(F)F", "c1ccccc1"]


def test_strings_end_at_the_most_tokens():
    assert generate(Fixed(["C" * 30]), TOKENIZER, codes(0), temperature=0, mask=False, max_length=5) == ["C" * 5]
    # with the mask, there is room for the end
    assert generate(Fixed(["C" * 30]), TOKENIZER, codes(0), temperature=0, max_length=5) == ["C" * 4]


def test_selfies_need_no_mask():
    tokenizer = Tokenizer(["[C]", "[=C]", "[Ring1]", "[Branch1]", "[F]"], "selfies")
    strings = generate(Markov(n_tokens=len(tokenizer)), tokenizer, 20, max_length=20)
    assert all(mol is not None for text, mol in zip(strings, molecules(strings), strict=True) if text)


def test_molecules_are_objects_of_their_own():
    first, second, third = molecules(["CCO", "CCO", "OCC"])
    first.SetProp("_Name", "changed")
    assert not second.HasProp("_Name") and not third.HasProp("_Name")
    assert [atom.GetSymbol() for atom in third.GetAtoms()] == ["C", "C", "O"]


def test_nothing():
    assert generate(Markov(), TOKENIZER, 0) == []


def test_mixed_precision_is_that_of_a_copy():
    from molml.molecules.decoder import Decoder

    decoder = Decoder(len(TOKENIZER), 2, hidden=8, seed=0).eval()
    z = torch.zeros(3, 2)
    assert generate(decoder, TOKENIZER, z, temperature=0, mixed_precision=True, max_length=9)
    assert decoder.output.weight.dtype == torch.float32


def test_mixed_precision_gives_the_same_certain_strings():
    assert generate(Fixed(["CCO"]), TOKENIZER, codes(0), temperature=0, mixed_precision=True) == ["CCO"]


def test_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    generate(Markov(), TOKENIZER, 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_molecules_are_canonical_and_keep_their_place():
    found = molecules(["OCC", "", "C1C", "C(C)O", "c1ccccc1"])
    assert [mol and Chem.MolToSmiles(mol) for mol in found] == ["CCO", None, None, "CCO", "c1ccccc1"]
    assert [atom.GetSymbol() for atom in found[0].GetAtoms()] == ["C", "C", "O"]
    found[0].GetAtomWithIdx(0).SetAtomicNum(7)
    assert Chem.MolToSmiles(found[3]) == "CCO"


def test_unique_molecules():
    found = different_molecules(["OCC", "x", "C(C)O", "C"])
    assert {smiles: Chem.MolToSmiles(mol) for smiles, mol in found.items()} == {"CCO": "CCO", "C": "C"}


class Broken(Markov):
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (Broken(torch.zeros(12, 5)), r"logits of shape \(2, 12\), got \(2, 5\)"),
        (Broken(torch.full((12, 12), torch.nan)), "finite logits, got NaN"),
    ],
)
def test_wrong_decoders(decoder, message):
    with pytest.raises(ValueError, match=message):
        generate(decoder, TOKENIZER, 2)


@pytest.mark.parametrize(
    ("z", "options", "error", "message"),
    [
        (True, {}, TypeError, "z must be a Tensor of codes or a number of strings, got bool"),
        ("C", {}, TypeError, "z must be a Tensor"),
        (torch.zeros(3), {}, ValueError, r"z must have shape \(n, n_latent\), got \(3,\)"),
        (torch.full((1, 2), torch.nan), {}, ValueError, "z must be finite"),
        (-1, {}, ValueError, "number of strings of at least 0, got -1"),
        (1, {"temperature": -1.0}, ValueError, "temperature must be 0"),
        (1, {"temperature": float("nan")}, ValueError, "temperature must be 0"),
        (1, {"beam": 0}, ValueError, "beam must be an integer of at least 1"),
        (1, {"beam": 2}, ValueError, "beam search looks for the most probable string"),
        (1, {"max_length": 1}, ValueError, "max_length must be"),
        (1, {"seed": -1}, ValueError, "seed must be"),
        (1, {"batch_size": 0.5}, ValueError, "batch_size must be"),
    ],
)
def test_what_is_refused(z, options, error, message):
    with pytest.raises(error, match=message):
        generate(Markov(), TOKENIZER, z, **options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_strings_of_a_decoder_that_knows_nothing_are_molecules_with_the_mask_alone(seed, temperature):
    decoder = Markov(seed=seed, scale=2.0)
    noise = {"temperature": temperature, "max_length": 50, "seed": seed}
    written = molecules(generate(decoder, TOKENIZER, 100, **noise))
    without = molecules(generate(decoder, TOKENIZER, 100, mask=False, **noise))
    assert sum(mol is not None for mol in written) >= 99
    assert sum(mol is not None for mol in without) < 50
