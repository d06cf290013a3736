"""The border: strings, RDKit molecules, tables and files in; checked molecules and canonical SMILES out.

Nothing else of the arm parses a string or opens a file of molecules, so what passes here is a molecule: sanitised, of
known elements, of bounded size. RDKit's log is silent; what it would have said stands in the error.
"""

import bz2
import csv
import gzip
import hashlib
import lzma
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from rdkit import Chem, rdBase

from molml.molecules.names import NAMES
from molml.molecules.tokens import SYMBOL

if TYPE_CHECKING:
    import pandas

__all__ = [
    "MoleculeError",
    "MoleculeTable",
    "as_molecules",
    "canonical",
    "iterate_molecules",
    "normalise",
    "read_molecules",
    "split_by_hash",
]

MAX_CHARACTERS = 1000
# a single aromatic ring of that size keeps RDKit busy for 30 ms, and the time grows with the square
MAX_ATOMS = 500
BOND_TYPES = (
    Chem.BondType.SINGLE,
    Chem.BondType.DOUBLE,
    Chem.BondType.TRIPLE,
    Chem.BondType.AROMATIC,
    Chem.BondType.QUADRUPLE,
    Chem.BondType.DATIVE,
)
MAX_LINE = 2**20
MAX_RECORD_LINES = 10_000
_READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)
_MISSING = ("", "na", "n/a", "nan", "none", "null")


class MoleculeError(ValueError):
    """Something that was given as a molecule and is none; the message says which item, why, and what to do."""


class MoleculeTable(NamedTuple):
    """Molecules of a file.

    Attributes
    ----------
    smiles : list of str
        Canonical SMILES, in the order of the file.
    properties : pandas.DataFrame, shape (n, n_properties)
        The columns that were asked for, float64; NaN where the file says nothing.
    skipped : list of (int, str)
        Line (from 1) and reason of every molecule that was left out.
    """

    smiles: list[str]
    properties: "pandas.DataFrame"
    skipped: list[tuple[int, str]]


def as_molecules(source: object, *, what: str = "molecules") -> list[Chem.Mol]:
    """Molecules of anything that names some.

    Parameters
    ----------
    source : Mol, str, or iterable of these
        A string is a SMILES, an InChI, or the name of an everyday molecule (`molml.molecules.names.NAMES`). Columns
        of tables and generators are iterables. One molecule gives a list of one.
    what : str
        What the source is called in errors.

    Returns
    -------
    list of rdkit.Chem.Mol
        Sanitised copies. Hydrogen atoms written in a SMILES become implicit, as usual; those of a Mol stay. Numbers
        that map atoms in reactions are dropped: they are labels, not chemistry.

    Raises
    ------
    MoleculeError
        If something is no molecule, has a placeholder atom or a query, or is too large (1000 characters, 500 atoms).

    Examples
    --------
    >>> [canonical(mol) for mol in as_molecules(["OCC", "aspirin", "InChI=1S/CH4/h1H4"])]
    ['CCO', 'CC(=O)Oc1ccccc1C(=O)O', 'C']
    """
    return list(iterate_molecules(source, what=what))


def iterate_molecules(source: object, *, what: str = "molecules") -> Iterator[Chem.Mol]:
    """The molecules of `as_molecules`, one after the other: a million of them need no memory.

    Parameters and errors as there.
    """
    if isinstance(source, str | Chem.Mol):
        yield _as_molecule(source, what)
        return
    if isinstance(source, os.PathLike):
        raise MoleculeError(f"{what} must be molecules, got the path {source}; read the file with read_molecules")
    if isinstance(source, bytes | dict) or hasattr(source, "columns") or not isinstance(source, Iterable):
        hint = "give one column of it" if hasattr(source, "columns") else "give SMILES or RDKit molecules"
        raise MoleculeError(f"{what} must be molecules or an iterable of molecules, got {_kind(source)}; {hint}")
    for index, item in enumerate(source):
        yield _as_molecule(item, f"{what}[{index}]")


def canonical(mol: Chem.Mol) -> str:
    """Canonical SMILES of a molecule, as this version of RDKit writes it.

    Parameters
    ----------
    mol : rdkit.Chem.Mol

    Returns
    -------
    str
    """
    return str(Chem.MolToSmiles(mol))


def _as_molecule(item: object, what: str) -> Chem.Mol:
    if isinstance(item, Chem.Mol):
        return _sanitised(item, what, "a Mol")
    if isinstance(item, str):
        return _parse(item, what)
    if item is None or (isinstance(item, float) and math.isnan(item)):
        raise MoleculeError(f"{what} must be a molecule, got {item}, a missing one; leave it out")
    raise MoleculeError(f"{what} must be a SMILES, an InChI, a name or an RDKit Mol, got {_kind(item)}")


