"""One to one: an image of a handwritten digit in, its class out. No recurrence yet.

python examples/one_to_one.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygradrnn as tgr
from common import digits, fit, nearest_centroid, options, table


class Classifier(tgr.nn.Module):
    """Images ``(batch, 64)`` to logits ``(batch, 10)``, by one hidden layer."""

    def __init__(self, hidden: int, rng: Any) -> None:
        self.hidden = tgr.nn.Linear(64, hidden, rng=rng)
        self.dropout = tgr.nn.Dropout(0.3, rng=rng)
        self.readout = tgr.nn.Linear(hidden, 10, rng=rng)

    def forward(self, x: Any) -> tgr.Tensor:
        return self.readout(self.dropout(tgr.relu(self.hidden(x))))


def logistic_regression(train: Any, images: Any) -> Any:
    """What scikit-learn's linear classifier says."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(train.images.reshape(-1, 64), train.labels)
    return model.predict(images.reshape(-1, 64))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = options(__doc__ or "", steps=1500)
    parser.add_argument("--hidden", type=int, default=128, help="size of the hidden layer")
    args = parser.parse_args(argv)
    tgr.use_backend(args.backend)
    train, test = digits()
    rng = np.random.default_rng(args.seed)
    model = Classifier(args.hidden, tgr.current_backend().rng(args.seed))

    def loss() -> tgr.Tensor:
        i = rng.integers(len(train.labels), size=64)
        x, y = tgr.tensor(train.images[i].reshape(-1, 64)), tgr.tensor(train.labels[i])
        return tgr.cross_entropy(model(x), y)

    losses = fit(model, loss, args.steps, lr=3e-3)

    model.eval()
    with tgr.no_grad():
        answers = tgr.argmax(model(tgr.tensor(test.images.reshape(-1, 64))), axis=-1).numpy()
    scores = table(
        f"accuracy on {len(test.labels)} held-out digits",
        {
            "this network": np.mean(answers == test.labels),
            "logistic regression": np.mean(logistic_regression(train, test.images) == test.labels),
            "nearest mean image": np.mean(nearest_centroid(train, test.images) == test.labels),
            "always the commonest": np.mean(test.labels == np.bincount(train.labels).argmax()),
        },
    )
    return {"losses": losses, "scores": scores}


if __name__ == "__main__":
    main()
