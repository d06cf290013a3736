"""Strings of molecules as sequences of whole numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, final

import numpy as np

__all__ = ["SPECIAL", "Tokenizer", "UnknownTokenError", "split_smiles"]

SPECIAL = ("<pad>", "<start>", "<end>")
# a bracket atom, an element of the organic subset, an aromatic one, a bond, a branch, a ring number
SYMBOL = re.compile(r"\[[^\[\]]+\]|Cl|Br|[BCNOFPSI]|[bcnops]|->|<-|[-=#$:~/\\.()*]|%\d\d|%\(\d{3,5}\)|\d")
MAX_SHOWN = 60


class UnknownTokenError(ValueError):
    """A molecule with a token that is not in the vocabulary.

    Attributes
    ----------
    molecule, token : str
    """

    def __init__(self, message: str, molecule: str, token: str) -> None:
        super().__init__(message)
        self.molecule, self.token = molecule, token


def split_smiles(smiles: str) -> list[str]:
    """Symbols of a SMILES: bracket atoms, elements of two letters and ring numbers above 9 are one symbol each.

    Parameters
    ----------
    smiles : str

    Returns
    -------
    list of str

    Raises
    ------
    UnknownTokenError
        At the first character that cannot stand in a SMILES.

    Examples
    --------
    >>> split_smiles("Clc1cc([N+](=O)[O-])cs1")
    ['Cl', 'c', '1', 'c', 'c', '(', '[N+]', '(', '=', 'O', ')', '[O-]', ')', 'c', 's', '1']
    """
    symbols = SYMBOL.findall(smiles)
    if sum(map(len, symbols)) != len(smiles):
        end = 0
        while match := SYMBOL.match(smiles, end):
            end = match.end()
        raise UnknownTokenError(
            f"{_shown(smiles)} is not a SMILES: {smiles[end : end + 1]!r} at character {end + 1} is no symbol of one",
            smiles,
            smiles[end : end + 1],
        )
    return symbols


@final
class Tokenizer:
    """Vocabulary of a model: SMILES to numbers and back.

    Parameters
    ----------
    vocabulary : sequence of str
        Tokens, without repetition. They are numbered in this order after the three special ones,
        "<pad>", "<start>", "<end>" = 0, 1, 2, with which the sequence may or may not begin.
    kind : "smiles" or "selfies"
        What the tokens are. Strings given and returned are SMILES in both cases; the package selfies translates.

    Attributes
    ----------
    vocabulary : tuple of str
        All tokens, the special ones first.
    kind : str
    config : dict
        JSON-able; `from_config` makes the same tokenizer of it.

    Raises
    ------
    TypeError, ValueError
        If a token is no string, empty, or there twice, or `kind` is unknown.
    ImportError
        If kind is "selfies" and the package selfies is missing.

    References
    ----------
    SMILES: Weininger, J. Chem. Inf. Comput. Sci. 28, 31 (1988). SELFIES: Krenn et al., Mach. Learn.: Sci. Technol. 1,
    045024 (2020).

    Examples
    --------
    >>> tokenizer = Tokenizer.from_strings(["CCO", "ClCCl"])
    >>> tokenizer.vocabulary
    ('<pad>', '<start>', '<end>', 'C', 'Cl', 'O')
    >>> tokenizer.encode(["CCO"])
    [array([3, 3, 5, 2], dtype=int16)]
    >>> tokenizer.decode([4, 3, 4, 2, 0, 0])
    'ClCCl'
    """

    def __init__(self, vocabulary: Sequence[str], kind: Literal["smiles", "selfies"] = "smiles") -> None:
        if isinstance(vocabulary, str) or not all(isinstance(token, str) and token for token in vocabulary):
            raise TypeError(f"vocabulary must be a list of non-empty strings, got {vocabulary!r:.60}")
        if kind not in ("smiles", "selfies"):
            raise ValueError(f"kind must be 'smiles' or 'selfies', got {kind!r}")
        tokens = tuple(vocabulary)
        if tokens[: len(SPECIAL)] != SPECIAL:
            tokens = SPECIAL + tokens
        twice = [token for token, n in Counter(tokens).items() if n > 1]
        if twice:
            raise ValueError(f"vocabulary must have every token once, got {twice[0]!r} twice; leave one out")
        if not len(SPECIAL) < len(tokens) < 2**15:
            raise ValueError(f"vocabulary must have 1 to {2**15 - 1 - len(SPECIAL)} tokens, got {len(tokens) - 3}")
        if kind == "selfies":
            _selfies()
        self.vocabulary, self.kind = tokens, kind
        self._ids = {token: number for number, token in enumerate(tokens)}

    @classmethod
    def from_strings(
        cls, smiles: Iterable[str], kind: Literal["smiles", "selfies"] = "smiles", min_count: int = 1
    ) -> "Tokenizer":
        """Tokenizer with the tokens that occur in some molecules.

        Parameters
        ----------
        smiles : iterable of str
        kind : "smiles" or "selfies"
        min_count : int
            Tokens that occur less often are left out.

        Returns
        -------
        Tokenizer
            Its tokens in alphabetical order: the same for any order of the molecules.

        Raises
        ------
        ValueError
            If a string cannot be split, or no token is frequent enough.
        """
        if isinstance(smiles, str):
            raise TypeError(
                f"smiles must be a list of strings, got the string {_shown(smiles)}; write [{_shown(smiles)}]"
            )
        if not isinstance(min_count, int) or min_count < 1:
            raise ValueError(f"min_count must be an integer of at least 1, got {min_count!r}")
        counts: Counter[str] = Counter()
        for text in smiles:
            counts.update(_split(text, kind))
        frequent = sorted(token for token, n in counts.items() if n >= min_count)
        if not frequent:
            raise ValueError(f"smiles must hold tokens that occur {min_count} times, got none; lower min_count")
        return cls(frequent, kind)

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description."""
        return {"kind": self.kind, "vocabulary": list(self.vocabulary)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Tokenizer":
        """The tokenizer of a `config`."""
        return cls(config["vocabulary"], config["kind"])

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.config == other.config

    def __hash__(self) -> int:
        return hash((self.vocabulary, self.kind))

    def __repr__(self) -> str:
        return f"Tokenizer({len(self) - len(SPECIAL)} {self.kind} tokens)"

    def encode(self, smiles: Sequence[str]) -> list[np.ndarray]:
        """Numbers of the tokens of every molecule.

        Parameters
        ----------
        smiles : sequence of str

        Returns
        -------
        list of ndarray of int16, shape (n_tokens + 1,)
            The last number is that of "<end>"; there is none for the start.

        Raises
        ------
        UnknownTokenError
            If a token is not in the vocabulary; names molecule and token.
        """
        if isinstance(smiles, str):
            raise TypeError(
                f"smiles must be a list of strings, got the string {_shown(smiles)}; write [{_shown(smiles)}]"
            )
        ids, result = self._ids, []
        for index, text in enumerate(smiles):
            tokens = _split(text, self.kind)
            tokens.append("<end>")
            try:
                result.append(np.array([ids[token] for token in tokens], dtype=np.int16))
            except KeyError as error:
                token = str(error.args[0])
                raise UnknownTokenError(
                    f"molecule {index}, {_shown(text)}, has the token {token!r}, which is not among the "
                    f"{len(self) - len(SPECIAL)} tokens of this vocabulary; leave the molecule out or normalise it "
                    "(salts, charges, stereo)",
                    text,
                    token,
                ) from error
        return result

    def unknown(self, smiles: str) -> list[str]:
        """Tokens of a molecule that are not in the vocabulary, each once; empty for one that can be encoded.

        Parameters
        ----------
        smiles : str

        Returns
        -------
        list of str
        """
        return [token for token in dict.fromkeys(_split(smiles, self.kind)) if token not in self._ids]

    def decode(self, ids: Iterable[int]) -> str:
        """SMILES of a sequence of numbers, up to the first "<end>".

        Parameters
        ----------
        ids : iterable of int

        Returns
        -------
        str
            What the tokens spell, be it a molecule or not. "<pad>" and "<start>" inside are spelled out in SMILES,
            which makes them none, and mean nothing in SELFIES.

        Raises
        ------
        ValueError
            If a number is not in the vocabulary.
        """
        tokens, known = [], self.vocabulary
        for number in ids:
            if not 0 <= number < len(known):
                raise ValueError(
                    f"ids must lie in 0…{len(self) - 1}, got {number}; is this another model's vocabulary?"
                )
            if number == 2:
                break
            tokens.append(known[int(number)])
        if self.kind == "smiles":
            return "".join(tokens)
        return str(_selfies().decoder("".join(token for token in tokens if token not in SPECIAL)))


def _split(smiles: str, kind: str) -> list[str]:
    if not isinstance(smiles, str):
        raise TypeError(f"smiles must be strings, got {type(smiles).__name__} {smiles!r:.60}; use canonical(mol)")
    if kind == "smiles":
        return split_smiles(smiles)
    selfies = _selfies()
    try:
        return list(selfies.split_selfies(selfies.encoder(smiles)))
    except (selfies.EncoderError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UnknownTokenError(f"{_shown(smiles)} cannot be written as SELFIES: {reason}", smiles, smiles) from error


def _selfies() -> Any:
    try:
        import selfies
    except ImportError as error:
        raise ImportError(
            "SELFIES need the package selfies; install it with `pip install molml-lab[selfies]`"
        ) from error
    return selfies


def _shown(text: str) -> str:
    return repr(text) if len(text) <= MAX_SHOWN else repr(text[:MAX_SHOWN]) + "…"