def _parse(text: str, what: str) -> Chem.Mol:
    if len(text) > MAX_CHARACTERS:
        raise MoleculeError(
            f"{what} must be a string of at most {MAX_CHARACTERS} characters, got {len(text)}: {_shown(text)}"
        )
    stripped = text.strip()
    if not stripped:
        raise MoleculeError(f"{what} must be a molecule, got the empty string {_shown(text)}; leave it out")
    if len(stripped.splitlines()) > 1:
        raise MoleculeError(f"{what} must be one molecule, got several lines: {_shown(text)}; give a list of them")
    smiles = NAMES.get(stripped.lower(), stripped)
    with rdBase.BlockLogs():
        if smiles.startswith("InChI="):
            mol = Chem.MolFromInchi(smiles)
            if mol is None:
                raise MoleculeError(f"{what} must be a molecule, got an InChI that RDKit cannot read: {_shown(text)}")
        else:
            mol = _parse_smiles(smiles, what)
    _check(mol, what, _shown(text), labels=any(sign in smiles for sign in "*#:"))
    return mol


def _parse_smiles(smiles: str, what: str) -> Chem.Mol:
    # without spaces, which are refused here, there is neither a name nor a CXSMILES for RDKit to read
    reason = _syntax(smiles)
    if reason is None and len(smiles) > MAX_ATOMS:
        reason = _chemistry(smiles)
    mol = None if reason else Chem.MolFromSmiles(smiles)
    if mol is None:
        reason = reason or _chemistry(smiles) or "RDKit cannot read it"
        raise MoleculeError(f"{what} must be a molecule, got {_shown(smiles)}, which is none: {reason}")
    return mol


def _syntax(smiles: str) -> str | None:
    """What is wrong with the spelling, if it can be seen without RDKit."""
    if not smiles.isascii() or any(character.isspace() for character in smiles):
        return "a SMILES has no spaces and no characters outside ASCII, and no molecule of that name is known"
    if ">" in smiles.replace("->", ""):
        return "this is a reaction; give its molecules one by one"
    if "~" in smiles:
        return "'~' is any bond, as in a query (SMARTS)"
    end = 0
    while match := SYMBOL.match(smiles, end):
        end = match.end()
    if end < len(smiles):
        hint = " (or the name of a molecule that is not known)" if smiles.isalpha() else ""
        return f"{smiles[end : end + 12]!r} at character {end + 1} is no part of a SMILES{hint}"
    if re.search(r"\[\d{4}", smiles):
        return "isotopes have three digits at most"
    depth = 0
    for character in re.sub(r"\[[^\]]*\]|%\(\d+\)", "", smiles):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return "a branch is closed with ')' that was never opened"
    return "a branch is opened with '(' and never closed" if depth else None


def _chemistry(smiles: str) -> str | None:
    """What RDKit objects to, without its log."""
    mol: Any = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is None:
        return "its bonds or rings do not fit (a ring that is not closed, a bond to nothing, an unknown element?)"
    if mol.GetNumAtoms() > MAX_ATOMS:
        return f"it has {mol.GetNumAtoms()} atoms, and at most {MAX_ATOMS} are allowed"
    try:
        Chem.SanitizeMol(mol)
    except Chem.MolSanitizeException as error:
        return _first(error)
    return None


def _sanitised(mol: Chem.Mol, what: str, shown: str) -> Chem.Mol:
    mol = Chem.Mol(mol)
    if mol.HasQuery() or any(bond.GetBondType() not in BOND_TYPES for bond in mol.GetBonds()):
        raise MoleculeError(f"{what} must be a molecule, got {shown} with a query or an unknown bond; give a SMILES")
    _check(mol, what, shown)
    try:
        with rdBase.BlockLogs():
            Chem.SanitizeMol(mol)
    except Chem.MolSanitizeException as error:
        raise MoleculeError(f"{what} must be a molecule, got {shown}, which is none: {_first(error)}") from error
    return mol


