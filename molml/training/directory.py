"""The folder of a run: one writer at a time, and nothing of an earlier run is ever lost."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
FILES = ("model.molml", "checkpoint.molml", "metrics.json", "metrics.jsonl", "report.html")
"""What a run of any arm writes; they tell that a folder holds one."""


@contextmanager
def run_directory(
    path: str | os.PathLike[str], *, resume: bool = False, overwrite: bool = False, files: Sequence[str] = FILES
) -> Iterator[Path]:
    """Folder for the files of a run, made if need be, and kept for this process alone until the block ends.

    The lock belongs to the process: if that dies, however it dies, the next one takes the folder over.

    Parameters
    ----------
    path : path-like
    resume : bool
        Go on with the run that the folder holds.
    overwrite : bool
        Move the run that the folder holds to its sub-folder `previous-1` (2, 3 …) and begin anew.
    files : sequence of str
        Patterns of the names of everything that a run writes. Whatever else is in the folder is left alone.

    Yields
    ------
    Path

    Raises
    ------
    ValueError
        If the folder holds a run and neither `resume` nor `overwrite` is given, or both are; if it is a file; or if
        another process is writing to it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, run_directory(folder) as run:
    ...     (run / "model.molml").write_text("a model") and (run / ".lock").exists()
    True
    """
    folder = Path(path)
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: go on with the run in the folder, or begin anew")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} must be a folder, got a file; choose another name for the output")
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        warnings.warn(f"this system has no file locks: see to it that nothing else writes to {folder}", stacklevel=3)
    descriptor = None if fcntl is None else _lock(folder)
    try:
        found = list(dict.fromkeys(entry for pattern in files for entry in sorted(folder.glob(pattern))))
        if found and not (resume or overwrite):
            names = ", ".join(entry.name for entry in found[:3]) + (" …" if len(found) > 3 else "")
            raise ValueError(
                f"{folder} already holds a run ({names}); go on with it (--resume), set it aside and begin "
                "anew (--overwrite), or choose another folder"
            )
        if found and overwrite:
            _set_aside(folder, found)
        yield folder
    finally:
        if descriptor is not None:
            # removed while still locked: who waits for the old file sees that it is gone
            (folder / LOCK).unlink(missing_ok=True)
            os.close(descriptor)


def _lock(folder: Path) -> int:
    """Descriptor of the locked lock file; the operating system frees it when the process ends."""
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _try_lock(descriptor):
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise ValueError(
                f"{folder} is being written to by {owner}; wait until it has finished, stop it, or choose "
                "another folder"
            )
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except FileNotFoundError:
            same = False
        if same:
            break
        # its owner removed it between our opening and our locking it
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _set_aside(folder: Path, entries: Sequence[Path]) -> None:
    number = 1
    while True:
        aside = folder / f"previous-{number}"
        try:
            aside.mkdir()
            break
        except FileExistsError:
            number += 1
    for entry in entries:
        entry.rename(aside / entry.name)
