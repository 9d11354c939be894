"""The exercises: each test fails on what a student is given, passes on the answers, and says why.

They run in a process of their own, as a student runs them; pytest's default run leaves them alone.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "exercises"
ANSWERS = FOLDER / "answers"
FILES = sorted(path.name for path in FOLDER.glob("ex*.py"))

ASKED = ["find_the_error", "famous_error", "repaired"]
"""Where an error is to be found the function is there, and wrong."""


class Result(NamedTuple):
    passed: bool
    said: str


def run(source: Path, tmp_path: Path, *tests: str) -> dict[str, Result]:
    """Run the exercises' tests on the files of a folder: what came of each, by name."""
    report = tmp_path / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", "--from", str(source), f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(tests or ["."])],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failure = case.find("failure")
        text = "" if failure is None else f"{failure.get('message')}\n{failure.text}"
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        found[name] = Result(failure is None, text)
        assert case.find("error") is None and case.find("skipped") is None, name
    return found


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return run(ANSWERS, tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def unanswered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return run(FOLDER, tmp_path_factory.mktemp("empty"))


def test_every_chapter_has_exercises_with_tests_and_answers() -> None:
    chapters = sorted(path.name[:2] for path in FOLDER.parent.glob("tutorial/[0-9]*.md"))
    assert [name[2:4] for name in FILES] == chapters
    assert sorted(path.name for path in ANSWERS.glob("*.py")) == FILES
    tests = [name.replace("ex", "test_", 1) for name in FILES]
    assert sorted(path.name for path in FOLDER.glob("test_*.py")) == tests


def test_the_answers_are_right(answered: dict[str, Result]) -> None:
    wrong = {name: result.said for name, result in answered.items() if not result.passed}
    assert not wrong


def test_what_a_student_is_given_passes_nothing(
    answered: dict[str, Result], unanswered: dict[str, Result]
) -> None:
    assert unanswered.keys() == answered.keys()
    assert [name for name, result in unanswered.items() if result.passed] == []


def test_what_is_not_written_yet_is_said_in_one_line(unanswered: dict[str, Result]) -> None:
    silent = [name for name, result in unanswered.items() if "not written yet" not in result.said]
    # Except where an error is to be found.
    assert all(any(word in name for word in ASKED) for name in silent)
    assert len(silent) == 4
    assert "slopes in ex01_neuron.py is not written yet" in (
        unanswered["test_01_neuron::test_slopes"].said
    )


def described(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """The name, arguments and docstring of every function and class of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node.name, ast.unparse(node.args), ast.get_docstring(node)
        elif isinstance(node, ast.ClassDef):
            yield node.name, "", ast.get_docstring(node)


@pytest.mark.parametrize("name", FILES)
def test_question_and_answer_are_about_the_same(name: str) -> None:
    assert list(described(FOLDER / name)) == list(described(ANSWERS / name))


MISTAKES = [
    # file, what to replace in the answer, by what, the test, what it should say
    ("ex01_neuron.py", "dL_dy * y * (1 - y)", "dL_dy", "slopes", "slope of the sigmoid"),
    ("ex01_neuron.py", "dL_dy * y * (1 - y)", "dL_dy * (1 - y**2)", "slopes", "slope of tanh"),
    (
        "ex01_neuron.py",
        "found.get(name, 0.0) + found[result] * slope",
        "found[result] * slope",
        "cotangents_of_what_is_used_twice",
        "Add what arrives from both",
    ),
    (
        "ex01_neuron.py",
        "in reversed(tape)",
        "in sorted(tape, key=lambda line: line[0] != 'L')",
        "cotangents_wait_for_all_uses",
        "strictly backwards",
    ),
    ("ex02_state.py", "(newer, x)", "(x, newer)", "delay", "two steps late"),
    ("ex02_state.py", "return older,", "return newer,", "delay", "one step ago"),
    (
        "ex02_state.py",
        " - (total / count) ** 2",
        "",
        "variance",
        "the square of the mean is still to be taken away",
    ),
    ("ex03_shapes.py", "and k <= t", "", "reaches", "comes after it"),
    ("ex03_shapes.py", "t >= read", "True", "reaches", "there is no loss"),
    ("ex03_shapes.py", "y = g(output)", "y = g(output).detach()", "write", "no tape"),
    (
        "ex03_shapes.py",
        "        y = g(output)\n        answers.append(y)",
        "        answers.append(g(output))",
        "write",
        "must be read next",
    ),
    ("ex04_hello.py", "/ len(losses)", "", "smallest_loss_of_hello", "is their mean"),
    ("ex04_hello.py", " - (i == right)", "", "slope_of_cross_entropy", "must be negative"),
    ("ex04_hello.py", "top = max(scores)", "top = 0", "of_large_scores", "overflows"),
    (
        "ex05_derivation.py",
        "* xs[i] / len(xs)",
        "* ([0, *hs][i]) / len(xs)",
        "terms_of_w_x",
        "df_i/dw_x is x_i",
    ),
    ("ex05_derivation.py", "* xs[i] / len(xs)", "* xs[i]", "terms_of_w_x", "without the 1/T"),
    ("ex05_derivation.py", "- ys[t]) * w_o / len(xs)\n    ", "- ys[t]) * w_o\n    ", "tanh", "1/T"),
    ("ex06_lemma.py", "range(i + 1, t + 1)", "range(i, t + 1)", "closed", "AFTER"),
    ("ex06_lemma.py", "C[j] @ product", "product @ C[j]", "closed_matrices", "wrong order"),
    ("ex06_lemma.py", "c[t + 1] * d if t + 1 < T else 0.0", "c[t] * d", "backward", "not c_t"),
    ("ex06_lemma.py", "rates[year + 1 :]", "rates[year:]", "worth", "too early"),
    ("ex07_large_t.py", '"rotating": HEALTHY', '"rotating": EXPLODING', "predictions", "rotated"),
    ("ex07_large_t.py", '"saturated": VANISHING', '"saturated": EXPLODING', "predictions", "steep"),
    ("ex07_large_t.py", "np.linalg.norm(W, 2)", "np.linalg.norm(W)", "bound", "Frobenius"),
    ("ex07_large_t.py", "math.ceil", "math.floor", "steps_until", "still more left"),
    ("ex08_truncation.py", "0 <= t - i < k", "0 <= t - i <= k", "depth_mask", "does not reach"),
    (
        "ex08_truncation.py",
        "0.0 if t % k == 0 else delta * w",
        "delta * w",
        "truncated_gradient",
        "nothing was cut",
    ),
    (
        "ex08_truncation.py",
        "if t % k == 0",
        "if (len(xs) - t) % k == 0",
        "truncated_gradient",
        "counted from the end",
    ),
    ("ex08_truncation.py", "lag + 1, lag + 1", "lag, lag", "smallest_k", "One too few"),
    ("ex09_random.py", "0.0 if cut else 1 / (1 - c)", "float(not cut)", "gates", "make up for"),
    ("ex09_random.py", "** -d - 1", "** -d", "variance", "square of the mean"),
    (
        "ex09_random.py",
        "    total = 0.0\n",
        "    return 1.0\n    total = 0.0\n",
        "the_gates_matter",
        "does not use your gates",
    ),
    ("ex09_random.py", "(deviation / error) ** 2", "deviation / error", "draws_needed", "Four"),
    (
        "ex10_clipping.py",
        "[g * min(1.0, limit / norm) for g in gradients]",
        "[g * min(1.0, limit / np.linalg.norm(g)) for g in gradients]",
        "clip_norm",
        "by itself",
    ),
    ("ex10_clipping.py", "min(1.0, limit / norm)", "limit / norm", "short", "made longer"),
    ("ex10_clipping.py", "tgr.clip_cotangent(h, max_value=limit)", "h", "backward", "Nothing"),
    (
        "ex10_clipping.py",
        "    h = tgr.clip_cotangent(h, max_value=limit)\n    return w * h + x",
        "    return tgr.clip_cotangent(w * h + x, max_value=limit)",
        "famous_error_backward",
        "before the product with w",
    ),
    (
        "ex11_gates.py",
        'r * (h @ U["n"].T + d["n"])',
        '(r * h) @ U["n"].T + d["n"]',
        "gru_step",
        "before the product",
    ),
    ("ex11_gates.py", "(1 - z) * n + z * h", "z * n + (1 - z) * h", "gru_step", "what is KEPT"),
    ("ex11_gates.py", "math.log(f / (1 - f))", "f", "bias_for", "what the sigmoid makes"),
    ("ex11_gates.py", "return h, h", "return h, h + x", "useless", "depends on an input"),
    ("ex12_own_cell.py", "f * h + (1 - f) * n", "(1 - f) * h + f * n", "forward", "OLD state"),
    ("ex12_own_cell.py", "np.log(steps)", "0.0", "open_gate", "1 - 1/steps"),
]


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """What the tests say to each mistake. Mistakes in different files are made in one run."""
    said: list[Result | None] = [None] * len(MISTAKES)
    while None in said:
        folder = tmp_path_factory.mktemp("mistaken")
        source = shutil.copytree(ANSWERS, folder / "source")
        made: dict[str, int] = {}
        for n, (file, old, new, _, _) in enumerate(MISTAKES):
            if said[n] is None and file not in made:
                made[file] = n
                text = (source / file).read_text(encoding="utf-8")
                assert old in text, f"{file} has no {old!r}"
                (source / file).write_text(text.replace(old, new), encoding="utf-8")
        found = run(source, folder)
        for file, n in made.items():
            end = f"::test_{MISTAKES[n][3]}"
            tests = file.replace("ex", "test_", 1).removesuffix(".py")
            names = [name for name in found if name.startswith(tests)]
            (name,) = [x for x in names if x.endswith(end)] or [
                x for x in names if MISTAKES[n][3] in x
            ]
            said[n] = found[name]
    return [result for result in said if result is not None]


@pytest.mark.parametrize("n", range(len(MISTAKES)), ids=lambda n: f"{MISTAKES[n][0][:4]}-{n}")
def test_a_typical_mistake_is_told(n: int, mistaken: list[Result]) -> None:
    result = mistaken[n]
    assert not result.passed
    assert MISTAKES[n][4] in result.said
    assert "Traceback" not in result.said


def test_no_other_run_collects_them() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "docs/exercises" not in found.stdout
    assert "test_exercises" in found.stdout
