"""Which earlier characters a prediction leans on."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import tinygradrnn as tgr
from tinygradrnn.data import Vocabulary
from tinygradrnn.errors import DataError, DtypeError, ShapeError
from tinygradrnn.io import write_atomic
from tinygradrnn.viz.document import asset, document, embedded

LIMIT = 2000
"""Characters of text at most: the numbers are as many as its length, squared."""

_TOGETHER = 64  # predictions that are looked at in one pass


class Saliency:
    """What :func:`saliency` finds; in a notebook and as a page one picks a character to see it.

    Attributes:
        text: The text.
        scores: How much the prediction after position t leans on position k, at ``[t, k]``; zero
            for k > t. NumPy, ``(time, time)``.
        chosen: The character whose probability was looked at, for each position: the next one of
            the text; at the end the most probable.
        probability: What the model gave it, ``(time,)``.
        expected: The three most probable characters after each position, with probabilities.
    """

    def __init__(
        self,
        text: str,
        scores: Any,
        chosen: Sequence[str],
        probability: Any,
        expected: Sequence[Sequence[tuple[str, float]]],
    ) -> None:
        self.text, self.scores, self.chosen = text, scores, list(chosen)
        self.probability, self.expected = probability, expected

    def terminal(self, position: int = -1, *, colour: bool | None = None, width: int = 80) -> str:
        """The text with a bar under each character that the prediction at `position` leans on.

        Args:
            position: After which character.
            colour: Whether to colour the text, too; by default if the terminal can.
            width: Columns.

        Raises:
            ShapeError: There is no such position, or no column.
        """
        t = self._position(position)
        if type(width) is not int or width < 1:
            raise ShapeError(f"viz.saliency: width={width!r}; expected a number of columns")
        if colour is None:
            colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        row = self.scores[t]
        largest = row.max() or 1.0
        lines: list[str] = []
        for start in range(0, t + 1, width):
            stop = min(start + width, t + 1)
            part = [_visible(c) for c in self.text[start:stop]]
            levels = [round(8 * row[k] / largest) for k in range(start, stop)]
            if colour:
                part = [_shaded(c, n) for c, n in zip(part, levels, strict=True)]
            lines += ["".join(part), "".join(" ▁▂▃▄▅▆▇█"[n] for n in levels).rstrip()]
        said = ", ".join(f"{_visible(c)!r} {p:.0%}" for c, p in self.expected[t])
        lines.append(
            f"after {t + 1} characters, for {_visible(self.chosen[t])!r}: "
            f"{self.probability[t]:.1%}; most probable: {said}"
        )
        return "\n".join(lines)

    def fragment(self) -> str:
        """The part of a page that shows it."""
        spans = "".join(
            f'<span tabindex="-1" data-k="{k}">{escape(_visible(c))}</span>'
            + ("<br>" if c == "\n" else "")
            for k, c in enumerate(self.text)
        )
        largest = self.scores.max(axis=1, keepdims=True)
        data = {
            # Whole percents of each row's largest, up to the position.
            "shares": [
                [round(100 * float(x / (m or 1.0))) for x in row[: t + 1]]
                for t, (row, (m,)) in enumerate(zip(self.scores, largest, strict=True))
            ],
            "start": self._telling(),
            "chosen": [_named(c) for c in self.chosen],
            "probability": [round(float(p), 4) for p in self.probability],
            "expected": [[[_named(c), round(p, 4)] for c, p in row] for row in self.expected],
        }
        return (
            '<div class="saliency"><p class="said" aria-live="polite"></p>'
            f'<p class="text">{spans}</p><p class="legend">leans on it: not at all '
            "<i></i><i></i><i></i><i></i><i></i> most. Click a character, or use the arrow keys."
            f'</p><script type="application/json">{embedded(data)}</script></div>'
        )

    def html(self) -> str:
        """A page that needs nothing else."""
        return document(
            "What a prediction leans on",
            asset("saliency.css"),
            f"<h1>What a prediction leans on</h1>{self.fragment()}",
            asset("saliency.js"),
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file.

        Raises:
            ShapeError: Its name does not end in ``.html``.
        """
        path = Path(path)
        if path.suffix != ".html":
            raise ShapeError(f"viz.saliency: {path.name!r}; expected a name in .html")
        write_atomic(path, self.html().encode())
        return path

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html())}" style="width:100%;height:360px;border:0" '
            'title="What a prediction leans on"></iframe>'
        )

    def _telling(self) -> int:
        """Where to begin: the last place inside of a word."""
        pairs = list(zip(self.text, self.chosen, strict=True))
        inside = [t for t, (a, b) in enumerate(pairs) if a.isalnum() and b.isalnum()]
        return inside[-1] if inside else len(pairs) - 1

    def _position(self, position: int) -> int:
        if type(position) is not int or not -len(self.text) <= position < len(self.text):
            raise ShapeError(
                f"viz.saliency: position={position!r}; the text has {len(self.text)} characters"
            )
        return position % len(self.text)

    def __repr__(self) -> str:
        return f"<saliency of {len(self.text)} characters>"


_SHADES = (231, 230, 229, 223, 222, 216, 215, 209, 208)  # of a terminal's 256 colours, to orange


