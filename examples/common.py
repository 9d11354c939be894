"""What the examples share: their options, the loop that learns, the digits, and the last table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import tinygradrnn as tgr


def options(description: str, steps: int) -> argparse.ArgumentParser:
    """The options that every example has; it adds its own."""
    parser = argparse.ArgumentParser(
        description=description.strip().splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=positive, default=steps, help="updates of the weights")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--backend", default=tgr.current_backend().name, help="numpy, cupy, ...")
    return parser


def positive(text: str) -> int:
    """A number on the command line that must be 1 or more."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def fit(
    model: Any, loss: Callable[[], tgr.Tensor], steps: int, *, lr: float, clip: float = 1.0
) -> list[float]:
    """Follow the gradient of ``loss()`` for so many steps; return the loss at each.

    Every call of `loss` draws its own batch. The learning rate falls in a straight line to zero.
    """
    optimizer = tgr.optim.Adam(model.parameters(), lr=lr)
    losses: list[float] = []
    bar = tqdm(range(steps), unit="step", dynamic_ncols=True)
    for step in bar:
        value = loss()
        value.backward()
        tgr.optim.clip_grad_norm_(model.parameters(), clip)
        optimizer.lr = lr * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
        bar.set_postfix_str(f"loss {np.mean(losses[-20:]):.3f}")
    return losses


class Digits(NamedTuple):
    """Images ``(n, 8, 8)`` from 0 to 1, and which digits they are, ``(n,)``."""

    images: Any
    labels: Any


def digits() -> tuple[Digits, Digits]:
    """Handwritten digits to learn from and, held out, the last quarter of them.

    Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, UCI Machine Learning Repository,
    1998), as scikit-learn carries it. It lists the images writer by writer, so most of the last
    quarter is by people who wrote nothing of the rest: harder, and fairer, than a shuffled split.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("the digits come with scikit-learn: pip install scikit-learn") from None
    data: Any = load_digits()
    images, labels = (data.images / 16).astype("float32"), data.target.astype("int64")
    cut = len(labels) * 3 // 4
    return Digits(images[:cut], labels[:cut]), Digits(images[cut:], labels[cut:])


def nearest_centroid(train: Digits, images: Any) -> Any:
    """The digits whose mean image is the closest: no learning worth the name."""
    means = np.stack([train.images[train.labels == k].mean(axis=0) for k in range(10)])
    return np.square(images[:, None] - means).sum(axis=(2, 3)).argmin(axis=1)


def table(metric: str, scores: dict[str, float]) -> dict[str, float]:
    """Print what each method scored, in percent, the model first; return it."""
    width = max(map(len, scores))
    print(f"\n{metric}")
    for name, score in scores.items():
        print(f"  {name:<{width}}  {score:6.1%}")
    return scores
