"""The smallest recurrent network: after "hell" it says "ello", and every number is on the screen.

Vocabulary h, e, l, o; one-hot inputs; a state of three numbers; no biases:

    h_t = tanh(W_h [h_{t-1}, x_t])     o_t = W_o h_t     L = 1/T sum_t cross_entropy(o_t, y_t)

It shows that back-propagation through time is a sum over pairs of steps (A. Zhang et al., "Dive
into Deep Learning", section 9.7), by adding up that sum term by term, and then learns the word.

    python examples/hello.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

import tinygradrnn as tgr
from common import options

WORD = "hello"
LETTERS = "helo"
T, HIDDEN = len(WORD) - 1, 3
X = np.eye(len(LETTERS))[[LETTERS.index(c) for c in WORD[:-1]]]  # (time, letter), one-hot
Y = np.array([LETTERS.index(c) for c in WORD[1:]])


def f(x: Any, h: Any, w_h: Any) -> tgr.Tensor:
    """The next state, ``(3,)``."""
    return tgr.tanh(w_h @ tgr.concat([h, x]))


def g(h: Any, w_o: Any) -> tgr.Tensor:
    """The output, ``(4,)``: a score for each letter."""
    return w_o @ h


def forward(w_h: Any, w_o: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The states, from the zeros before the first step on, the outputs and the loss at each step.

    The loop that tgr.scan would run, written out: no step is hidden.
    """
    hs, outputs, losses = [tgr.zeros((HIDDEN,), "float64")], [], []
    for t in range(T):
        with tgr.step(t, "hello"):
            hs.append(f(tgr.tensor(X[t]), hs[-1], w_h))
            outputs.append(g(hs[-1], w_o))
            losses.append(tgr.cross_entropy(outputs[-1], tgr.tensor(Y[t])))
    return hs, outputs, losses


def mean(losses: list[Any]) -> tgr.Tensor:
    return tgr.mean(tgr.stack(losses))


# ------------------------------------------------------------------- the gradient, term by term


def gradient_of_w_h(w_h: Any, w_o: Any) -> tuple[Any, dict[tuple[int, int], Any]]:
    """The sum of all terms of dL/dW_h, and the terms by ``(t, i)``, each ``(3, 7)``.

    dL/dW_h = 1/T sum_t  dl_t/dh_t  dh_t/dW_h, and of the last factor the closed form is

    dh_t/dW_h = df_t/dW_h + sum_{i<t} (prod_{j=i+1..t} df_j/dh_{j-1}) df_i/dW_h

    So the term (t, i) is what the loss at step t owes to the use of W_h at step i, through the
    t - i Jacobians between them. Each df means: of this one step, with its inputs held fixed.
    """
    with tgr.no_grad():
        hs, _, _ = forward(w_h, w_o)
    h, x = [s.detach() for s in hs], [tgr.tensor(row) for row in X]  # h[t] is before step t
    w_h, w_o = w_h.detach(), w_o.detach()
    df_dw = [tgr.jacobian(lambda w, t=t: f(x[t], h[t], w), w_h) for t in range(T)]  # (3, 3, 7)
    df_dh = [tgr.jacobian(lambda s, t=t: f(x[t], s, w_h), h[t]) for t in range(T)]  # (3, 3)
    dl_dh = [  # (3,)
        tgr.jacobian(lambda s, t=t: tgr.cross_entropy(g(s, w_o), tgr.tensor(Y[t])), h[t + 1])
        for t in range(T)
    ]
    terms = {}
    for t in range(T):
        product = tgr.eye(HIDDEN, dtype="float64")  # of no Jacobians, when i is t
        for i in reversed(range(t + 1)):
            terms[t, i] = tgr.tensordot(dl_dh[t] @ product, df_dw[i], axes=1) / T
            product = product @ df_dh[i]
    return sum(terms.values()), terms


def gradient_of_w_o(w_h: Any, w_o: Any) -> tuple[Any, list[Any]]:
    """The sum of all terms of dL/dW_o = 1/T sum_t dl_t/do_t do_t/dW_o, and the terms: one a step.

    W_o is not in the loop, so nothing comes through earlier steps.
    """
    with tgr.no_grad():
        hs, outputs, _ = forward(w_h, w_o)
    terms = []
    for t in range(T):
        h, o = hs[t + 1].detach(), outputs[t].detach()
        dl_do = tgr.jacobian(lambda o, t=t: tgr.cross_entropy(o, tgr.tensor(Y[t])), o)  # (4,)
        do_dw = tgr.jacobian(lambda w, h=h: g(h, w), w_o.detach())  # (4, 4, 3)
        terms.append(tgr.tensordot(dl_do, do_dw, axes=1) / T)
    return sum(terms), terms


