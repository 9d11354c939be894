"""The page of a tape, clicked through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr

pytestmark = pytest.mark.browser
XS = np.random.default_rng(0).normal(size=(4, 1, 2)).astype(np.float32)


def press(page: Any, name: str) -> None:
    page.find_element("id", name).click()


def text(page: Any, name: str) -> str:
    return page.find_element("id", name).text


def box(page: Any, t: int) -> Any:
    return page.find_element("css selector", f"[data-t='{t}']")


def cell_of_three() -> Any:
    return tgr.nn.RNNCell(2, 3)


def test_a_step_opens_and_closes(show: Callable[[str], Any]) -> None:
    outputs, _ = tgr.scan(tgr.nn.LSTMCell(2, 3), XS)
    page = show(tgr.viz.tape(tgr.mean(outputs)).html())
    assert box(page, 2).get_attribute("aria-expanded") == "false"
    assert not page.find_elements("css selector", "#picture [data-item] .pill")
    box(page, 2).click()
    assert box(page, 2).get_attribute("aria-expanded") == "true"
    shown = [e.text.split("\n")[0] for e in page.find_elements("css selector", "[data-item] text")]
    assert {"h = ×", "c = +", "tanh(c)", "sigmoid(f)"} <= set(shown)
    box(page, 2).find_element("tag name", "text").click()
    assert box(page, 2).get_attribute("aria-expanded") == "false"
    box(page, 1).click()
    press(page, "close")
    assert box(page, 1).get_attribute("aria-expanded") == "false"


def test_stepping_moves_the_numbers(show: Callable[[str], Any]) -> None:
    """By hand: the states are 1, 1.5 and 1.75; the shares of w's gradient 0, 1.5 and 1.5."""
    w = tgr.tensor(0.5, requires_grad=True)

    def decay(x: Any, h: Any) -> Any:
        h = w * h + x
        return h, h

    outputs, _ = tgr.scan(decay, tgr.ones((3,)), tgr.tensor(0.0))
    page = show(tgr.viz.tape(tgr.sum(outputs)).html())
    seen: list[tuple[str, str]] = []
    for _ in range(16):
        press(page, "next")
        seen.append((text(page, "position"), text(page, "detail")))
    where = [position for position, _ in seen]
    assert where[0] == "forward 1 of 8: multiply"
    assert where[7] == "forward 8 of 8: sum"
    assert where[8] == "back 1 of 8: sum"
    assert where[15] == "back 8 of 8: multiply"
    assert "1.75" in seen[5][1]
    sums = [d.split("w.grad so far")[1].split("\n")[1] for _, d in seen if "w.grad so far" in d]
    assert sums == ["1.5", "3", "3"]  # the last step comes first
    press(page, "back")
    assert text(page, "position") == where[14]
    press(page, "first")
    assert text(page, "position") == "8 operations"


