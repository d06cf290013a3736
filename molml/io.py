"""Files: the one container of every model and checkpoint, and atomic writing.

A container is a safetensors file, readable by any safetensors reader, whose metadata hold one entry ``molml``: a JSON
object with the kind, the configuration and the description of what is stored. The first member of that object is the
SHA-256 of the whole file, computed with its own 64 digits set to zero; it stands at a fixed place, so header and
numbers are covered alike. Nothing is ever pickled.
"""

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Container",
    "ContainerInfo",
    "ModelFileError",
    "container_info",
    "load_container",
    "save_container",
    "write_atomic",
]

_FORMAT = 1
_PREFIX = b'{"__metadata__":{"molml":"{\\"sha256\\":\\"'
_DIGEST = slice(8 + len(_PREFIX), 8 + len(_PREFIX) + 64)
_BLANK = b"0" * 64
# histories and lists of thousands of functions fit many times; a header that claims more is an attack or an accident
_MAX_HEADER = 32 * 2**20
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


class ModelFileError(ValueError):
    """A model file that is damaged, incomplete, or not a molml file at all."""


class Container(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    kind : str
        Name of the class that was saved, or ``"checkpoint"``.
    config : dict
        JSON-able configuration that rebuilds the object.
    tensors : dict of str to Tensor
        Its numbers, on the CPU.
    metadata : dict
        JSON-able description: versions, creation date, units, hash of the training data, metrics.
    """

    kind: str
    config: dict[str, Any]
    tensors: "dict[str, Tensor]"
    metadata: dict[str, Any]


class ContainerInfo(NamedTuple):
    """Description of a file, without its numbers (and without importing torch).

    Attributes
    ----------
    kind, config, metadata
        As in `Container`.
    shapes : dict of str to tuple
        Type (as safetensors writes it) and shape of every tensor, e.g. ``("F64", (3, 2))``.
    sha256 : str
        Verified digest of the file.
    n_bytes : int
        Size of the file.
    """

    kind: str
    config: dict[str, Any]
    metadata: dict[str, Any]
    shapes: dict[str, tuple[str, tuple[int, ...]]]
    sha256: str
    n_bytes: int


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at every moment either the old or the new content is there, whole.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is renamed. Temporary
    files of the same name that a killed process left behind are removed; those of a living process are not.

    Parameters
    ----------
    path : path-like
        File to write; its folder must exist. A symbolic link is followed.
    data : bytes
        The new content.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the disk is full or the folder is read-only, say; an old file is then intact.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "cannot write a file into a folder that does not exist", str(path))
    _remove_stale(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            _lock(file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write the file ({error.strerror})", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_stale(target: Path) -> None:
    for temporary in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError):
            # whoever still writes holds the lock; on Windows an open file cannot be deleted anyway
            with open(temporary, "rb") as file:
                _lock(file.fileno(), must=True)
            temporary.unlink()


def _lock(descriptor: int, must: bool = False) -> None:
    if fcntl is not None:
        # some network file systems know no locks: then writing goes on and stale files stay
        with contextlib.nullcontext() if must else contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    # without this a power failure could undo the rename; Windows cannot open folders
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_container(
    path: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    tensors: "Mapping[str, Tensor]",
    metadata: Mapping[str, Any],
) -> None:
    """Write a model or checkpoint file, atomically.

    Parameters
    ----------
    path : path-like
        File to write; its folder must exist.
    kind : str
        Name of the class, or ``"checkpoint"``.
    config, metadata : mapping
        JSON-able: strings as keys; None, bool, int, finite float, str, list, tuple (read back as list), mapping as
        values. ``versions`` and ``created`` are added to the metadata unless they are there.
    tensors : mapping of str to Tensor
        Numbers, of any device; complex and NaN or infinite ones are refused.

    Raises
    ------
    TypeError, ValueError
        If something cannot be stored; the message names the entry.
    OSError
        If the file cannot be written; an old file is then intact.
    """
    import torch
    from safetensors.torch import save

    if not isinstance(kind, str) or not kind:
        raise ValueError(f"kind must be the name of a class, got {kind!r}")
    stored = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"tensors[{name!r}] must be a Tensor, got {type(tensor).__name__}")
        if str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
            raise TypeError(f"tensors[{name!r}] must be one of {', '.join(_DTYPES)}, got {tensor.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"tensors[{name!r}] must be finite, got NaN or infinity; nothing was written")
        # cloned because safetensors refuses tensors that share memory
        stored[name] = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    if "__metadata__" in stored:
        raise ValueError("tensors must not be named '__metadata__', which safetensors reserves; rename it")
    description = {
        "sha256": _BLANK.decode(),
        "format": _FORMAT,
        "kind": kind,
        "config": _json_able(config, "config"),
        "metadata": {"versions": _versions(), "created": _now()} | _json_able(metadata, "metadata"),
    }
    text = json.dumps(description, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    data = save(stored, metadata={"molml": text})
    if _header_length(data) > _MAX_HEADER:
        raise ValueError(
            f"config and metadata must take less than {_MAX_HEADER} bytes as JSON, got {_header_length(data)}; "
            "store long lists as tensors"
        )
    if not data.startswith(_PREFIX + _BLANK, 8):
        raise RuntimeError("this version of safetensors writes another header than molml expects; install 0.8")
    digest = hashlib.sha256(data).hexdigest().encode()
    write_atomic(path, data[: _DIGEST.start] + digest + data[_DIGEST.stop :])


def load_container(path: str | os.PathLike[str]) -> Container:
    """Read and verify a file written by `save_container`.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Container

    Raises
    ------
    ModelFileError
        If the file is damaged or truncated in any bit, is no molml file, or holds NaN or infinite numbers.
    OSError
        If the file cannot be read.
    """
    data, info = _read(path)

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelFileError(f"{path} is not a valid molml file: {error}; get the file again") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelFileError(f"{path} must hold finite numbers, got NaN or infinity in {name!r}; do not use it")
    return Container(info.kind, info.config, tensors, info.metadata)


def container_info(path: str | os.PathLike[str]) -> ContainerInfo:
    """Verify a file and describe it, without making its tensors.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    ContainerInfo

    Raises
    ------
    ModelFileError
        As in `load_container`, except that NaN and infinite numbers are not looked for.
    OSError
        If the file cannot be read.
    """
    return _read(path)[1]


def _read(path: str | os.PathLike[str]) -> tuple[bytes, ContainerInfo]:
    with open(path, "rb") as file:
        start = file.read(_DIGEST.stop)
        # before the rest is read: a wrong file may be as large as the disk
        if len(start) < _DIGEST.stop or not start.startswith(_PREFIX, 8):
            raise ModelFileError(
                f"{path} is not a molml file, or its first bytes are damaged; expected a file written by molml "
                "(model.molml, checkpoint.molml)"
            )
        length = _header_length(start)
        size = os.fstat(file.fileno()).st_size
        if length > min(_MAX_HEADER, size - 8):
            raise ModelFileError(
                f"{path} is damaged: its header must fit into {min(_MAX_HEADER, size - 8)} bytes, got {length}; "
                "get the file again"
            )
        data = start + file.read()
    claimed = data[_DIGEST]
    actual = hashlib.sha256(data[: _DIGEST.start] + _BLANK + data[_DIGEST.stop :]).hexdigest()
    if claimed != actual.encode():
        raise ModelFileError(
            f"{path} is damaged or was changed: its SHA-256 must be {claimed.decode('ascii', 'replace')}, "
            f"got {actual}; get the file again"
        )
    try:
        kind, config, metadata, shapes = _parse(data[8 : 8 + length])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{path} is not a valid molml file: {type(error).__name__}: {error}; get the file again"
        ) from error
    return data, ContainerInfo(kind, config, metadata, shapes, actual, len(data))


def _header_length(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


_Shapes = dict[str, tuple[str, tuple[int, ...]]]


def _parse(header: bytes) -> tuple[str, dict[str, Any], dict[str, Any], _Shapes]:
    entries = _loads(header.decode())
    attributes = entries.pop("__metadata__")
    if list(attributes) != ["molml"]:
        raise ValueError(f"expected one entry 'molml' in the header's metadata, got {list(attributes)}")
    description = _loads(attributes["molml"])
    if description["format"] != _FORMAT:
        raise ValueError(
            f"expected a file of format {_FORMAT}, got format {description['format']}; install a newer molml"
        )
    kind = description["kind"]
    if not isinstance(kind, str):
        raise ValueError(f"expected a string as kind, got {kind!r}")
    config = _json_able(description["config"], "config")
    metadata = _json_able(description["metadata"], "metadata")
    shapes = {name: (str(entry["dtype"]), tuple(entry["shape"])) for name, entry in entries.items()}
    return kind, config, metadata, shapes


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        # two readers could understand two different things
        raise ValueError(f"expected each key once, got {sorted({k for k, _ in pairs})} for {len(pairs)} entries")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected finite numbers, got {name}")


def _json_able(value: object, name: str) -> dict[str, Any]:
    """Plain copy of a mapping, checked: what is stored is what will be read."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, got {type(value).__name__}")
    return _plain(value, name)


def _plain(value: object, name: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}; leave it out or store None")
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{name} must have strings as keys, got {key!r}; JSON knows no others")
        return {key: _plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    found = f"{type(value).__module__}.{type(value).__name__}"
    raise TypeError(
        f"{name} must be None, bool, int, float, str, list or mapping, got {found}; convert it or store it as a tensor"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    import platform

    import numpy
    import torch

    from molml import __version__

    return {
        "molml": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }
