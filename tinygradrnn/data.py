"""Text for a character-level language model: read it, number its characters, split it, batch it.

The way through: :func:`read_text` or :func:`standard_library_text` gives one string, :func:`split`
a train and a validation part, :class:`Vocabulary` turns both into integers, and :class:`Chunks`
serves those as batched streams for back-propagation through time (BPTT) in chunks.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygradrnn.errors import CheckpointError, DataError

# ----------------------------------------------------------------------------------------- reading


def read_text(path: str | os.PathLike[str]) -> str:
    r"""Read a UTF-8 text file, or all text files of a folder and its subfolders as one text.

    In a folder, files come in the order of their sorted relative paths, each ending in a newline.
    Left out are names that start with a dot, binary files (those with a NUL byte), and a file equal
    to one already read, as a copy must not land on both sides of a train / validation split.
    Line ends become ``\n`` and a byte order mark goes.

    Args:
        path: A file or a folder.

    Raises:
        DataError: Missing, unreadable, empty, not UTF-8; a binary file given by name; a folder
            without text.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "b.txt").write_bytes(b"ello\r\n")
    ...     _ = pathlib.Path(folder, "a.txt").write_bytes(b"h")
    ...     read_text(folder)
    'h\nello\n'
    """
    path = Path(path)
    if not path.is_dir():
        text = _read_file(path)
        if text is None:
            raise DataError(f"{path} is a binary file: give text encoded as UTF-8")
        if not text:
            raise DataError(f"{path} is empty")
        return text
    texts: dict[str, None] = {}  # ordered, and each text once
    for name in sorted(_walk(path)):
        if text := _read_file(path / name):
            texts[text] = None
    if not texts:
        raise DataError(f"folder {path} holds no text files")
    return "".join(text if text.endswith("\n") else text + "\n" for text in texts)


def standard_library_text(limit: int = 3_000_000) -> str:
    """Return Python's standard library as text: its own source code, which every machine has.

    Whole modules are drawn in an order given by a hash of their names until there are `limit`
    characters. So a part of the library is a fair sample of it, neighbours in the text are not
    relatives, and a Python version that adds one module moves no other. Tests, encoding tables,
    installed packages and files generated for one machine are left out.

    Args:
        limit: The length of the text in characters, if the library has as many (about 9 million).

    Raises:
        DataError: This Python comes without the source of its library.

    >>> text = standard_library_text(1000)
    >>> len(text), text == standard_library_text(2000)[:1000]
    (1000, True)
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = [
        name
        for name in _walk(root, _NOT_LIBRARY)
        if name.endswith(".py") and not name.startswith(("_sysconfigdata", "config-"))
    ]
    texts: list[str] = []
    missing = limit
    for name in sorted(names, key=lambda name: (zlib.crc32(name.encode()), name)):
        if missing <= 0:
            break
        text = _read_file(root / name) or ""
        texts.append(text)
        missing -= len(text)
    if not any(texts):
        raise DataError(f"{root} holds no source code of the standard library: give a text instead")
    return "".join(texts)[:limit]


_NOT_LIBRARY = {
    *("site-packages", "dist-packages"),  # not Python's own
    *("test", "tests", "idle_test"),  # not installed everywhere
    *("encodings", "pydoc_data"),  # tables and help texts, not code
}


def _walk(root: Path, without: Collection[str] = ()) -> Iterator[str]:
    """Relative paths, with forward slashes, of the regular files in `root` that are not hidden."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror or error}") from error

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if name not in without and name[0] != "."]
        for name in files:
            path = Path(folder, name)
            # A pipe or device would make us wait for ever.
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(root).as_posix()


def _read_file(path: Path) -> str | None:
    """The text in a file; None if it is binary."""
    try:
        with open(path, "rb") as file:
            # Most binary files show it at once: then do not read the rest, which can be long.
            data = file.read(8192)
            if b"\0" not in data:
                data += file.read()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and len(data) % 2 == 0:
        raise DataError(f"{path} looks like UTF-16: convert it to UTF-8")
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path} is not UTF-8 text: byte 0x{byte:02x} at offset {error.start}"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fingerprint(text: str) -> str:
    """Return the SHA-256 of a text, so that a resumed run can tell that it reads the same one.

    >>> fingerprint("hello")[:8]
    '2cf24dba'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# --------------------------------------------------------------------------------------- splitting


