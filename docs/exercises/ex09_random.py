"""Chapter 9. Randomised truncation: gates, and why they are right on average."""

import itertools
import math


def gates(coins, cs):
    """The factors of a row of gates.

    Args:
        coins: For each gate True if its coin says "cut".
        cs: For each gate the probability with which its coin says so; they may differ.

    Returns:
        A list: what each gate multiplies by.
    """
    raise NotImplementedError


def mean_of_product(cs):
    """The mean of the product of all gates, by counting: no formula, all outcomes of the coins.

    Go through every list of True and False (itertools.product), multiply your gates, and weigh
    with the probability of that outcome. What must come out?
    """
    raise NotImplementedError


def variance_of_product(c, d):
    """The variance of the product of d gates, all with probability c. A formula."""
    raise NotImplementedError


def draws_needed(deviation, error):
    """How many draws, so that the standard error of their mean is at most `error`?

    Args:
        deviation: The standard deviation of one draw.
        error: The standard error wanted.

    Returns:
        The smallest whole number.
    """
    raise NotImplementedError


def largest_c(w):
    """Terms shrink by the factor w for each step back (0 < w < 1). How often may one cut?

    The variance of a far term goes with (w^2 / (1 - c))^d. Returns the c at which it stops
    shrinking with d.
    """
    raise NotImplementedError
