"""How much of each loss's gradient arrives where, step by step back in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tinygradrnn as tgr
from tinygradrnn.bptt.anatomy import Anatomy, anatomy
from tinygradrnn.bptt.jacobians import Loss, loss_of
from tinygradrnn.chart import COLOURS, Chart, new_figure, plain, tidy
from tinygradrnn.convert import kind_of
from tinygradrnn.errors import DtypeError, GradientError, ShapeError
from tinygradrnn.region import Region
from tinygradrnn.scan.truncation import Schedule, Truncation, plans_by_name
from tinygradrnn.tape import execution_order
from tinygradrnn.tensor import Tensor

Map = Any  # NumPy, (loss step, step)


class GradientFlow(Chart):
    """What :func:`gradient_flow` finds.

    Attributes:
        maps: For each loop (a layer, or a direction of it), and in it for each state and gate, the
            norm of ``dL_t/dv_k`` at ``[t, k]``, ``(losses, time)``, NumPy.
        losses: Each step's loss, ``(time,)``.
    """

    def __init__(self, maps: dict[str, dict[str, Map]], losses: Any) -> None:
        self.maps, self.losses = maps, losses

    @property
    def names(self) -> list[tuple[str, str]]:
        """Every loop with every value of it."""
        return [(loop, value) for loop, values in self.maps.items() for value in values]

    def profile(self, loop: str, value: str) -> Any:
        """The mean norm against steps back, ``(time,)``: that of all ``[t, t - d]``.

        Of a loop that runs from the end, that of all ``[t, t + d]``.

        Raises:
            ShapeError: There is not one loss for each step of the loop.
        """
        import numpy

        found = self.maps[loop][value]
        if len(found) != found.shape[1]:
            raise ShapeError(
                f"gradient_flow: {len(found)} losses and {found.shape[1]} steps of {loop}; for a "
                "profile there must be a loss for each step"
            )
        found = numpy.tril(found) + numpy.triu(found, 1).T  # one of them is empty
        return numpy.array([found.diagonal(-d).mean() for d in range(len(found))])

    def plot(self, only: Sequence[str] | None = None) -> Any:
        """The maps side by side, on one logarithmic scale; what is zero stays blank.

        Args:
            only: Which values, such as ``["h"]``; by default all.

        Raises:
            ShapeError: There are no such values.
            BackendError: There is no matplotlib.
        """
        import numpy

        shown = [(a, b) for a, b in self.names if only is None or b in only]
        if not shown:
            known = sorted({b for _, b in self.names})
            raise ShapeError(f"gradient_flow: only={only!r}; expected some of {known}")
        across = 3 if len(shown) in (5, 6, 9) else min(4, len(shown))
        down = math.ceil(len(shown) / across)
        figure = new_figure(2.1 + 2.7 * across, 0.7 + 2.6 * down)
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        from matplotlib.colors import LogNorm

        maps = [self.maps[a][b] for a, b in shown]
        there = numpy.concatenate([m[(m > 0) & numpy.isfinite(m)] for m in maps])
        if there.size:
            high = float(there.max())
            # Twelve decades at most: below that a gradient is gone for all that can be seen.
            norm = LogNorm(max(float(there.min()), high * 1e-12) * 0.999, high * 1.001)
        else:
            norm = LogNorm(0.1, 1)
        image = None
        several = len({a for a, _ in shown}) > 1
        for i, ((loop, value), found) in enumerate(zip(shown, maps, strict=True)):
            axes = grid[i // across][i % across]
            axes.set_facecolor("0.93")
            seen = numpy.ma.masked_where(~(found > 0), found)
            image = axes.imshow(seen, norm=norm, cmap="viridis", interpolation="nearest")
            axes.set_title(plain(f"{loop}: {value}" if several else value), fontsize=10)
            if i // across == down - 1 or i + across >= len(shown):
                axes.set_xlabel("step k")
                axes.xaxis.set_tick_params(labelbottom=True)
            if i % across == 0:
                axes.set_ylabel("loss of step t")
        for i in range(len(shown), across * down):
            grid[i // across][i % across].set_visible(False)
        every = grid.ravel().tolist()
        label, below = r"norm of $dL_t/dv_k$", there.size and there.min() < norm.vmin
        end = "min" if below else "neither"
        figure.colorbar(image, ax=every, label=label, shrink=0.9, extend=end)
        return figure

    def __repr__(self) -> str:
        parts = [f"{loop}: {', '.join(values)}" for loop, values in self.maps.items()]
        return f"<gradient flow over {len(self.losses)} steps; {'; '.join(parts)}>"


def gradient_flow(
    source: Any,
    xs: Any = None,
    state: Any = None,
    *,
    loss: Loss | None = None,
    values: Sequence[str] | None = None,
    **options: Any,
) -> GradientFlow:
    """Map how much each step's loss depends on every earlier step: ``|dL_t/dv_k|`` for all t, k.

    Along a row one sees how far back a loss reaches: a vanishing gradient fades to the left within
    a few steps, a healthy one does not, and a cut is where the map goes blank.

    Args:
        source: A cell, to be run over `xs`; or, for a model of several layers, a function that runs
            it and returns its losses, a list of scalars or ``(time,)``, in order of time; or what
            :func:`tinygradrnn.bptt.anatomy` found.
        xs: As for :func:`tinygradrnn.scan`, ``(time, batch, features)``.
        state: As for :func:`tinygradrnn.scan`.
        loss: With a cell: ``loss(output, t)``, a scalar; by default the sum of the squares of
            the output.
        values: What to map, by the names that the cell gives it: ``["h", "f"]``. By default the
            states; ``["*"]`` is everything that has a name.
        options: Handed on to :func:`tinygradrnn.scan`: `lengths`, `reverse`, `truncation`.

    Raises:
        GradientError: No loss depends on any state; or there are none, or they are not to be seen.
        ShapeError: There is no such value, or a loss is no scalar.
        DtypeError: `source` is none of these.

    >>> cell = tgr.nn.LSTMCell(3, 4)
    >>> flow = tgr.viz.gradient_flow(cell, tgr.ones((6, 1, 3)), values=["h", "c", "f"])
    >>> flow
    <gradient flow over 6 steps; LSTMCell: h, c, f>
    >>> flow.maps["LSTMCell"]["f"].shape
    (6, 6)
    """
    if isinstance(source, Anatomy):
        return GradientFlow({"states": {"h": source.cotangents}}, source.losses)
    if not callable(source):
        raise DtypeError(
            f"gradient_flow: source is {source!r}; expected a cell, a function that returns the "
            "losses, or an Anatomy"
        )
    if xs is None and isinstance(source, tgr.nn.Module):
        raise DtypeError(f"gradient_flow: xs is missing; {type(source).__name__} needs its inputs")
    plan = options.get("truncation")
    whole = _Unreached(plan) if isinstance(plan, Truncation) else None
    opened = {"truncation": whole or plan, "checkpoint": None}
    with tgr.enable_grad(), tgr.watch() as seen:
        losses = _losses(source, xs, state, loss, options | opened)
    _refuse_folded(losses)
    # Loops inside of a step are left out: there is one at each.
    loops = {name: run for name, run in seen.loops.items() if run[0].mark.parent is None}
    wanted = None if values is None or "*" in values else list(values)
    places: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for name, run in loops.items():
        states = list(dict.fromkeys(key for s in run for key in s.states))
        known = list(dict.fromkeys([*states, *(key for s in run for key in s.values)]))
        for key in states if values is None else known if wanted is None else wanted:
            if key in known:
                places[name, key] = [(s.t, s.states.get(key, s.values.get(key))) for s in run]
    if wanted and (missing := [k for k in wanted if not any(k == key for _, key in places)]):
        every = [s for run in loops.values() for s in run]
        named = sorted({key for s in every for key in (*s.states, *s.values)})
        raise ShapeError(f"gradient_flow: values has {missing}; the cell's own names are {named}")
    if not places:
        named = sorted({key for run in loops.values() for s in run for key in s.values})
        raise GradientError(
            "gradient_flow: no scan ran, whose states could be mapped"
            + (f"; give values=[...], some of {named}" if named else "")
        )
    maps = _maps(losses, places)
    if whole is not None and whole.reach is not None:
        back = -1 if options.get("reverse") else 1
        for found in (m for of_loop in maps.values() for m in of_loop.values()):
            in_order = found[::back, ::back]
            for t, first in enumerate(whole.reach):
                in_order[t, :first] = 0
    if not any(found.any() for values_ in maps.values() for found in values_.values()):
        raise GradientError("gradient_flow: no loss depends on any state")
    import numpy

    host = numpy.array([0.0 if x is None else float(x) for x in losses])
    return GradientFlow(maps, host)


class _Unreached(Truncation):
    """A plan but for how far back it lets each loss reach, which is noted.

    A loop that looks at each loss by itself is one node of the tape. On a map, which has a row for
    each loss, the same comes of leaving the rest of the row blank.
    """

    def __init__(self, plan: Truncation) -> None:
        self.plan = plan
        self.reach: tuple[int, ...] | None = None

    def schedule(self, steps: int) -> Schedule:
        made = self.plan.schedule(steps)
        self.reach = made.reach
        return replace(made, reach=None)


def _refuse_folded(losses: Sequence[Tensor | None]) -> None:
    for node in execution_order(x.edge for x in losses if x is not None and x.edge):
        if isinstance(node, Region):
            raise GradientError(
                f"gradient_flow: {node.name} is one node of the tape, by a checkpoint or a plan "
                "that walks back from each loss by itself, so its steps are not to be seen. Run it "
                "without; or pass the cell itself, with xs and its plan as truncation="
            )


def _losses(
    source: Any, xs: Any, state: Any, loss: Loss | None, options: Mapping[str, Any]
) -> list[Tensor | None]:
    """Each step's loss, on the tape."""
    if xs is None:
        found = source()
        rows = tgr.unstack(found) if isinstance(found, Tensor) and found.ndim == 1 else found
        if not isinstance(rows, list | tuple) or not rows:
            raise DtypeError(
                f"gradient_flow: the function returned {_told(found)}; expected the losses of all "
                "steps, a list of scalars or a Tensor (time,)"
            )
        return [loss_of(lambda _, t: rows[t], None, t) for t in range(len(rows))]
    xs, state = _begun(xs, state)
    outputs, _ = tgr.scan(source, xs, state, **options)
    rate = loss or (lambda output, t: tgr.sum(tgr.square(output)))
    leaves, structure = tgr.tree.flatten(outputs)
    steps = zip(*(tgr.unstack(leaf) for leaf in leaves), strict=True)
    return [loss_of(rate, structure.unflatten(row), t) for t, row in enumerate(steps)]


