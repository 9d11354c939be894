"""What comes in from outside (numbers, lists, host arrays, data types), made the backend's own."""

from __future__ import annotations

from typing import Any

from tinygradrnn.backend import Array, Backend
from tinygradrnn.errors import DtypeError, ShapeError, TinygradrnnError
from tinygradrnn.tape import Value

Scalar = (int, float)


def as_array(value: Any, backend: Backend, dtype: Any = None) -> Array:
    """Copy numbers, nested lists or host arrays to a backend; Python floats become float32."""
    import numpy

    if backend.is_array(value):
        if not is_number(value.dtype):
            raise DtypeError(f"tensor: cannot hold {value.dtype}; expected numbers or booleans")
        copied = backend.xp.asarray(value, copy=True)
        return copied if dtype is None else backend.xp.astype(copied, resolve_dtype(backend, dtype))
    try:
        host = numpy.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, TinygradrnnError):
            raise
        raise ShapeError(f"tensor: cannot make an array of {describe(value)}: {error}") from None
    if host.dtype.kind not in "biuf":
        raise DtypeError(
            f"tensor: cannot hold {host.dtype} ({describe(value)}); expected numbers or booleans"
        )
    if dtype is None and host.dtype == numpy.float64 and not hasattr(value, "dtype"):
        host = host.astype(numpy.float32)
    try:
        array = backend.from_host(host)
    except (ValueError, TypeError) as error:
        raise DtypeError(f"tensor: {backend} cannot hold {host.dtype}: {error}") from None
    return array if dtype is None else backend.xp.astype(array, resolve_dtype(backend, dtype))


def resolve_dtype(backend: Backend, dtype: Any) -> Any:
    """The backend's own object for a dtype given by name, or as any library's dtype."""
    if isinstance(dtype, type):
        name = {float: "float32", int: "int64", bool: "bool"}.get(dtype, dtype.__name__)
    else:
        name = str(dtype).rpartition(".")[2]
    known = any(kind in name for kind in ("int", "float", "bool"))
    found = getattr(backend.xp, "bool" if name == "bool_" else name, None) if known else None
    if found is None:
        raise DtypeError(f"astype: unknown data type {dtype!r}; expected e.g. 'float32' or 'int64'")
    return found


def is_number(dtype: Any) -> bool:
    """Whether a data type is of booleans, integers or real floating-point numbers."""
    name = str(dtype).rpartition(".")[2]
    return any(name.startswith(kind) for kind in ("bool", "int", "uint", "float", "bfloat"))


def kind_of(dtype: Any) -> str:
    """One letter for the kind of a data type: boolean, integer or floating-point."""
    name = str(dtype).rpartition(".")[2]
    return "b" if name == "bool" else "i" if "int" in name else "f"


def describe(value: Any) -> str:
    """A few words on an argument, for error messages."""
    if isinstance(value, Value):
        return f"{value.raw.dtype} {tuple(value.raw.shape)} on {value.backend}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    return repr(value) if isinstance(value, (*Scalar, type(None))) else type(value).__name__
