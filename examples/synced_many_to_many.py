"""Synced many to many: the kind of token at every character of Python source; a highlighter.

The truth is what the standard library's ``tokenize`` says of the standard library's own files. It
reads from the left and knows the grammar; the network reads 200 characters, in both directions.

    python examples/synced_many_to_many.py
"""

from __future__ import annotations

import html
import io
import keyword
import sysconfig
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

import tinygradrnn as tgr
from common import fit, options, table

KINDS = ["space", "keyword", "name", "number", "string", "comment", "operator"]
COLOURS = ["0", "35", "0", "36", "32", "90", "33"]  # of a terminal: ESC [ 35 m is magenta, ...
STYLES = ["", "color:#a0a", "", "color:#088", "color:#080", "color:#888", "color:#a50"]
CHARACTERS = 128  # ASCII; number 0, which no source has, stands for all others
WINDOW = 200


def kinds(source: str) -> Any:
    """The kind of token at each character, by ``tokenize``: where there is none it is space."""
    starts = np.cumsum([0] + [len(line) for line in io.StringIO(source)])
    found = np.zeros(len(source), "int64")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if name == "NAME":
            kind = "keyword" if keyword.iskeyword(token.string) else "name"
        elif name.startswith(("FSTRING", "TSTRING")):  # in parts, since Python 3.12
            kind = "string"
        else:
            kind = {"OP": "operator"}.get(name, name.lower())  # or number, string, comment
        (first, left), (last, right) = token.start, token.end
        if kind in KINDS:  # ends of lines and indents are space
            found[starts[first - 1] + left : starts[last - 1] + right] = KINDS.index(kind)
    return found


def characters(source: str) -> Any:
    """Numbers from 0 to 127."""
    return np.array([ord(c) if ord(c) < CHARACTERS else 0 for c in source], "int64")


