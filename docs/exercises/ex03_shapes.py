"""Chapter 3. Shapes: which one for which task, and which losses reach which states."""

import tinygradrnn as tgr

ONE_TO_ONE, ONE_TO_MANY, MANY_TO_ONE = "one to one", "one to many", "many to one"
MANY_TO_MANY, SYNCED = "many to many", "synced"


def shapes():
    """Choose a shape for each task.

    Returns:
        A dict with one of the five names above for each of:
        "spam": is this e-mail spam?
        "caption": an image to a sentence;
        "translate": a sentence to its translation;
        "next letter": after each letter of a text, the next one;
        "subtitles": live speech to text, with at most a moment of delay;
        "digit": the image of one digit to its class, all pixels at once.
    """
    raise NotImplementedError


def reaches(shape, steps, read):
    """Which states does each step's loss depend on?

    Args:
        shape: MANY_TO_ONE, SYNCED or MANY_TO_MANY.
        steps: The number of steps T of the whole run.
        read: For MANY_TO_MANY: how many of them only read. The rest write.

    Returns:
        T lists of T truth values: row t, column k says whether there is a loss at step t that
        depends on the state h_k.
    """
    raise NotImplementedError


def write(cell, g, h, y, steps):
    """One to many: run a cell that reads its own last answer.

    Args:
        cell: (x, h) -> (output, h).
        g: output -> answer.
        h: The first state.
        y: What is read first.
        steps: How many answers to write.

    Returns:
        All answers, stacked: (steps, *the shape of an answer). The gradient must pass through
        what is fed back.
    """
    raise NotImplementedError
