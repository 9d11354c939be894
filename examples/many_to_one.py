"""Many to one: a digit read row by row, eight steps of eight pixels, and its class after the last.

python examples/many_to_one.py --cell lstm
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygradrnn as tgr
from common import digits, fit, nearest_centroid, options, table

CELLS = {"rnn": tgr.nn.RNNCell, "gru": tgr.nn.GRUCell, "lstm": tgr.nn.LSTMCell}


class RowReader(tgr.nn.Module):
    """Rows ``(time, batch, 8)`` to logits ``(batch, 10)``, from the last output alone."""

    def __init__(self, cell: str, hidden: int, rng: Any) -> None:
        self.cell = CELLS[cell](8, hidden, rng=rng)
        self.dropout = tgr.nn.Dropout(0.3, rng=rng)
        self.readout = tgr.nn.Linear(hidden, 10, rng=rng)

    def forward(self, rows: Any) -> tgr.Tensor:
        outputs, _ = tgr.scan(self.cell, rows)
        return self.readout(self.dropout(outputs[-1]))


def rows(images: Any) -> tgr.Tensor:
    """Images ``(batch, 8, 8)`` with the rows as time: ``(8, batch, 8)``."""
    return tgr.tensor(images.swapaxes(0, 1))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__ or "", steps=1500)
    parser.add_argument("--cell", choices=CELLS, default="gru", help="kind of recurrent cell")
    parser.add_argument("--hidden", type=int, default=64, help="size of its state")
    args = parser.parse_args(argv)
    tgr.use_backend(args.backend)
    train, test = digits()
    rng = np.random.default_rng(args.seed)
    model = RowReader(args.cell, args.hidden, tgr.current_backend().rng(args.seed))

    def loss() -> tgr.Tensor:
        i = rng.integers(len(train.labels), size=64)
        return tgr.cross_entropy(model(rows(train.images[i])), tgr.tensor(train.labels[i]))

    losses = fit(model, loss, args.steps, lr=5e-3)

    model.eval()
    with tgr.no_grad():
        answers = tgr.argmax(model(rows(test.images)), axis=-1).numpy()
        # How soon does it know? The same read-out after every row, though it learnt only the last.
        outputs, _ = tgr.scan(model.cell, rows(test.images))
        early = tgr.argmax(model.readout(outputs), axis=-1).numpy() == test.labels
    print("\naccuracy when asked after row 1 ... 8")
    print("  " + "  ".join(f"{share:.0%}" for share in early.mean(axis=1)))
    scores = table(
        f"accuracy on {len(test.labels)} held-out digits",
        {
            f"this network ({args.cell})": np.mean(answers == test.labels),
            "nearest mean image": np.mean(nearest_centroid(train, test.images) == test.labels),
            "always the commonest": np.mean(test.labels == np.bincount(train.labels).argmax()),
        },
    )
    return {"losses": losses, "scores": scores}


if __name__ == "__main__":
    main()