def saliency(
    model: Any, text: str, vocabulary: Vocabulary | None = None, *, times_input: bool = False
) -> Saliency:
    """Find which earlier characters each prediction of the next one leans on.

    The score is the norm of the gradient of the next character's log-probability with respect to an
    earlier character's embedding (Simonyan et al. 2014, arXiv:1312.6034).

    Args:
        model: A :class:`~tinygradrnn.charmodel.CharModel`, or a module like it: ``embedding(ids)``
            and ``logits(embedded)``, which gives ``(time, batch, characters)``, alone or first in a
            tuple. Or the folder of a training run.
        text: What to look at, at most 2,000 characters.
        vocabulary: The characters that the model knows; a run has its own.
        times_input: Take the product of gradient and embedding, ``|sum_i g_i e_i|``, and not the
            gradient alone: what the character did, and not what a change of it would do.

    Raises:
        DataError: The text is empty, too long, or has characters that the model does not know; or
            its predictions are NaN, or of other characters than the vocabulary's.
        DtypeError: The model has no ``embedding`` and ``logits``, or there is no vocabulary.
        CheckpointError: The folder holds no run.

    >>> from tinygradrnn.charmodel import CharModel
    >>> known = tgr.data.Vocabulary.of("hello world")
    >>> model = CharModel(len(known), "gru", 4, 8, tgr.current_backend().rng(0))
    >>> found = tgr.viz.saliency(model, "hello", known)
    >>> found.scores.shape, found.chosen[:4]
    ((5, 5), ['e', 'l', 'l', 'o'])
    """
    import numpy

    if isinstance(model, str | Path):
        from tinygradrnn.run import load_model

        model, own = load_model(Path(model))
        vocabulary = vocabulary or own
    missing = [n for n in ("embedding", "logits") if not callable(getattr(model, n, None))]
    if missing:
        name = type(model).__name__
        raise DtypeError(f"viz.saliency: {name} has no {' and no '.join(missing)} to call")
    if not isinstance(vocabulary, Vocabulary):
        raise DtypeError(
            f"viz.saliency: vocabulary is {vocabulary!r}; expected the Vocabulary of the model"
        )
    if not isinstance(text, str) or not 0 < len(text) <= LIMIT:
        found = f"{len(text)} characters" if isinstance(text, str) else repr(text)
        raise DataError(f"viz.saliency: text is {found}; expected 1 to {LIMIT} characters")
    ids = vocabulary.encode(text)
    backend = next(iter(model.parameters())).backend
    time = len(ids)
    scores = numpy.zeros((time, time))
    targets, probability = numpy.zeros(time, "int64"), numpy.zeros(time)
    expected: list[list[tuple[str, float]]] = []
    with tgr.no_grad():
        vectors = model.embedding(tgr.tensor(ids.reshape(-1, 1), backend=backend))
    for start in range(0, time, _TOGETHER):
        stop = min(start + _TOGETHER, time)
        # One copy of the text for each prediction: so all their gradients come in one walk back.
        many = tgr.broadcast_to(vectors[:stop], (stop, stop - start, vectors.shape[-1]))
        inputs = tgr.tensor(many, requires_grad=True)
        with tgr.enable_grad():
            result = model.logits(inputs)
            logits = result[0] if isinstance(result, tuple) else result
            if logits.ndim != 3 or logits.shape[:2] != (stop, stop - start):
                raise ShapeError(
                    f"viz.saliency: logits of shape {logits.shape}; expected "
                    f"({stop}, {stop - start}, characters)"
                )
            if logits.shape[2] != len(vocabulary):
                raise DataError(
                    f"viz.saliency: the model tells {logits.shape[2]} characters apart, the "
                    f"vocabulary has {len(vocabulary)}"
                )
            rows = tgr.stack([logits[t, t - start] for t in range(start, stop)])
            logs = tgr.log_softmax(rows, axis=-1)
            host = logs.numpy()
            if numpy.isnan(host).any():
                raise DataError("viz.saliency: the model's predictions are NaN: it has diverged")
            for t in range(start, stop):
                best = host[t - start].argsort()[::-1][:3]
                targets[t] = ids[t + 1] if t + 1 < time else best[0]
                probability[t] = numpy.exp(host[t - start, targets[t]])
                expected.append(
                    [(vocabulary.characters[i], float(numpy.exp(host[t - start, i]))) for i in best]
                )
            wanted = tgr.tensor(targets[start:stop].reshape(-1, 1), backend=backend)
            total = tgr.sum(tgr.take_along_axis(logs, wanted, axis=-1))
        (g,) = tgr.grad(total, inputs)
        g = g.numpy().astype("float64")
        if times_input:
            parts = numpy.abs((g * inputs.numpy()).sum(axis=-1))
        else:
            parts = numpy.linalg.norm(g, axis=-1)
        scores[start:stop, :stop] = parts.T
    chosen = [vocabulary.characters[i] for i in targets]
    return Saliency(text, scores, chosen, probability, expected)


def _shaded(c: str, level: int) -> str:
    """A character for a terminal: black on its shade, or as all text there is."""
    return f"\033[38;5;16;48;5;{_SHADES[level]}m{c}\033[0m" if level else c


def _named(c: str) -> str:
    """A character that stands alone."""
    return "␣" if c == " " else _visible(c)


def _visible(c: str) -> str:
    return {"\n": "⏎", "\t": "→", "\r": "␍"}.get(c, c)
