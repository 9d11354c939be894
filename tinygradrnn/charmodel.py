"""A character-level language model: the probability of each next character, and text drawn from it.

The model of A. Karpathy, "The unreasonable effectiveness of recurrent neural networks" (2015): an
embedding, a recurrent cell unrolled over time, and a linear read-out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from tinygradrnn import nn
from tinygradrnn.data import REPLACEMENT, Vocabulary
from tinygradrnn.errors import DataError, ShapeError
from tinygradrnn.ops.losses import cross_entropy
from tinygradrnn.random import Generator
from tinygradrnn.scan import scan
from tinygradrnn.tape import no_grad
from tinygradrnn.tensor import Tensor, tensor

CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


def find_cell(name: str) -> Callable[..., Any]:
    """The class of a cell by its name: ``"lstm"``, ``"gru"``, ``"rnn"``, ``"my_file.py:MyCell"``.

    A file is run to find the class in it.

    Raises:
        DataError: There is no such cell.

    >>> find_cell("gru").__name__
    'GRUCell'
    """
    if name in CELLS:
        return CELLS[name]
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py"):
        raise DataError(
            f"cell is {name!r}; expected {', '.join(CELLS)}, or a class of yours, my_file.py:MyCell"
        )
    file = Path(path).resolve()
    if not file.is_file():
        raise DataError(f"cell is {name!r}, but there is no file {file}")
    module = sys.modules.get(file.stem)
    if getattr(module, "__file__", None) != str(file):
        spec = spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.path.insert(0, str(file.parent))  # as for a script: it may have files beside it
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(file.parent))
        sys.modules.setdefault(file.stem, module)
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        of_its_own = [
            k for k, v in vars(module).items() if getattr(v, "__module__", "") == file.stem
        ]
        raise DataError(
            f"cell is {name!r}; {file.name} has no class {attribute!r}, only {of_its_own}"
        )
    return found


class CharModel(nn.Module):
    """Predicts the next character of a text from all before it.

    Args:
        characters: The number of characters known.
        cell: A class of cells, made as ``cell(embedding_size, hidden_size)``, with an output of
            ``hidden_size`` features; or its name, as for :func:`find_cell`.
        embedding_size, hidden_size: Features of a character, and of the cell's state.
        rng: Where the first weights are drawn from.

    Raises:
        DataError: There is no such cell, or it cannot be made so.
        ShapeError: When run: the cell's output is no Tensor ``(time, batch, hidden_size)``.

    >>> model = CharModel(5, "gru", 4, 8, tgr.current_backend().rng(0))
    >>> logits, state = model(tgr.tensor([[0], [3]]))
    >>> logits.shape
    (2, 1, 5)
    """

    def __init__(
        self,
        characters: int,
        cell: str | Callable[..., Any],
        embedding_size: int,
        hidden_size: int,
        rng: Generator,
    ) -> None:
        super().__init__()
        make = find_cell(cell) if isinstance(cell, str) else cell
        draws = {"rng": rng} if "rng" in signature(make).parameters else {}
        try:
            signature(make).bind(embedding_size, hidden_size, **draws)
        except TypeError as why:
            name = getattr(make, "__name__", make)
            raise DataError(
                f"CharModel: {name} cannot be made with (embedding_size, hidden_size): {why}"
            ) from None
        self.embedding = nn.Embedding(characters, embedding_size, rng=rng)
        self.cell = make(embedding_size, hidden_size, **draws)
        self.readout = nn.Linear(hidden_size, characters, rng=rng)

    def forward(self, ids: Any, state: Any = None) -> tuple[Tensor, Any]:
        """Map characters ``(time, batch)`` to logits ``(time, batch, characters)`` and a state."""
        return self.logits(self.embedding(ids), state)

    def logits(self, embedded: Any, state: Any = None) -> tuple[Tensor, Any]:
        """The same from the embedded characters, ``(time, batch, embedding_size)``."""
        if state is None:
            state = self.cell.initial_state(embedded.shape[1])
        outputs, state = scan(self.cell, embedded, state)
        expected = (*embedded.shape[:2], self.readout.weight.shape[1])
        if getattr(outputs, "shape", None) != expected:
            found = f"has shape {outputs.shape}" if isinstance(outputs, Tensor) else "is no Tensor"
            raise ShapeError(f"CharModel: the output of the cell {found}; expected {expected}")
        return self.readout(outputs), state

    def bits(self, ids: Any, targets: Any, state: Any = None) -> tuple[Tensor, Any]:
        """The mean surprise at `targets`, in bits per character, and the last state."""
        logits, state = self(ids, state)
        return cross_entropy(logits, targets) * (1 / math.log(2)), state


def write(
    model: CharModel,
    vocabulary: Vocabulary,
    rng: Generator,
    *,
    prompt: str = "",
    length: int = 300,
    temperature: float = 1.0,
) -> Iterator[str]:
    """Draw text from the model, one character after the other.

    Args:
        model: The model, trained or not.
        vocabulary: The characters it knows.
        rng: Where the draws come from.
        prompt: The beginning; it is not repeated. Without one the text begins a new line.
        length: How many characters to draw.
        temperature: Below 1 bolder, above 1 wilder; 0 always takes the most probable.

    Raises:
        DataError: The prompt has unknown characters, a number makes no sense, or the model's
            predictions are NaN.
    """
    if length < 0 or not (0 <= temperature < math.inf):
        raise DataError(
            f"length {length} and temperature {temperature}; expected a length of 0 or more "
            "and a finite temperature of 0 or more"
        )
    start = prompt or ("\n" if "\n" in vocabulary.characters else vocabulary.characters[0])
    return _draw(model, vocabulary, vocabulary.encode(start), rng, length, temperature)


def _draw(
    model: CharModel,
    vocabulary: Vocabulary,
    ids: Any,
    rng: Generator,
    length: int,
    temperature: float,
) -> Iterator[str]:
    unwritable = vocabulary.characters.find(REPLACEMENT)
    state: Any = None
    for _ in range(length):
        with no_grad():
            logits, state = model(tensor(ids.reshape(-1, 1), backend=rng.backend), state)
            scores = logits[-1, 0].numpy().astype(np.float64)
        if np.isnan(scores).any():
            raise DataError("write: the model's predictions are NaN: it has diverged")
        if unwritable >= 0 and len(vocabulary) > 1:
            scores[unwritable] = -np.inf
        if temperature == 0:
            chosen = int(scores.argmax())
        else:
            chosen = rng.choice(np.exp((scores - scores.max()) / temperature))
        ids = np.asarray([chosen])
        yield vocabulary.characters[chosen]
