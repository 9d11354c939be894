"""Reverse-mode autodiff for recurrent networks, with time on the tape.

>>> import tinygradrnn as tgr
>>> w = tgr.tensor([1.0, 2.0], requires_grad=True)
>>> (w * w).sum().backward()
>>> w.grad
tensor([2., 4.])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinygradrnn.autodiff import backward, grad, jacobian, jvp, vjp
from tinygradrnn.backend import (
    Backend,
    BackendInfo,
    backends,
    current_backend,
    get_backend,
    use_backend,
)
from tinygradrnn.creation import arange, eye, full, linspace, ones, zeros
from tinygradrnn.errors import TinygradrnnError
from tinygradrnn.namespace import registry
from tinygradrnn.op import Op
from tinygradrnn.ops.compare import (
    all,
    any,
    argmax,
    argmin,
    equal,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
    ones_like,
    zeros_like,
)
from tinygradrnn.ops.elementwise import (
    abs,
    add,
    astype,
    ceil,
    clip,
    cos,
    divide,
    exp,
    expm1,
    floor,
    floor_divide,
    gelu,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    positive,
    pow,
    relu,
    remainder,
    round,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    square,
    subtract,
    tanh,
    where,
)
from tinygradrnn.ops.gates import (
    clip_cotangent,
    gate,
    hold,
    trajectory,
)
from tinygradrnn.ops.indexing import (
    add_at,
    flat_positions,
    getitem,
    nonzero,
    place,
    ravel_index,
    take,
    take_along_axis,
)
from tinygradrnn.ops.linalg import (
    linear,
    matmul,
    tensordot,
    vecdot,
)
from tinygradrnn.ops.losses import (
    cross_entropy,
    log_softmax,
    mse,
    softmax,
)
from tinygradrnn.ops.recurrence import (
    linear_recurrence,
)
from tinygradrnn.ops.reduce import (
    cumulative_sum,
    logsumexp,
    max,
    mean,
    min,
    prod,
    standardize,
    std,
    sum,
    var,
)
from tinygradrnn.ops.shape import (
    broadcast_to,
    concat,
    expand_dims,
    flip,
    matrix_transpose,
    moveaxis,
    permute_dims,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    unstack,
)
from tinygradrnn.scan import scan  # the function, on purpose: see the room of that name
from tinygradrnn.tape import Leaf, Node, Step, Tape, enable_grad, no_grad, step
from tinygradrnn.tensor import Tensor, from_dlpack, tensor, transfer
from tinygradrnn.watch import watch

if TYPE_CHECKING:
    from tinygradrnn.anomaly import detect_anomaly
    from tinygradrnn.scan.explain import explain

__version__ = "0.1.0"

_LAZY = ("bptt", "data", "io", "nn", "onnx", "optim", "testing", "tree", "viz")


def __getattr__(name: str) -> Any:
    # Loaded when first asked for, so that ``import tinygradrnn`` stays quick.
    if name in _LAZY:
        return importlib.import_module(f"tinygradrnn.{name}")
    if name == "detect_anomaly":
        return importlib.import_module("tinygradrnn.anomaly").detect_anomaly
    if name == "explain":
        return importlib.import_module("tinygradrnn.scan.explain").explain
    raise AttributeError(f"module 'tinygradrnn' has no attribute {name!r}")


__all__ = [
    "Backend",
    "BackendInfo",
    "Leaf",
    "Node",
    "Op",
    "Step",
    "Tape",
    "Tensor",
    "TinygradrnnError",
    "abs",
    "add",
    "add_at",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "astype",
    "backends",
    "backward",
    "broadcast_to",
    "ceil",
    "clip",
    "clip_cotangent",
    "concat",
    "cos",
    "cross_entropy",
    "cumulative_sum",
    "current_backend",
    "detect_anomaly",
    "divide",
    "enable_grad",
    "equal",
    "exp",
    "expand_dims",
    "explain",
    "expm1",
    "eye",
    "flat_positions",
    "flip",
    "floor",
    "floor_divide",
    "from_dlpack",
    "full",
    "gate",
    "gelu",
    "get_backend",
    "getitem",
    "grad",
    "greater",
    "greater_equal",
    "hold",
    "isfinite",
    "isinf",
    "isnan",
    "jacobian",
    "jvp",
    "less",
    "less_equal",
    "linear",
    "linear_recurrence",
    "linspace",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "matmul",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "mse",
    "multiply",
    "negative",
    "no_grad",
    "nonzero",
    "not_equal",
    "ones",
    "ones_like",
    "permute_dims",
    "place",
    "positive",
    "pow",
    "prod",
    "ravel_index",
    "registry",
    "relu",
    "remainder",
    "reshape",
    "roll",
    "round",
    "scan",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "standardize",
    "std",
    "step",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tanh",
    "tensor",
    "tensordot",
    "trajectory",
    "transfer",
    "unstack",
    "use_backend",
    "var",
    "vecdot",
    "vjp",
    "watch",
    "where",
    "zeros",
    "zeros_like",
]
