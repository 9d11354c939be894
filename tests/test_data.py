"""Reading, splitting, numbering and batching of text."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygradrnn.data import (
    REPLACEMENT,
    Chunks,
    Vocabulary,
    fingerprint,
    read_text,
    split,
    standard_library_text,
)
from tinygradrnn.errors import CheckpointError, DataError

texts = st.text(st.characters(codec="utf-8"), min_size=1)


# ----------------------------------------------------------------------------------------- reading


def test_a_file_is_read_as_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffgrüße\r\nand\rmore\n".encode())
    assert read_text(path) == "grüße\nand\nmore\n"
    assert read_text(str(path)) == read_text(path)


def test_a_folder_is_its_text_files_in_sorted_order(tmp_path: Path) -> None:
    for name, data in {
        "b.txt": b"second\n",
        "a/z.md": b"first, without newline",
        "c/picture.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "c/late.bin": b"x" * 20_000 + b"\0",
        "c/empty.txt": b"",
        "c/copy.txt": b"second\n",
        ".hidden": b"no",
        ".git/config": b"no",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert read_text(tmp_path) == "first, without newline\nsecond\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\0\1\2", "binary"),
        (b"a" * 100_000 + b"\0", "binary"),
        ("text".encode("utf-16"), "UTF-16"),
        ("grüße".encode("latin-1"), "not UTF-8 text: byte 0xfc at offset 2"),
    ],
)
def test_a_file_that_is_no_text_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        read_text(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nowhere: No such file"):
        read_text(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no text files"):
        read_text(tmp_path)


def test_text_of_another_encoding_in_a_folder_is_not_dropped_in_silence(tmp_path: Path) -> None:
    (tmp_path / "fine.txt").write_text("fine")
    (tmp_path / "latin.txt").write_bytes("grüße".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8"):
        read_text(tmp_path)


def test_the_standard_library_is_a_corpus() -> None:
    start = time.perf_counter()
    text = standard_library_text()
    assert time.perf_counter() - start < 5, "meant to take well under a second"
    assert len(text) == 3_000_000
    assert text == standard_library_text()
    assert text.startswith(standard_library_text(10_000))
    assert 64 <= len(Vocabulary.of(text)) <= 128, "mostly ASCII, whatever the version of Python"


def test_a_python_without_its_source_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", {"stdlib": str(tmp_path)}.get)
    with pytest.raises(DataError, match="no source code of the standard library"):
        standard_library_text()


def test_the_standard_library_leaves_out_what_is_not_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = ("test/b.py", "sub/tests/c.py", "site-packages/d.py", "_sysconfigdata_x.py", "e.txt")
    for name in ("a.py", "sub/f.py", *left_out):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    monkeypatch.setattr("sysconfig.get_path", {"stdlib": str(tmp_path)}.get)
    assert sorted(standard_library_text().split()) == ["a.py", "sub/f.py"]


def test_fingerprints_differ_where_texts_do() -> None:
    assert fingerprint("a") == fingerprint("a") != fingerprint("b")


# --------------------------------------------------------------------------------------- splitting


@given(st.integers(20, 5000), st.floats(0.01, 0.9), st.integers(1, 12))
def test_a_split_shares_no_position_and_loses_none(
    length: int, fraction: float, blocks: int
) -> None:
    text = "".join(map(chr, range(0x10000, 0x10000 + length)))  # every character once
    try:
        train, valid = split(text, fraction, blocks)
    except DataError:
        assert min(fraction, 1 - fraction) * length / blocks <= 0.5  # one part is empty
        return
    assert sorted(train + valid) == list(text)
    assert list(train) == sorted(train) and list(valid) == sorted(valid)
    assert abs(len(valid) - fraction * length) <= blocks


def test_one_block_holds_out_the_end() -> None:
    assert split("0123456789", 0.3, blocks=1) == ("0123456", "789")


@pytest.mark.parametrize(
    ("text", "fraction", "blocks"),
    [("", 0.1, 1), ("abc", 0.1, 1), ("abc", 1.5, 1), ("abc", 0.5, 0)],
)
def test_a_split_that_cannot_be(text: str, fraction: float, blocks: int) -> None:
    with pytest.raises(DataError):
        split(text, fraction, blocks)


# -------------------------------------------------------------------------------------- vocabulary


@given(texts)
def test_a_vocabulary_gives_back_its_own_text(text: str) -> None:
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    assert ids.min() >= 0 and ids.max() < len(vocabulary) == len(set(text))
    assert vocabulary.decode(ids) == text
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@given(texts, texts)
def test_unknown_characters_are_replaced_or_named(text: str, other: str) -> None:
    vocabulary = Vocabulary.of(text + REPLACEMENT)
    known = set(vocabulary.characters)
    shown = vocabulary.decode(vocabulary.encode(other, replace=True))
    assert shown == "".join(c if c in known else REPLACEMENT for c in other)
    never = [c for c in other if c not in known]
    if not never:
        assert vocabulary.decode(vocabulary.encode(other)) == other
    else:
        with pytest.raises(DataError, match="this vocabulary does not have") as error:
            vocabulary.encode(other)
        assert repr(never[0]) in str(error.value) and "\n" not in str(error.value)


def test_only_rare_characters_beyond_ascii_are_replaced() -> None:
    text = "a" * 300_000 + "~\t\n" + "é" * 30 + "ñ\x0c"
    vocabulary = Vocabulary.of(text)
    assert vocabulary.characters == "\t\na~é" + REPLACEMENT
    assert vocabulary.decode(vocabulary.encode(text, replace=True)[-3:]) == "é" + REPLACEMENT * 2
    assert Vocabulary.of("ñ and \x0c").characters == "\x0c adnñ", "a short text keeps all"


def test_a_prompt_with_many_unknown_characters_is_a_short_message() -> None:
    with pytest.raises(DataError, match=r"'b' 'c' .* 'i' and 17 more$"):
        Vocabulary("a").encode("abcdefghijklmnopqrstuvwxyzb")
    with pytest.raises(DataError, match=r"'\\udcff'"):  # how a shell hands over a stray byte
        Vocabulary("a").encode("a\udcff")
    with pytest.raises(DataError, match="does not have"):
        Vocabulary("a").encode("b", replace=True)


def test_an_empty_text() -> None:
    assert Vocabulary("a").encode("").shape == (0,)
    assert Vocabulary("a").decode([]) == ""
    with pytest.raises(DataError, match="empty"):
        Vocabulary.of("")


@pytest.mark.parametrize("value", [None, [], {}, {"characters": 3}, *map(list, ["ab"])])
def test_a_spoilt_vocabulary(value: object) -> None:
    with pytest.raises(CheckpointError):
        Vocabulary.from_json(value)


@pytest.mark.parametrize("characters", ["", "ba", "aa"])
def test_a_vocabulary_out_of_order(characters: str) -> None:
    with pytest.raises(CheckpointError):
        Vocabulary.from_json({"characters": characters})


# ---------------------------------------------------------------------------------------- batching

shapes = st.tuples(st.integers(2, 300), st.integers(1, 5), st.integers(1, 9), st.booleans())


@given(shapes)
def test_streams_are_contiguous_and_targets_come_next(shape: tuple[int, int, int, bool]) -> None:
    size, batch, length, partial = shape
    try:
        chunks = Chunks(np.arange(size), batch, length, partial=partial)
    except DataError as error:
        needed = batch * (1 if partial else length) + 1
        assert size < needed and f"at least {needed} characters" in str(error)
        return
    epoch = list(chunks)
    assert len(epoch) == len(chunks) >= 1
    for chunk in epoch:
        assert chunk.inputs.dtype == chunk.targets.dtype == np.int64
        assert chunk.inputs.flags.c_contiguous and chunk.targets.flags.c_contiguous
        np.testing.assert_array_equal(chunk.targets, chunk.inputs + 1)
    inputs = np.concatenate([chunk.inputs for chunk in epoch])
    # arange is its own position: each stream goes up by one across chunks, and none overlap
    assert inputs.shape[1] == batch and (np.diff(inputs, axis=0) == 1).all()
    assert len(np.unique(inputs)) == inputs.size
    left_out = size - 1 - inputs.size
    if partial:
        assert left_out < batch
    else:
        assert left_out < batch * length + batch
        assert all(chunk.inputs.shape == (length, batch) for chunk in epoch)


@given(shapes, st.integers(0, 200))
def test_a_stream_resumed_anywhere_is_the_stream_not_stopped(
    shape: tuple[int, int, int, bool], position: int
) -> None:
    size, batch, length, partial = shape
    ids = np.random.default_rng(size).integers(0, 100, size + batch * length)
    stopped, never_stopped = (Chunks(ids, batch, length, partial=partial) for _ in range(2))
    epoch = list(never_stopped)
    for at in range(position, position + 3):
        chunk, expected = stopped.at(at), epoch[at % len(epoch)]
        np.testing.assert_array_equal(chunk.inputs, expected.inputs)
        np.testing.assert_array_equal(chunk.targets, expected.targets)
        assert chunk.restart == (at % len(epoch) == 0)


def test_a_text_shorter_than_a_chunk_says_how_long_it_must_be() -> None:
    with pytest.raises(DataError, match="need at least 2049 characters, and there are 5"):
        Chunks([1, 2, 3, 4, 5], batch_size=32, length=64)
    assert len(Chunks(np.zeros(2049, int), batch_size=32, length=64)) == 1
    with pytest.raises(DataError, match="at least 1"):
        Chunks([1, 2], batch_size=0, length=1)
