"""One page on a training run, finished or under way: what ``tinygradrnn show`` writes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import tinygradrnn as tgr
from tinygradrnn.chart import in_page, new_figure, plain, tidy
from tinygradrnn.errors import DataError
from tinygradrnn.io import write_atomic
from tinygradrnn.run import Settings, load_model, read_checkpoint
from tinygradrnn.train import LOG, entries
from tinygradrnn.viz.document import asset, document
from tinygradrnn.viz.saliency import saliency

SHOWN = 160  # characters of a sample whose predictions are looked into


def report(folder: str | Path, *, refresh: int = 0) -> str:
    """Write a page on a training run: loss, samples, gradients, saliency, and the cell's schedule.

    What a run that was made by an older version lacks is left out, and the page says so.

    Args:
        folder: The run's folder.
        refresh: After how many seconds the page loads itself again; 0 for never.

    Raises:
        CheckpointError: The folder holds no run, or a damaged one.
        DataError: Its log is damaged.
        BackendError: There is no matplotlib: ``pip install 'tinygradrnn[plot]'``.
    """
    folder = Path(folder).resolve()
    _, meta = read_checkpoint(folder)
    settings = Settings.from_json(meta.get("settings"))
    model, vocabulary = load_model(folder)
    log = _log(folder / LOG)
    done = bool(log) and "validation" in log[-1]  # a run that goes on has further entries
    sections = [
        _section("Loss", _loss(log)),
        _section("Gradients", _gradients(log, settings.clip)),
        _section("What it wrote", _samples(log)),
        _section("What its predictions lean on", _saliency(model, vocabulary, log)),
        _section("How its cell runs", _schedule(model, settings)),
        _section("Settings", _settings(settings, meta)),
    ]
    state = "finished" if done else "under way, or stopped"
    if log and "diverged" in log[-1]:
        at, how = log[-1]["step"], escape(str(log[-1]["diverged"]))
        state = f"diverged: at step {at} {how}; what is left is the checkpoint"
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    head = (
        f"<h1>{escape(settings.cell_name)} of {settings.hidden_size}, in {escape(folder.name)}</h1>"
        f"<p>{state}, after {meta.get('step')} steps; this page was written at {now}.</p>"
    )
    body = head + "".join(sections)
    page = document(
        f"Training run {folder.name}",
        asset("saliency.css") + asset("report.css"),
        body,
        asset("saliency.js"),
    )
    if refresh:
        again = f'<meta http-equiv="refresh" content="{refresh}">\n<title>'
        page = page.replace("<title>", again, 1)
    return page


def show(folder: Path, out: Path | None = None, *, refresh: int = 0) -> Path:
    """Write the page of a run to a file, by default ``report.html`` in its folder.

    Raises:
        CheckpointError: As :func:`report`.
        BackendError: As :func:`report`.
    """
    path = out or folder / "report.html"
    write_atomic(path, report(folder, refresh=refresh).encode())
    return path


def _log(path: Path) -> list[dict[str, Any]]:
    """What the run has written down, looked through for what is of the wrong kind."""
    found = entries(path)
    for entry in found:
        for key in ("bits_per_character", "characters_per_second", "validation"):
            _check(path, entry, key, _is_number, "a number")
        for key in ("gradient_norms", "baselines"):
            _check(path, entry, key, _are_numbers, "numbers by name")
        _check(path, entry, "sample", lambda x: isinstance(x, str), "text")
    return found


def _check(
    path: Path, entry: dict[str, Any], key: str, good: Callable[[Any], bool], expected: str
) -> None:
    if key in entry and not good(entry[key]):
        at = f"{path}: {key} of step {entry['step']}"
        raise DataError(f"{at} is {str(entry[key])[:80]!r}; expected {expected}")


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float)


def _are_numbers(x: Any) -> bool:
    return isinstance(x, dict) and all(map(_is_number, x.values()))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _missing(what: str) -> str:
    return f'<p class="missing">{escape(what)}</p>'


def _table(head: list[str], rows: list[list[Any]], summary: str = "the numbers") -> str:
    def line(cells: list[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f"<details><summary>{summary}</summary><div class='scroll'><table>"
        f"<thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table></div></details>"
    )


def _loss(log: list[dict[str, Any]]) -> str:
    points = [(e["step"], e["bits_per_character"]) for e in log if "bits_per_character" in e]
    if not points:
        return _missing("No loss has been written down yet.")
    figure = new_figure(8, 3.2)
    axes = figure.add_subplot()
    tidy(axes)
    axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "", label="training")
    told = f"training loss from {points[0][1]:.2f} to {points[-1][1]:.2f} bits per character"
    last = next((e for e in reversed(log) if "validation" in e), None)
    rows = [[step, f"{bits:.4f}"] for step, bits in points]
    if last:
        axes.axhline(last["validation"], color="C1", label="held-out text, at the end")
        told += f", {last['validation']:.2f} on held-out text"
        for name, bits in last.get("baselines", {}).items():
            axes.axhline(bits, color="0.6", linewidth=0.8, linestyle=":")
            axes.annotate(
                f" {plain(name)}",
                (1, bits),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
            )
            rows.append([name, f"{bits:.4f}"])
        rows.append(["held out", f"{last['validation']:.4f}"])
    axes.set(xlabel="update", ylabel="bits per character")
    axes.legend(frameon=False)
    speeds = [e["characters_per_second"] for e in log if "characters_per_second" in e]
    pace = f"<p>{sum(speeds) / len(speeds):,.0f} characters a second.</p>" if speeds else ""
    return in_page(figure, "loss", told) + pace + _table(["update", "bits per character"], rows)


def _gradients(log: list[dict[str, Any]], clip: float) -> str:
    found = [(e["step"], e["gradient_norms"]) for e in log if e.get("gradient_norms")]
    if not found:
        return _missing("This run has written down no norms of gradients.")
    figure = new_figure(8, 3.2)
    axes = figure.add_subplot()
    tidy(axes)
    names = list(found[-1][1])
    for i, name in enumerate(names):
        points = [(step, norms[name]) for step, norms in found if norms.get(name)]
        style = ("-", "--")[i % 2]  # dashes above lines: two that are equal are both seen
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, linestyle=style, linewidth=1.4, label=plain(name), zorder=3 + i % 2)
    whole = [(step, math.hypot(*norms.values())) for step, norms in found]
    axes.plot(*zip(*whole, strict=True), color="0.25", linewidth=2.2, label="all together")
    axes.axhline(clip, color="0.5", linewidth=1, linestyle=":", label=f"clipped to {clip:g}")
    axes.set(xlabel="update", ylabel="norm, before clipping", yscale="log")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    rows = [
        [step, *(f"{norms.get(n, 0):.3g}" for n in names), f"{total:.3g}"]
        for (step, norms), (_, total) in zip(found, whole, strict=True)
    ]
    told = f"norms of the gradients of {len(names)} weights over {found[-1][0]} updates"
    return in_page(figure, "gradients", told) + _table(["update", *names, "all together"], rows)


def _samples(log: list[dict[str, Any]]) -> str:
    found = [(e["step"], e["sample"]) for e in log if "sample" in e]
    if not found:
        return _missing("No sample has been written down yet.")
    parts = [
        f"<details{' open' if i == len(found) - 1 else ''}><summary>after {step} updates</summary>"
        f"<pre>{escape(str(text))}</pre></details>"
        for i, (step, text) in enumerate(found)
    ]
    return "".join(parts)


def _saliency(model: Any, vocabulary: Any, log: list[dict[str, Any]]) -> str:
    samples = [str(e["sample"]) for e in log if "sample" in e]
    text = (samples[-1] if samples else "").strip()[:SHOWN]
    try:
        return saliency(model, text or vocabulary.characters[:SHOWN], vocabulary).fragment()
    except DataError as error:  # the rest of the page tells the more
        return _missing(str(error))


def _schedule(model: Any, settings: Settings) -> str:
    shape = settings.chunk, settings.batch_size, settings.embedding_size
    found = tgr.explain(model.cell, tgr.zeros(shape, backend=model.readout.weight.backend))
    text = str(found).split("\nSOURCE of")[0]
    sources = "".join(
        f"<details><summary>the source of the {way} loop</summary><pre>{escape(source)}</pre>"
        "</details>"
        for way, source in found.sources.items()
    )
    return f"<pre>{escape(text)}</pre>{sources}"


def _settings(settings: Settings, meta: dict[str, Any]) -> str:
    rows = [[k, v] for k, v in dataclasses.asdict(settings).items() if v != ""]
    return _table(["setting", "value"], rows, f"{len(rows)} settings")
