"""Chapter 4. The character model: what can be said without a memory, and the slope of its loss."""

import math
from collections import Counter


def smallest_loss(text, k):
    """The smallest mean loss, for something that sees only the last k letters.

    It reads the text and says after each letter (but the last) what comes next. Its best
    probabilities are the frequencies: if after the letters it sees comes "l" in 1 of 2 cases, it
    says 1/2. At the beginning it sees fewer than k letters, and knows that it does.

    For "hello" and k = 1 that is log(2) / 2: after "l" comes once "l" and once "o".

    Returns:
        The mean of -log(probability of what came), natural logarithm.
    """
    seen = [text[max(0, t + 1 - k) : t + 1] for t in range(len(text) - 1)]
    pairs = Counter((s, text[t + 1]) for t, s in enumerate(seen))
    often = Counter(seen)
    losses = [-math.log(pairs[s, text[t + 1]] / often[s]) for t, s in enumerate(seen)]
    return sum(losses) / len(losses)


def cross_entropy(scores, right):
    """-log softmax(scores)[right], for a list of scores.

    Scores may be large: 1000 must not overflow. What may one add to all scores, without changing
    the softmax?
    """
    top = max(scores)
    return top - scores[right] + math.log(sum(math.exp(s - top) for s in scores))


def slope_of_cross_entropy(scores, right):
    """The slope of `cross_entropy` by each score, a list. Derive it: it becomes very short."""
    top = max(scores)
    exponentials = [math.exp(s - top) for s in scores]
    total = sum(exponentials)
    return [e / total - (i == right) for i, e in enumerate(exponentials)]
