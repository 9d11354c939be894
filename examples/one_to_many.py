"""One to many: an image of a digit in, its English name out, letter by letter.

python examples/one_to_many.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygradrnn as tgr
from common import digits, fit, nearest_centroid, options, table

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
END = "."  # the first thing the decoder reads, and the last thing it writes
LETTERS = END + "".join(sorted(set("".join(NAMES))))
LONGEST = max(map(len, NAMES)) + 1
SPELLED = np.array([[LETTERS.index(c) for c in name.ljust(LONGEST, END)] for name in NAMES])


class Speller(tgr.nn.Module):
    """The image makes the first state; from there the cell spells, reading what it wrote."""

    def __init__(self, hidden: int, rng: Any) -> None:
        self.first = tgr.nn.Linear(64, hidden, rng=rng)
        self.dropout = tgr.nn.Dropout(0.3, rng=rng)
        self.embedding = tgr.nn.Embedding(len(LETTERS), 16, rng=rng)
        self.cell = tgr.nn.GRUCell(16, hidden, rng=rng)
        self.readout = tgr.nn.Linear(hidden, len(LETTERS), rng=rng)

    def look(self, images: Any) -> tgr.Tensor:
        """The first state, ``(batch, hidden)``."""
        return self.dropout(tgr.tanh(self.first(tgr.tensor(images.reshape(-1, 64)))))

    def forward(self, images: Any, letters: Any) -> tgr.Tensor:
        """Logits ``(time, batch, letter)`` of each next letter, given the true ones before it."""
        outputs, _ = tgr.scan(self.cell, self.embedding(letters), self.look(images))
        return self.readout(outputs)

    def spell(self, images: Any) -> list[str]:
        """The name of each image, with the likeliest letter at each step."""

        def write(_: Any, state: Any) -> Any:
            h, letter = state
            h, _ = self.cell(self.embedding(letter), h)
            letter = tgr.argmax(self.readout(h), axis=-1)
            return letter, (h, letter)

        with tgr.no_grad():
            start = (self.look(images), tgr.zeros((len(images),), "int64"))
            written, _ = tgr.scan(write, tgr.arange(LONGEST), start)
        words = ("".join(LETTERS[i] for i in ids) for ids in written.numpy().T)
        return [word.split(END)[0] for word in words]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__ or "", steps=1500)
    parser.add_argument("--hidden", type=int, default=64, help="size of the state")
    args = parser.parse_args(argv)
    tgr.use_backend(args.backend)
    train, test = digits()
    rng = np.random.default_rng(args.seed)
    model = Speller(args.hidden, tgr.current_backend().rng(args.seed))

    def loss() -> tgr.Tensor:
        i = rng.integers(len(train.labels), size=64)
        targets = SPELLED[train.labels[i]].T  # (time, batch)
        given = np.concatenate([np.zeros_like(targets[:1]), targets[:-1]])
        return tgr.cross_entropy(model(train.images[i], tgr.tensor(given)), tgr.tensor(targets))

    losses = fit(model, loss, args.steps, lr=5e-3)

    model.eval()
    truth = np.array([NAMES[k] for k in test.labels])
    written = np.array(model.spell(test.images))
    nearest = np.array([NAMES[k] for k in nearest_centroid(train, test.images)])
    wrong = [i for i in range(len(truth)) if written[i] != truth[i]]
    for i in [0, 1, 2, *wrong[:1]]:  # some as they come, and a mistake
        show(test.images[i], f"{truth[i]}, read as {written[i]}")
    made_up = sorted(set(written) - set(NAMES))
    print(f"\nwords that are no digit's name: {', '.join(made_up) or 'none'}")
    commonest = NAMES[np.bincount(train.labels).argmax()]
    scores = table(
        f"names spelled exactly, of {len(truth)} held-out digits",
        {
            "this network": np.mean(written == truth),
            "name of the nearest mean image": np.mean(nearest == truth),
            "always the commonest name": np.mean(truth == commonest),
        },
    )
    return {"losses": losses, "scores": scores, "written": written.tolist()}


def show(image: Any, caption: str) -> None:
    """Draw an image in characters."""
    print(f"\n{caption}")
    for row in image:
        print("  " + "".join(" .:*#"[int(pixel * 4)] * 2 for pixel in row))


if __name__ == "__main__":
    main()