def _begun(xs: Any, state: Any) -> tuple[Any, Any]:
    """The same on a tape, so that all states are, even if no weight leads to them."""
    return tgr.tree.map(_on_tape, xs), None if state is None else tgr.tree.map(_on_tape, state)


def _on_tape(x: Any) -> Tensor:
    x = x if isinstance(x, Tensor) else tgr.tensor(x)
    return x if x.edge or kind_of(x.dtype) != "f" else tgr.tensor(x, requires_grad=True)


def _told(x: Any) -> str:
    return f"a Tensor of shape {x.shape}" if isinstance(x, Tensor) else f"a {type(x).__name__}"


def _maps(
    losses: Sequence[Tensor | None], places: Mapping[tuple[str, str], list[tuple[int, Any]]]
) -> dict[str, dict[str, Map]]:
    """The norm of the gradient of each loss at each place, in one walk back for each loss.

    A place is a Tensor of one step, with its time.
    """
    import numpy

    maps: dict[str, dict[str, Map]] = {}
    for (name, key), found in places.items():
        steps = max(k for k, _ in found) + 1
        maps.setdefault(name, {})[key] = numpy.zeros((len(losses), steps))
    targets = [
        (maps[name][key], k, x)
        for (name, key), found in places.items()
        for k, x in found
        if x is not None and x.edge is not None and kind_of(x.dtype) == "f"
    ]
    for t, value in enumerate(losses):
        if value is None or value.edge is None or not targets:
            continue
        gradients = tgr.grad(value, [x for *_, x in targets], retain_graph=True, allow_unused=True)
        for (into, k, _), g in zip(targets, gradients, strict=True):
            if g is not None:
                into[t, k] = numpy.linalg.norm(g.numpy().astype("float64"))
    return maps


