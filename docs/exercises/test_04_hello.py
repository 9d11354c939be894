"""Chapter 4: losses of a character model."""

import math

import ex04_hello as ex
from words import same, wrong

import tinygradrnn as tgr


def test_smallest_loss_of_hello():
    hints = [
        (math.log(2) * 2, "That is the sum of the four losses. L is their mean."),
        (0.0, "After 'l' comes 'l' or 'o': without a memory one cannot know which."),
        (math.log(2), "Only two of the four steps are uncertain; the mean is over all four."),
    ]
    same(ex.smallest_loss("hello", 1), math.log(2) / 2, "'hello' with one letter seen", hints)


def test_smallest_loss_with_more_letters():
    same(ex.smallest_loss("hello", 2), 0.0, "'hello' with two letters seen")
    # a b a a b b: after a comes b, a, b; after b comes a, b.
    expected = (2 * -math.log(2 / 3) - math.log(1 / 3) + 2 * math.log(2)) / 5
    same(ex.smallest_loss("abaabb", 1), expected, "'abaabb' with one letter seen")
    text = "in an inn an ant"
    if not ex.smallest_loss(text, 3) <= ex.smallest_loss(text, 2) <= ex.smallest_loss(text, 1):
        wrong("who sees more letters cannot do worse, but with your function it does")


def test_cross_entropy():
    for scores, right in [([0.0, 0.0], 0), ([1.0, 2.0, 3.0], 1), ([-1.0, 0.5, 0.0, 2.0], 3)]:
        expected = tgr.cross_entropy(tgr.tensor(scores, dtype="float64"), tgr.tensor(right)).item()
        same(ex.cross_entropy(scores, right), expected, f"scores {scores}, right is {right}")


def test_cross_entropy_of_large_scores():
    try:
        found = ex.cross_entropy([1000.0, 0.0], 1)
    except OverflowError:
        wrong(
            "exp(1000) overflows. The softmax stays the same if one number is subtracted from all "
            "scores: which one makes every exponential at most 1?"
        )
    same(found, 1000.0, "scores [1000, 0], right is 1")


def test_slope_of_cross_entropy():
    for scores, right in [([0.0, 0.0], 0), ([1.0, 2.0, 3.0], 1)]:
        x = tgr.tensor(scores, dtype="float64", requires_grad=True)
        (expected,) = tgr.grad(tgr.cross_entropy(x, tgr.tensor(right)), x)
        softmax = tgr.softmax(x.detach()).tolist()
        hints = [
            (
                softmax,
                "That is the softmax. Raising the right score lowers the loss: its slope "
                "must be negative.",
            ),
        ]
        found = ex.slope_of_cross_entropy(scores, right)
        same(found, expected.numpy(), f"the slope at {scores}, right is {right}", hints)
