"""Layers without memory: they treat every time step alike."""

from __future__ import annotations

from typing import Any, cast

from tinygradrnn.creation import ones, zeros
from tinygradrnn.errors import IndexRangeError, ShapeError
from tinygradrnn.nn import init
from tinygradrnn.nn.module import Module
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.op import as_value
from tinygradrnn.ops.elementwise import multiply
from tinygradrnn.ops.indexing import take
from tinygradrnn.ops.linalg import linear
from tinygradrnn.ops.reduce import standardize
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


def check_sizes(layer: str, **sizes: Any) -> None:
    """Raise a ShapeError for a size that is not a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ShapeError(f"{layer}: {name}={size!r}; expected a positive integer")


def _tensor(x: Any) -> Tensor:
    """`x` itself if it is a Tensor, else a copy of it on the current backend."""
    return cast("Tensor", as_value(x))


class Linear(Module):
    """``x @ weight.T + bias`` over the last axis.

    Shapes: x ``(..., in_features)``, weight ``(out_features, in_features)``, bias
    ``(out_features,)``; result ``(..., out_features)``.

    Args:
        in_features, out_features: The sizes of the last axis before and after.
        bias: Whether there is one.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(in_features).
        dtype: The parameters' dtype.

    >>> tgr.nn.Linear(3, 2)(tgr.ones((7, 5, 3))).shape
    (7, 5, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        rng = init.generator(rng)
        shape = (out_features, in_features)
        self.weight = Parameter(init.kaiming_uniform(shape, rng=rng, dtype=dtype))
        self.bias: Parameter | None = None
        if bias:
            drawn = init.fan_in_uniform((out_features,), in_features, rng=rng, dtype=dtype)
            self.bias = Parameter(drawn)

    def forward(self, x: Any) -> Tensor:
        """The affine map of the last axis."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        n_out, n_in = self.weight.shape
        return f"{n_in}, {n_out}" + ("" if self.bias is not None else ", bias=False")


class Embedding(Module):
    """A vector for each of a number of symbols, looked up by integers.

    Shapes: ids of integers ``(...)``, e.g. ``(time, batch)``; weight ``(num_embeddings,
    embedding_dim)``; result ``(..., embedding_dim)``. A symbol that occurs twice gets both
    gradients.

    Args:
        num_embeddings: How many symbols there are.
        embedding_dim: The size of a vector.
        rng: Where the initial values are drawn from: standard normal.
        dtype: The weight's dtype.

    Raises:
        IndexRangeError: An id is out of range; on every backend, and also if it is negative.

    >>> tgr.nn.Embedding(10, 4)(tgr.tensor([[1, 2, 1]])).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.weight = Parameter(init.normal((num_embeddings, embedding_dim), rng=rng, dtype=dtype))

    def forward(self, ids: Any) -> Tensor:
        """The vectors of the symbols."""
        ids = _tensor(ids)
        # As an index -1 is the last; as a symbol it is a padding that nobody meant to look up.
        if ids.size and "int" in str(ids.dtype) and int(ids.min()) < 0:
            raise IndexRangeError(
                f"Embedding: id {int(ids.min())} is out of range for {self.weight.shape[0]} symbols"
            )
        return take(self.weight, ids, axis=0)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return ", ".join(str(n) for n in self.weight.shape)


class Dropout(Module):
    """Zero each element with probability `p` while training, and scale the others by ``1/(1-p)``.

    The mean stays the same, so there is nothing to do in evaluation (Srivastava et al. 2014,
    section 10, "inverted"). Every call draws a new mask.

    Args:
        p: The probability, from 0 to 1.
        rng: Where the masks are drawn from; the same on every backend.

    Raises:
        ShapeError: `p` is not within 0 and 1.

    >>> drop = tgr.nn.Dropout(0.5, rng=tgr.current_backend().rng(0))
    >>> drop(tgr.ones((6,)))
    tensor([0., 2., 2., 2., 0., 0.])
    >>> drop.eval()(tgr.ones((3,)))
    tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, *, rng: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ShapeError(f"Dropout: p={p!r}; expected a probability from 0 to 1")
        self.p = p
        self.rng = init.generator(rng)

    def forward(self, x: Any) -> Tensor:
        """`x` with some of its elements zeroed, or `x` itself."""
        x = _tensor(x)
        if not self.training or self.p == 0:
            return x
        keep = self.rng.on(x.backend).bernoulli(tuple(x.shape), 1 - self.p)
        scale = 1 / (1 - self.p) if self.p < 1 else 0.0
        mask = x.backend.xp.astype(keep, x.dtype) * scale
        return multiply(x, Tensor(mask, x.backend))

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"p={self.p}"


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axes, then scaled and shifted (Ba et al. 2016).

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the biased variance.

    Shapes: x ``(..., *normalized_shape)``; weight and bias `normalized_shape`; result as x.

    Args:
        normalized_shape: The sizes of the last axes, or the size of the last one.
        eps: Keeps the division from blowing up.
        elementwise_affine: Whether there is a weight (initially 1).
        bias: Whether there is, beside a weight, a bias (initially 0).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: The last axes of x are not `normalized_shape`.

    >>> y = tgr.nn.LayerNorm(4)(tgr.tensor([[1.0, 2.0, 3.0, 4.0]]))
    >>> round(float(y.mean()), 6), round(float(y.var()), 3)
    (0.0, 1.0)
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: str = "float32",
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        for size in self.normalized_shape or (0,):
            check_sizes("LayerNorm", normalized_shape=size)
        self.eps = eps
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        if elementwise_affine:
            self.weight = Parameter(ones(self.normalized_shape, dtype))
            if bias:
                self.bias = Parameter(zeros(self.normalized_shape, dtype))

    def forward(self, x: Any) -> Tensor:
        """`x`, normalised."""
        x = _tensor(x)
        n = len(self.normalized_shape)
        if tuple(x.shape[-n:]) != self.normalized_shape:
            raise ShapeError(
                f"LayerNorm: x has shape {tuple(x.shape)}; expected (..., "
                f"{', '.join(map(str, self.normalized_shape))})"
            )
        axes = tuple(range(-n, 0))
        y = standardize(x, axes, self.eps)
        if self.weight is not None:
            y = y * self.weight
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        bias = ", bias=False" if self.bias is None and self.weight is not None else ""
        return f"{self.normalized_shape}, eps={self.eps}{affine}{bias}"
