"""The figures of the docs, drawn anew at every build from runs of the library itself.

A function under ``@figure`` returns a matplotlib Figure or the text of an SVG; its name is the name
of the file in ``docs/_figures``, which pages refer to. ``python docs/figures.py`` draws them all
without building the docs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinygradrnn as tgr

FIGURES: dict[str, Callable[[], Any]] = {}

# Okabe and Ito's colours, which also those tell apart who see fewer.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#777777",
)
BROWN = "#a06c00"  # the orange, for what is read


def figure(function: Callable[[], Any]) -> Callable[[], Any]:
    """Draw this at every build, under the function's name."""
    FIGURES[function.__name__] = function
    return function


def draw(name: str) -> str:
    """A figure as the text of an SVG, the same at every call."""
    import matplotlib

    drawn = FIGURES[name]()
    if isinstance(drawn, str):
        return drawn
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawn.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def draw_all(folder: Path) -> None:
    """Write all figures to a folder; what has not changed is not touched."""
    folder.mkdir(exist_ok=True)
    for name in FIGURES:
        path, text = folder / f"{name}.svg", draw(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Sphinx: draw before the pages are read."""
    app.connect("builder-inited", lambda app: draw_all(Path(app.srcdir) / "_figures"))
    return {"parallel_read_safe": True}


def canvas(width: float = 7.0, height: float = 3.0, columns: int = 1, **options: Any) -> Any:
    """A Figure and its axes. Not pyplot's: no display and no global state is touched."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(1, columns, **options)


def sketch(width: float, height: float) -> Any:
    """A Figure to draw boxes and arrows on, one unit to the inch."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height))
    axes = made.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return made, axes


def box(
    axes: Any, x: float, y: float, text: str = "", colour: str = BLUE, size: float = 0.5
) -> None:
    """A box with its middle at (x, y)."""
    from matplotlib.patches import FancyBboxPatch

    low = x - size / 2, y - size / 2
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch(low, size, size, style, facecolor="white", edgecolor=colour, lw=1.8)
    )
    axes.text(x, y, text, ha="center", va="center", color="0.1")


def arrow(
    axes: Any,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    colour: str = "0.3",
    bend: float = 0.0,
    **options: Any,
) -> None:
    """An arrow, with a word above its middle."""
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
    style |= {"connectionstyle": f"arc3,rad={bend}"} | options
    axes.annotate("", end, start, arrowprops=style)
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1
        axes.text(*middle, text, ha="center", va="bottom", color=colour)


# ----------------------------------------------------------------------------------- the tutorial


@figure
def neuron() -> Any:
    """The tape of one neuron: numbers forward, cotangents back."""
    made, axes = sketch(7.2, 2.5)
    places = {"$w$": (0.5, 1.9), "$b$": (1.8, 0.55), r"$\times$": (1.8, 1.9), "$+$": (3.2, 1.9)}
    places |= {"tanh": (4.7, 1.9), "loss": (6.2, 1.9)}
    for name, (x, y) in places.items():
        box(axes, x, y, name, GREEN if name in ("$w$", "$b$") else BLUE, 0.6)
    chain = ["$w$", r"$\times$", "$+$", "tanh", "loss"]
    forward, back = ["0.5", "1", "0", "0"], ["-2", "-1", "-1", "-1"]
    for i in range(4):
        (x0, y), (x1, _) = places[chain[i]], places[chain[i + 1]]
        arrow(axes, (x0 + 0.32, y + 0.08), (x1 - 0.32, y + 0.08), forward[i])
        arrow(axes, (x1 - 0.32, y - 0.12), (x0 + 0.32, y - 0.12), colour=RED)
        axes.text((x0 + x1) / 2, y - 0.2, back[i], ha="center", va="top", color=RED)
    arrow(axes, (2.12, 0.65), (3.1, 1.58))
    axes.text(2.5, 1.2, "-1", ha="right", color="0.3")
    arrow(axes, (3.26, 1.58), (2.12, 0.48), colour=RED)
    axes.text(2.95, 0.85, "-1", ha="left", color=RED)
    arrow(axes, (6.52, 1.9), (6.95, 1.9))
    axes.text(6.98, 1.9, "0.5", va="center", ha="left", color="0.3", fontsize=9)
    axes.text(4.0, 0.5, "numbers, forward", color="0.3")
    axes.text(4.0, 0.22, "cotangents, backward", color=RED)
    return made


@figure
def unrolled() -> Any:
    """The loop, and what happened when it ran."""
    made, axes = sketch(7.2, 2.9)
    y = 1.45
    box(axes, 0.9, y, "$f$", size=0.6)
    arrow(axes, (0.9, 0.55), (0.9, y - 0.32))
    axes.text(0.9, 0.42, "$x_t$", ha="center", va="top")
    arrow(axes, (0.9, y + 0.32), (0.9, 2.35))
    axes.text(0.9, 2.42, "$y_t$", ha="center", va="bottom")
    arrow(axes, (1.22, y + 0.1), (1.22, y - 0.1), bend=-2.2, colour=BROWN)
    axes.text(1.62, y, "$h$", color=BROWN, va="center")
    axes.text(2.05, y, "$=$", fontsize=18, va="center", ha="center")
    axes.text(2.5, y, "$h_{-1}$", va="center", ha="center", color=BROWN)
    for t in range(3):
        x = 3.5 + 1.45 * t
        box(axes, x, y, "$f$", size=0.6)
        arrow(axes, (x, 0.55), (x, y - 0.32))
        axes.text(x, 0.42, f"$x_{t}$", ha="center", va="top")
        arrow(axes, (x, y + 0.32), (x, 2.35))
        axes.text(x, 2.42, f"$y_{t}$", ha="center", va="bottom")
        start = 2.72 if t == 0 else x - 1.13
        arrow(axes, (start, y), (x - 0.32, y), f"$h_{t - 1}$" if t else "", BROWN)
        arrow(axes, (x - 0.2, 0.85), (x - 0.2, y - 0.32), colour=GREEN)
    arrow(axes, (6.72, y), (7.05, y), colour=BROWN)
    box(axes, 2.45, 0.85, "$w$", GREEN, 0.4)
    axes.plot([2.65, 6.2], [0.85, 0.85], color=GREEN, lw=1.4)
    return made


@figure
def shapes() -> Any:
    """The five shapes: where inputs go in, and which outputs are looked at."""
    kinds = [
        ("one to one", 1, (0,), (0,)),
        ("one to many", 3, (0,), (0, 1, 2)),
        ("many to one", 3, (0, 1, 2), (2,)),
        ("many to many", 5, (0, 1, 2), (3, 4)),
        ("synced", 3, (0, 1, 2), (0, 1, 2)),
    ]
    made, axes = sketch(8.4, 2.2)
    left = 0.45
    for name, steps, inputs, outputs in kinds:
        for t in range(steps):
            x = left + 0.46 * t
            box(axes, x, 1.15, "", BLUE, 0.28)
            if t in inputs:
                box(axes, x, 0.55, "", GREEN, 0.28)
                arrow(axes, (x, 0.7), (x, 1.0), mutation_scale=7)
            if t in outputs:
                box(axes, x, 1.75, "", RED, 0.28)
                arrow(axes, (x, 1.3), (x, 1.6), mutation_scale=7)
            if t:
                arrow(axes, (x - 0.31, 1.15), (x - 0.15, 1.15), mutation_scale=7)
        axes.text(left + 0.23 * (steps - 1), 0.2, name, ha="center", fontsize=9)
        left += 0.46 * (steps - 1) + 0.78
    return made


def hello_losses() -> tuple[list[float], list[float]]:
    """The losses of chapter 4, without a state and with one."""
    xs = tgr.eye(4, dtype="float64")[tgr.tensor([0, 1, 2, 2])]
    say = tgr.tensor([1, 2, 2, 3])
    rng = tgr.get_backend("numpy").rng(0)
    table = tgr.nn.Parameter(tgr.zeros((4, 4), "float64"))
    w_h = tgr.nn.Parameter(rng.normal((3, 7), dtype="float64"))
    w_o = tgr.nn.Parameter(rng.normal((4, 3), dtype="float64"))

    def cell(x: Any, h: Any) -> Any:
        h = tgr.tanh(w_h @ tgr.concat([h, x]))
        return w_o @ h, h

    def train(loss: Callable[[], Any], weights: list[Any]) -> list[float]:
        optimizer, history = tgr.optim.Adam(weights, lr=0.05), []
        for _ in range(200):
            optimizer.zero_grad()
            total = loss()
            total.backward()
            optimizer.step()
            history.append(total.item())
        return history

    without = train(lambda: tgr.cross_entropy(xs @ table, say), [table])
    start = tgr.zeros((3,), "float64")
    with_one = train(lambda: tgr.cross_entropy(tgr.scan(cell, xs, start)[0], say), [w_h, w_o])
    return without, with_one


@figure
def hello() -> Any:
    """The loss on "hell", without a state and with one."""
    without, with_one = hello_losses()
    made, axes = canvas(6.4, 3.0)
    axes.plot(without, color=ORANGE, lw=2, ls="-.")
    axes.plot(with_one, color=BLUE, lw=2)
    axes.axhline(np.log(2) / 2, color=GREY, ls="--", lw=1)
    axes.text(100, 0.53, "without a state", color=BROWN)
    axes.text(45, 0.12, "with a state", color=BLUE)
    axes.text(199, 0.32, r"$\frac{1}{2}\log 2$", color="0.3", ha="right", va="top")
    axes.set(xlabel="training steps", ylabel="loss", ylim=(0, None), xlim=(0, 200))
    axes.spines[["top", "right"]].set_visible(False)
    return made


@figure
def hello_tape() -> Any:
    """The tape of "hell" to "ello", with what goes back along it."""
    rng = tgr.get_backend("numpy").rng(0)
    w_h = tgr.nn.Parameter(rng.normal((3, 7), dtype="float64"))
    w_o = tgr.nn.Parameter(rng.normal((4, 3), dtype="float64"))
    w_h.name, w_o.name = "w_h", "w_o"
    h, losses = tgr.zeros((3,), "float64"), []
    with tgr.watch():
        for t, (read, say) in enumerate([(0, 1), (1, 2), (2, 2), (2, 3)]):
            with tgr.step(t, "hello"):
                x = tgr.eye(4, dtype="float64")[read]
                h = tgr.tanh(w_h @ tgr.concat([h, x]))
                losses.append(tgr.cross_entropy(w_o @ h, tgr.tensor(say)))
        loss = tgr.mean(tgr.stack(losses))
    return tgr.viz.tape(loss, title='"hell" to "ello", unrolled').svg()


@figure
def paper_tape() -> Any:
    """The network on the sheet of paper, as its tape."""
    start = {"w_h": 0.5, "w_x": 1.0, "w_o": 2.0}
    w_h, w_x, w_o = (tgr.nn.Parameter(tgr.tensor(w, dtype="float64")) for w in start.values())
    for name, w in zip(start, (w_h, w_x, w_o), strict=True):
        w.name = name
    h, losses = tgr.zeros((), "float64"), []
    with tgr.watch():
        for t, y in enumerate([1.0, 2.0, 3.0]):
            with tgr.step(t, "paper"):
                h = w_h * h + w_x * 1.0
                o = w_o * h
                losses.append(0.5 * (o - y) ** 2)
        loss = tgr.mean(tgr.stack(losses))
    return tgr.viz.tape(loss, title="The sheet of paper, unrolled").svg()


@figure
def terms() -> Any:
    """The six terms of dL/dw_h on the sheet of paper of chapter 5."""
    before, dl_dh, w = [0.0, 1.0, 1.5], [2.0, 2.0, 1.0], 0.5
    table = [[dl_dh[t] * w ** (t - i) * before[i] / 3 for i in range(t + 1)] for t in range(3)]
    made, axes = sketch(6.0, 3.3)
    for t, row in enumerate(table):
        y = 2.45 - 0.6 * t
        axes.text(1.3, y, f"loss at $t = {t}$", ha="right", va="center")
        for i, value in enumerate(row):
            x = 2.0 + 1.0 * i
            strength = value / max(max(row) for row in table)
            colour = tuple(1 - strength * (1 - c) * 0.6 for c in (0.0, 0.447, 0.698))
            axes.add_patch(_rectangle(x - 0.47, y - 0.27, 0.94, 0.54, colour))
            axes.text(x, y, f"{value:.3f}", ha="center", va="center")
    for i in range(3):
        x = 2.0 + i
        axes.text(x, 2.95, f"$w_h$ at $i = {i}$", ha="center", va="center", fontsize=9)
        axes.text(x, 0.5, f"{sum(row[i] for row in table if i < len(row)):.3f}", ha="center")
    axes.plot([0.2, 5.6], [0.85, 0.85], color="0.3", lw=1)
    axes.text(1.3, 0.5, "sum", ha="right")
    total = sum(map(sum, table))
    axes.text(4.65, 0.5, f"$\\rightarrow\\; {total:.3f}$", ha="left", color=RED)
    return made


def _rectangle(x: float, y: float, width: float, height: float, colour: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="0.4", lw=0.8)


def small_cell(kind: Any, inputs: int = 1) -> Any:
    """A cell of 16 with the weights that the tutorial gives it."""
    return kind(inputs, 16, rng=tgr.get_backend("numpy").rng(0), dtype="float64")


def noise() -> Any:
    """The sequence of 40 steps that the tutorial looks at."""
    return tgr.tensor(np.random.default_rng(0).normal(size=(40, 1, 1)))


def anatomy(cell: Any) -> Any:
    """What a cell does to the gradient of the sum of its outputs."""
    return tgr.bptt.anatomy(cell, noise(), loss=lambda output, t: tgr.sum(output))


def by_gain() -> dict[float, Any]:
    """The three networks of chapter 7, whose recurrent weights are orthogonal times a gain."""
    found = {}
    for gain in (0.8, 1.2, 2.0):
        cell, rng = small_cell(tgr.nn.RNNCell), tgr.get_backend("numpy").rng(0)
        cell.weight_hh.assign(tgr.nn.init.orthogonal((16, 16), gain, rng=rng, dtype="float64"))
        found[gain] = anatomy(cell)
    return found


def maps(named: dict[str, Any], low: float = 1e-6, high: float = 1e2) -> Any:
    """The norms of dL_t/dh_k side by side, on one logarithmic scale; zero stays blank."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    scale = LogNorm(low, high)
    made, axes = canvas(2.3 * len(named) + 0.9, 2.7, len(named), squeeze=False, sharey=True)
    for ax, (name, norms) in zip(axes[0], named.items(), strict=True):
        shown = np.ma.masked_where(norms == 0, np.maximum(norms, low))
        ax.imshow(shown, cmap="cividis", norm=scale, interpolation="nearest")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("state at step $k$")
    axes[0, 0].set_ylabel("loss at step $t$")
    made.colorbar(ScalarMappable(scale, "cividis"), ax=axes[0], shrink=0.85, extend="both")
    return made


@figure
def large_t() -> Any:
    """Vanishing, about right, exploding."""
    return maps({f"gain {gain}": found.cotangents for gain, found in by_gain().items()})


@figure
def singular_values() -> Any:
    """The singular values of dh_t/dh_0 as t grows."""
    made, axes = canvas(7.2, 2.7, 3, sharey=True)
    for ax, (gain, found) in zip(axes, by_gain().items(), strict=True):
        ax.semilogy(found.product_singular_values, color=BLUE, lw=1)
        ax.axhline(1, color=GREY, ls="--", lw=1)
        ax.set(title=f"gain {gain}", xlabel="$t$", ylim=(1e-12, 1e4))
        ax.title.set_fontsize(10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("singular values")
    return made


@figure
def masks() -> Any:
    """Which steps a loss reaches under four plans."""
    plans = [tgr.bptt.Full(), tgr.bptt.Chunk(4), tgr.bptt.Window(2, 4), tgr.bptt.Depth(4)]
    made, axes = canvas(8.0, 2.4, len(plans), sharey=True)
    for ax, plan in zip(axes, plans, strict=True):
        ax.pcolormesh(plan.mask(12), cmap="Blues", vmin=0, vmax=1.3, edgecolors="0.8", lw=0.5)
        ax.set(aspect="equal", xticks=[], yticks=[], xlabel="reaches step $i$")
        values = ", ".join(map(str, vars(plan).values()))
        ax.set_title(f"{type(plan).__name__}({values})", fontsize=10)
    axes[0].invert_yaxis()  # of all, since they share it
    axes[0].set_ylabel("loss at step $t$")
    return made


@figure
def unbiased() -> Any:
    """The running mean of random truncations on the network at rest of chapter 9."""
    terms = np.array([[0.5 ** (t - i) if i <= t else 0.0 for i in range(4)] for t in range(4)])
    with tgr.use_backend("numpy"):
        plan = tgr.bptt.Random(0.5, rng=3)
    draws = np.array([(plan.mask(4) * terms).sum() for _ in range(3000)])
    n = np.arange(1, len(draws) + 1)
    mean = draws.cumsum() / n
    spread = np.sqrt(np.maximum((draws**2).cumsum() / n - mean**2, 0) / n)
    made, axes = canvas(6.4, 3.0)
    late = n >= 10
    low, high = (mean - 2 * spread)[late], (mean + 2 * spread)[late]
    axes.fill_between(n[late], low, high, color=BLUE, alpha=0.2, lw=0)
    axes.semilogx(n, mean, color=BLUE, lw=1.5)
    axes.axhline(6.125, color="0.2", lw=1)
    axes.axhline(5.0, color=RED, lw=1.5, ls="--")
    axes.text(3000, 6.2, "full gradient", ha="right", va="bottom", color="0.2")
    axes.text(3000, 5.05, "chunks of 2", ha="right", va="bottom", color=RED)
    axes.text(12, 7.4, "mean of random draws", color=BLUE)
    axes.set(xlabel="draws", ylabel="gradient", xlim=(1, 3000), ylim=(4, 9))
    axes.spines[["top", "right"]].set_visible(False)
    return made


@figure
def cliff() -> Any:
    """Clipped steps down a wall, and the first step of the unclipped."""
    ws = np.linspace(0.55, 1.14, 300)
    made, axes = canvas(6.4, 3.0)
    axes.plot(ws, 0.5 * (ws**20 - 0.5) ** 2, color="0.3", lw=1.5)
    w, path = 1.12, []
    for _ in range(30):
        path.append(w)
        slope = (w**20 - 0.5) * 20 * w**19
        w -= 0.01 * np.clip(slope, -1.0, 1.0)
    path = np.array(path)
    losses = 0.5 * (path**20 - 0.5) ** 2
    axes.plot(path, losses, "o-", color=BLUE, ms=4, lw=1)
    arrow(axes, (path[0], losses[0]), (0.56, losses[0]), colour=RED)
    axes.text(
        0.75, losses[0] - 13, "unclipped, one step:\nout of the picture", color=RED, ha="center"
    )
    axes.text(1.03, 11, "clipped", color=BLUE, ha="right")
    axes.set(xlabel="$w$", ylabel="$L$", xlim=(0.55, 1.14), ylim=(-1, None))
    axes.spines[["top", "right"]].set_visible(False)
    return made


def open_gates() -> dict[str, Any]:
    """The four cells of chapter 11."""
    lstm, gru = small_cell(tgr.nn.LSTMCell), small_cell(tgr.nn.GRUCell)
    tgr.nn.init.forget_gate_bias_(lstm, 3.7)
    bias = gru.bias_ih.numpy().copy()
    bias[16:32] = 3.7
    gru.bias_ih.assign(bias)
    named = {"RNN": small_cell(tgr.nn.RNNCell), "LSTM": small_cell(tgr.nn.LSTMCell)}
    return named | {"LSTM, bias 3.7": lstm, "GRU, bias 3.7": gru}


@figure
def gates() -> Any:
    """Which states a loss reaches in a plain cell, and in cells with gates."""
    return maps({name: anatomy(cell).cotangents for name, cell in open_gates().items()})


@figure
def inside_lstm() -> Any:
    """The same for the parts of an LSTM."""
    cell = open_gates()["LSTM, bias 3.7"]

    def loss(output: Any, t: int) -> Any:
        return tgr.sum(output)

    flow = tgr.viz.gradient_flow(cell, noise(), loss=loss, values=["h", "c", "f"])
    (found,) = flow.maps.values()
    named = {"h": "$h$", "c": "$c$", "f": "forget gate $f$"}
    return maps({named[key]: found[key] for key in named}, 1e-3, 1e1)


if __name__ == "__main__":
    draw_all(Path(__file__).with_name("_figures"))