def _check(mol: Any, what: str, shown: str, *, labels: bool = True) -> None:
    """Refuse what is no molecule, or too large; with `labels`, look at every atom and bond, too."""
    if mol.GetNumAtoms() == 0:
        raise MoleculeError(f"{what} must be a molecule, got {shown} without atoms; leave it out")
    if mol.GetNumAtoms() > MAX_ATOMS:
        raise MoleculeError(
            f"{what} must have at most {MAX_ATOMS} atoms, got {shown} with {mol.GetNumAtoms()}; leave it out"
        )
    # asking for the atoms by number is eight times faster than iterating over GetAtoms()
    for number in range(mol.GetNumAtoms() if labels else 0):
        atom = mol.GetAtomWithIdx(number)
        if atom.GetAtomicNum() == 0:
            raise MoleculeError(
                f"{what} must be a molecule, got {shown} with a placeholder atom '*'; put an element in its place"
            )
        if atom.GetAtomMapNum():
            atom.SetAtomMapNum(0)
    for number in range(mol.GetNumBonds() if labels else 0):
        bond = mol.GetBondWithIdx(number)
        if bond.GetBondType() == Chem.BondType.AROMATIC and not bond.GetIsAromatic():
            raise MoleculeError(
                f"{what} must be a molecule, got {shown} with an aromatic bond ':' outside of an aromatic ring"
            )


def _first(error: Exception, most: int = 200) -> str:
    # RDKit lists every atom that it could not treat
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[:most] + "…"


def _kind(item: object) -> str:
    # others may be as large as they like
    return (
        f"{type(item).__name__} {_shown(item)}" if isinstance(item, str | bytes | int | float) else type(item).__name__
    )


def _shown(item: object, most: int = 60) -> str:
    # long strings are cut before they are escaped: repr of a megabyte takes its time
    text = repr(item[: most + 1] if isinstance(item, str | bytes) else item)
    return text if len(text) <= most else text[:most] + "…"


def normalise(
    mol: Chem.Mol, *, salts: bool = False, charges: bool = False, stereo: bool = False
) -> tuple[Chem.Mol, list[str]]:
    """Simpler form of a molecule, and what was done to it.

    Parameters
    ----------
    mol : rdkit.Chem.Mol
    salts : bool
        Keep the component with the most heavy atoms (of equals the heavier, then the first in the alphabet).
    charges : bool
        Neutralise acids and bases by adding or removing protons; charges without a proton to move stay.
    stereo : bool
        Forget the configuration of atoms and double bonds.

    Returns
    -------
    mol : rdkit.Chem.Mol
        The same molecule, not a copy, if nothing was to be done.
    done : list of str
        One sentence per change, in the order of the keywords; empty if nothing was to be done.

    Examples
    --------
    >>> mol, done = normalise(as_molecules("C[C@H](N)C(=O)[O-].[Na+]")[0], salts=True, charges=True, stereo=True)
    >>> canonical(mol), done
    ('CC(N)C(=O)O', ['left out [Na+]', 'neutralised 1 charged atom', 'forgot the configuration of 1 atom'])
    """
    done = []
    if salts:
        parts = Chem.GetMolFrags(mol, asMols=True)
        if len(parts) > 1:
            order = sorted(parts, key=lambda part: (-part.GetNumHeavyAtoms(), -_mass(part), canonical(part)))
            mol = order[0]
            done.append(f"left out {', '.join(canonical(part) for part in order[1:])}")
    if charges:
        before = _n_charged(mol)
        if before:
            from rdkit.Chem.MolStandardize import rdMolStandardize

            with rdBase.BlockLogs():
                neutral = rdMolStandardize.Uncharger().uncharge(mol)
            if before > _n_charged(neutral):
                mol = neutral
                done.append(f"neutralised {_counted(before - _n_charged(mol), 'charged atom')}")
    if stereo:
        atoms = sum(atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED for atom in mol.GetAtoms())
        bonds = sum(bond.GetStereo() > Chem.BondStereo.STEREOANY for bond in mol.GetBonds())
        if atoms or bonds:
            mol = Chem.Mol(mol)
            Chem.RemoveStereochemistry(mol)
            counts = [_counted(n, name) for n, name in ((atoms, "atom"), (bonds, "double bond")) if n]
            done.append(f"forgot the configuration of {' and '.join(counts)}")
    return mol, done


def _mass(mol: Chem.Mol) -> float:
    return sum(atom.GetMass() for atom in mol.GetAtoms())


def _n_charged(mol: Chem.Mol) -> int:
    return sum(atom.GetFormalCharge() != 0 for atom in mol.GetAtoms())


def _counted(n: int, name: str) -> str:
    return f"{n} {name}{'s' if n > 1 else ''}"


