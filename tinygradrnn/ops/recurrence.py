"""The linear recurrence, on which the closed form of back-propagation through time is built."""

from __future__ import annotations

from typing import Any

from tinygradrnn.errors import ShapeError
from tinygradrnn.op import op


@op(promotes=True)
def linear_recurrence(xp: Any, b: Any, c: Any, initial: Any = None, /) -> Any:
    """``a_t = b_t + c_t * a_{t-1}`` along the first axis, from ``a_{-1} = initial`` (zero if None).

    Its solution is ``a_t = b_t + sum_{i<t} (prod_{j=i+1..t} c_j) b_i``, the lemma behind the
    gradient of a recurrent network (d2l.ai, section 9.7). Its gradient is the same recurrence run
    backward.

    Shapes: b ``(time, ...)``, c the same or a number or what broadcasts to it, initial ``(...)``;
    result as b.

    >>> tgr.linear_recurrence(tgr.tensor([1.0, 1.0, 1.0]), tgr.tensor([0.5, 0.5, 0.5]))
    tensor([1.  , 1.5 , 1.75])
    >>> tgr.linear_recurrence(tgr.ones((3,)), 0.5)
    tensor([1.  , 1.5 , 1.75])
    """
    if len(b.shape) < 1:
        raise ShapeError("'b' has no dimensions; expected (time, ...)")
    of_c = tuple(getattr(c, "shape", ()))
    sizes = zip(reversed(of_c), reversed(b.shape), strict=False)
    if len(of_c) > len(b.shape) or any(n not in (1, m) for n, m in sizes):
        raise ShapeError(
            f"'c' has shape {of_c}, 'b' {tuple(b.shape)}; expected a number, or a shape that "
            "broadcasts to that of 'b'"
        )
    c = _factors(xp, b, c)
    if initial is not None and tuple(initial.shape) != tuple(b.shape[1:]):
        raise ShapeError("'initial' does not have the shape of 'b' without its first axis")
    if b.shape[0] == 0:
        return xp.zeros_like(b)
    a, rows = initial, []
    for t in range(b.shape[0]):
        b_t = b[t, ...]
        a = b_t if a is None else b_t + c[t, ...] * a
        rows.append(xp.asarray(a))
    return xp.stack(rows, axis=0)


def _factors(xp: Any, b: Any, c: Any) -> Any:
    """`c` with the shape of `b`: one factor may stand for many."""
    same = tuple(getattr(c, "shape", ())) == tuple(b.shape)
    return c if same else c + xp.zeros_like(b)


def _linear_recurrence(xp: Any, g: Any, c: Any, initial: Any, out: Any) -> Any:
    steps = out.shape[0]
    c = _factors(xp, out, c)
    if steps == 0:
        return g, g, None if initial is None else xp.zeros_like(initial)
    # d_t = g_t + c_{t+1} d_{t+1}: the recurrence from the end, with c moved by one step.
    following = xp.concat([c[1:, ...], xp.zeros_like(c[:1, ...])], axis=0)
    d = xp.flip(
        xp.linear_recurrence(xp.flip(g, axis=0), xp.flip(following, axis=0)),
        axis=0,
    )
    first = xp.zeros_like(out[:1, ...]) if initial is None else xp.expand_dims(initial, axis=0)
    before = xp.concat([first, out[: steps - 1, ...]], axis=0)
    d_initial = None if initial is None else xp.sum(c[:1, ...] * d[:1, ...], axis=0)
    return d, d * before, d_initial


linear_recurrence.vjp_together(_linear_recurrence)