class Decay(Chart):
    """What :func:`decay` finds.

    Attributes:
        curves: For each plan by its name, the norm of the last loss's gradient against steps back,
            ``(time,)``.
    """

    def __init__(self, curves: dict[str, Any]) -> None:
        self.curves = curves

    def plot(self) -> Any:
        """The curves, on a logarithmic scale; where one ends, nothing goes back any further.

        Raises:
            BackendError: There is no matplotlib.
        """
        figure = new_figure(6.4, 3.6)
        axes = figure.add_subplot()
        tidy(axes)
        count = len(self.curves)
        for i, (name, curve) in enumerate(self.curves.items()):
            there = curve > 0
            axes.plot(
                there.nonzero()[0],
                curve[there],
                label=plain(name),
                color=COLOURS[i % len(COLOURS)],
                # One upon the other, each narrower: where they are equal all can be seen.
                linewidth=1.5 + 2.2 * (count - 1 - i),
                solid_capstyle="butt",
            )
        axes.set(xlabel="steps back from the last loss", ylabel="norm of $dL_T/dh_{T-d}$")
        axes.set_yscale("log")
        axes.legend(frameon=False)
        return figure


def decay(
    cell: Any,
    xs: Any,
    state: Any = None,
    *,
    plans: Sequence[Truncation] | Mapping[str, Truncation] = (),
    loss: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Decay:
    """Follow the last loss's gradient back through time, in full and under truncation plans.

    Args:
        cell: A cell, or a function ``(x, state) -> (output, state)``.
        xs: As for :func:`tinygradrnn.scan`, ``(time, batch, features)``.
        state: As for :func:`tinygradrnn.scan`.
        plans: Truncation plans of ``tgr.bptt``, to be compared with the whole; of a random plan
            one draw is shown. A dict gives them names.
        loss: Of the last output, a scalar; by default the sum of its squares.
        options: Handed on to :func:`tinygradrnn.scan`.

    Raises:
        GradientError: The loss does not depend on any state.

    >>> found = tgr.viz.decay(
    ...     tgr.nn.RNNCell(2, 3), tgr.ones((8, 1, 2)), plans=[tgr.bptt.Chunk(4)]
    ... )
    >>> [(name, int((curve > 0).sum())) for name, curve in found.curves.items()]
    [('full', 8), ('Chunk(k=4)', 4)]
    """
    import numpy

    curves: dict[str, Any] = {}
    xs, state = _begun(xs, state)
    pairs = plans_by_name(plans, "decay")
    if any(name == "full" for name, _ in pairs):
        raise ShapeError("decay: a plan is called 'full', as is the whole; give it another name")
    for name, plan in [("full", None), *pairs]:
        with tgr.enable_grad():
            outputs, _, states = tgr.scan(
                cell, xs, state, truncation=plan, return_states=True, **options
            )
            time = len(tgr.tree.flatten(states)[0][0])
            lengths = options.get("lengths")
            end = time if lengths is None else int(tgr.max(tgr.tensor(lengths)))
            order = range(time) if options.get("reverse") else range(end - 1, -1, -1)
            last = tgr.tree.map(lambda y, at=order[0]: y[at], outputs)
            value = loss_of(
                lambda output, t: loss(output) if loss else tgr.sum(tgr.square(output)), last, 0
            )
        leaves = [x for x in tgr.tree.flatten(states)[0] if x.edge is not None]
        if value is None or value.edge is None or not leaves:
            raise GradientError("decay: the loss does not depend on any state")
        found = tgr.grad(value, leaves, allow_unused=True)
        square = sum(
            (g.numpy().reshape(len(g), -1).astype("float64") ** 2).sum(axis=1)
            for g in found
            if g is not None
        )
        curves[name] = numpy.zeros(time)
        curves[name][: len(order)] = numpy.sqrt(square)[list(order)]
    return Decay(curves)


class Spectrum(Chart):
    """What :func:`spectrum` finds.

    Attributes:
        values: The singular values of ``dh_t/dh_0`` for each t, ``(time, state)``, largest first.
    """

    def __init__(self, values: Any) -> None:
        self.values = values

    def plot(self) -> Any:
        """The values over time: what lies below 1 is forgotten, what lies above explodes.

        Raises:
            BackendError: There is no matplotlib.
        """
        import numpy

        figure = new_figure(6.4, 3.6)
        axes = figure.add_subplot()
        tidy(axes)
        steps, size = self.values.shape
        quantiles = numpy.linspace(0, size - 1, min(size, 9)).round().astype(int)
        for i in quantiles:
            shade = 0.15 + 0.75 * i / max(size - 1, 1)
            # What is left of rounding says nothing about the cell.
            noise = numpy.finfo(self.values.dtype).eps * self.values[:, 0]
            row = numpy.ma.masked_where(self.values[:, i] <= noise, self.values[:, i])
            label = {0: "largest", size - 1: "smallest"}.get(int(i))
            axes.plot(range(steps), row, color=_viridis(shade), linewidth=1.6, label=label)
        axes.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlabel="step t", ylabel=r"singular values of $dh_t/dh_0$", yscale="log")
        if size > 1:
            axes.legend(frameon=False)
        return figure