def split_by_hash(smiles: Sequence[str], fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of a list that depend on each string alone: not on the order, and not on what else is in the list.

    A string belongs to the second part if its SHA-1, read as a fraction between 0 and 1, is below `fraction`; equal
    strings are never parted.

    Parameters
    ----------
    smiles : sequence of str
        Canonical SMILES, else spellings of one molecule may end in both parts.
    fraction : float
        Expected share of the second part.

    Returns
    -------
    rest, part : ndarray of int64
        Indices, ascending.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1.

    Examples
    --------
    >>> rest, part = split_by_hash(["C", "CC", "CCC", "CCCC"], 0.5)
    >>> rest, part
    (array([1, 2]), array([0, 3]))
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    heads = [int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big") for text in smiles]
    chosen = np.array(heads, dtype=np.uint64) / 2.0**64 < fraction
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def read_molecules(
    path: str | os.PathLike[str],
    *,
    smiles: str | None = None,
    properties: Sequence[str] = (),
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool | None = None,
) -> MoleculeTable:
    """Molecules, and columns of numbers, of a file.

    Parameters
    ----------
    path : path-like
        ``.csv`` and ``.tsv`` with a header; ``.smi``, ``.smiles`` and ``.txt`` with one SMILES per line, whatever
        follows it after white space is ignored, and so is a first line "smiles"; ``.sdf``. Each also as ``.gz``,
        ``.xz`` or ``.bz2``. Text is UTF-8. Empty lines are left out.
    smiles : str, optional
        Column of the SMILES in a table; "smiles" in any case if not given.
    properties : sequence of str
        Columns of numbers to read along, or fields of an SDF file. Empty cells and "nan" are missing values.
    on_error : "raise" or "skip"
        What to do with what is no molecule, or a value that is no number; skipped ones are counted on stderr.
    progress : bool, optional
        Show a progress bar; if not given, only if stderr is a terminal.

    Returns
    -------
    MoleculeTable

    Raises
    ------
    MoleculeError
        For the first wrong molecule or value, with file and line.
    ValueError
        If the file is of no known kind, damaged, without a needed column, or without any molecule.
    FileNotFoundError
        If there is no such file.
    """
    import pandas
    from tqdm import tqdm

    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if isinstance(properties, str):
        raise TypeError(f"properties must be a list of names, got the string {properties!r}; write [{properties!r}]")
    file = Path(path)
    strings: list[str] = []
    values: list[list[float]] = []
    skipped: list[tuple[int, str]] = []
    # tqdm's None: only if stderr is a terminal
    silent = None if progress is None else not progress
    rows = _rows(file, smiles, properties)
    for number, text, cells in tqdm(rows, desc=f"reading {file.name}", unit=" molecules", disable=silent):
        where = f"{file}, line {number}: the molecule"
        try:
            mol = _parse(text, where) if isinstance(text, str) else text(where)
            numbers = [_number(cell, where, name) for cell, name in zip(cells, properties, strict=True)]
        except MoleculeError as error:
            if on_error == "raise":
                raise MoleculeError(f"{error} (on_error='skip' leaves such lines out)") from error
            skipped.append((number, str(error).removeprefix(f"{file}, line {number}: ")))
            continue
        strings.append(canonical(mol))
        values.append(numbers)
    if skipped:
        n = len(strings) + len(skipped)
        print(
            f"{file}: {len(skipped)} of {n} left out, the first in line {skipped[0][0]}: {skipped[0][1]}",
            file=sys.stderr,
        )
    if not strings:
        raise ValueError(f"{file} must hold molecules, got {'none that can be read' if skipped else 'an empty file'}")
    table = np.array(values, dtype=np.float64).reshape(len(strings), len(properties))
    return MoleculeTable(strings, pandas.DataFrame(table, columns=list(properties)), skipped)


def read_strings(path: str | os.PathLike[str], *, smiles: str | None = None) -> list[str | None]:
    """Strings of a file as they stand there, whether they are molecules or not: what `metrics` judges.

    Parameters
    ----------
    path, smiles
        As in `read_molecules`.

    Returns
    -------
    list of str or None
        None for a record of an SDF file that is no molecule.

    Raises
    ------
    ValueError, FileNotFoundError
        As of `read_molecules`, for what concerns the file.
    """
    file = Path(path)
    found: list[str | None] = []
    for number, text, _ in _rows(file, smiles, ()):
        if isinstance(text, str):
            found.append(text)
            continue
        try:
            found.append(canonical(text(f"{file}, line {number}: the molecule")))
        except MoleculeError:
            found.append(None)
    if not found:
        raise ValueError(f"{file} must hold molecules, got an empty file")
    return found


_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
# line, string (or a function: where -> Mol), cells of the properties
_Row = tuple[int, "str | Callable[[str], Chem.Mol]", list[str]]


def _rows(file: Path, smiles: str | None, properties: Sequence[str]) -> Iterator[_Row]:
    """Rows of a file of molecules of any kind."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    packing = file.suffix.lower() if file.suffix.lower() in _OPENERS else ""
    kind = Path(file.stem if packing else file.name).suffix.lower()
    if kind not in (".csv", ".tsv", ".smi", ".smiles", ".txt", ".sdf"):
        raise ValueError(
            f"path must end in .csv, .tsv, .smi, .txt or .sdf (and .gz, .xz or .bz2), got {file.name}; "
            "save the table as .csv"
        )
    if (properties or smiles is not None) and kind in (".smi", ".smiles", ".txt"):
        raise ValueError(f"a {kind} file has no named columns, got smiles={smiles!r}, properties={list(properties)}")
    try:
        with _OPENERS.get(packing, open)(file, "rb") as stream:
            lines = _lines(stream, file)
            if kind == ".sdf":
                yield from _sdf_rows(lines, properties)
            elif kind in (".csv", ".tsv"):
                yield from _table_rows(lines, file, "," if kind == ".csv" else "\t", smiles, properties)
            else:
                yield from _plain_rows(lines)
    except _READ_ERRORS as error:
        raise ValueError(f"{file} cannot be read: {str(error) or type(error).__name__}; get the file again") from error


def _lines(stream: IO[bytes], file: Path) -> Iterator[str]:
    number = 0
    while raw := stream.readline(MAX_LINE):
        number += 1
        if len(raw) == MAX_LINE:
            raise ValueError(f"{file}, line {number} must be shorter than {MAX_LINE} bytes; is this a text file?")
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file}, line {number} must be UTF-8 text, got the byte 0x{raw[error.start]:02x}; save it as UTF-8"
            ) from error


def _plain_rows(lines: Iterator[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=1)
        if words and not (number == 1 and words[0].lower() == "smiles"):
            yield number, words[0], []


def _table_rows(
    lines: Iterator[str], file: Path, delimiter: str, smiles: str | None, properties: Sequence[str]
) -> Iterator[_Row]:
    # strict: a quote that is never closed would swallow the rest of the file
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = [_column(header, name, file) for name in properties]
        if smiles is None:
            found = [i for i, name in enumerate(header) if name.lower() == "smiles"]
            if len(found) != 1:
                raise ValueError(
                    f"{file} must have one column 'smiles', got {_shown(header, 300)}; name it with smiles=…"
                )
            column = found[0]
        else:
            column = _column(header, smiles, file)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{file}, line {reader.line_num} must have {len(header)} cells as the header has, got {len(cells)}"
                )
            yield reader.line_num, cells[column], [cells[i] for i in columns]
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num} is not {file.suffixes[0]} text: {error}") from error


def _column(header: list[str], name: str, file: Path) -> int:
    if header.count(name) != 1:
        raise ValueError(f"{file} must have one column {name!r}, got the columns {_shown(header, 300)}")
    return header.index(name)


def _sdf_rows(lines: Iterator[str], properties: Sequence[str]) -> Iterator[_Row]:
    record: list[str] = []
    start = 1
    for number, line in enumerate(lines, start=1):
        if line.startswith("$$$$"):
            yield _sdf_row(record, start, properties)
            record, start = [], number + 1
        else:
            # what is too long is no molecule: it is read to its end, not kept
            record.extend([line] if len(record) < MAX_RECORD_LINES else [])
    if len(record) == MAX_RECORD_LINES or any(line.strip() for line in record):
        yield _sdf_row(record, start, properties)


def _sdf_row(record: list[str], start: int, properties: Sequence[str]) -> _Row:
    fields = {}
    for index, line in enumerate(record):
        match = re.match(r">.*<([^>]+)>", line)
        if match and index + 1 < len(record):
            fields[match[1]] = record[index + 1].strip()

    def make(where: str) -> Chem.Mol:
        missing = [name for name in properties if name not in fields]
        if missing:
            raise MoleculeError(f"{where} must have the field {missing[0]!r}, got {_shown(list(fields), 300)}")
        return _parse_block("".join(record), where)

    return start, make, [fields.get(name, "") for name in properties]


def _parse_block(block: str, where: str) -> Chem.Mol:
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(block, sanitize=False)
        if mol is None:
            raise MoleculeError(f"{where} must be a mol block, got one that RDKit cannot read")
        mol = _sanitised(mol, where, "a mol block")
        # read again, because only a reader that sanitises takes the configuration from coordinates and wedges
        return Chem.MolFromMolBlock(block) or mol


def _number(cell: str, where: str, name: str) -> float:
    text = cell.strip()
    if text.lower() in _MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise MoleculeError(f"{where} must have a finite number as {name!r}, got {_shown(text)}")
    return value
