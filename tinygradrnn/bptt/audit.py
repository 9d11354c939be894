"""What a truncation plan costs and what it buys: its gradient beside the full one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from statistics import median
from typing import Any

from tinygradrnn.autodiff import grad
from tinygradrnn.bptt.jacobians import parameters_of
from tinygradrnn.chart import COLOURS, Chart, new_figure, plain, tidy
from tinygradrnn.convert import kind_of
from tinygradrnn.errors import DtypeError, GradientError, ShapeError
from tinygradrnn.ops.elementwise import square
from tinygradrnn.ops.reduce import mean
from tinygradrnn.scan import scan
from tinygradrnn.scan.truncation import Full, Schedule, Truncation, plans_by_name
from tinygradrnn.tape import Tape, enable_grad
from tinygradrnn.tensor import Tensor


@dataclass(frozen=True)
class Finding:
    """One plan's gradient beside the full one, over all draws.

    Attributes:
        name: The plan's.
        cosine: Of the angle to the full gradient, the mean over the draws: how good a direction a
            single update gets.
        bias: ``|mean - full| / |full|``, of the mean gradient of all draws.
        bias_error: The standard error of that, ``deviation / sqrt(draws)``: a bias that is not
            clearly larger may be chance.
        deviation: The standard deviation of a draw, ``sqrt(E|g - mean|^2) / |full|``; 0 for a plan
            that always does the same.
        time: Of forward and backward, as a multiple of the full gradient's: the median over rounds
            in which every plan runs once.
        seconds: The median itself.
        kept: Bytes that the tape keeps between forward and backward.
        reach: The most steps that a loss reached in any draw, its own included.
    """

    name: str
    cosine: float
    bias: float
    bias_error: float
    deviation: float
    time: float
    seconds: float
    kept: int
    reach: int


@dataclass(frozen=True)
class Audit(Chart):
    """What :func:`audit` finds: print it for a table, or plot it.

    Attributes:
        rows: One for each plan; the full gradient is the first.
        seeds: How often each plan was run.
        norm: The norm of the full gradient.
    """

    rows: tuple[Finding, ...]
    seeds: int
    norm: float

    def __getitem__(self, name: str) -> Finding:
        """The row of a plan, by its name."""
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise ShapeError(f"audit: no plan {name!r}; expected one of {list(found)}")
        return found[name]

    def __str__(self) -> str:
        head = ("plan", "cosine", "bias", "deviation", "time", "tape keeps", "reach")
        table: list[tuple[str, ...]] = [head]
        for row in self.rows:
            error = f" ± {row.bias_error:.2g}" if row.deviation else ""
            table.append(
                (
                    row.name,
                    f"{row.cosine:.4f}",
                    f"{row.bias:.2g}{error}",
                    f"{row.deviation:.2g}",
                    f"{row.time:.2f}",
                    _bytes(row.kept),
                    f"{row.reach}",
                )
            )
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        table.insert(1, tuple("-" * width for width in widths))
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in table
        ]
        return "\n".join(lines)

    def plot(self) -> Any:
        """The table as a matplotlib Figure.

        Raises:
            BackendError: There is no matplotlib.
        """
        rows = self.rows[::-1]  # upwards, so that the full gradient stands above
        names = [plain(row.name) for row in rows]
        figure = new_figure(11, 1.0 + 0.36 * len(rows))
        panels: list[tuple[str, list[float], Callable[[float], str]]] = [
            ("cosine to the full gradient", [r.cosine for r in rows], "{:.3f}".format),
            ("relative bias", [r.bias for r in rows], "{:.2g}".format),
            ("relative deviation", [r.deviation for r in rows], "{:.2g}".format),
            ("time, full = 1", [r.time for r in rows], "{:.2f}".format),
            ("tape keeps, MB", [r.kept / 1e6 for r in rows], "{:.3g}".format),
        ]
        for i, axes in enumerate(figure.subplots(1, len(panels), sharey=True)):
            title, values, text = panels[i]
            errors = [r.bias_error or math.nan for r in rows] if i == 1 else None
            axes.barh(names, values, xerr=errors, color=COLOURS[0], height=0.62, capsize=3)
            axes.set_title(title, fontsize=10)
            ends = [v + (r.bias_error if errors else 0) for v, r in zip(values, rows, strict=True)]
            room = max(0.0, *ends) or 1.0
            for y, (value, end) in enumerate(zip(values, ends, strict=True)):
                axes.text(max(end, 0) + 0.03 * room, y, text(value), va="center", fontsize=9)
            axes.set_xlim(min(0.0, *values) * 1.1, 1.4 * room)
            tidy(axes)
            axes.tick_params(axis="y", length=0)
        return figure


def audit(
    model: Any,
    batch: Any,
    plans: Sequence[Truncation] | Mapping[str, Truncation],
    *,
    loss: Callable[[Any, Any, Truncation], Tensor] | None = None,
    parameters: Sequence[Tensor] | None = None,
    seeds: int = 16,
) -> Audit:
    """Compare the gradients that truncation plans give with the full one, and what they cost.

    Each plan is run `seeds` times, in rounds in which every plan has its turn, as the caller's own
    `loss` runs it, compiled or eagerly; a random plan draws anew each time. A scan keeps the tape
    of all its steps until the way back, whatever the plan, and that is what is counted: to save
    memory by truncating use :func:`tinygradrnn.bptt.stream`, which keeps `reach` steps at a time.

    Args:
        model: What is trained: a cell, a layer of ``tgr.nn``, or with `loss` whatever that takes.
        batch: Its input, ``(time, batch, features)``, or with `loss` whatever that takes.
        plans: Truncation plans; a dict gives them names.
        loss: ``loss(model, batch, truncation)``: a scalar. It hands `truncation` on to
            :func:`tinygradrnn.scan`, or to a layer of ``tgr.nn``. By default the mean of the
            squares of the outputs.
        parameters: By what to differentiate; by default all parameters of the model.
        seeds: How often each plan is run.

    Raises:
        GradientError: No parameters are known, or the loss does not depend on them; the full
            gradient is zero or not finite, or differs from one time to the next (dropout: call
            ``model.eval()``); or `loss` does not hand `truncation` on.
        DtypeError: A plan is none, or the loss no Tensor.
        ShapeError: The loss is no scalar, or `seeds` is less than 2.

    >>> cell, xs = tgr.nn.RNNCell(2, 4), tgr.ones((12, 1, 2))
    >>> def loss(cell, xs, truncation):
    ...     outputs, _ = tgr.scan(cell, xs, truncation=truncation)
    ...     return tgr.mean(tgr.square(outputs))
    >>> found = tgr.bptt.audit(cell, xs, [tgr.bptt.Chunk(4), tgr.bptt.Random(0.2)], loss=loss)
    >>> found["Chunk(k=4)"].bias > 0.001, found["Chunk(k=4)"].deviation, found["Chunk(k=4)"].reach
    (True, 0.0, 4)
    """
    import numpy

    if not isinstance(seeds, Integral) or isinstance(seeds, bool) or seeds < 2:
        raise ShapeError(f"audit: seeds={seeds!r}; expected at least 2, to see how they differ")
    loss = _mean_square if loss is None else loss
    if not callable(loss):
        raise DtypeError(f"audit: loss is {loss!r}; expected a function (model, batch, truncation)")
    weights = parameters_of(model, parameters, "audit")
    if not weights:
        raise GradientError("audit: there are no parameters to differentiate by")
    named = _named(plans)
    runs = [_Run(name, plan, model, batch, loss, weights) for name, plan in named]
    # Once to make the programs, and once more to see that nothing but a plan's draws is random.
    full = runs[0].gradient()
    again = runs[0].gradient()
    norm = float(numpy.linalg.norm(full))
    if not 0 < norm < math.inf:
        raise GradientError(f"audit: the full gradient's norm is {norm}; nothing to compare with")
    if numpy.linalg.norm(again - full) > 1e-3 * norm:
        raise GradientError(
            "audit: two runs gave two full gradients, so the model draws random numbers or keeps "
            "a state; of dropout model.eval() is the end"
        )
    for run in runs:
        run.kept = Tape(run.loss()).nbytes
    for _ in range(seeds):
        for run in runs:
            run.draw(full)
    base = runs[0].seconds
    return Audit(tuple([run.row(full, base) for run in runs]), seeds, norm)


def _mean_square(model: Any, batch: Any, truncation: Truncation) -> Tensor:
    if hasattr(model, "initial_state"):
        outputs, _ = scan(model, batch, truncation=truncation)
    else:
        outputs, _ = model(batch, truncation=truncation)
    if not isinstance(outputs, Tensor):
        found = type(outputs).__name__
        raise DtypeError(f"audit: the outputs are a {found}; give a loss(model, batch, truncation)")
    return mean(square(outputs))


class _Watched(Truncation):
    """A plan that notes what it was asked for."""

    def __init__(self, plan: Truncation) -> None:
        self.plan, self.reach = plan, 0

    def schedule(self, steps: int) -> Schedule:
        made = self.plan.schedule(steps)
        begin = 0
        for t, factor in enumerate(made.gates):
            begin = t if factor == 0 else begin
            first = begin if made.reach is None else max(begin, made.reach[t])
            self.reach = max(self.reach, t - first + 1)
        return made

    def __repr__(self) -> str:
        return repr(self.plan)


class _Run:
    """A plan, and what its gradients came to so far."""

    def __init__(
        self,
        name: str,
        plan: Truncation,
        model: Any,
        batch: Any,
        loss: Callable[[Any, Any, Truncation], Tensor],
        weights: Sequence[Tensor],
    ) -> None:
        self.name, self.weights = name, weights
        self.watched = _Watched(plan)
        self._loss = lambda: loss(model, batch, self.watched)
        self.seconds: list[float] = []
        self.cosines: list[float] = []
        self.kept = 0
        self.mean: Any = 0.0
        self.squares = 0.0

    def loss(self) -> Tensor:
        """A fresh loss under the plan."""
        with enable_grad():
            value = self._loss()
        what = "audit: loss(model, batch, truncation)"
        if not isinstance(value, Tensor) or kind_of(value.dtype) != "f":
            raise DtypeError(f"{what} is {value!r}; expected a floating-point Tensor")
        if value.size != 1:
            raise ShapeError(f"{what} has shape {value.shape}; expected a scalar")
        if value.edge is None:
            raise GradientError("audit: the loss does not depend on any of the parameters")
        if not self.watched.reach:
            raise GradientError(
                "audit: the loss did not follow its truncation; hand it on: "
                "tgr.scan(..., truncation=truncation)"
            )
        return value

    def gradient(self) -> Any:
        """The gradient as one vector, float64."""
        return self._vector(grad(self.loss(), self.weights, allow_unused=True))

    def _vector(self, found: Sequence[Tensor | None]) -> Any:
        import numpy

        parts = [
            numpy.zeros(w.size) if g is None else g.numpy().ravel().astype("float64")
            for w, g in zip(self.weights, found, strict=True)
        ]
        return numpy.concatenate(parts)

    def draw(self, full: Any) -> None:
        """Run once more, with the time it takes."""
        import numpy

        backend = self.weights[0].backend
        backend.synchronize()
        begin = time.perf_counter()
        found = grad(self.loss(), self.weights, allow_unused=True)
        backend.synchronize()
        self.seconds.append(time.perf_counter() - begin)
        g = self._vector(found)
        size = float(numpy.linalg.norm(g))
        product = float(g @ full)
        self.cosines.append(product / (size * float(numpy.linalg.norm(full))) if size else 0.0)
        # Welford: the mean and the squares around it, without keeping all the gradients.
        step = g - self.mean
        self.mean = self.mean + step / len(self.seconds)
        self.squares += float(step @ (g - self.mean))

    def row(self, full: Any, base: Sequence[float]) -> Finding:
        """What it all came to."""
        import numpy

        norm, draws = float(numpy.linalg.norm(full)), len(self.seconds)
        deviation = math.sqrt(max(self.squares, 0.0) / (draws - 1)) / norm
        return Finding(
            self.name,
            sum(self.cosines) / draws,
            float(numpy.linalg.norm(self.mean - full)) / norm,
            deviation / math.sqrt(draws),
            deviation,
            median(a / b for a, b in zip(self.seconds, base, strict=True)),
            median(self.seconds),
            self.kept,
            self.watched.reach,
        )


def _named(plans: Any) -> list[tuple[str, Truncation]]:
    """The plans with their names, the full gradient first."""
    full = repr(Full()), Full()
    given = plans_by_name(plans, "audit")
    others = {name: plan for name, plan in given if (name, plan) != full}
    if full[0] in others:
        raise ShapeError(f"audit: {others[full[0]]!r} is called {full[0]!r}; give it another name")
    return [full, *others.items()]


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"
