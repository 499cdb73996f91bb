"""The study as raters meet it, in a real browser (the system's Chromium; without one these tests are skipped)."""

import itertools
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn

from tests.browser import needs_chromium, require_accessible
from tests.study.conftest import CFG
from videogpa.artifact import read_rows
from videogpa.study.analysis import analyse
from videogpa.study.material import create
from videogpa.study.plan import Exclusion, StudyConfig, StudyItem
from videogpa.study.schedule import schedule
from videogpa.study.server import make_app, read_study
from videogpa.study.votes import Votes, sqlite_url

pytestmark = needs_chromium
TOKEN = "correct horse"
SCREENS = CFG.items + CFG.checks + CFG.repeats


class Site:
    """A study that is served on a free port of the loopback."""

    def __init__(self, study, cfg, url):
        self.votes = Votes(url, read_study(study)[1])
        self.cfg, self.study = cfg, study
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(make_app(study, cfg, self.votes, TOKEN), log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


@pytest.fixture
def site(study, tmp_path):
    with Site(study, CFG, f"sqlite:///{tmp_path / 'votes.sqlite3'}") as site:
        yield site


@pytest.fixture
def context(browser):
    context = browser.new_context()
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context, site):
    page = context.new_page()
    page.goto(site.address)
    page.get_by_role("button", name="Start").click()
    ready(page, 0)
    return page


def ready(page, position):
    """Until a screen stands there with its videos."""
    page.get_by_text(f"{position + 1} of {SCREENS}").wait_for()
    page.locator(f"form[data-shown='{position}']").wait_for()


def choose(page, *sides):
    for question, side in zip(CFG.questions, sides, strict=True):
        page.get_by_role("group", name=question.text).get_by_role("radio", name=side).check(force=True)


def answer(page, position, side="Left"):
    ready(page, position)
    choose(page, side, side)
    page.get_by_role("button", name="Next").click()


def test_somebody_goes_all_the_way_by_mouse(page, site):
    for position in range(SCREENS):
        answer(page, position, "Left" if position % 2 else "Right")
    page.get_by_text("All your answers are stored").wait_for()
    votes = site.votes.all()
    assert [v.position for v in votes] == list(range(SCREENS))
    assert [set(v.answers.values()) for v in votes[:2]] == [{"right"}, {"left"}]
    assert site.votes.finished() == 1


def test_somebody_goes_all_the_way_by_keyboard(page, site):
    for position in range(SCREENS):
        ready(page, position)
        for key in ("ArrowLeft", "ArrowRight", "Enter"):
            page.keyboard.press(key)
    page.get_by_text("All your answers are stored").wait_for()
    assert all(v.answers == {"consistent": "left", "better": "right"} for v in site.votes.all())


def test_videos_loop_in_step(page):
    times = "[...document.querySelectorAll('video')].map((video) => video.currentTime)"
    seen = []
    for _ in range(25):
        left, right = page.evaluate(times)
        assert abs(left - right) < 0.2
        seen.append(left)
        page.wait_for_timeout(120)
    assert any(after < before for before, after in itertools.pairwise(seen))
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate("document.querySelector('video').paused")


def test_next_waits_for_every_answer(page):
    following = page.get_by_role("button", name="Next")
    assert following.is_disabled()
    page.get_by_role("radio", name="Left").first.check(force=True)
    assert following.is_disabled()
    choose(page, "Left", "Right")
    assert following.is_enabled()


def test_a_double_click_counts_once(page, site):
    choose(page, "Left", "Left")
    page.get_by_role("button", name="Next").dblclick()
    ready(page, 1)
    assert [v.position for v in site.votes.all()] == [0]


def test_a_reload_goes_on_where_it_was(page, site):
    answer(page, 0)
    ready(page, 1)
    choose(page, "Right", "Right")
    page.reload()
    ready(page, 1)
    assert page.get_by_role("button", name="Next").is_disabled()
    answer(page, 1, "Right")
    ready(page, 2)
    assert [v.position for v in site.votes.all()] == [0, 1]


def test_two_tabs_make_one_rater(page, context, site):
    other = context.new_page()
    other.goto(page.url)
    ready(other, 0)
    answer(page, 0, "Left")
    ready(page, 1)
    answer(other, 0, "Right")
    other.get_by_text("answered already").wait_for()
    ready(other, 1)
    answer(other, 1, "Right")
    ready(other, 2)
    answer(page, 1, "Right")
    ready(page, 2)
    votes = site.votes.all()
    assert [(v.position, v.answers["better"]) for v in votes] == [(0, "left"), (1, "right")]