def test_keys(show: Callable[[str], Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    outputs, _ = tgr.scan(cell_of_three(), XS)
    page = show(tgr.viz.tape(tgr.mean(outputs)).html())
    body = page.find_element("tag name", "body")
    body.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert text(page, "position").startswith("forward 2 of")
    body.send_keys(Keys.ARROW_LEFT)
    assert text(page, "position").startswith("forward 1 of")
    body.send_keys(Keys.END)
    last = text(page, "position").split(":")[0].split()
    assert last[0] == "back"
    assert last[1] == last[3]
    body.send_keys(Keys.HOME)
    assert text(page, "position").endswith("operations")
    box(page, 3).send_keys(Keys.ENTER)
    assert box(page, 3).get_attribute("aria-expanded") == "true"


def test_values_and_gradients_are_the_engines(show: Callable[[str], Any]) -> None:
    cell = cell_of_three()
    outputs, _ = tgr.scan(cell, XS)
    loss = tgr.sum(tgr.square(outputs))
    page = show(tgr.viz.tape(loss).html())
    for chip in page.find_elements("css selector", "[data-item] .leaf"):
        if "bias_hh" in chip.find_element("xpath", "..").text:
            chip.click()
            break
    shown = text(page, "detail")
    assert shown.startswith("bias_hh")
    assert "used 4 times" in shown
    loss.backward()
    assert cell.bias_hh is not None
    assert cell.bias_hh.grad is not None
    row = shown.split(".grad\n")[1].split("\n")[0]
    np.testing.assert_allclose(
        [float(x) for x in row.split()], cell.bias_hh.grad.numpy(), rtol=1e-3
    )


def test_two_hundred_steps_roll_up_and_any_opens(show: Callable[[str], Any]) -> None:
    xs = np.random.default_rng(0).normal(size=(200, 1, 2)).astype(np.float32)
    outputs, _ = tgr.scan(cell_of_three(), xs)
    page = show(tgr.viz.tape(tgr.mean(outputs)).html())
    assert len(page.find_elements("css selector", "[data-t]")) == 6
    assert len(page.find_elements("css selector", "[data-open]")) == 194
    # A bar is a pixel wide, so the pointer may meet its neighbour.
    bar = page.find_element("css selector", "[data-open='100']")
    page.execute_script("arguments[0].dispatchEvent(new MouseEvent('click'))", bar)
    assert box(page, 100).get_attribute("aria-expanded") == "true"
    page.find_element("id", "step").send_keys("42\t")
    assert box(page, 42).get_attribute("aria-expanded") == "true"
    assert "one step × 39" in text(page, "picture")


def test_cuts_are_drawn(show: Callable[[str], Any]) -> None:
    outputs, _ = tgr.scan(cell_of_three(), XS, truncation=tgr.bptt.Chunk(2))
    page = show(tgr.viz.tape(tgr.mean(outputs)).html())
    cuts = page.find_elements("css selector", "[data-cut]")
    assert [c.get_attribute("data-cut") for c in cuts] == ["1"]


def test_names_that_look_like_markup(show: Callable[[str], Any]) -> None:
    w = tgr.nn.Parameter([1.0])
    w.name = "</script><img src=x onerror=alert(1)>"
    page = show(tgr.viz.tape(tgr.sum(w * 2.0), title="<b>&amp;</b>").html())
    assert page.find_element("tag name", "h1").text == "<b>&amp;</b>"
    assert not page.find_elements("tag name", "img")


def test_going_through_two_hundred_steps_opens_one_at_a_time(
    show: Callable[[str], Any],
) -> None:
    xs = np.random.default_rng(0).normal(size=(200, 1, 2)).astype(np.float32)
    outputs, _ = tgr.scan(cell_of_three(), xs)
    page = show(tgr.viz.tape(tgr.mean(outputs)).html())
    page.execute_script("for (let i = 0; i < 500; i += 1) document.getElementById('next').click()")
    assert len(page.find_elements("css selector", "[data-t]")) == 7
    (now,) = page.find_elements("css selector", "[data-t].now")
    assert now.get_attribute("aria-expanded") == "true"
    assert text(page, "position").startswith("forward 500 of")
    press(page, "last")
    assert text(page, "position").startswith("back ")


def test_pointing_shows_numbers_and_uses(show: Callable[[str], Any]) -> None:
    from selenium.webdriver import ActionChains

    outputs, _ = tgr.scan(tgr.nn.LSTMCell(2, 3), XS)
    page = show(tgr.viz.tape(tgr.mean(outputs)).html())
    ActionChains(page).move_to_element(box(page, 1)).perform()
    assert text(page, "detail").startswith("LSTMCell, step 1")
    assert "f (of split)" in text(page, "detail")
    chip = page.find_element("css selector", "[data-item] .leaf")
    ActionChains(page).move_to_element(chip).perform()
    assert "used 4 times" in text(page, "detail")
    assert len(page.find_elements("css selector", ".user")) == 4
    assert page.find_elements("css selector", "path.uses")
    ActionChains(page).move_to_element(page.find_element("tag name", "h1")).perform()
    assert not page.find_elements("css selector", "path.uses")
    assert text(page, "detail").startswith("Press next")


def test_in_the_frame_of_a_notebook(show: Callable[[str], Any]) -> None:
    outputs, _ = tgr.scan(cell_of_three(), XS)
    page = show(tgr.viz.tape(tgr.mean(outputs))._repr_html_())
    page.switch_to.frame(0)
    box(page, 2).click()
    assert box(page, 2).get_attribute("aria-expanded") == "true"
    page.switch_to.default_content()


def test_ten_thousand_operations_in_a_step_open(show: Callable[[str], Any]) -> None:
    x = tgr.tensor([1.0], requires_grad=True)
    y = x
    with tgr.step(0):
        for _ in range(10_000):
            y = y + x
    page = show(tgr.viz.tape(tgr.sum(y)).html())
    box(page, 0).click()
    assert len(page.find_elements("css selector", "[data-item] .pill")) == 10_000
    press(page, "next")
    assert text(page, "detail").startswith("add(")
