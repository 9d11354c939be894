"""The two pictures of the README, which have to lie beside it: python docs/pictures/draw.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tinygradrnn as tgr

HERE = Path(__file__).parent


class Elman(tgr.nn.Cell):
    def __init__(self, inputs: int, hidden: int) -> None:
        self.w = tgr.nn.Linear(inputs + hidden, hidden, rng=tgr.current_backend().rng(3))

    def initial_state(self, batch_size: int) -> Any:
        return tgr.zeros((batch_size, self.w.weight.shape[0]))

    def forward(self, x: Any, h: Any) -> Any:
        h = tgr.tanh(self.w(tgr.concat([h, x], axis=-1)))
        return h, h


def tape() -> None:
    """Six steps of the README's cell, cut in two, with one step open."""
    xs = np.random.default_rng(0).normal(size=(6, 1, 3)).astype(np.float32)
    outputs, _ = tgr.scan(Elman(3, 4), xs, truncation=tgr.bptt.Chunk(3))
    picture = tgr.viz.tape(tgr.mean(outputs * outputs))
    (HERE / "tape.svg").write_text(picture.svg(expand=[1]), encoding="utf-8")


def flow() -> None:
    """What of each loss reaches which step, in a plain cell and in an LSTM."""
    xs = np.random.default_rng(0).normal(size=(40, 8, 8)).astype(np.float32)
    rng = tgr.current_backend().rng(0)
    plain, lstm = tgr.nn.RNNCell(8, 32, rng=rng), tgr.nn.LSTMCell(8, 32, rng=rng)
    tgr.nn.init.forget_gate_bias_(lstm, 3.0)

    def loss(output: Any, t: int) -> Any:
        return tgr.mean(tgr.square(output))

    maps: dict[str, Any] = {}
    for cell, names in ((plain, ["h"]), (lstm, ["h", "c", "f"])):
        found = tgr.viz.gradient_flow(cell, xs, loss=loss, values=names)
        maps |= found.maps
    losses = np.zeros(len(xs))
    tgr.viz.GradientFlow(maps, losses).save(HERE / "gradient-flow.svg")


if __name__ == "__main__":
    tape()
    flow()
