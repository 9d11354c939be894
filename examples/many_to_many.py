"""Many to many: dates as people write them in, ISO dates out; encoder, decoder and attention.

    "Tuesday, the 3rd of March '98"  ->  "1998-03-03"

The attention is that of D. Bahdanau et al., "Neural machine translation by jointly learning to
align and translate" (2015).

    python examples/many_to_many.py --teacher-forcing 0.5
"""

from __future__ import annotations

import string
from datetime import date, timedelta
from email.utils import parsedate
from typing import Any

import numpy as np

import tinygradrnn as tgr
from common import fit, options, positive, table

FIRST, DAYS = date(1969, 1, 1), 36525  # the hundred years that two digits name: 69 is 1969
FORMS = [  # day before month wherever both are numbers
    "{d} {month} {y}",
    "{month} {d}, {y}",
    "{mon} {d}{th}, {y}",
    "{d}{th} of {month} {y}",
    "{d} {mon} '{yy:02}",
    "{weekday}, {d} {month} {y}",
    "{weekday}, the {d}{th} of {month} '{yy:02}",
    "{wd} {mon} {d} {y}",
    "{wd}, {d} {mon} {y}",
    "{d:02}/{m:02}/{y}",
    "{d}/{m}/{yy:02}",
    "{d}.{m}.{y}",
    "{d:02}.{m:02}.{yy:02}",
    "{d:02}-{mon}-{y}",
]
MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
MONTHS += ["August", "September", "October", "November", "December"]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def written(day: date, form: str) -> str:
    """A date in one of the forms.

    Not by strftime, which speaks the language that the machine is set to.
    """
    d, month, weekday = day.day, MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    th = "th" if 10 < d < 20 else {1: "st", 2: "nd", 3: "rd"}.get(d % 10, "th")
    names = {"month": month, "mon": month[:3], "weekday": weekday, "wd": weekday[:3], "th": th}
    return form.format(d=d, m=day.month, y=day.year, yy=day.year % 100, **names)


LETTERS = string.ascii_letters + string.digits + " ,./-'"
SYMBOLS = "0123456789-"  # of the answer, which is always ten long
START = len(SYMBOLS)


def padded(texts: list[str]) -> tuple[Any, Any]:
    """Numbers ``(time, batch)``, filled up with zeros on the right, and each text's length."""
    lengths = np.array([len(text) for text in texts])
    ids = np.zeros((lengths.max(), len(texts)), dtype="int64")
    for b, text in enumerate(texts):
        ids[: len(text), b] = [LETTERS.index(c) for c in text]
    return ids, lengths


class Translator(tgr.nn.Module):
    """Reads in both directions; then writes, and before each symbol looks where it wants to."""

    def __init__(self, hidden: int, rng: Any) -> None:
        self.letters = tgr.nn.Embedding(len(LETTERS), 32, rng=rng)
        self.symbols = tgr.nn.Embedding(len(SYMBOLS) + 1, 32, rng=rng)
        self.rightward = tgr.nn.GRUCell(32, hidden, rng=rng)
        self.leftward = tgr.nn.GRUCell(32, hidden, rng=rng)
        self.first = tgr.nn.Linear(2 * hidden, hidden, rng=rng)
        self.key = tgr.nn.Linear(2 * hidden, hidden, rng=rng)
        self.query = tgr.nn.Linear(hidden, hidden, bias=False, rng=rng)
        self.score = tgr.nn.Linear(hidden, 1, bias=False, rng=rng)
        self.decoder = tgr.nn.GRUCell(32 + 2 * hidden, hidden, rng=rng)
        self.readout = tgr.nn.Linear(3 * hidden, len(SYMBOLS), rng=rng)

    def encode(self, ids: Any, lengths: Any) -> Any:
        """What is known of each letter, ``(time, batch, 2 * hidden)``, and of the whole text."""
        x = self.letters(tgr.tensor(ids))
        there, end = tgr.scan(self.rightward, x, lengths=lengths)
        back, beginning = tgr.scan(self.leftward, x, lengths=lengths, reverse=True)
        memory = tgr.concat([there, back], axis=-1)
        return memory, tgr.tanh(self.first(tgr.concat([end, beginning], axis=-1)))

    def forward(self, ids: Any, lengths: Any, truth: Any = None, forced: Any = None) -> Any:
        """Logits ``(10, batch, symbol)`` and attention ``(10, batch, time)``.

        Each step reads the symbol before it: the true one where ``forced``, ``(10, batch)``, says
        so, else the one it wrote itself.
        """
        memory, h = self.encode(ids, lengths)
        keys = self.key(memory)
        padding = tgr.tensor(np.where(np.arange(len(ids))[:, None] < lengths, 0, -1e9), "float32")

        def write(x: Any, state: Any) -> Any:
            h, own = state
            symbol = tgr.where(x[1], x[0], own)
            scores = tgr.squeeze(self.score(tgr.tanh(keys + self.query(h))), axis=-1)
            attention = tgr.softmax(scores + padding, axis=0)  # (time, batch)
            context = tgr.sum(tgr.expand_dims(attention, axis=-1) * memory, axis=0)
            h, _ = self.decoder(tgr.concat([self.symbols(symbol), context], axis=-1), h)
            logits = self.readout(tgr.concat([h, context], axis=-1))
            return (logits, attention.T), (h, tgr.argmax(logits, axis=-1))

        start = np.full((1, len(lengths)), START)
        if truth is None:
            truth = np.zeros((10, len(lengths)), "int64")
            forced = np.zeros((10, len(lengths)), bool)
        xs = tgr.tensor(np.concatenate([start, truth[:-1]])), tgr.tensor(forced)
        (logits, attention), _ = tgr.scan(write, xs, (h, tgr.tensor(start[0])))
        return logits, attention

    def translate(self, texts: list[str]) -> tuple[list[str], Any]:
        """The answers, with the likeliest symbol at each step, and the attention."""
        with tgr.no_grad():
            logits, attention = self(*padded(texts))
        ids = tgr.argmax(logits, axis=-1).numpy().T
        return ["".join(SYMBOLS[i] for i in row) for row in ids], attention.numpy()


