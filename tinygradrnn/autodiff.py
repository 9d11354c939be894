"""Derivatives, as users ask for them: of results on a tape, and of functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from tinygradrnn import op as engine
from tinygradrnn.backend import Array, Backend
from tinygradrnn.backprop import backpropagate, states_at
from tinygradrnn.convert import as_array, describe, kind_of
from tinygradrnn.errors import DeviceError, DtypeError, GradientError, ShapeError
from tinygradrnn.namespace import registry
from tinygradrnn.tape import (
    Edge,
    Leaf,
    Value,
    enable_grad,
    execution_order,
    no_grad,
    origin,
    recording,
)

Tensors = Value | Sequence[Value]


def backward(
    result: Value,
    gradient: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add the gradient of `result` to the ``.grad`` of every leaf behind it.

    Args:
        result: A Tensor that requires a gradient.
        gradient: The upstream gradient, of the result's shape; needed unless it is a scalar.
        retain_graph: Keep what the tape saved, for another backward (default: `create_graph`).
        create_graph: Record the walk, so that the gradients can be differentiated themselves.

    Raises:
        GradientError: The result has no tape, or the tape has been freed.
        ShapeError: `gradient` is missing or has another shape than the result.

    >>> x = tgr.tensor([3.0], requires_grad=True)
    >>> tgr.backward((x * x).sum())
    >>> x.grad
    tensor([6.])
    """
    edge = _edge(result, "backward: the result")
    seed = _seed(result, gradient, "backward", create_graph)
    retain = create_graph if retain_graph is None else retain_graph
    found = backpropagate([(edge, seed)], None, retain=retain, create_graph=create_graph)
    for leaf, g in found.items():
        leaf = cast("Leaf", leaf)
        g = g if create_graph else _wrapped(g, leaf.backend)
        if leaf.grad is None:
            leaf.grad = g
        elif create_graph:
            leaf.grad = leaf.grad + g
        else:
            with no_grad():
                leaf.grad = leaf.grad + g


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """Return the gradients of `outputs` with respect to `inputs`, leaving every ``.grad`` alone.

    Inputs may be any tensors on the tape. For the states that :func:`~tinygradrnn.scan` returns
    with ``return_states`` the answer is the gradient with respect to the state at each step, what
    it does to later steps included: ``dL/dh_t``.

    Args:
        outputs: A Tensor or several; their gradients are summed.
        inputs: A Tensor or several.
        grad_outputs: Upstream gradients, one for each output (None for a scalar output).
        retain_graph: Keep what the tape saved (default: `create_graph`).
        create_graph: Record the walk: gradients of gradients.
        allow_unused: Give None for an input that no output depends on, instead of raising.

    Raises:
        GradientError: An input is not on the tape of the outputs, or the tape has been freed.

    >>> x = tgr.tensor(2.0, requires_grad=True)
    >>> (g,) = tgr.grad(x**3, x, create_graph=True)
    >>> (gg,) = tgr.grad(g, x)
    >>> float(g), float(gg)
    (12.0, 12.0)
    """
    outs, ins = _several(outputs), _several(inputs)
    ups = [None] * len(outs) if grad_outputs is None else _several(grad_outputs)
    if len(ups) != len(outs):
        raise ShapeError(f"grad: {len(outs)} outputs but {len(ups)} grad_outputs")
    edges = [_edge(x, f"grad: inputs[{i}]") for i, x in enumerate(ins)]
    seeds = [
        (_edge(y, f"grad: outputs[{i}]"), _seed(y, up, "grad", create_graph))
        for i, (y, up) in enumerate(zip(outs, ups, strict=True))
    ]
    retain = create_graph if retain_graph is None else retain_graph
    # The gradient with respect to a trajectory is that with respect to each of its states.
    places = [p for edge in edges for p in states_at(edge) or [edge] if p is not None]
    found = backpropagate(seeds, places, retain=retain, create_graph=create_graph)
    results: list[Any] = []
    for i, (x, edge) in enumerate(zip(ins, edges, strict=True)):
        states = states_at(edge)
        if states is None:
            g = found.get(edge)
        else:
            rows = [None if p is None else found.get(p) for p in states]
            g = _stacked(rows, x, create_graph)
        if g is None and not allow_unused:
            raise GradientError(
                f"grad: the outputs do not depend on inputs[{i}] ({describe(x)}). "
                "Pass allow_unused=True to get None for it"
            )
        results.append(g if g is None or create_graph else _wrapped(g, x.backend))
    return tuple(results)


