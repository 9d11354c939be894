"""Where a NaN or an infinity is born: the step, the layer, the gate, the operation, the numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

from tinygradrnn.backend import Array, Backend, current_backend
from tinygradrnn.convert import kind_of
from tinygradrnn.errors import AnomalyError
from tinygradrnn.recipe import Share
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.job import Job
from tinygradrnn.tape import Edge, Node, StepMark, Value, origin, recording
from tinygradrnn.tensor import Tensor
from tinygradrnn.watch import Record, name_of, record_of, watch

_MOVE = {f"tinygradrnn.ops.{name}" for name in ("shape", "indexing", "gates")}
"""Operations that only move numbers: what is wrong there came in, and shows where it is used."""


class detect_anomaly(watch):  # a context manager reads as a verb
    """Raise an error where a NaN or an infinity is born, forward or backward, in a ``with`` block.

    Every operation is looked at, and on the way back every gradient rule and every sum of shares.
    The error names the step and the loop, the layer, the gate, the operation and its line, the
    first place in the result, and shows what went in. A compiled scan stays compiled: what it gives
    is looked at, and the step that gave something wrong is run again eagerly (on the way back, the
    whole loop).

    A result counts if it is NaN, or infinite though nothing infinite went in: a mask of ``-inf`` is
    let through. What is NaN until :func:`~tinygradrnn.where` replaces it counts, as its gradient
    will be NaN all the same. Inside a compiled scan, what reaches no output, state or gradient is
    not seen. Several times slower than usual.

    Args:
        infinities: Whether an infinity counts; else only NaN.

    Raises:
        AnomalyError: In the block, with what is known of the place as attributes.

    >>> def cell(x, h):
    ...     forget = tgr.sqrt(x - h)
    ...     return h, h * forget + x
    >>> with tgr.detect_anomaly():
    ...     tgr.scan(cell, tgr.ones((4, 1)), tgr.tensor([0.5]))
    Traceback (most recent call last):
    ...
    tinygradrnn.errors.AnomalyError: forward, step 1 of cell: NaN is born in forget: ...
    """

    eagerly = False

    def __init__(self, *, infinities: bool = True) -> None:
        super().__init__()
        self._quiet = ExitStack()
        self._infinities = infinities
        self._backward: Node | None = None  # whose rule is running
        self._disputed: Node | None = None  # a compiled loop that runs backward eagerly
        # How many finite shares a place has got (-1: others, too), and what it is called.
        self._shares: dict[Edge, tuple[int, str]] = {}

    def __enter__(self) -> Self:
        self._quiet.enter_context(current_backend().quiet())  # the error says more than a warning
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._quiet.close()
        self._shares.clear()
        if self._disputed is not None and exc[0] is None:
            raise AnomalyError(
                f"backward, {self._disputed.name}: compiled, it gives a gradient that is not "
                "finite; walked eagerly, it does not",
                direction="backward",
                operation=self._disputed.name,
            )

    # ------------------------------------------------------------------------------------ forward

    def saw(self, operation: Any, args: Sequence[Any], params: dict[str, Any], result: Any) -> None:
        """Look at what an operation gave."""
        super().saw(operation, args, params, result)
        if self._backward is not None or operation.__module__ in _MOVE:
            return  # of a rule on Tensors the share is looked at
        outputs: tuple[Any, ...] = result if type(result) is tuple else (result,)
        operands: Sequence[Any] = args[0] if operation.variadic else args
        for slot, x in enumerate(outputs):
            if not self._is_wrong(x.raw, operands, x.backend):
                continue
            record = self.note(operation, args, outputs)
            names = [
                name
                or (
                    f"argument {operation.argument(i)}"
                    if isinstance(x, Value)
                    else operation.argument(i)
                )
                for i, (name, x) in enumerate(zip(record.input_names, operands, strict=True))
            ]
            raise _error(
                "forward",
                operation.name,
                f"{operation.name} gives",
                x.raw,
                dict(zip(names, record.inputs, strict=True)),
                x.backend,
                recording.step,
                record,
                slot,
            )

    def compiled(self, loop: Loop, job: Job) -> None:
        """Look at the states and outputs of every step, and run a wrong one again eagerly."""
        program, backend = job.program, job.backend
        values, _ = job.forward(0, loop.time, [x.raw for x in loop.begin], with_states=True)
        states = [values.full(b) for _, b in program.carried]
        outputs = [values.full(v) for v in program.outputs]
        structure = loop.carried.structure
        for s in range(loop.time):
            t = loop.time - 1 - s if loop.reverse else s
            rows = [x[t, ...] for x in (*states, *outputs)]
            if not any(self._is_wrong(row, (), backend) for row in rows):
                continue
            before = t + 1 if loop.reverse else t - 1
            entering = [
                x if s == 0 else Tensor(states[i][before, ...], backend, x.edge)
                for i, x in enumerate(loop.begin)
            ]
            out, state, _ = loop.steps(s, s + 1, structure.unflatten(entering))
            again = [x.raw for x in (*state[0], *out[0])]
            for row, eager in zip(rows, again, strict=True):
                xp = backend.xp
                if kind_of(row.dtype) == "f" and bool(
                    xp.any(xp.isfinite(eager) & ~xp.isfinite(row))
                ):
                    raise AnomalyError(
                        f"forward, step {t} of {loop.name}: compiled, it gives a value that is not "
                        "finite; run eagerly, it does not",
                        direction="forward",
                        loop=loop.name,
                        step=t,
                    )

    # ----------------------------------------------------------------------------------- backward

    def rules(self, node: Node, rules: Sequence[Share]) -> list[Share]:
        """The rules of a node, each of which looks at its share."""
        return [
            # One product for each step, and not one for all: the step is what is asked for.
            way._replace(rule=functools.partial(self._ruled, node, way), contracts=False)
            for way in rules
        ]

    def _ruled(self, node: Node, way: Share, xp: Any, g: Any, saved: Sequence[Any]) -> Any:
        outer, self._backward = self._backward, node
        try:
            share = way.rule(xp, g, saved)
        finally:
            self._backward = outer
        op, layout = node.recipe.op, node.recipe.layout
        went_in = {"cotangent": g, **dict(zip(layout, saved, strict=True))}
        flat = [y for x in went_in.values() for y in (x if type(x) in (tuple, list) else (x,))]
        for i, part in enumerate(share if way.position is None else (share,)):
            if part is None:
                continue
            position = i if way.position is None else way.position
            record = record_of(node)
            called = record.input_names[position] if record is not None else ""
            self._note(node.inputs[position], _raw(part), node.backend, called)
            if not self._is_wrong(_raw(part), flat, node.backend):
                continue
            argument = op.argument(position) + (f" ({called})" if called else "")
            self._disputed = None
            raise _error(
                "backward",
                op.name,
                f"the gradient of {op.name} with respect to {argument} is",
                _raw(part),
                {name: _raw(x) for name, x in went_in.items()},
                node.backend,
                node.step,
                record,
            )
        return share

    def arrived(self, place: Edge, cotangent: Any) -> None:
        """Look at what finite shares have added up to."""
        (shares, called), node = self._shares.pop(place, (0, "")), origin(place)
        if cotangent is None or _finite(_raw(cotangent), node.backend):
            return
        if self._disputed is not None and place in self._disputed.inputs:
            self._disputed = None
        if shares > 0 and self._infinities:
            name = name_of(place) or called or (node.name if isinstance(node, Node) else "a leaf")
            added = "one finite share" if shares == 1 else f"{shares} finite shares"
            raise _error(
                "backward",
                "sum",
                f"the gradient of {name}, the sum of {added}, is",
                _raw(cotangent),
                {},
                node.backend,
                node.step if isinstance(node, Node) else None,
                record_of(node) if isinstance(node, Node) else None,
            )

    def replays(self, region: Node, cotangents: Sequence[Any], shares: Sequence[Any]) -> bool:
        """Whether a compiled loop gave a gradient that is to be looked into."""
        backend = region.backend
        given = [x for x in cotangents if x is not None]
        wrong = any(x is not None and self._is_wrong(x, given, backend) for x in shares)
        if wrong:
            self._disputed = region
        else:
            for edge, x in zip(region.inputs, shares, strict=True):
                if x is not None:
                    self._note(edge, x, backend)
        return wrong

    def _note(self, place: Edge | None, share: Any, backend: Backend, called: str = "") -> None:
        """Count the shares of a place for as long as all are finite."""
        if place is not None:
            known, before = self._shares.get(place, (0, ""))
            count = known + 1 if known >= 0 and _finite(share, backend) else -1
            self._shares[place] = count, called or before

    def _is_wrong(self, array: Array, inputs: Sequence[Any], backend: Backend) -> bool:
        xp = backend.xp
        if kind_of(array.dtype) != "f" or bool(xp.all(xp.isfinite(array))):
            return False
        if bool(xp.any(xp.isnan(array))):
            return True
        return self._infinities and all(_finite(_raw(x), backend) for x in inputs)


def _raw(x: Any) -> Any:
    return x.raw if isinstance(x, Value) else x


def _finite(x: Any, backend: Backend) -> bool:
    if isinstance(x, float):
        return x - x == 0
    if not hasattr(x, "dtype") or kind_of(x.dtype) != "f":  # NumPy's scalars have one, too
        return True
    return bool(backend.xp.all(backend.xp.isfinite(x)))


# ------------------------------------------------------------------------------------ the message


def _error(
    direction: str,
    operation: str,
    says: str,
    array: Array,
    inputs: dict[str, Any],
    backend: Backend,
    mark: StepMark | None,
    record: Record | None,
    slot: int = 0,
) -> AnomalyError:
    import numpy

    host = backend.to_host(array)
    # NaN before infinity: an infinity beside it may well have been there before.
    wrong = numpy.isnan(host) if numpy.isnan(host).any() else numpy.isinf(host)
    index = tuple(int(i) for i in numpy.argwhere(wrong)[0])
    what = "NaN" if numpy.isnan(host[index]) else "an infinity"
    old = [
        name for name, x in inputs.items() if numpy.isnan(_host(x, backend)).any() and what == "NaN"
    ]
    gate = "" if record is None else _gate(record, slot, index, host.shape)
    at = f"[{', '.join(map(str, index))}]"
    where = f", step {mark!r} of {mark.loop or 'a loop'}" if mark else ""
    came = f"{what} came in with {old[0]}" if old else f"{what} is born"
    into = f"{', into' if old else ' in'} {gate}" if gate else ""
    lines = [f"{direction}{where}: {came}{into}: {says} {host[index]} at {at}"]
    if record is not None:
        lines.append(f"  {record.file}:{record.line}, in {record.function}")
        lines += [f"    {record.statement}"] if record.statement else []
        lines += [f"  layer: {' > '.join(record.layers)}"] if record.layers else []
    lines += ["  what went in:"] if inputs else []
    for name, x in inputs.items():
        lines.append(f"    {name}: {_described(x, index, host.shape, backend)}")
    return AnomalyError(
        "\n".join(lines),
        direction=direction,
        operation=operation,
        loop=mark.loop if mark else "",
        step=mark.t if mark else None,
        layers=record.layers if record else (),
        gate=gate,
        index=index,
        inputs=inputs,
        file=record.file if record else "",
        line=record.line if record else 0,
        statement=record.statement if record else "",
    )


def _gate(record: Record, slot: int, index: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What the cell calls the value that was being computed."""
    if record.stacked and record.outputs[0].shape[-1:] == shape[-1:]:
        return record.gates[index[-1] * len(record.gates) // shape[-1]]
    known = [record.names[slot], *record.names, *record.input_names]
    return next((n for n in known if n in record.gates), record.names[slot] or record.target)


def _host(x: Any, backend: Backend) -> Any:
    import numpy

    if backend.is_array(x) and kind_of(x.dtype) == "f":
        return backend.to_host(x)
    return numpy.asarray(x if isinstance(x, float) else 0.0)


def _described(x: Any, index: tuple[int, ...], shape: tuple[int, ...], backend: Backend) -> str:
    """An array in a line: its look, its value at the place in question, and its range."""
    import numpy

    if not backend.is_array(x):
        return repr(x)
    host = backend.to_host(x)
    text = f"{host.dtype} {host.shape}"
    if host.size == 0:
        return text
    if host.size <= 8:
        return f"{text} {numpy.array2string(host, separator=', ', threshold=8)}".replace("\n", "")
    if host.dtype.kind != "f":
        return f"{text}, from {host.min()} to {host.max()}"
    try:
        at = numpy.broadcast_to(host, shape)[index]
        text += f", there {at:.6g}"
    except ValueError:  # a product's operand, say: no one place of it
        pass
    finite = host[numpy.isfinite(host)]
    text += f"; from {finite.min():.6g} to {finite.max():.6g}" if finite.size else ""
    odd = host.size - finite.size
    return f"{text}, {odd} of {host.size} not finite" if odd else text
