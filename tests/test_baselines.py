"""The n-gram models against a slow reference, and the table of baselines."""

from __future__ import annotations

import lzma
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygradrnn.baselines import NGram, baselines, xz_bits
from tinygradrnn.data import Vocabulary, split, standard_library_text
from tinygradrnn.errors import DataError

SIZE = 3
ids = st.lists(st.integers(0, SIZE - 1), max_size=60)


def reference(train: list[int], size: int, order: int, text: list[int]) -> list[float]:
    """Witten-Bell from its definition, one character at a time."""
    probabilities: list[float] = []
    for t, w in enumerate(text):
        p = 1 / size
        for k in range(min(order, t + 1)):  # k characters of context
            h = text[t - k : t]
            followers = Counter(train[i] for i in range(k, len(train)) if train[i - k : i] == h)
            if followers:
                p = (followers[w] + len(followers) * p) / (followers.total() + len(followers))
        probabilities.append(p)
    return probabilities


@given(ids, ids, st.integers(1, 5))
def test_an_ngram_is_its_definition(train: list[int], text: list[int], order: int) -> None:
    expected = reference(train, SIZE, order, text)
    for longest in {order, 5}:  # a model of longer n-grams holds the shorter ones
        actual = NGram(train, SIZE, longest).probabilities(text, order)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


@given(ids, st.lists(st.integers(0, SIZE - 1), max_size=6), st.integers(1, 5))
def test_every_context_has_a_distribution(train: list[int], context: list[int], order: int) -> None:
    model = NGram(train, SIZE, order)
    p = [model.probabilities([*context, w])[-1] for w in range(SIZE)]
    assert min(p) > 0
    assert math.isclose(sum(p), 1, rel_tol=1e-12)


def test_a_large_vocabulary_does_not_overflow() -> None:
    size = 1_000_000  # size ** 5 is far above 2 ** 63
    train = np.random.default_rng(0).integers(0, size, 500)
    model = NGram(train, size, order=5)
    text = [*train[:50].tolist(), 7, *train[100:120].tolist()]
    expected = reference(train.tolist(), size, 5, text)
    np.testing.assert_allclose(model.probabilities(text), expected, rtol=1e-12)


def test_numbers_out_of_range_and_texts_too_short() -> None:
    with pytest.raises(DataError, match="numbers below 3"):
        NGram([0, 3], SIZE, 2)
    with pytest.raises(DataError, match="numbers below 3"):
        NGram([0], SIZE, 2).probabilities([-1])
    with pytest.raises(DataError, match="two characters"):
        NGram([0], SIZE, 2).bits_per_character([1])
    with pytest.raises(DataError, match="one character"):
        xz_bits([0], [], SIZE)


@pytest.mark.parametrize(("size", "width"), [(256, 1), (257, 2)])
def test_xz_is_the_difference_of_two_files(size: int, width: int) -> None:
    rng = np.random.default_rng(1)
    train, valid = rng.integers(0, size, 1000), rng.integers(0, size, 100)
    parts = [a.astype(f"<u{width}").tobytes() for a in (train, valid)]
    with_valid, without = (len(lzma.compress(b)) for b in (b"".join(parts), parts[0]))
    assert xz_bits(train, valid, size) == 8 * (with_valid - without) / 100


def test_the_limit_takes_the_end_of_the_train_text() -> None:
    train, valid = [0] * 50 + [1, 2] * 20, [1, 2] * 9
    assert baselines(train, valid, SIZE, limit=40) == baselines(train[-40:], valid, SIZE)


def test_baselines_of_the_standard_library_come_in_seconds_and_in_order() -> None:
    text = standard_library_text()
    vocabulary = Vocabulary.of(text)
    train, valid = (vocabulary.encode(part, replace=True) for part in split(text))
    start = time.perf_counter()
    bits = baselines(train, valid, len(vocabulary))
    assert time.perf_counter() - start < 20, "meant to take under 5 seconds"
    assert list(bits) == ["unigram", "bigram", "5-gram", "xz"]
    assert math.log2(len(vocabulary)) > bits["unigram"] > bits["bigram"] > bits["5-gram"] > 1
    assert 0 < bits["xz"] < bits["bigram"]
