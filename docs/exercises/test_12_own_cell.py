"""Chapter 12: a cell from its description."""

import ex12_own_cell as ex
import numpy as np
from words import same, wrong

import tinygradrnn as tgr


def cell_of(inputs, hidden):
    return ex.Described(inputs, hidden, rng=tgr.get_backend("numpy").rng(0), dtype="float64")


def test_initial_state():
    h = cell_of(2, 3).initial_state(5)
    if not isinstance(h, tgr.Tensor):
        wrong(f"initial_state: expected a Tensor, your function returned {h!r}")
    same(h, np.zeros((5, 3)), "the first state for a batch of 5 and hidden = 3")
    if str(h.dtype) != "float64":
        wrong(f"initial_state: the weights are float64, your state is {h.dtype}")


def test_forward():
    cell, rng = cell_of(2, 3), np.random.default_rng(0)
    x, h = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))

    def by_hand(joined, swapped=False):
        f, n = (joined @ m.weight.numpy().T + m.bias.numpy() for m in (cell.gate, cell.candidate))
        f, n = 1 / (1 + np.exp(-f)), np.tanh(n)
        return (1 - f) * h + f * n if swapped else f * h + (1 - f) * n

    made = cell.forward(tgr.tensor(x), tgr.tensor(h))
    if not isinstance(made, tuple) or len(made) != 2:
        wrong(f"forward: expected (output, state), your cell returned {made!r}")
    joined = np.concatenate([h, x], axis=1)
    hints = [
        (by_hand(joined, swapped=True), "f is what is kept of the OLD state."),
        (by_hand(np.concatenate([joined, joined], axis=1)[:, 3:8]), "The order is [h, x]."),
    ]
    same(made[1], by_hand(joined), "the new state", hints)
    same(made[0], made[1].numpy(), "the output, which is to be the new state")


def test_verified():
    found = tgr.testing.verify_cell(cell_of(2, 3))
    if found.elements < 30:
        wrong("verify_cell found too few derivatives: are gate and candidate still there?")


def remembers(cell, T=40, steps=150):
    """The loss of remembering one bit for T steps, after training."""
    data = np.random.default_rng(0)
    g = tgr.nn.Linear(16, 2, rng=tgr.get_backend("numpy").rng(1), dtype="float64")
    weights = [*cell.parameters(), *g.parameters()]
    optimizer, losses = tgr.optim.Adam(weights, lr=0.01), []
    for _ in range(steps):
        bits = data.integers(0, 2, size=32)
        xs = data.normal(size=(T, 32, 1)) * 0.1
        xs[0, :, 0] += 2 * bits - 1
        optimizer.zero_grad()
        outputs, _ = tgr.scan(cell, tgr.tensor(xs))
        loss = tgr.cross_entropy(g(outputs[-1]), tgr.tensor(bits))
        loss.backward()
        tgr.optim.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return np.mean(losses[-20:])


def test_open_gate():
    cell = cell_of(1, 16)
    ex.open_gate(cell, 40)
    kept = (1 / (1 + np.exp(-cell.gate.bias.numpy()))) ** 40
    if kept.min() < 0.1:
        wrong(
            f"with your bias the gate keeps {kept.min():.0e} over 40 steps. f should be about "
            "1 - 1/steps: which bias makes that of the sigmoid?"
        )
    loss = remembers(cell)
    if loss > 0.1:
        wrong(f"after training the loss is {loss:.2f}; a coin's toss has 0.69")


def test_repaired():
    cell = ex.Verified()
    tgr.testing.verify_cell(cell)
    cell.weight.assign(np.array(3.0))
    xs = np.array([1.0, 5.0, 0.0, 2.0])
    means, _ = tgr.scan(cell, tgr.tensor(xs.reshape(4, 1, 1)))
    expected = 3 * xs.cumsum() / np.arange(1, 5)
    total, again = 0.0, []
    for t, x in enumerate(xs):
        total = 3 * (total + x)
        again.append(total / (t + 1))
    hint = (
        "verify_cell is content with this: the gradient is that of what is computed. But the old "
        "total is multiplied by the weight again at every step."
    )
    same(means.numpy().ravel(), expected, "the means of 1, 5, 0, 2 with weight 3", [(again, hint)])


def test_what_verify_cell_checks():
    if ex.what_verify_cell_checks() != "b":
        wrong("look at `Verified` again: what was right about it, and what was not?")
