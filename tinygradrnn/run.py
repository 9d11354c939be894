"""A training run: what it is made with, where it stands, and how that is kept.

A run is a folder. Its ``checkpoint.safetensors`` holds all that is needed to continue bit for bit:
weights, optimiser, carried state, and as JSON in its header the settings, the vocabulary and the
place in the text.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from tinygradrnn import data, io, optim, tree
from tinygradrnn.backend import current_backend
from tinygradrnn.charmodel import CharModel, find_cell, write
from tinygradrnn.errors import CheckpointError, DataError
from tinygradrnn.tape import no_grad
from tinygradrnn.tensor import Tensor, tensor

CHECKPOINT = "checkpoint.safetensors"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is made with; all of it is kept in the checkpoint.

    Attributes:
        text: The file or folder to learn, or "" for the Python standard library's source.
        cell: ``"lstm"``, ``"gru"``, ``"rnn"``, or a class in a file: ``"my_file.py:MyCell"``.
        embedding_size, hidden_size: Features of a character, and of the cell's state.
        batch_size: Streams of text read side by side.
        chunk: Time steps between two updates: the length of truncated back-propagation.
        learning_rate: Adam's.
        clip: The largest norm of the gradient; larger ones are scaled down to it.
        seed: Of the first weights and of the samples.
    """

    text: str = ""
    cell: str = "lstm"
    embedding_size: int = 64
    hidden_size: int = 192
    batch_size: int = 32
    chunk: int = 64
    learning_rate: float = 3e-3
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise DataError(f"{field.name} is {value!r}; expected {kind.__name__}")
            if kind in (int, float) and field.name != "seed" and not 0 < value < math.inf:
                raise DataError(f"{field.name} is {value}; expected a positive number")
        if self.seed < 0:
            raise DataError(f"seed is {self.seed}; expected 0 or more")
        find_cell(self.cell)

    @property
    def cell_name(self) -> str:
        """The cell's name without its file."""
        return self.cell.rpartition(":")[2]

    @classmethod
    def from_json(cls, value: Any) -> Settings:
        """Read the settings in a checkpoint.

        Raises:
            CheckpointError: They are not that.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(value, dict) or value.keys() != names:
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise CheckpointError(f"the settings are {found}; expected {sorted(names)}")
        try:
            return cls(**value)
        except DataError as error:
            raise CheckpointError(f"the settings cannot be used: {error}") from None


class Corpus:
    """A text, its characters as numbers, and its division in training and validation parts."""

    def __init__(self, settings: Settings, meta: dict[str, Any] | None = None) -> None:
        whole = data.read_text(settings.text) if settings.text else data.standard_library_text()
        single = bool(settings.text) and Path(settings.text).is_file()
        self.fingerprint = data.fingerprint(whole)
        if meta and meta.get("text") != self.fingerprint:
            raise DataError(
                "the text is not the one this run was trained on; give it with --text, "
                "or start a new run with another --out"
            )
        # Of a single text the end is held out; of a collection a part of each stretch.
        train, valid = data.split(whole, blocks=1 if single else 10)
        self.vocabulary = (
            data.Vocabulary.from_json(meta.get("vocabulary")) if meta else data.Vocabulary.of(whole)
        )
        self.train = self.vocabulary.encode(train, replace=True)
        self.valid = self.vocabulary.encode(valid, replace=True)
        self.chunks = data.Chunks(self.train, settings.batch_size, settings.chunk)
        # As many streams as the held-out text has room for, each read from end to end.
        streams = max(1, min(64, (len(self.valid) - 1) // settings.chunk))
        self.valid_chunks = data.Chunks(self.valid, streams, settings.chunk, partial=True)


class Run:
    """A training run: model, optimiser, place in the text, carried state.

    Args:
        settings: What it is made with.
        checkpoint: What :func:`tinygradrnn.io.load` read, to continue from.

    Raises:
        DataError: The text cannot be used, or is not the one the checkpoint was made with.
        CheckpointError: The checkpoint does not fit.
    """

    def __init__(self, settings: Settings, checkpoint: tuple[Any, Any] | None = None) -> None:
        arrays, meta = checkpoint or ({}, {})
        self.settings = settings
        self.backend = current_backend()
        self.corpus = Corpus(settings, meta)
        self.model = build(settings, self.corpus.vocabulary)
        self.optimizer = optim.Adam(self.model.parameters(), lr=settings.learning_rate)
        self.state: Any = None
        self.step = 0
        self.gradient_norms: dict[str, float] = {}
        if checkpoint:
            self._restore(arrays, meta)

    def update(self, measure: bool = False) -> float:
        """Learn from the next chunk; return its loss in bits per character.

        Args:
            measure: Whether to set `gradient_norms`: of each parameter, before clipping.
        """
        chunk = self.corpus.chunks.at(self.step)
        if chunk.restart:
            self.state = None
        ids, targets = (tensor(a, backend=self.backend) for a in (chunk.inputs, chunk.targets))
        loss, state = self.model.bits(ids, targets, self.state)
        loss.backward()
        if measure:
            named = self.model.named_parameters()
            self.gradient_norms = {name: _norm(p.grad) for name, p in named if p.grad is not None}
        optim.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state = tree.map(lambda t: t.detach(), state)  # carried on, its history is not
        self.step += 1
        return loss.item()

    def validate(self) -> float:
        """The mean loss on the text that was held out, in bits per character."""
        total, count, state = 0.0, 0, None
        with no_grad():
            for chunk in self.corpus.valid_chunks:
                ids, targets = (
                    tensor(a, backend=self.backend) for a in (chunk.inputs, chunk.targets)
                )
                loss, state = self.model.bits(ids, targets, None if chunk.restart else state)
                total += loss.item() * chunk.targets.size
                count += chunk.targets.size
        return total / count

    def sample(self, length: int, temperature: float = 0.7) -> str:
        """Text drawn from the model as it is now; the training itself is not touched by it."""
        rng = self.backend.rng(self.settings.seed + self.step)
        text = write(
            self.model, self.corpus.vocabulary, rng, length=length, temperature=temperature
        )
        return "".join(text)

    # -------------------------------------------------------------------------- checkpoints

    def save(self, folder: Path) -> None:
        """Write the checkpoint, in one atomic step."""
        moments = self.optimizer.state_dict()
        leaves, _ = tree.flatten(self.state)
        arrays = {f"model.{k}": v.numpy() for k, v in self.model.state_dict().items()}
        arrays |= {f"optimizer.{k}": v for k, v in moments.items() if hasattr(v, "shape")}
        arrays |= {f"state.{i}": leaf.numpy() for i, leaf in enumerate(leaves)}
        meta = {
            "settings": dataclasses.asdict(self.settings),
            "vocabulary": self.corpus.vocabulary.to_json(),
            "step": self.step,
            "text": self.corpus.fingerprint,
            "optimizer": {k: v for k, v in moments.items() if not hasattr(v, "shape")},
        }
        io.save(folder / CHECKPOINT, arrays, meta)

    def _restore(self, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        step, moments = meta.get("step"), meta.get("optimizer")
        if type(step) is not int or step < 0 or not isinstance(moments, dict):
            raise CheckpointError("the checkpoint's step or optimiser state is missing")
        self.model.load_state_dict(part(arrays, "model."))
        self.optimizer.load_state_dict({**moments, **part(arrays, "optimizer.")})
        self.step = step
        if step:
            batch = self.settings.batch_size
            template, structure = tree.flatten(self.model.cell.initial_state(batch))
            kept = part(arrays, "state.")
            shapes = {str(i): leaf.shape for i, leaf in enumerate(template)}
            if {k: v.shape for k, v in kept.items()} != shapes:
                raise CheckpointError("the checkpoint's carried state does not fit the model")
            leaves = [tensor(kept[str(i)], backend=self.backend) for i in range(len(template))]
            self.state = structure.unflatten(leaves)


def _norm(gradient: Tensor) -> float:
    with no_grad():
        return math.sqrt((gradient * gradient).sum().item())


def part(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose name begins with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def build(settings: Settings, vocabulary: data.Vocabulary) -> CharModel:
    """The model that the settings describe, with its first weights."""
    rng = current_backend().rng(settings.seed)
    size = (settings.embedding_size, settings.hidden_size)
    return CharModel(len(vocabulary), settings.cell, *size, rng)


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a run's checkpoint.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {CHECKPOINT} here")
    arrays, meta = io.load(path)
    unknown = [k for k in arrays if not k.startswith(("model.", "optimizer.", "state."))]
    if unknown:
        raise CheckpointError(f"{path}: unknown keys {', '.join(sorted(unknown)[:5])}")
    return arrays, meta


def load_model(folder: Path) -> tuple[CharModel, data.Vocabulary]:
    """The model of a run, for sampling.

    Raises:
        CheckpointError: The checkpoint is missing or damaged, or its weights do not fit.
    """
    arrays, meta = read_checkpoint(folder)
    settings = Settings.from_json(meta.get("settings"))
    vocabulary = data.Vocabulary.from_json(meta.get("vocabulary"))
    weights = part(arrays, "model.")
    check_size(weights, settings, vocabulary, folder)
    model = build(settings, vocabulary)
    try:
        model.load_state_dict(weights)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / CHECKPOINT}: {error}") from None
    return model, vocabulary


def check_size(
    weights: dict[str, Any], settings: Settings, vocabulary: data.Vocabulary, folder: Path
) -> None:
    """Refuse weights that the settings do not fit.

    Before a model is built: settings that ask for an absurd size must not allocate it first.

    Raises:
        CheckpointError: A weight is missing or has another shape.
    """
    expected = {
        "embedding.weight": (len(vocabulary), settings.embedding_size),
        "readout.weight": (len(vocabulary), settings.hidden_size),
    }
    for name, shape in expected.items():
        found = weights[name].shape if name in weights else None
        if found != shape:
            raise CheckpointError(
                f"{folder / CHECKPOINT}: weight {name!r} has shape {found}; "
                f"the settings say {shape}"
            )


def saved_settings(folder: Path) -> Settings:
    """The settings of the run in `folder`."""
    return Settings.from_json(read_checkpoint(folder)[1].get("settings"))
