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
from tinygradrnn.op import Op, registry
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
from tinygradrnn.tape import Leaf, Node, Step, Tape, enable_grad, no_grad, step
from tinygradrnn.tensor import Tensor, from_dlpack, tensor, transfer
