"""The main job: train a run to its end, with its progress on the terminal and in its folder.

Beside the checkpoint a run's folder has ``log.jsonl``, one line for each report and each sample,
and ``loss.png``, the curve, if matplotlib is installed.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinygradrnn import data, io
from tinygradrnn.baselines import baselines
from tinygradrnn.errors import DataError
from tinygradrnn.run import CHECKPOINT, Run, Settings, check_size, part, read_checkpoint

LOG = "log.jsonl"


def train(
    settings: Settings,
    folder: Path,
    *,
    steps: int,
    resume: bool = False,
    program: str = "tinygradrnn",
    report_every: int = 50,
    sample_every: int = 300,
    save_every: int = 100,
) -> int:
    """Train a run to `steps` updates, with progress on the terminal; return the exit code.

    Ctrl-C ends the step, saves and returns 130. A kill at any instant leaves the last checkpoint.

    Raises:
        DataError: The text, a setting or the folder cannot be used; or the loss is not finite.
        CheckpointError: The checkpoint to resume from cannot.
    """
    from tqdm import tqdm

    if steps < 1:
        raise DataError(f"steps is {steps}; expected 1 or more")
    run = _open(settings, folder, resume)
    if run.step > steps:
        raise DataError(f"{folder} has made {run.step} steps already; --steps {steps} is fewer")
    log = Log(folder / LOG, run.step)
    size = len(run.corpus.train)
    tqdm.write(
        f"{size:,} characters to learn, {len(run.corpus.valid):,} held out, "
        f"{len(run.corpus.vocabulary)} different; {settings.cell_name} of {settings.hidden_size}, "
        f"{sum(p.size for p in run.model.parameters()):,} weights, on {run.backend}"
    )
    per_step = settings.batch_size * settings.chunk
    losses: list[float] = []
    bar = tqdm(total=steps, initial=run.step, unit="step", dynamic_ncols=True)
    since = time.perf_counter()
    with _interruptible() as stopped, bar:
        if not resume:
            run.save(folder)  # so that it can be looked at, and resumed, from the first moment
        while run.step < steps and not stopped():
            now = run.step + 1
            reports = now % report_every == 0 or now == steps
            losses.append(run.update(measure=reports))
            if not math.isfinite(losses[-1]):
                raise _diverged(run, log, folder, f"the loss is {losses[-1]}")
            bar.update()
            if reports:
                elapsed = time.perf_counter() - since
                mean = sum(losses) / len(losses)
                speed = per_step * len(losses) / elapsed
                bar.set_postfix_str(f"{mean:.3f} bits/char, {speed:,.0f} chars/s")
                log.add(
                    step=now,
                    bits_per_character=mean,
                    characters_per_second=round(speed),
                    gradient_norms=run.gradient_norms,
                )
                losses, since = [], time.perf_counter()
            if now % sample_every == 0 and now < steps:
                sample = _sample(run, log, folder, 200)
                log.add(step=now, sample=sample)
                tqdm.write(f"\n--- after {now} steps ---\n{sample}\n")
            if now % save_every == 0:
                run.save(folder)
    run.save(folder)
    if stopped():
        tqdm.write(
            f"stopped after {run.step} steps; go on with: {program} train --resume --out {folder}"
        )
        return 128 + stopped()
    _finish(run, log, folder, program, tqdm.write)
    return 0


def _sample(run: Run, log: Log, folder: Path, length: int) -> str:
    try:
        return run.sample(length)
    except DataError:
        raise _diverged(run, log, folder, "the predictions are NaN") from None


def _diverged(run: Run, log: Log, folder: Path, how: str) -> DataError:
    log.add(step=run.step, diverged=how)
    return DataError(
        f"at step {run.step} {how}: training has diverged. Try a smaller --learning-rate or "
        f"--clip; the run's last checkpoint is kept in {folder}"
    )


def _open(settings: Settings, folder: Path, resume: bool) -> Run:
    exists = (folder / CHECKPOINT).exists()
    if exists and not resume:
        raise DataError(
            f"{folder} holds a run already, which is not overwritten; "
            "continue it with --resume or choose another --out"
        )
    if resume:
        arrays, meta = read_checkpoint(folder)
        vocabulary = data.Vocabulary.from_json(meta.get("vocabulary"))
        check_size(part(arrays, "model."), settings, vocabulary, folder)
        return Run(settings, (arrays, meta))
    run = Run(settings)  # bad input is found before a folder is made
    io.make_folder(folder)
    return run


@contextmanager
def _interruptible() -> Iterator[Callable[[], int]]:
    """Let Ctrl-C (or a polite kill) end the step instead of breaking it off; a second one does."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals are someone else's business
        pass
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Log:
    """A file of one JSON object a line. Lines after the step to resume from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if step and path.exists():
            self.entries = [e for e in entries(path) if e["step"] <= step]
        self._write()

    def add(self, **entry: Any) -> None:
        """Append a line."""
        self.entries.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _write(self) -> None:
        text = "".join(json.dumps(e) + "\n" for e in self.entries)
        io.write_atomic(self.path, text.encode())


def entries(path: Path) -> list[dict[str, Any]]:
    """What a run has written down, step by step; nothing if there is no file.

    Raises:
        DataError: A line is damaged, and not the last one, cut off by a kill.
    """
    return list(_lines(path)) if path.exists() else []


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    for number, line in enumerate(whole.split("\n") if whole else (), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            raise DataError(f"{path}: line {number} is damaged; mend it, or remove the file")
        yield entry


def _finish(run: Run, log: Log, folder: Path, program: str, say: Callable[[str], Any]) -> None:
    """The last sample, and the validation figure beside those of simple models."""
    sample = _sample(run, log, folder, 400)
    say(f"\n--- after {run.step} steps ---\n{sample}\n")
    bits = run.validate()
    others = baselines(run.corpus.train, run.corpus.valid, len(run.corpus.vocabulary))
    log.add(step=run.step, sample=sample, validation=bits, baselines=others)
    say("bits per character on the text held out (less is better):")
    mine = run.settings.cell_name
    for name, figure in sorted({**others, mine: bits}.items(), key=lambda x: -x[1]):
        say(f"  {name:<8} {figure:6.3f}{'   <- this run' if name == mine else ''}")
    if "xz" in others:
        say("  (xz sees all the text at once and gains from whole passages that repeat)")
    picture = _picture(log, folder)
    say(f"\nrun saved in {folder}{f', loss curve in {picture}' if picture else ''}")
    say(f"write with it: {program} sample {folder}")
    say(f"look at it: {program} show {folder}")


def _picture(log: Log, folder: Path) -> Path | None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    from io import BytesIO

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    points = [
        (e["step"], e["bits_per_character"]) for e in log.entries if "bits_per_character" in e
    ]
    axes.plot(*zip(*points, strict=True), label="training")
    last = log.entries[-1]
    axes.axhline(last["validation"], color="C1", label="validation, at the end")
    for name, bits in last["baselines"].items():
        axes.axhline(bits, color="0.6", linewidth=0.8, linestyle=":")
        axes.annotate(
            f" {name}", (1, bits), xycoords=("axes fraction", "data"), va="center", fontsize="small"
        )
    axes.set(xlabel="step", ylabel="bits per character")
    axes.legend()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    io.write_atomic(folder / "loss.png", buffer.getvalue())
    return folder / "loss.png"