def test_the_back_button_loses_and_doubles_nothing(page, site):
    answer(page, 0)
    ready(page, 1)
    page.go_back()
    page.get_by_role("link", name="Go on where you were").click()
    ready(page, 1)
    answer(page, 1)
    ready(page, 2)
    assert [v.position for v in site.votes.all()] == [0, 1]


def test_a_lost_connection_delays_the_vote(page, context, site):
    choose(page, "Left", "Left")
    context.set_offline(True)
    page.get_by_role("button", name="Next").click()
    page.get_by_text("No connection").wait_for()
    assert site.votes.all() == []
    context.set_offline(False)
    ready(page, 1)
    assert [v.position for v in site.votes.all()] == [0]


def test_a_vote_whose_answer_got_lost_counts_once(page, context, site):
    """The server stores it, the connection breaks before the page hears of it, and the page is closed."""
    choose(page, "Left", "Left")

    def lose(route):
        route.fetch()
        route.abort()

    page.route("**/votes", lose)
    page.get_by_role("button", name="Next").click()
    page.get_by_text("No connection").wait_for()
    assert len(site.votes.all()) == 1
    page.unroute("**/votes")
    page.reload()
    ready(page, 1)
    assert [v.position for v in site.votes.all()] == [0]


def test_whoever_wants_less_motion_starts_the_videos(browser, site):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(site.address)
    page.get_by_role("button", name="Start").click()
    ready(page, 0)
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert not page.evaluate("document.querySelector('video').paused")
    context.close()


def test_a_wrong_link_says_so(context, site):
    page = context.new_page()
    assert page.goto(f"{site.address}/r/nobody").status == 404


def test_who_runs_it_sees_counts_after_the_token(page, context, site):
    answer(page, 0)
    ready(page, 1)
    admin = context.new_page()
    admin.goto(f"{site.address}/admin")
    admin.get_by_label("Token").fill("wrong")
    admin.get_by_role("button", name="Show").click()
    admin.get_by_text("This is not the token").wait_for()
    admin.get_by_label("Token").fill(TOKEN)
    admin.get_by_role("button", name="Show").click()
    admin.get_by_text("does not count").first.wait_for()
    assert admin.get_by_role("cell", name=f"1 of {SCREENS}").is_visible()


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_no_page_has_a_fault_of_accessibility_or_scrolls_sideways(browser, site, colors, size):
    context = browser.new_context(
        color_scheme=colors, viewport={"width": size[0], "height": size[1]}, bypass_csp=True
    )
    page = context.new_page()

    page.goto(site.address)
    require_accessible(page)
    page.get_by_role("button", name="Start").click()
    ready(page, 0)
    require_accessible(page)
    choose(page, "Left", "Right")
    require_accessible(page)
    for position in range(SCREENS):
        answer(page, position)
    page.get_by_text("All your answers are stored").wait_for()
    require_accessible(page)
    page.goto(f"{site.address}/admin")
    require_accessible(page)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Show").click()
    page.get_by_text("does not count").first.wait_for()
    require_accessible(page)
    context.close()


def test_thirty_raters_preference_comes_out(context, evaluation, tmp_path):
    """Every rater clicks through the pages and prefers the trained arm seven times in ten."""
    # Nobody takes the time of a person here.
    cfg = StudyConfig(
        items=4, checks=1, repeats=0, comparisons=(("dpo", "base"),), exclusion=Exclusion(median_seconds=0)
    )
    study = create(cfg, *evaluation, tmp_path / "study")
    items = read_rows(study, StudyItem)
    with Site(study, cfg, sqlite_url(study)) as site:
        page = context.new_page()
        for rater in range(30):
            own = np.random.default_rng(rater)
            page.goto(site.address)
            page.get_by_role("button", name="Start").click()
            for position, shown in enumerate(schedule(cfg, items, rater)):
                first = shown.item.kind == "check" or own.random() < 0.7
                side = "ArrowLeft" if (shown.left == "first") == first else "ArrowRight"
                page.locator(f"form[data-shown='{position}']").wait_for()
                for key in (side, side, "Enter"):
                    page.keyboard.press(key)
            page.get_by_text("All your answers are stored").wait_for()
        told = analyse(cfg, items, site.votes.all())
    assert (told["votes"], told["counted_raters"]) == (30 * 5, 30)
    for row in told["comparisons"]:
        assert row["votes"] == 120
        assert 0.5 < row["by_rater95"][0] <= 0.7 <= row["by_rater95"][1]


def test_the_default_database_lies_in_the_study(study):
    assert sqlite_url(study) == f"sqlite:///{study.resolve()}/votes.sqlite3"
