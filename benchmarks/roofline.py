"""A picture of how fast products run inside of a loop, and of what the machine allows.

In a step every weight is read once and multiplied with each row of the batch: half an operation a
byte for each row. With few rows the limit is how fast weights come out of the caches, with many
how fast the processor multiplies (Williams et al. 2009, *Roofline*).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

# Colours that remain apart for the colour-blind (Okabe and Ito).
_COLOURS = {"llvm": "#0072b2", "numpy": "#e69f00", "torch-nn": "#000000", "jax": "#cc79a7"}
_MARKERS = {"lstm": "o", "gru": "s", "rnn": "^", "peephole": "D", "layernorm-gru": "P"}


def draw(
    file: Path,
    points: Mapping[tuple[str, str], Sequence[tuple[int, float]]],
    best: float,
    bytes_a_second: float,
) -> None:
    """Draw the rates of contestants.

    Args:
        file: Where to write the picture; its ending says in which format.
        points: For each contestant and cell the rows of a batch and operations a second.
        best: Operations a second of a large product.
        bytes_a_second: How fast a matrix is read in a product with a single row.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    ends = sorted({batch / 2 for some in points.values() for batch, _ in some})
    intensities = [
        ends[0] / 2,
        *(x for x in [best / bytes_a_second] if ends[0] / 2 < x < 2 * ends[-1]),
    ]
    intensities.append(2 * ends[-1])
    roof = [min(best, x * bytes_a_second) / 1e9 for x in intensities]
    axes.plot(intensities, roof, color="0.6")
    names = list(dict.fromkeys(name for name, _ in points))
    for (name, cell), some in points.items():
        beside = 1.05 ** (names.index(name) - (len(names) - 1) / 2)  # so that few cover others
        axes.plot(
            [batch / 2 * beside for batch, _ in some],
            [rate / 1e9 for _, rate in some],
            linestyle="none",
            marker=_MARKERS[cell],
            color=_COLOURS.get(name, "0.6"),
            markerfacecolor="none",
        )
    cells = dict.fromkeys(cell for _, cell in points)
    signs = [Line2D([], [], color=_COLOURS.get(name, "0.6"), lw=4, label=name) for name in names]
    signs += [Line2D([], [], ls="", marker=_MARKERS[c], color="0.2", label=c) for c in cells]
    figure.legend(handles=signs, loc="outside right upper", fontsize="small")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="operations for each byte of the weights (half the batch)",
        ylabel="GFLOP/s of the matrix products",
        title="grey: what products alone reach",
    )
    figure.savefig(file)