# ---------------------------------------------------------------------------------- on the screen


def show(name: str, value: Any) -> None:
    rounded = value.numpy().round(4) + 0.0  # which makes -0 a 0
    rows = np.array2string(rounded, precision=4, suppress_small=True, floatmode="fixed")
    print(f"{name:<10}" + rows.replace("\n", "\n" + " " * 10))


def compare(name: str, total: Any, w: Any) -> float:
    """Print the sum of the terms beside what ``backward`` left in ``.grad``."""
    show("the sum", total)
    show(".grad", w.grad)
    difference = float(tgr.max(tgr.abs(total - w.grad)))
    print(f"largest difference for {name}: {difference:.1e}")
    return difference


def speak(w_h: Any, w_o: Any) -> str:
    """Begin with h, and let it read each letter that it writes."""
    said, h = WORD[0], tgr.zeros((HIDDEN,), "float64")
    with tgr.no_grad():
        for _ in range(T):
            h = f(tgr.eye(len(LETTERS), dtype="float64")[LETTERS.index(said[-1])], h, w_h)
            said += LETTERS[int(tgr.argmax(g(h, w_o)))]
    return said


def main(argv: list[str] | None = None) -> dict[str, Any]:
    args = options(__doc__ or "", steps=500).parse_args(argv)
    tgr.use_backend(args.backend)
    rng = tgr.current_backend().rng(args.seed)
    w_h = tgr.nn.Parameter(rng.normal((HIDDEN, HIDDEN + len(LETTERS)), dtype="float64"))
    w_o = tgr.nn.Parameter(rng.normal((len(LETTERS), HIDDEN), dtype="float64"))
    w_h.name, w_o.name = "W_h", "W_o"

    print("--- the weights\n")
    show("W_h", w_h)
    show("W_o", w_o)

    print("\n--- forward, step by step")
    hs, outputs, losses = forward(w_h, w_o)
    for t in range(T):
        print(f"\nstep {t}: reads {WORD[t]!r}, should say {WORD[t + 1]!r}")
        show("x_t", tgr.tensor(X[t]))
        show("h_t", hs[t + 1])
        show("o_t", outputs[t])
        show("softmax", tgr.softmax(outputs[t]))
        show("l_t", losses[t])
    loss = mean(losses)
    print(f"\nL = {loss.item():.6f}; knowing nothing would be log 4 = {np.log(4):.6f}")

    print("\n--- the tape: every operation under its time step\n")
    print(tgr.Tape(loss))

    print("\n--- dL/dW_h = 1/T sum over t and i <= t, term by term")
    loss.backward()
    total_h, terms_h = gradient_of_w_h(w_h, w_o)
    for (t, i), term in terms_h.items():
        print(f"\nloss at step {t}, W_h as used at step {i}: Jacobians between: {t - i}")
        show("", term)
    print(f"\nall {len(terms_h)} terms added, and what backward() found:\n")
    error_h = compare("dL/dW_h", total_h, w_h)

    print("\n--- dL/dW_o = 1/T sum over t, term by term")
    total_o, terms_o = gradient_of_w_o(w_h, w_o)
    for t, term in enumerate(terms_o):
        print(f"\nloss at step {t}")
        show("", term)
    print(f"\nall {len(terms_o)} terms added, and what backward() found:\n")
    error_o = compare("dL/dW_o", total_o, w_o)

    print(f"\n--- learning\n\nbefore: {speak(w_h, w_o)}")
    optimizer = tgr.optim.Adam([w_h, w_o], lr=0.05)
    history = []
    for _ in (bar := tqdm(range(args.steps), unit="step", dynamic_ncols=True)):
        optimizer.zero_grad()
        loss = mean(forward(w_h, w_o)[2])
        loss.backward()
        optimizer.step()
        history.append(loss.item())
        bar.set_postfix_str(f"L = {history[-1]:.3f}, says {speak(w_h, w_o)}")
        if history[-1] < 0.1 and speak(w_h, w_o) == WORD:
            break
    said = speak(w_h, w_o)
    print(f"after {len(history)} steps, L = {history[-1]:.3f}: {said}")
    return {"errors": (error_h, error_o), "terms": terms_h, "losses": history, "said": said}


if __name__ == "__main__":
    main()