def _viridis(x: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](x)


def spectrum(source: Any, xs: Any = None, state: Any = None, **options: Any) -> Spectrum:
    """Follow the singular values of the product of step Jacobians, ``dh_t/dh_0``, over time.

    They say in how many directions, and how strongly, the first state is still felt (Pascanu et al.
    2013, arXiv:1211.5063).

    Args:
        source: A cell, or what :func:`tinygradrnn.bptt.anatomy` found.
        xs: As for :func:`tinygradrnn.scan`, ``(time, batch, features)``.
        state: As for :func:`tinygradrnn.scan`.
        options: Handed on to :func:`tinygradrnn.bptt.anatomy`; `sequence` says of which one.

    Raises:
        GradientError: As :func:`tinygradrnn.bptt.anatomy`.

    >>> tgr.viz.spectrum(tgr.nn.RNNCell(2, 3), tgr.ones((8, 1, 2))).values.shape
    (8, 3)
    """
    if not isinstance(source, Anatomy):
        options.setdefault("loss", lambda output, t: _total(output))
        source = anatomy(source, xs, state, **options)
    return Spectrum(source.product_singular_values)


def _total(output: Any) -> Tensor:
    leaves = [x for x in tgr.tree.flatten(output)[0] if kind_of(x.dtype) == "f"]
    total = tgr.sum(leaves[0])
    for x in leaves[1:]:
        total = total + tgr.sum(x)
    return total
