"""Chapter 5: the terms of the gradient, against what `backward` leaves in .grad."""

import ex05_derivation as ex
from words import same, wrong

import tinygradrnn as tgr

PAPER = (0.5, 1.0, 2.0, [1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
OTHER = (-0.7, 0.9, 1.3, [0.5, -1.0, 2.0, 0.3], [0.0, 1.0, -0.5, 0.2])


def by_tape(w_h, w_x, w_o, xs, ys, squash):
    """dL/dw_h and dL/dw_x."""
    w_h, w_x = (tgr.tensor(w, dtype="float64", requires_grad=True) for w in (w_h, w_x))
    h, total = tgr.zeros((), "float64"), 0.0
    for x, y in zip(xs, ys, strict=True):
        h = w_h * h + w_x * x
        h = tgr.tanh(h) if squash else h
        total = total + 0.5 * (w_o * h - y) ** 2 / len(xs)
    return [g.item() for g in tgr.grad(total, [w_h, w_x])]


def test_terms_of_w_x():
    terms = ex.terms_of_w_x(*PAPER)
    if not isinstance(terms, dict):
        wrong(f"expected a dict (t, i) -> term, your function returned {terms!r}")
    missing = {(t, i) for t in range(3) for i in range(t + 1)} - terms.keys()
    if missing:
        wrong(f"terms are missing: {sorted(missing)}; for every t all i from 0 to t")
    later = [pair for pair in terms if pair[1] > pair[0]]
    if later:
        wrong(f"{later}: a loss owes nothing to what comes after it")
    by_hand = {(0, 0): 2, (1, 0): 1, (1, 1): 2, (2, 0): 0.25, (2, 1): 0.5, (2, 2): 1}
    wrong_use = {(0, 0): 0, (1, 0): 0, (1, 1): 2, (2, 0): 0, (2, 1): 0.5, (2, 2): 1.5}
    for (t, i), value in by_hand.items():
        hints = [
            (value, "That is the term without the 1/T."),
            (wrong_use[t, i] / 3, "That is the term of w_h: df_i/dw_x is x_i, not h_{i-1}."),
            (by_hand[t, t] / 3, "How many factors w_h lie between step i and step t?"),
        ]
        same(terms[t, i], value / 3, f"the term t={t}, i={i} on the sheet of paper", hints)


def test_terms_of_w_x_sum_to_grad():
    for case in (PAPER, OTHER):
        total = sum(ex.terms_of_w_x(*case).values())
        same(total, by_tape(*case, squash=False)[1], f"the sum of all terms for {case}")


def test_gradient_with_tanh():
    for case in (PAPER, OTHER):
        squashed, plain = by_tape(*case, squash=True)[0], by_tape(*case, squash=False)[0]
        hints = [
            (plain, "That is the gradient of the network without tanh."),
            (squashed * len(case[3]), "The loss is a mean: the 1/T is missing."),
        ]
        same(ex.gradient_with_tanh(*case), squashed, f"dL/dw_h for {case}", hints)


def test_find_the_error():
    for case in (PAPER, OTHER):
        found, expected = ex.find_the_error(*case), by_tape(*case, squash=True)[0]
        if abs(found - expected) > 1e-9:
            wrong(
                f"dL/dw_h for {case} is {expected:.6f}, the function still says {found:.6f}. Take "
                "each factor and ask: of which step is it? h_t = tanh(a_t): at which state is the "
                "slope of tanh taken?"
            )
