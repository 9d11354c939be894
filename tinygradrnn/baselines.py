"""What a model has to beat: bits per character of simple predictors on the same split.

A predictor that gives probability ``p_t`` to the character that came at ``t`` needs
``-log2 p_t`` bits for it (Shannon 1948); the figure is the mean over the validation text.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygradrnn.errors import DataError


def baselines(
    train: ArrayLike, valid: ArrayLike, size: int, *, limit: int = 8_000_000
) -> dict[str, float]:
    """Measure unigram, bigram, 5-gram and xz in bits per character of the validation text.

    The n-grams are those of :class:`NGram`: an n-gram predicts a character from the ``n - 1``
    before it. ``xz`` is :func:`xz_bits`, and is left out where Python was built without it.

    Args:
        train: Shape ``(length,)``, integers from 0 to ``size - 1``: the train text.
        valid: The same for the validation text, at least two characters.
        size: How many characters the vocabulary has.
        limit: Learn from no more than this many characters at the end of `train`, which bounds the
            time on large texts.

    Returns:
        Bits per character by name.

    Raises:
        DataError: The validation text has fewer than two characters, or a number is out of range.

    >>> bits = baselines([0, 1] * 50, [0, 1] * 10, size=2)
    >>> round(bits["unigram"], 2), round(bits["bigram"], 2)
    (1.0, 0.01)
    """
    train = np.asarray(train)[-limit:]
    valid = np.asarray(valid)
    model = NGram(train, size, order=5)
    bits = {
        name: model.bits_per_character(valid, order)
        for name, order in (("unigram", 1), ("bigram", 2), ("5-gram", 5))
    }
    with suppress(ImportError):  # lzma is an optional part of Python
        bits["xz"] = xz_bits(train, valid, size)
    return bits


class NGram:
    """A character n-gram model with Witten-Bell smoothing, interpolated down to uniform.

    With ``c`` counting in the train text, and ``h'`` the context ``h`` less its oldest character::

        P(w | h) = (c(h w) + t(h) P(w | h')) / (c(h) + t(h)),    t(h) = |{w : c(h w) > 0}|

    so that a context followed by many different characters trusts the shorter one more. The empty
    context falls back to ``1 / size``, and a context never seen to ``P(w | h')``: a distribution
    for every context. Sources: method C of Witten & Bell, "The zero-frequency problem", IEEE
    Transactions on Information Theory 37(4), 1991; in this form section 2.4 of Chen & Goodman,
    "An empirical study of smoothing techniques for language modeling", TR-10-98, Harvard, 1998.

    Args:
        ids: Shape ``(length,)``, integers from 0 to ``size - 1``: the train text.
        size: How many characters the vocabulary has.
        order: The longest n-gram to count.

    Raises:
        DataError: A number is out of range.

    >>> model = NGram([0, 1, 0, 1, 0], size=2, order=2)
    >>> model.probabilities([0, 1]).tolist() == [(3 + 2 / 2) / (5 + 2), (2 + 3 / 7) / (2 + 1)]
    True
    """

    def __init__(self, ids: ArrayLike, size: int, order: int) -> None:
        self.size = size
        self.order = order
        characters = self._check(ids)
        # Every distinct n-gram gets a dense number, level by level. The (n-1)-gram that ends at
        # t - 1 is the context of the character at t, so (its number, character) names the n-gram
        # in an integer that never overflows, whatever the vocabulary and the order.
        self._levels: list[_Level] = []
        context = np.zeros(len(characters), dtype=np.int64)
        contexts = 1
        for _ in range(order):
            codes, gram, counts = np.unique(
                context * size + characters, return_inverse=True, return_counts=True
            )
            total = np.bincount(context, minlength=contexts)
            types = np.bincount(codes // size, minlength=contexts)
            self._levels.append(_Level(codes, counts, total, types))
            context, characters, contexts = gram[:-1], characters[1:], len(codes)

    def probabilities(self, ids: ArrayLike, order: int | None = None) -> NDArray[np.float64]:
        """Return the probability of each character of a text, given those before it.

        Args:
            ids: Shape ``(length,)``, integers from 0 to ``size - 1``.
            order: Use n-grams up to this length; by default the model's.

        Returns:
            Shape ``(length,)``. The first characters have a shorter context.

        Raises:
            DataError: A number is out of range.

        >>> NGram([], size=4, order=3).probabilities([1, 2]).tolist()
        [0.25, 0.25]
        """
        characters = self._check(ids)
        p = np.full(len(characters), 1 / self.size)
        context = np.zeros(len(characters), dtype=np.int64)
        for n, level in enumerate(self._levels[: self.order if order is None else order]):
            count, gram = level.look_up(context * self.size + characters[n:])
            total, types = level.total[context], level.types[context]
            p[n:] = (count + types * p[n:]) / (total + types)
            context = gram[:-1]
        return p

    def bits_per_character(self, ids: ArrayLike, order: int | None = None) -> float:
        """Return the mean of ``-log2 P`` over a text, from its second character on.

        The first is only context, as it is for a network that reads a text to predict the next
        character: so both are measured on the same characters.

        Raises:
            DataError: Fewer than two characters, or a number is out of range.

        >>> NGram([], size=4, order=1).bits_per_character([0, 1, 2])
        2.0
        """
        p = self.probabilities(ids, order)
        if len(p) < 2:
            raise DataError("bits per character need a text of at least two characters")
        return float(-np.mean(np.log2(p[1:])))

    def _check(self, ids: ArrayLike) -> NDArray[np.int64]:
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < self.size):
            raise DataError(f"n-grams over {self.size} characters need numbers below {self.size}")
        return ids


class _Level:
    """The counts of all n-grams of one length."""

    def __init__(
        self,
        codes: NDArray[np.int64],
        counts: NDArray[np.int64],
        total: NDArray[np.int64],
        types: NDArray[np.int64],
    ) -> None:
        # The number -1 means "never seen" and finds these last entries. With count 0, total 0 and
        # one type the formula gives P(w | h) = P(w | h'), which is what such a context wants.
        self.codes = np.append(codes, np.iinfo(np.int64).max)
        self.counts = np.append(counts, 0)
        self.total = np.append(total, 0)
        self.types = np.append(np.maximum(types, 1), 1)

    def look_up(self, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The counts and the numbers of n-grams."""
        # A context of -1 gives a negative code, and those are never found.
        gram = np.searchsorted(self.codes, codes)
        gram[self.codes[gram] != codes] = -1
        return self.counts[gram], gram


def xz_bits(train: ArrayLike, valid: ArrayLike, size: int) -> float:
    """Return what the xz compressor needs for the validation text once it knows the train text.

    That is ``8 (len(xz(train + valid)) - len(xz(train))) / len(valid)``, at xz's default level,
    with a text written as one byte per character number (as two or four if `size` is above 256).
    At that level xz looks back 8 MiB and no further.

    Args:
        train: Shape ``(length,)``, integers from 0 to ``size - 1``: the train text.
        valid: The same for the validation text.
        size: How many characters the vocabulary has.

    Raises:
        DataError: The validation text is empty.
        ImportError: This Python was built without ``lzma``.

    >>> text = list(range(100))
    >>> xz_bits(text, text, size=100) < xz_bits([], text, size=100)
    True
    """
    import lzma

    dtype = np.min_scalar_type(size - 1)
    known = np.asarray(train).astype(dtype).tobytes()
    new = np.asarray(valid).astype(dtype).tobytes()
    if not new:
        raise DataError("bits per character need a text of at least one character")
    # The compressor lets go of the interpreter lock: the two runs take the time of one.
    with ThreadPoolExecutor(2) as pool:
        before, after = pool.map(lzma.compress, (known, known + new))
    return 8 * (len(after) - len(before)) / np.size(valid)