def _stacked(rows: list[Any], x: Value, create_graph: bool) -> Any:
    """The gradients of states as one; zeros for those that nothing depends on."""
    if all(g is None for g in rows):
        return None
    xp = x.backend.xp
    zeros = xp.zeros_like(x.raw[0, ...])
    if create_graph:
        blank = engine.tensor_type(zeros, x.backend)
        return registry["stack"]([blank if g is None else g for g in rows], axis=0)
    return xp.stack([zeros if g is None else xp.asarray(g) for g in rows], axis=0)


def _beside(value: Any, other: Value) -> Value:
    """A Tensor beside `other`: numbers and lists take its dtype, arrays keep their own."""
    if isinstance(value, Value):
        return value
    dtype = None if hasattr(value, "dtype") else other.raw.dtype
    return engine.tensor_type(as_array(value, other.backend, dtype), other.backend)


def _wrapped(array: Array, backend: Backend) -> Value:
    # NumPy makes scalars of 0-d results; a Tensor always holds an array.
    return engine.tensor_type(array if array.shape else backend.xp.asarray(array), backend)


def _results(y: Any, name: str) -> list[Any]:
    """What a user's function returned, as a list of Tensors."""
    outs = _several(y)
    for out in outs:
        if not isinstance(out, Value):
            found = type(out).__name__
            raise DtypeError(f"{name}: the function returned a {found}; expected Tensors")
    return outs


def _several(tensors: Any) -> list[Any]:
    many = isinstance(tensors, (list, tuple))
    return list(cast("Sequence[Any]", tensors)) if many else [tensors]


def _edge(value: Any, what: str) -> Edge:
    if not isinstance(value, Value):
        raise DtypeError(f"{what} is a {type(value).__name__}; expected a Tensor")
    if value.edge is None:
        raise GradientError(
            f"{what} ({describe(value)}) requires no gradient: nothing was recorded behind it. "
            "Make its inputs with requires_grad=True, and compute it outside no_grad()"
        )
    return value.edge


def _seed(result: Value, gradient: Any, name: str, create_graph: bool) -> Any:
    """The cotangent a walk starts from: an array, or a Tensor if the walk is to be recorded."""
    array, backend = result.raw, result.backend
    if gradient is None:
        if array.shape != ():
            raise ShapeError(
                f"{name}: the result has shape {tuple(array.shape)}, and only a scalar has a "
                "gradient of its own; pass the upstream gradient, of the same shape"
            )
        seed: Array = backend.xp.ones_like(array)
        return engine.tensor_type(seed, backend) if create_graph else seed
    gradient = _beside(gradient, result)
    if gradient.backend is not backend:
        raise DeviceError(
            f"{name}: the result is on {backend}, its upstream gradient on {gradient.backend}"
        )
    if gradient.raw.shape != array.shape:
        raise ShapeError(
            f"{name}: the upstream gradient has shape {tuple(gradient.raw.shape)}; "
            f"expected the result's, {tuple(array.shape)}"
        )
    if gradient.raw.dtype != array.dtype:
        raise DtypeError(
            f"{name}: the upstream gradient is {gradient.raw.dtype}; "
            f"expected the result's {array.dtype}"
        )
    return gradient if create_graph else gradient.raw


# ------------------------------------------------------------------- derivatives of functions


def _fresh(primals: Iterable[Any]) -> list[Any]:
    """Copies that are on a tape: on their own, or as a recorded identity of what they were."""
    made: list[Any] = []
    for p in primals:
        value = engine.as_value(p)
        if value.edge is not None:
            made.append(registry["positive"](value))  # stay on the outer tape: these nest
        elif kind_of(value.raw.dtype) != "f":
            made.append(value)  # integers have no derivative
        else:
            leaf = Leaf(value.raw.shape, value.raw.dtype, value.backend)
            made.append(engine.tensor_type(value.raw, value.backend, leaf))
    return made


def _pull(
    outs: list[Any], ins: list[Any], cotangents: list[Any], *, create_graph: bool
) -> list[Any]:
    """Cotangents of `ins`; zeros where an output does not depend on an input."""
    live = [(y, c) for y, c in zip(outs, cotangents, strict=True) if y.edge is not None]
    found: dict[int, Any] = {}
    taped = [x for x in ins if x.edge is not None]
    if live and taped:
        ys, cs = zip(*live, strict=True)
        gs = grad(ys, taped, cs, retain_graph=True, create_graph=create_graph, allow_unused=True)
        found = {id(x): g for x, g in zip(taped, gs, strict=True) if g is not None}
    return [found[id(x)] if id(x) in found else registry["zeros_like"](x) for x in ins]


