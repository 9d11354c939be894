"""The programs in examples/, each run small: it learns something, and what it prints is true."""

from __future__ import annotations

import html
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = {  # name -> options that make it quick
    "hello": [],
    "one_to_one": ["--steps", "150"],
    "one_to_many": ["--steps", "250"],
    "many_to_one": ["--steps", "200"],
    "many_to_many": ["--steps", "100", "--hidden", "32", "--held-out", "50"],
    "synced_many_to_many": ["--steps", "60", "--hidden", "32", "--files", "20"],
}
DIGITS = ("one_to_one", "one_to_many", "many_to_one")
Load = Callable[[str], dict[str, Any]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load an example as if it were run where it stands; what it writes goes to an empty folder."""

    def load(name: str) -> dict[str, Any]:
        if name in DIGITS and find_spec("sklearn") is None:
            pytest.skip("no scikit-learn, which has the digits: pip install scikit-learn")
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    with tgr.use_backend(tgr.current_backend()):
        yield load
    sys.modules.pop("common", None)


def test_every_example_is_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"common"} == SMALL.keys()


@pytest.mark.parametrize("name", SMALL)
def test_it_says_what_it_is(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {"--steps", "--seed", "--backend"} <= set(re.findall(r"--\w+", done.stdout))


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_on_the_strict_backend(name: str, load: Load, strict: str) -> None:
    main = load(name)["main"]
    few = [*SMALL[name], "--steps", "2"]
    losses = [main([*few, "--backend", backend])["losses"] for backend in ("numpy", strict)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


# ------------------------------------------------------------------------------------------- hello


def numbers(text: str) -> Any:
    return np.array(re.findall(r"-?\d+\.\d+", text), float)


def test_hello_adds_up_the_gradient_and_learns(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    result = load("hello")["main"]([])
    out = capsys.readouterr().out
    assert max(result["errors"]) < 1e-12
    assert result["said"] == "hello"
    assert out.endswith(": hello\n")

    terms = result["terms"]
    assert terms.keys() == {(t, i) for t in range(4) for i in range(t + 1)}
    through_time = sum(np.abs(term.numpy()).sum() for (t, i), term in terms.items() if i < t)
    assert through_time > 0.1, "then the identity would be trivial"

    # What is on the screen adds up, too, as far as four digits go.
    _, by_term, w_o = re.split(r"--- dL/dW_[ho] .*", out)
    for section, shape in ((by_term, (3, 7)), (w_o.split("--- learning")[0], (4, 3))):
        printed, total = section.split("the sum")
        total, grad = total.split("largest")[0].split(".grad")
        added = numbers(printed).reshape(-1, *shape).sum(axis=0)
        np.testing.assert_allclose(added, numbers(grad).reshape(shape), atol=10 * 0.5e-4)
        np.testing.assert_array_equal(numbers(total), numbers(grad))


def test_hello_needs_its_memory(load: Load) -> None:
    hello = load("hello")
    rng = np.random.default_rng(0)
    weights = [tgr.tensor(rng.standard_normal(shape)) for shape in ((3, 7), (4, 3))]
    hs, outputs, losses = hello["forward"](*weights)
    h = np.zeros(3)
    for t in range(4):
        h = np.tanh(weights[0].numpy() @ np.concatenate([h, hello["X"][t]]))
        o = weights[1].numpy() @ h
        np.testing.assert_allclose(hs[t + 1].numpy(), h, rtol=1e-12)
        np.testing.assert_allclose(outputs[t].numpy(), o, rtol=1e-12)
        expected = np.log(np.exp(o).sum()) - o[hello["Y"][t]]
        np.testing.assert_allclose(losses[t].item(), expected, rtol=1e-12)
    # The same letter twice, and another answer each time: not to be had without a state.
    assert (hello["X"][2] == hello["X"][3]).all() and hello["Y"][2] != hello["Y"][3]


# ------------------------------------------------------------------------------------------ digits


@pytest.mark.parametrize("name", DIGITS)
def test_digits_are_learnt(name: str, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    result = load(name)["main"](SMALL[name])
    losses, scores = result["losses"], list(result["scores"].values())
    assert np.mean(losses[-20:]) < 0.3 * np.mean(losses[:3])
    assert scores[0] > 0.75 > 0.12 > scores[-1]
    assert 0.8 < scores[-2] < 0.9, "the nearest mean image, which no seed changes"
    assert f"{scores[0]:.1%}" in capsys.readouterr().out


def test_digits_of_the_two_parts_differ(load: Load) -> None:
    train, test = load("many_to_one")["digits"]()
    assert train.images.shape == (1347, 8, 8)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


# ------------------------------------------------------------------------------------------- dates


@pytest.mark.parametrize("forcing", ["1.0", "0"])
def test_dates_are_learnt(forcing: str, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    result = load("many_to_many")["main"]([*SMALL["many_to_many"], "--teacher-forcing", forcing])
    assert np.mean(result["losses"][-5:]) < 0.6 * np.mean(result["losses"][:5])
    assert all(re.fullmatch(r"[\d-]{10}", answer) for answer in result["answers"])
    mine, nearest = result["symbols"].values()
    assert 0.7 < nearest < 0.8
    assert mine > 0.6, "years and dashes alone would make about half"
    assert "right answers to 50 dates" in capsys.readouterr().out


def test_dates_are_written_and_read(load: Load) -> None:
    from datetime import date

    dates = load("many_to_many")
    day = date(1998, 3, 22)
    texts = {dates["written"](day, form) for form in dates["FORMS"]}
    assert {"22 March 1998", "Mar 22nd, 1998", "Sunday, 22 March 1998", "22/3/98"} <= texts
    assert len(texts) == len(dates["FORMS"])
    for text in texts:
        dates["padded"]([text])  # knows every letter
    assert dates["by_email"]("Sun, 22 Mar 1998") == "1998-03-22"
    assert dates["nearest"]("23 March 1998", ["22.3.1998", "23 April 1998", "2 March 1998"]) == 2


def test_dates_do_not_depend_on_the_padding(load: Load) -> None:
    dates = load("many_to_many")
    model = dates["Translator"](8, tgr.current_backend().rng(0))
    short, long = "1/2/98", "Wednesday, the 22nd of September '10"
    alone = model(*dates["padded"]([short]))
    together = model(*dates["padded"]([short, long]))
    np.testing.assert_allclose(alone[0].numpy()[:, 0], together[0].numpy()[:, 0], rtol=1e-4)
    attention = together[1].numpy()  # (symbol, text, letter)
    np.testing.assert_allclose(attention.sum(axis=2), 1, rtol=1e-5)
    assert not attention[:, 0, len(short) :].any()


# ------------------------------------------------------------------------------------- highlighter


def test_source_is_highlighted(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = load("synced_many_to_many")["main"](SMALL["synced_many_to_many"])
    scores = list(result["scores"].values())
    assert scores[0] > scores[-1] > 1 / 7
    assert scores == sorted(scores, reverse=True)
    assert "\033[32m" in capsys.readouterr().out
    page = (tmp_path / "runs" / "highlighted.html").read_text(encoding="utf-8")
    both = re.findall("<pre>(.*?)</pre>", page, re.DOTALL)
    mine, tokenized = (html.unescape(re.sub("<[^>]*>", "", text)) for text in both)
    assert mine == tokenized, "two colourings of one text"


def test_kinds_are_those_of_tokenize(load: Load) -> None:
    program = load("synced_many_to_many")
    source = 'if é1 >= 0x1F:  # so\n    return """a\nb"""\n'
    letters = "".join("_knds#o"[k] for k in program["kinds"](source))
    assert letters == "kk_nn_oo_ddddo__####_____kkkkkk_sssssssss_"
    plain = re.sub("\033\\[\\d+m", "", program["in_colour"](source, program["kinds"](source)))
    assert plain == source