def windows(sources: list[str]) -> tuple[Any, Any]:
    """Characters and kinds, both ``(WINDOW, n)``: each text cut in pieces, its short end left."""

    def cut(of: Any) -> Any:
        found = (of(source)[: len(source) // WINDOW * WINDOW] for source in sources)
        return np.concatenate(list(found)).reshape(-1, WINDOW).T

    return cut(characters), cut(kinds)


def library(rng: Any, files: int) -> list[tuple[str, str]]:
    """Names and sources of modules at the top of the standard library, in random order."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in sorted(folder.glob("*.py")) if not p.name.startswith("_sysconfigdata")]
    chosen = [paths[i] for i in rng.permutation(len(paths))]
    texts = ((path.name, path.read_text(encoding="utf-8")) for path in chosen)
    found = [(name, text) for name, text in texts if len(text) > 10 * WINDOW]
    if len(found) < 10:
        raise SystemExit(f"{folder} does not hold the source of the standard library")
    return found[:files]


class Highlighter(tgr.nn.Module):
    """Characters ``(time, batch)`` to logits ``(time, batch, kind)``.

    One cell reads rightward, one leftward: only what follows tells the ``in`` of ``in x`` from that
    of ``int``.
    """

    def __init__(self, hidden: int, rng: Any) -> None:
        self.embedding = tgr.nn.Embedding(CHARACTERS, 32, rng=rng)
        self.rightward = tgr.nn.GRUCell(32, hidden, rng=rng)
        self.leftward = tgr.nn.GRUCell(32, hidden, rng=rng)
        self.readout = tgr.nn.Linear(2 * hidden, len(KINDS), rng=rng)

    def forward(self, ids: Any) -> tgr.Tensor:
        x = self.embedding(ids)
        there, _ = tgr.scan(self.rightward, x)
        back, _ = tgr.scan(self.leftward, x, reverse=True)
        return self.readout(tgr.concat([there, back], axis=-1))

    def highlight(self, ids: Any) -> Any:
        """The likeliest kind at each character, of numbers ``(time, batch)``."""
        with tgr.no_grad():
            return tgr.argmax(self(tgr.tensor(ids)), axis=-1).numpy()


def runs(source: str, labels: Any) -> Iterator[tuple[int, str]]:
    """The source in pieces of one kind each."""
    for k, group in groupby(zip(source, labels, strict=True), key=lambda pair: pair[1]):
        yield k, "".join(c for c, _ in group)


def in_colour(source: str, labels: Any) -> str:
    """The source with a terminal's colours."""
    return "".join(f"\033[{COLOURS[k]}m{text}\033[0m" for k, text in runs(source, labels))


def in_html(source: str, columns: dict[str, Any]) -> str:
    """A page with the source once for each set of labels, side by side."""
    cells = []
    for title, labels in columns.items():
        marked = "".join(
            f'<span style="{STYLES[k]}">{html.escape(text)}</span>'
            for k, text in runs(source, labels)
        )
        cells.append(f"<td valign=top><h3>{html.escape(title)}</h3><pre>{marked}</pre></td>")
    return f"<!doctype html><meta charset=utf-8><table><tr>{''.join(cells)}</tr></table>\n"


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__ or "", steps=400)
    parser.add_argument("--hidden", type=int, default=64, help="size of each of the two states")
    parser.add_argument("--files", type=int, default=100, help="modules, a fifth of them held out")
    parser.add_argument(
        "--html", type=Path, default=Path("runs/highlighted.html"), help="where the page goes"
    )
    args = parser.parse_args(argv)
    if args.files < 5:
        parser.error("--files: expected 5 or more")
    tgr.use_backend(args.backend)
    rng = np.random.default_rng(args.seed)
    files = library(rng, args.files)
    cut = len(files) // 5
    held_out, rest = files[:cut], files[cut:]
    ids, labels = windows([source for _, source in rest])
    model = Highlighter(args.hidden, tgr.current_backend().rng(args.seed))
    print(f"{ids.size:,} characters of {len(rest)} modules; {cut} others are held out")

    def loss() -> tgr.Tensor:
        i = rng.integers(ids.shape[1], size=32)
        return tgr.cross_entropy(model(tgr.tensor(ids[:, i])), tgr.tensor(labels[:, i]))

    losses = fit(model, loss, args.steps, lr=1e-2)

    test_ids, truth = windows([source for _, source in held_out])
    answers = np.concatenate(
        [model.highlight(test_ids[:, i : i + 500]) for i in range(0, test_ids.shape[1], 500)],
        axis=1,
    )
    one, two = np.zeros((CHARACTERS, len(KINDS))), np.zeros((CHARACTERS, CHARACTERS, len(KINDS)))
    np.add.at(one, (ids, labels), 1)
    np.add.at(two, (ids[:-1], ids[1:], labels[1:]), 1)
    by_one = one.argmax(axis=1)[test_ids]
    by_two = np.concatenate([by_one[:1], two.argmax(axis=2)[test_ids[:-1], test_ids[1:]]])

    name, source = held_out[0]
    test_ids, _ = windows([source])
    mine, tokenized = model.highlight(test_ids).T.ravel(), kinds(source)
    source = source[: len(mine)]
    columns = {f"{name}, by the network": mine, "by tokenize": tokenized[: len(mine)]}
    args.html.parent.mkdir(parents=True, exist_ok=True)
    args.html.write_text(in_html(source, columns), encoding="utf-8")
    lines = [i + 1 for i, c in enumerate(source[:-900]) if c == "\n"]
    variety = {i: np.bincount(tokenized[i : i + 900], minlength=len(KINDS)).min() for i in lines}
    some = slice(start := max(lines, key=lambda i: variety[i]), start + 900)
    print(f"\n{name}, as the network sees it (all of it is in {args.html}):\n")
    print(in_colour(source[some], mine[some]))

    print("\nof each kind, the share that was found")
    for k, kind in enumerate(KINDS):
        here = truth == k
        print(f"  {kind:<10}{np.mean(answers[here] == k):7.1%}  of {here.sum():,}")
    scores = table(
        f"right at {truth.size:,} characters of {cut} held-out modules",
        {
            "this network": np.mean(answers == truth),
            "commonest of the character and the one before": np.mean(by_two == truth),
            "commonest of the character": np.mean(by_one == truth),
            "always the commonest kind": np.mean(truth == one.sum(axis=0).argmax()),
        },
    )
    return {"losses": losses, "scores": scores}


if __name__ == "__main__":
    main()
