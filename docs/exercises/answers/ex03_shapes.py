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
    return {
        "spam": MANY_TO_ONE,
        "caption": ONE_TO_MANY,
        "translate": MANY_TO_MANY,
        "next letter": SYNCED,
        "subtitles": SYNCED,
        "digit": ONE_TO_ONE,
    }


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
    if shape == MANY_TO_ONE:
        has_loss = [t == steps - 1 for t in range(steps)]
    elif shape == SYNCED:
        has_loss = [True] * steps
    else:
        has_loss = [t >= read for t in range(steps)]
    return [[has_loss[t] and k <= t for k in range(steps)] for t in range(steps)]


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
    answers = []
    for _ in range(steps):
        output, h = cell(y, h)
        y = g(output)
        answers.append(y)
    return tgr.stack(answers)
