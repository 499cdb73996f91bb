"""The report's pages in a real browser, from disk."""

import re

import pytest

from tests.browser import needs_chromium, require_accessible
from tests.stages.finished_run import Size, make
from videogpa.stages import report

pytestmark = needs_chromium
PAGES = ("index", "held_out", "pairs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = make(tmp_path_factory.mktemp("runs") / "tiny", Size(train=3, candidates=3, held_out=3, seeds=2))
    (run / "doctor.json").write_text('{"dpo": [], "dpo_random": ["random_pairs: told by its configuration"]}')
    return report.run(run, run / "evaluation", run / "report")


@pytest.fixture
def page(browser, folder):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.goto(f"file://{folder}/held_out.html")
    yield page
    context.close()


def numbers(page):
    return [
        float(text.split()[-1].replace("\u2212", "-")) for text in page.locator(".entry b").all_inner_texts()
    ]


def test_clips_are_ordered_and_filtered(page):
    assert page.get_by_role("status").inner_text() == "6 of 6"
    assert numbers(page) == sorted(numbers(page), reverse=True)
    page.get_by_label("Order").select_option("up")
    assert numbers(page) == sorted(numbers(page))
    middle = numbers(page)[3]
    page.get_by_label("At least").fill(str(middle))
    assert min(numbers(page)) >= middle
    page.get_by_label("At least").fill("")
    page.get_by_label("Caption has").fill("no such words")
    assert page.get_by_role("status").inner_text() == "0 of 6"
    assert page.locator(".entry").count() == 0


def test_other_arms_can_be_set_side_by_side(page):
    page.locator("select[name=left]").select_option("dpo_random")
    page.get_by_label("Show").select_option("beside")
    first = page.locator(".entry").first
    assert first.locator(".names").inner_text().split()[0] == "dpo_random"
    assert all("dpo_random" in v.get_attribute("data-src") for v in page.locator("video.left").all())


def test_one_clip_is_drawn_over_the_other_as_far_as_the_slider_says(page):
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert page.locator(".stage").first.evaluate("(stage) => stage.style.getPropertyValue('--cut')") == "70%"
    clip = page.locator("video.right").first.evaluate("(video) => getComputedStyle(video).clipPath")
    assert clip == "inset(0px 0px 0px 70%)"


def test_clips_that_are_seen_play_in_step(page):
    page.wait_for_function("document.querySelectorAll('.entry:first-child video')[1].currentTime > 0.1")
    left, right = page.evaluate(
        "[...document.querySelectorAll('.entry:first-child video')].map((v) => v.currentTime)"
    )
    assert abs(left - right) < 0.2


def test_the_doctor_speaks_on_the_report(page, folder):
    page.goto(f"file://{folder}/index.html")
    assert re.search(
        r"dpo\s+healthy\s+dpo_random\s+random_pairs: told", page.locator("#training").inner_text()
    )


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    ("size", "colors"), [((1280, 900), "light"), ((390, 844), "dark")], ids=["desktop-light", "phone-dark"]
)
def test_no_page_has_a_fault_of_accessibility(browser, folder, name, colors, size):
    context = browser.new_context(color_scheme=colors, viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"file://{folder}/{name}.html")
    require_accessible(page)
    assert faults == []
    context.close()