def _like(results: list[Any], template: Any) -> Any:
    return tuple(results) if isinstance(template, (list, tuple)) else results[0]


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., tuple[Any, ...]]]:
    """Return ``f(*primals)`` and the function that maps cotangents of its outputs to its inputs'.

    Args:
        f: A function of Tensors that returns a Tensor or a tuple of them.
        primals: Where to differentiate.

    Raises:
        ShapeError: A cotangent has another shape than its output.

    >>> y, pull = tgr.vjp(tgr.exp, tgr.tensor([0.0, 0.0]))
    >>> pull(tgr.tensor([1.0, 2.0]))
    (tensor([1., 2.]),)
    """
    with enable_grad():
        ins = _fresh(primals)
        y = f(*ins)
    outs = _results(y, "vjp")

    def pullback(*cotangents: Any) -> tuple[Any, ...]:
        if len(cotangents) != len(outs):
            raise ShapeError(f"vjp: {len(outs)} outputs but {len(cotangents)} cotangents")
        given = [_beside(c, o) for c, o in zip(cotangents, outs, strict=True)]
        return tuple(_pull(outs, ins, given, create_graph=_matters(outs, ins, given)))

    # On a tape only if something outside of `f` is: our own leaves are no one else's business.
    kept = outs if _matters(outs, ins, []) else [o.detach() for o in outs]
    return _like(kept, y), pullback


def _matters(outs: list[Any], ins: list[Any], directions: list[Any]) -> bool:
    """Whether a derivative may be differentiated itself: something outside of it is on a tape."""
    leaves = {n for n in execution_order(o.edge for o in outs if o.edge) if type(n) is Leaf}
    own = {origin(i.edge) for i in ins if i.edge is not None}
    outside = leaves - own or any(d.edge for d in directions)
    return recording.enabled and bool(outside)


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return ``f(*primals)`` and its directional derivative along `tangents`: forward mode.

    By the double-vjp identity: the map from a cotangent u to ``J^T u`` is linear, and its own
    vector-Jacobian product with v is ``J v``. (J. Townsend, "A new trick for calculating Jacobian
    vector products", 2017.)

    Args:
        f: A function of Tensors that returns a Tensor or a tuple of them.
        primals: Where to differentiate.
        tangents: The direction, one for each primal and of its shape.

    Raises:
        ShapeError: A tangent has another shape than its primal.

    >>> _, dy = tgr.jvp(tgr.sin, (tgr.tensor([0.0]),), (tgr.tensor([2.0]),))
    >>> dy
    tensor([2.])
    """
    values = [engine.as_value(p) for p in primals]
    if len(tangents) != len(values):
        raise ShapeError(f"jvp: {len(values)} primals but {len(tangents)} tangents")
    directions = [_beside(t, v) for t, v in zip(tangents, values, strict=True)]
    shapes = [tuple(v.raw.shape) for v in values]
    if shapes != [tuple(t.raw.shape) for t in directions]:
        found = [tuple(t.raw.shape) for t in directions]
        raise ShapeError(
            f"jvp: the primals have shapes {shapes}, the tangents {found}; expected equal"
        )
    with enable_grad():
        ins = _fresh(values)
        y = f(*ins)
        outs = _results(y, "jvp")
        dummies = _fresh(registry["zeros_like"](o) for o in outs)
        pulled = _pull(outs, ins, dummies, create_graph=True)
        matters = _matters(outs, ins, directions)
        moved = _pull(pulled, dummies, directions, create_graph=matters)
    kept = outs if matters else [o.detach() for o in outs]
    return _like(kept, y), _like(moved, y)


def jacobian(f: Callable[..., Any], inputs: Any) -> Any:
    """Return the Jacobian of `f`, of shape ``(*output.shape, *input.shape)``.

    Args:
        f: A function of Tensors that returns one Tensor.
        inputs: A Tensor, or a tuple of them; a tuple of Jacobians is returned for a tuple.

    >>> tgr.jacobian(tgr.square, tgr.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    ins = _several(inputs)
    y, pull = vjp(f, *ins)
    backend, xp = y.backend, y.backend.xp
    size = 1
    for n in y.raw.shape:
        size *= n
    eye = xp.eye(size, dtype=y.raw.dtype, device=y.raw.device)
    rows: list[tuple[Any, ...]] = [
        pull(engine.tensor_type(xp.reshape(eye[i, ...], y.raw.shape), backend)) for i in range(size)
    ]
    results: list[Any] = []
    for k, x in enumerate(ins):
        shape = (*y.raw.shape, *engine.as_value(x).raw.shape)
        if not rows:
            empty = xp.zeros(shape, dtype=y.raw.dtype, device=y.raw.device)
            results.append(engine.tensor_type(empty, backend))
            continue
        stacked = registry["stack"]([row[k] for row in rows], axis=0)
        results.append(registry["reshape"](stacked, shape))
    return _like(results, inputs)