# ------------------------------------------------------------------------------ without learning


def nearest(text: str, known: list[str]) -> int:
    """Which of the texts is the fewest edits away (Levenshtein distance, all at once)."""
    ids, lengths = padded(known)
    row = np.arange(len(text) + 1)[:, None] + np.zeros_like(lengths)  # edits from text[:j] to ""
    rows = [row]
    for letter in ids:
        above, row = row, row + 1
        for j, c in enumerate(text, 1):
            change = above[j - 1] + (letter != LETTERS.index(c))
            row[j] = np.minimum(np.minimum(above[j] + 1, row[j - 1] + 1), change)
        rows.append(row)
    return int(np.array(rows)[lengths, -1, np.arange(len(known))].argmin())


def by_email(text: str) -> str:
    """What the standard library's reader of dates in e-mails makes of it."""
    found = parsedate(text + " 00:00:00")
    return "{:04}-{:02}-{:02}".format(*found[:3]) if found else "?"


def heatmap(text: str, answer: str, attention: Any) -> None:
    """Print where it looked, ``(10, time)``: a line for each symbol, the darker the more."""
    print(f"\n      {text}")
    for symbol, row in zip(answer, attention, strict=True):
        print(f"   {symbol}  " + "".join(" .:*#"[min(int(5 * a), 4)] for a in row[: len(text)]))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__ or "", steps=400)
    parser.add_argument("--hidden", type=int, default=64, help="size of the states")
    parser.add_argument("--held-out", type=positive, default=500, help="dates to be tested on")
    parser.add_argument(
        "--teacher-forcing",
        type=float,
        default=1.0,
        help="share of symbols that the decoder reads from the truth in training, not from itself",
    )
    args = parser.parse_args(argv)
    tgr.use_backend(args.backend)
    rng = np.random.default_rng(args.seed)
    days = [FIRST + timedelta(int(n)) for n in rng.permutation(DAYS)]
    # A date to be tested on is never seen in training, in whatever form.
    test_days, train_days = days[: args.held_out], days[args.held_out :]
    model = Translator(args.hidden, tgr.current_backend().rng(args.seed))

    def examples(days: list[date]) -> tuple[list[str], list[str]]:
        texts = [written(day, FORMS[rng.integers(len(FORMS))]) for day in days]
        return texts, [day.isoformat() for day in days]

    def loss() -> tgr.Tensor:
        texts, answers = examples([train_days[i] for i in rng.integers(len(train_days), size=64)])
        truth = np.array([[SYMBOLS.index(c) for c in answer] for answer in answers]).T
        forced = rng.random(truth.shape) < args.teacher_forcing
        logits, _ = model(*padded(texts), truth, forced)
        return tgr.cross_entropy(logits, tgr.tensor(truth))

    losses = fit(model, loss, args.steps, lr=5e-3)

    texts, truth = examples(test_days)
    answers, attention = model.translate(texts)
    known, known_truth = examples(train_days[:2000])
    closest = [known_truth[nearest(text, known)] for text in texts]
    print()
    for text, answer, right in list(zip(texts, answers, truth, strict=True))[:8]:
        print(f"  {text:<42}{answer}  {'' if answer == right else 'wrong: ' + right}")
    i = max(range(len(texts)), key=lambda i: (answers[i][:4] in texts[i], len(texts[i])))
    heatmap(texts[i], answers[i], attention[:, i])
    scores = table(
        f"right answers to {len(texts)} dates, none of which was in the training set",
        {
            "this network": share(answers, truth),
            "the standard library's email.utils": share([by_email(t) for t in texts], truth),
            "answer to the nearest of 2000 known": share(closest, truth),
        },
    )
    symbols = table(
        "right symbols in them",
        {
            "this network": share("".join(answers), "".join(truth)),
            "answer to the nearest of 2000 known": share("".join(closest), "".join(truth)),
        },
    )
    return {"losses": losses, "scores": scores, "symbols": symbols, "answers": answers}


def share(answers: Any, truth: Any) -> float:
    return float(np.mean([a == b for a, b in zip(answers, truth, strict=True)]))


if __name__ == "__main__":
    main()
