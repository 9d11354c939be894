"""Chapter 8: masks and truncated gradients, against the library's plans."""

import ex08_truncation as ex
import numpy as np
from words import numbers, same, wrong

import tinygradrnn as tgr


def compare(found, expected, name):
    found = numbers(found, name)
    if found.shape != expected.shape:
        wrong(f"{name}: expected shape {expected.shape}, yours has {found.shape}")
    for t, i in np.argwhere(found != expected):
        does = "reaches" if expected[t, i] else "does not reach"
        wrong(f"{name}: the loss at step {t} {does} step {i}; your mask has {found[t, i]:g} there")


def test_chunk_mask():
    for T, k in [(4, 2), (7, 3), (3, 5)]:
        compare(ex.chunk_mask(T, k), tgr.bptt.Chunk(k).mask(T), f"chunk_mask({T}, {k})")


def test_depth_mask():
    for T, k in [(4, 2), (6, 1), (5, 9)]:
        compare(ex.depth_mask(T, k), tgr.bptt.Depth(k).mask(T), f"depth_mask({T}, {k})")


def test_window_mask():
    for T, k1, k2 in [(4, 2, 3), (9, 3, 5), (7, 2, 2), (5, 1, 3)]:
        plan = tgr.bptt.Window(k1, k2)
        compare(ex.window_mask(T, k1, k2), plan.mask(T), f"window_mask({T}, {k1}, {k2})")


def test_truncated_gradient():
    w, xs, dl_dh, start = 0.5, [1.0, 2.0, -1.0, 0.5, 1.5], [1.0, -1.0, 2.0, 0.5, 1.0], 2.0
    before = [start]
    for x in xs[:-1]:
        before.append(w * before[-1] + x)
    terms = [
        [dl_dh[t] * w ** (t - i) * before[i] if i <= t else 0.0 for i in range(5)] for t in range(5)
    ]
    full = np.sum(terms)
    for k in (1, 2, 3, 5):
        expected = (tgr.bptt.Chunk(k).mask(5) * terms).sum()
        backwards = sum(
            terms[t][i] for t in range(5) for i in range(t + 1) if (4 - i) // k == (4 - t) // k
        )
        hints = [(full, "That is the full gradient: nothing was cut.")] * (k < 5)
        hints += [(backwards, "The chunks are counted from the end; they begin at step 0.")]
        same(ex.truncated_gradient(w, xs, dl_dh, start, k), expected, f"chunks of {k}", hints)


def test_smallest_k():
    for lag in (1, 5):
        found = ex.smallest_k(lag)
        hint = "One too few: a loss must see its own step and the `lag` steps before it."
        same(found, [lag + 1, lag + 1], f"k for Depth and Chunk, lag {lag}", [([lag, lag], hint)])
        for plan in (tgr.bptt.Depth(int(found[0])), tgr.bptt.Chunk(int(found[1]))):
            assert plan.mask(20).diagonal(-lag).any()


def test_work():
    hint = "One walk after every k1 steps, and each goes k2 steps."
    for T, k1, k2 in [(100, 10, 30), (60, 1, 8), (40, 20, 20)]:
        same(ex.work(T, k1, k2), T // k1 * k2, f"T={T}, k1={k1}, k2={k2}", [(T, hint)])