def split(text: str, fraction: float = 0.1, blocks: int = 10) -> tuple[str, str]:
    """Split a text into a train and a validation part that share no position of it.

    The text is cut into `blocks` equal pieces, and the last `fraction` of each is held out. One
    block is the usual split of a single work: learn the beginning, predict the end. Where a text
    changes as it goes on, as a folder of files does, its end is not like the rest; holding out
    stretches from all over measures how well all of it was learnt. The stretches are long, not
    scattered, so that few validation characters have their left neighbours in the train part.

    Args:
        text: The whole text.
        fraction: How much to hold out, between 0 and 1.
        blocks: How many stretches to hold out.

    Returns:
        The train text and the validation text, each joined in the order of the text.

    Raises:
        DataError: One of the parts would be empty, or the arguments make no sense.

    >>> split("abcdefghij", fraction=0.2, blocks=2)
    ('abcdfghi', 'ej')
    """
    if not 0 < fraction < 1 or blocks < 1:
        raise DataError(
            f"split needs a fraction between 0 and 1 and at least 1 block, not {fraction}, {blocks}"
        )
    train: list[str] = []
    valid: list[str] = []
    for i in range(blocks):
        start, end = len(text) * i // blocks, len(text) * (i + 1) // blocks
        cut = end - round((end - start) * fraction)
        train.append(text[start:cut])
        valid.append(text[cut:end])
    if not any(train) or not any(valid):
        raise DataError(
            f"a text of {len(text)} characters is too short to hold out {fraction:.3g} of it"
            f" in {blocks} blocks"
        )
    return "".join(train), "".join(valid)


# ------------------------------------------------------------------------------------- vocabulary

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands for characters too rare to learn."""


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows; a character's number is its place among them.

    Raises:
        DataError: The characters are out of order, or one is there twice.

    Attributes:
        characters: In ascending order of code points, each once. Whether :data:`REPLACEMENT` is
            one of them decides whether unknown characters can be encoded at all.

    >>> vocabulary = Vocabulary.of("hello")
    >>> vocabulary.characters, vocabulary.encode("hell").tolist(), vocabulary.decode([3, 1])
    ('ehlo', [1, 0, 2, 2], 'oh')
    """

    characters: str

    def __post_init__(self) -> None:
        if list(self.characters) != sorted(set(self.characters)):
            raise DataError(
                "Vocabulary: the characters are not in ascending order, each once; "
                "Vocabulary.of(text) sorts them"
            )

    @classmethod
    def of(cls, text: str, rare: float = 1e-5) -> Vocabulary:
        """Take the characters of a text; those too rare to learn share one replacement symbol.

        Printable ASCII, tab and newline stay however rare they are. Any other character must make
        up at least a share of `rare` of the text, which bounds the vocabulary by ``1 / rare`` for
        any text. A text shorter than that many characters loses none.

        Args:
            text: The whole text, validation part included.
            rare: The smallest share of the text worth a symbol of its own.

        Raises:
            DataError: The text is empty.

        >>> Vocabulary.of("naïve " * 9, rare=0.2).characters
        ' aenv�'
        """
        if not text:
            raise DataError("an empty text has no vocabulary")
        codes, counts = np.unique(_codes(text), return_counts=True)
        kept = counts >= rare * len(text)
        kept |= (codes >= 32) & (codes < 127) | (codes == ord("\t")) | (codes == ord("\n"))
        characters = set(_text(codes[kept]))
        if not kept.all():
            characters.add(REPLACEMENT)
        return cls("".join(sorted(characters)))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, *, replace: bool = False) -> NDArray[np.int64]:
        """Turn a text into the numbers of its characters.

        Args:
            text: Any text.
            replace: Whether unknown characters become :data:`REPLACEMENT`, as they should when a
                corpus is read but not when a user types a prompt.

        Returns:
            Shape ``(len(text),)``, int64.

        Raises:
            DataError: Characters that are unknown and cannot be, or are not to be, replaced.

        >>> Vocabulary("el�").encode("hello", replace=True).tolist()
        [2, 0, 1, 1, 2]
        """
        known, codes = _codes(self.characters), _codes(text)
        ids = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        unknown = known[ids] != codes
        if unknown.any():
            if not replace or REPLACEMENT not in self.characters:
                never = [repr(c) for c in dict.fromkeys(_text(codes[unknown]))]
                more = f" and {len(never) - 8} more" if len(never) > 8 else ""
                cure = f"; encode(..., replace=True) puts {REPLACEMENT} there"
                raise DataError(
                    f"characters that this vocabulary does not have: {' '.join(never[:8])}{more}"
                    f"{cure if REPLACEMENT in self.characters else ''}"
                )
            ids[unknown] = self.characters.index(REPLACEMENT)
        return ids.astype(np.int64, copy=False)

    def decode(self, ids: ArrayLike) -> str:
        """Turn numbers, a sequence or array of shape ``(length,)``, back into text.

        >>> Vocabulary("ab").decode([1, 0])
        'ba'
        """
        return _text(_codes(self.characters)[np.asarray(ids, dtype=np.int64)])

    def to_json(self) -> dict[str, str]:
        """Return what :meth:`from_json` makes an equal vocabulary of.

        >>> Vocabulary("ab").to_json()
        {'characters': 'ab'}
        """
        return {"characters": self.characters}

    @classmethod
    def from_json(cls, value: Any) -> Vocabulary:
        """Make a vocabulary from what :meth:`to_json` returned and a file may have spoilt.

        Raises:
            CheckpointError: It is not that.

        >>> Vocabulary.from_json({"characters": "ab"})
        Vocabulary(characters='ab')
        """
        match value:
            case {"characters": str(characters)} if characters and all(
                a < b for a, b in pairwise(characters)
            ):
                return cls(characters)
            case _:
                raise CheckpointError(
                    "a vocabulary is {'characters': ...} with ascending, distinct characters"
                )


