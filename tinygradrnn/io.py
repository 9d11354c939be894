"""Arrays and JSON on disk, written so that a file is always either the old one or the new one.

A checkpoint is one file: the arrays as safetensors, and everything that is not an array (settings,
the position in the data, the state of a random generator) as one JSON text in the metadata of its
header. Renaming a finished file over the old one is a single step of the file system, so weights,
optimiser, carried state and position change together or not at all, and no kill or power cut can
pair the weights of one step with the position of another. Two files could not promise that. Any
safetensors reader can open the file, and nothing in it is ever executed, as a pickle would be.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygradrnn.errors import CheckpointError

# The safetensors types that NumPy has.
_DTYPES = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": "complex64",
}

_MAX_HEADER = 100_000_000  # the limit of the safetensors library itself


# ------------------------------------------------------------------------------------- checkpoints


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, ArrayLike],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write named arrays and a JSON object to one safetensors file, atomically.

    Args:
        path: The file. Its folder must exist.
        tensors: Host arrays of any shape and memory order.
        metadata: Anything ``json.dumps`` takes. Integers of any size (a generator's 128-bit state)
            and floats come back exactly, tuples as lists.

    Raises:
        CheckpointError: The file cannot be written, an array has a type safetensors lacks, or the
            safetensors package is missing. What was at `path` is then still there.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     save(path, {"w": np.eye(2)}, {"step": 7})
    ...     tensors, metadata = load(path)
    >>> tensors["w"].tolist(), metadata
    ([[1.0, 0.0], [0.0, 1.0]], {'step': 7})
    """
    library = _safetensors()
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        # The library writes memory as it lies, so a transposed view would come back garbled.
        # asarray, as ascontiguousarray would turn a scalar into shape (1,).
        array = np.asarray(tensor, order="C")
        if array.dtype.name not in _DTYPES.values():
            raise CheckpointError(
                f"cannot write {path}: safetensors has no type for {name!r}, {array.dtype}"
            )
        arrays[name] = array
    if "__metadata__" in arrays:
        raise CheckpointError(f"cannot write {path}: the name '__metadata__' is taken")
    text = json.dumps(dict(metadata or {}))
    if len(text) > _MAX_HEADER // 2:
        raise CheckpointError(
            f"cannot write {path}: {len(text)} bytes of metadata; large data belongs in arrays"
        )
    write_atomic(path, library.save(arrays, {"tinygradrnn": text}))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays and the JSON object of a safetensors file.

    Args:
        path: A file that :func:`save` or any other program wrote as safetensors.

    Returns:
        The arrays by name, writable and not tied to the file; and the metadata, empty if another
        program wrote the file.

    Raises:
        CheckpointError: Missing, unreadable, truncated, not safetensors, with a header that makes
            no sense or a type NumPy lacks; or the safetensors package is missing.

    >>> load("nowhere.safetensors")
    Traceback (most recent call last):
    ...
    tinygradrnn.errors.CheckpointError: cannot read nowhere.safetensors: No such file or directory
    """
    library = _safetensors()
    from safetensors import SafetensorError

    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Before anything believes what the header says, it has to be possible.
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, _MAX_HEADER):
                raise CheckpointError(
                    f"{path} is truncated or not a safetensors file: a header of {length} bytes"
                    f" does not fit in a file of {size}"
                )
            header = file.read(length)
            metadata = _read_header(path, header)
            data = b"".join((start, header, file.read()))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return library.load(data), metadata
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        cause = " ".join(str(error).removeprefix("Error while deserializing: ").split())
        raise CheckpointError(f"{path} is truncated or damaged: {cause}") from error


def _read_header(path: str | os.PathLike[str], data: bytes) -> dict[str, Any]:
    """Our metadata in a safetensors header, whose types are checked on the way."""
    header = _parse_object(path, data)
    foreign = header.pop("__metadata__", None)
    for name, entry in header.items():
        match entry:
            case {"dtype": str(dtype)} if dtype in _DTYPES:
                pass
            case {"dtype": dtype}:
                raise CheckpointError(f"{path}: {name!r} has type {dtype!r}, which NumPy lacks")
            case _:
                raise CheckpointError(f"{path} is damaged: {name!r} is not described as a tensor")
    match foreign:
        case {"tinygradrnn": str(text)}:
            return _parse_object(path, text.encode("utf-8", "surrogatepass"))
        case _:
            return {}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise CheckpointError(
            "checkpoints need the package safetensors: pip install safetensors"
        ) from error
    return safetensors.numpy


# -------------------------------------------------------------------------------------------- JSON


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as JSON, indented for reading, atomically.

    Raises:
        CheckpointError: The file cannot be written. What was at `path` is then still there.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_json(os.path.join(folder, "a.json"), {"seed": 2**100})
    ...     load_json(os.path.join(folder, "a.json"))
    {'seed': 1267650600228229401496703205376}
    """
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        CheckpointError: Missing, unreadable or not JSON.

    >>> load_json("nowhere.json")
    Traceback (most recent call last):
    ...
    tinygradrnn.errors.CheckpointError: cannot read nowhere.json: No such file or directory
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    return _parse(path, data)


def _parse(path: str | os.PathLike[str], data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is damaged: JSON expected, but it is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: JSON expected, but {error}") from error


def _parse_object(path: str | os.PathLike[str], data: bytes) -> dict[str, Any]:
    value = _parse(path, data)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: a JSON object expected")
    return cast("dict[str, Any]", value)


# --------------------------------------------------------------------------------- files as a whole

_STALE = 3600.0  # seconds


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Put a file in place in one step: whoever opens `path` finds all of the old or of the new.

    The bytes go to a temporary file beside it, are forced to the disk, and the file is renamed
    over `path` (POSIX ``rename``, which is atomic); then the folder is forced to the disk too. On
    an error, and on Ctrl-C, the temporary file is removed; one that a killed process left behind is
    removed by a write to the same path an hour or more later.

    Args:
        path: The file. A symbolic link stays one, and what it points to is replaced.
        data: Its new content.

    Raises:
        CheckpointError: It cannot be written. What was at `path` is then still there.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomic(os.path.join(folder, "a"), b"hello")
    ...     os.listdir(folder)
    ['a']
    """
    target = Path(os.path.realpath(path))
    # A name of its own for each write, so that two processes never write into one file.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    # From here on the file is in place; not every system can force a folder to the disk.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    for leftover in target.parent.glob(f".{escape(target.name)}.????????.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _STALE:
                leftover.unlink()


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder if need be, and make sure now, not after an hour, that files can be written.

    Raises:
        CheckpointError: It cannot be made or written to.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_folder(os.path.join(folder, "run", "1")).is_dir()
    True
    """
    folder = Path(path)
    probe = folder / f".probe.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise CheckpointError(
            f"cannot write to folder {path}: {error.strerror or error}"
        ) from error
    return folder