def _codes(text: str) -> NDArray[np.uint32]:
    # surrogatepass: a command line hands over undecodable bytes as lone surrogates.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _text(codes: NDArray[np.uint32]) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


# --------------------------------------------------------------------------------------- batching


class Chunk(NamedTuple):
    """A stretch of every stream, and the characters that follow.

    Attributes:
        inputs: Shape ``(time, batch)``, int64.
        targets: The same one character later: ``targets[t]`` is what to predict after
            ``inputs[t]``.
        restart: Whether the streams begin anew here, so that no state may be carried into it.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    restart: bool


class Chunks:
    """A text as `batch_size` contiguous streams side by side, cut into chunks in time.

    Stream ``b`` is the ``b``-th of `batch_size` equal parts of the text, and chunk ``i + 1`` goes
    on where chunk ``i`` ended, so the state of a network can be carried from chunk to chunk.
    A chunk is a function of its position alone: a run that stores the position and goes on from
    there sees what it would have seen.

    What does not fill a stream (fewer than `batch_size` characters) is never served; what does not
    fill a chunk is served as a last, shorter chunk if `partial` is set: then an epoch covers the
    text, as it should when measuring, while training wants chunks of one shape.

    Args:
        ids: Shape ``(length,)``, integers.
        batch_size: How many streams.
        length: How many time steps in a chunk.
        partial: Whether the last chunk of an epoch may be shorter.

    Raises:
        DataError: The text is too short for one chunk; says how long it must be.

    >>> chunks = Chunks([0, 1, 2, 3, 4, 5, 6, 7, 8], batch_size=2, length=2)
    >>> [chunk.inputs.tolist() for chunk in chunks]
    [[[0, 4], [1, 5]], [[2, 6], [3, 7]]]
    >>> chunks.at(1).targets.tolist(), chunks.at(2).restart
    ([[3, 7], [4, 8]], True)
    """

    def __init__(
        self, ids: ArrayLike, batch_size: int, length: int, *, partial: bool = False
    ) -> None:
        ids = np.asarray(ids)
        if batch_size < 1 or length < 1:
            raise DataError(
                f"batch size and chunk length must be at least 1, not {batch_size} and {length}"
            )
        needed = batch_size * (1 if partial else length) + 1
        if len(ids) < needed:
            raise DataError(
                f"the text is too short: {batch_size} streams in chunks of {length} characters "
                f"need at least {needed} characters, and there are {len(ids)}"
            )
        self.batch_size = batch_size
        self.length = length
        self._steps = (len(ids) - 1) // batch_size
        if not partial:
            self._steps -= self._steps % length
        self._stride = (len(ids) - 1) // batch_size
        self._ids = ids

    def __len__(self) -> int:
        """How many chunks make an epoch."""
        return -(-self._steps // self.length)

    def at(self, position: int) -> Chunk:
        """Return the chunk at a position that counts on through all epochs, from 0.

        >>> Chunks([0, 1, 2], batch_size=1, length=1).at(3).inputs.tolist()
        [[1]]
        """
        index = position % len(self)
        start = index * self.length
        end = min(start + self.length, self._steps)
        # Stream b reads one character into stream b + 1: its last target is that one's first input.
        time = np.arange(start, end + 1)[:, None]
        stretch = self._ids[time + self._stride * np.arange(self.batch_size)].astype(np.int64)
        return Chunk(stretch[:-1], stretch[1:], index == 0)

    def __iter__(self) -> Iterator[Chunk]:
        """Go through one epoch from its start."""
        return map(self.at, range(len(self)))
