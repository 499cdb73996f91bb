"""The study as raters meet it, in a real browser (the system's Chromium; without one these tests are skipped)."""

import itertools
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn

from tests.browser import needs_chromium, require_accessible
from tests.study.conftest import CFG, frames
from videogpa.artifact import read_rows
from videogpa.study.analysis import analyse
from videogpa.study.material import create
from videogpa.study.plan import Exclusion, StudyConfig, StudyItem
from videogpa.study.schedule import schedule
from videogpa.study.server import make_app, read_study
from videogpa.study.votes import Votes, sqlite_url
from videogpa.video_io import write_preview

pytestmark = needs_chromium
TOKEN = "correct horse"
SCREENS = CFG.items + CFG.checks + CFG.repeats


class Site:
    """A study that is served on a free port of the loopback."""

    def __init__(self, study, cfg, url, around=lambda app: app):
        self.votes = Votes(url, read_study(study)[1])
        self.cfg, self.study = cfg, study
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        app = around(make_app(study, cfg, self.votes, TOKEN))
        config = uvicorn.Config(app, log_level="warning")
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
    page = begin(context, site)
    ready(page, 0)
    return page


def begin(context, site):
    page = context.new_page()
    page.goto(site.address)
    page.get_by_role("button", name="Start", exact=True).click()
    return page


def ready(page, position):
    """Until a screen stands there with its videos."""
    page.locator(f"form[data-shown='{position}']").wait_for()
    assert page.get_by_text(f"{position + 1} of {SCREENS}").is_visible()


def wait_until(page, holds):
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        page.wait_for_timeout(20)


def chosen(page):
    return [radio.get_attribute("value") for radio in page.locator("input[type=radio]:checked").all()]


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


TIMES = "[...document.querySelectorAll('video')].map((video) => video.currentTime)"
PAUSED = "[...document.querySelectorAll('video')].map((video) => video.paused)"


def watch(page, seconds):
    """The two videos' times, again and again."""
    for _ in range(round(seconds / 0.1)):
        yield page.evaluate(TIMES)
        page.wait_for_timeout(100)


def test_videos_loop_in_step(page):
    seen = []
    for left, right in watch(page, 2):
        assert abs(left - right) < 0.2
        seen.append(left)
    assert any(after < before for before, after in itertools.pairwise(seen))


def test_a_pause_leaves_both_at_the_same_frame_and_goes_on_from_there(page):
    wait_until(page, lambda: 0.2 < page.evaluate(TIMES)[0] < 0.5)
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate(PAUSED) == [True, True]
    left, right = page.evaluate(TIMES)
    assert left == pytest.approx(right, abs=1e-3)
    page.evaluate(
        "for (const video of document.querySelectorAll('video')) video.addEventListener('play', () =>"
        " { (window.from ??= []).push(video.currentTime); })"
    )
    page.get_by_role("button", name="Play").click()
    wait_until(page, lambda: page.evaluate("window.from?.length") == 2)
    assert page.evaluate("window.from") == pytest.approx([left, left], abs=0.05)


def test_what_pauses_one_pauses_both(page):
    page.evaluate("document.getElementById('right').pause()")
    page.get_by_role("button", name="Play").wait_for()
    assert page.evaluate(PAUSED) == [True, True]


@pytest.mark.parametrize("longer", ["left", "right"])
def test_videos_of_different_lengths_loop_together(context, site, tmp_path, longer):
    write_preview(tmp_path / "long.mp4", frames(5).repeat(2, 1, 1, 1), fps=8)
    context.route(f"**/0/{longer}.mp4", lambda route: route.fulfill(path=tmp_path / "long.mp4"))
    page = begin(context, site)
    ready(page, 0)
    short, long = sorted(page.evaluate("[...document.querySelectorAll('video')].map((v) => v.duration)"))
    assert long > short + 1
    seen = [times if longer == "right" else times[::-1] for times in watch(page, 1.5 * long)]
    for ended, going in seen:
        assert abs(ended - going) < 0.2 or ended == pytest.approx(short, abs=0.1)
    loops = [after for before, after in itertools.pairwise(seen) if after[1] < before[1]]
    assert loops
    assert all(abs(ended - going) < 0.2 for ended, going in loops)
    assert max(going for _, going in seen) > short + 0.5


def test_where_videos_may_not_play_by_themselves_the_button_starts_both(context, site):
    context.add_init_script("""
        const play = HTMLMediaElement.prototype.play;
        HTMLMediaElement.prototype.play = function () {
          return window.allowed ? play.call(this) : Promise.reject(new DOMException("", "NotAllowedError"));
        };
    """)
    page = begin(context, site)
    ready(page, 0)
    page.evaluate("window.allowed = true")
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert page.evaluate(PAUSED) == [False, False]


def test_answers_are_taken_only_when_both_videos_are_shown(context, site):
    held = []
    context.route("**/1/right.mp4", lambda route: held.append(route))
    page = begin(context, site)
    answer(page, 0)
    page.get_by_text(f"2 of {SCREENS}").wait_for()
    page.get_by_text("Loading", exact=True).wait_for()
    assert all(radio.is_disabled() for radio in page.get_by_role("radio").all())
    assert page.get_by_role("button", name="Next").is_disabled()
    for key in ("ArrowLeft", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert chosen(page) == []
    held[0].continue_()
    ready(page, 1)
    assert chosen(page) == []
    answer(page, 1)
    ready(page, 2)
    assert len(site.votes.all()) == 2


def test_seconds_are_those_since_the_videos_were_shown(context, site):
    held = []
    context.route("**/1/left.mp4", lambda route: held.append(route))
    page = begin(context, site)
    answer(page, 0)
    page.get_by_text("Loading", exact=True).wait_for()
    page.wait_for_timeout(500)
    released = time.monotonic()
    held[0].continue_()
    ready(page, 1)
    page.wait_for_timeout(300)
    answer(page, 1)
    ready(page, 2)
    assert 0.3 <= site.votes.all()[1].seconds <= time.monotonic() - released


def test_whoever_comes_back_after_days_is_believed_a_day(page, site):
    page.evaluate("const now = performance.now.bind(performance); performance.now = () => now() + 2e8")
    answer(page, 0)
    ready(page, 1)
    assert site.votes.all()[0].seconds == 24 * 3600


def test_a_download_that_breaks_off_is_begun_again(study, tmp_path, context):
    cut = []

    def cutting(app):
        async def broken(scope, receive, send):
            async def half(message):
                if message["type"] == "http.response.body":
                    cut.append(scope["path"])
                    await send({**message, "body": message["body"][:99], "more_body": True})
                    raise ConnectionResetError
                await send(message)

            breaks = scope.get("path", "").endswith("/0/left.mp4") and not cut
            await app(scope, receive, half if breaks else send)

        return broken

    with Site(study, CFG, f"sqlite:///{tmp_path / 'votes.sqlite3'}", around=cutting) as site:
        page = begin(context, site)
        ready(page, 0)
        assert len(cut) == 1
        page.close()


def test_a_video_that_is_not_there_says_so(context, site):
    context.route("**/0/left.mp4", lambda route: route.fulfill(status=404, json={"detail": "no such video"}))
    page = begin(context, site)
    page.get_by_text("could not be loaded (no such video)").wait_for()
    assert page.get_by_role("radio").count() == 0
    context.unroute_all()
    page.get_by_role("button", name="Reload").click()
    ready(page, 0)


def test_a_video_that_cannot_be_played_says_so(context, site):
    context.route("**/0/right.mp4", lambda route: route.fulfill(body="no video", content_type="video/mp4"))
    page = begin(context, site)
    page.get_by_text("cannot be played").wait_for()
    assert page.get_by_role("radio").count() == 0
    context.unroute_all()
    page.get_by_role("button", name="Reload").click()
    ready(page, 0)


def test_a_video_that_came_broken_is_loaded_once_more(context, site):
    asked = []

    def first_broken(route):
        asked.append(route)
        if len(asked) == 1:
            route.fulfill(body="no video", content_type="video/mp4")
        else:
            route.continue_()

    context.route("**/0/right.mp4", first_broken)
    ready(begin(context, site), 0)
    assert len(asked) == 2


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
    assert other.get_by_text("answered already").is_visible()
    answer(other, 1, "Right")
    ready(other, 2)
    assert not other.get_by_text("answered already").is_visible()
    answer(page, 1, "Right")
    ready(page, 2)
    votes = site.votes.all()
    assert [(v.position, v.answers["better"]) for v in votes] == [(0, "left"), (1, "right")]


def test_the_back_button_loses_and_doubles_nothing(page, site):
    answer(page, 0)
    ready(page, 1)
    page.go_back()
    page.get_by_role("link", name="Go on where you were").wait_for()
    assert page.get_by_role("button", name="Start", exact=True).count() == 0
    page.get_by_role("link", name="Go on where you were").click()
    ready(page, 1)
    answer(page, 1)
    ready(page, 2)
    assert [v.position for v in site.votes.all()] == [0, 1]
    assert len(site.votes.raters()) == 1


def test_somebody_else_at_the_same_browser_starts_anew(page, site):
    page.go_back()
    page.get_by_role("button", name="Start as somebody else").click()
    ready(page, 0)
    assert len(site.votes.raters()) == 2


def test_who_comes_while_the_study_cannot_be_reached_is_told_and_let_in_later(context, site):
    context.route("**/api/study", lambda route: route.abort())
    page = context.new_page()
    page.goto(site.address)
    page.get_by_text("cannot be reached").wait_for()
    assert page.get_by_role("button", name="Start").is_disabled()
    context.unroute_all()
    page.get_by_role("button", name="Start").click()
    ready(page, 0)


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


def test_an_answer_that_is_refused_can_be_sent_again(page, context, site):
    """By the page, and after a reload."""
    context.route("**/votes", lambda route: route.fulfill(status=422, json={"detail": "not in this study"}))
    choose(page, "Left", "Right")
    page.get_by_role("checkbox", name="blurry").check(force=True)
    page.get_by_role("button", name="Next").click()
    page.get_by_text("not in this study").wait_for()
    assert chosen(page) == ["left", "right"]
    assert page.get_by_role("button", name="Next").is_enabled()
    page.reload()
    page.get_by_text("not in this study").wait_for()
    ready(page, 0)
    assert chosen(page) == ["left", "right"]
    context.unroute_all()
    page.get_by_role("button", name="Next").click()
    ready(page, 1)
    assert not page.get_by_text("not in this study").is_visible()
    (vote,) = site.votes.all()
    assert (vote.answers, vote.tags) == ({"consistent": "left", "better": "right"}, ["blurry"])
    assert page.evaluate("sessionStorage.length") == 0


def test_what_a_malformed_answer_lacks_is_said(page, context):
    detail = [{"loc": ["body", "seconds"], "msg": "should be a number"}]
    context.route("**/votes", lambda route: route.fulfill(status=422, json={"detail": detail}))
    answer(page, 0)
    page.get_by_text("not taken: should be a number").wait_for()


def test_a_page_that_is_restored_while_it_sends_goes_on(page, site):
    held = []

    def first_lost(route):
        held.append(route)
        if len(held) > 1:
            route.continue_()

    page.route("**/votes", first_lost)
    answer(page, 0)
    wait_until(page, lambda: held)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    ready(page, 1)
    assert [v.position for v in site.votes.all()] == [0]


def test_a_page_that_is_restored_shows_what_comes_next_and_keeps_what_is_chosen(page, context):
    restore = "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
    other = context.new_page()
    other.goto(page.url)
    choose(page, "Left", "Right")
    page.evaluate(restore)
    page.wait_for_timeout(200)
    assert chosen(page) == ["left", "right"]
    answer(other, 0)
    ready(other, 1)
    page.evaluate(restore)
    ready(page, 1)
    assert chosen(page) == []


def test_a_key_that_is_held_down_counts_once(page, site):
    for _ in range(3):
        page.keyboard.down("ArrowLeft")
    page.keyboard.up("ArrowLeft")
    assert chosen(page) == ["left"]
    page.keyboard.press("ArrowLeft")
    for _ in range(3):
        page.keyboard.down("Enter")
    ready(page, 1)
    for _ in range(3):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    assert chosen(page) == []
    assert [v.position for v in site.votes.all()] == [0]


def test_an_arrow_chooses_what_it_says_where_a_choice_has_the_focus(page):
    second = page.get_by_role("group", name=CFG.questions[1].text)
    second.get_by_role("radio", name="Left").focus()
    for key, value in (
        *(("ArrowDown", []), ("ArrowUp", []), ("ArrowLeft", ["left"]), ("ArrowLeft", ["left"])),
        *(
            ("ArrowRight", ["right"]),
            ("ArrowRight", ["right"]),
            ("ArrowUp", ["right"]),
            ("ArrowDown", ["right"]),
        ),
    ):
        page.keyboard.press(key)
        assert chosen(page) == value
    assert second.get_by_role("radio", name="Right").evaluate("(radio) => radio === document.activeElement")


def test_keys_of_a_control_keep_their_meaning(page, site):
    page.get_by_role("checkbox", name="blurry").focus()
    page.keyboard.press("Space")
    assert page.get_by_role("checkbox", name="blurry").is_checked()
    assert page.evaluate(PAUSED) == [False, False]
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Space")
    assert page.evaluate(PAUSED) == [True, True]
    page.keyboard.press("Enter")
    assert page.evaluate(PAUSED) == [False, False]
    assert site.votes.all() == []


def test_a_new_screen_has_the_focus_and_says_which_it_is(page):
    for key in ("ArrowLeft", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    ready(page, 1)
    region = page.get_by_role("form", name=f"2 of {SCREENS}")
    assert region.evaluate("(form) => form === document.activeElement")
    assert page.locator("[aria-live=polite]").text_content() == f"Pair 2 of {SCREENS}"
    page.keyboard.press("Space")
    assert page.evaluate(PAUSED) == [True, True]


def test_the_name_of_a_question_changes_nothing(context, site):
    """Forms have properties of their own, and the reasons have names."""

    def rename(route):
        response = route.fetch()
        told = response.json()
        for question, key in zip(told["questions"], ("hidden", "tag"), strict=True):
            question["key"] = key
        route.fulfill(response=response, json=told)

    context.route("**/api/r/*", rename)
    page = begin(context, site)
    ready(page, 0)
    with page.expect_request("**/votes") as sent:
        answer(page, 0)
    told = sent.value.post_data_json
    assert (told["answers"], told["tags"]) == ({"hidden": "left", "tag": "left"}, [])


def test_the_study_goes_on_where_nothing_may_be_kept(context, site):
    context.add_init_script("""
        for (const name of ["localStorage", "sessionStorage"])
          Object.defineProperty(window, name, { get() { throw new DOMException("", "SecurityError"); } });
    """)
    faults = []
    context.on("weberror", lambda fault: faults.append(fault.error))
    page = begin(context, site)
    answer(page, 0)
    answer(page, 1)
    ready(page, 2)
    page.goto(f"{site.address}/admin")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Show").click()
    page.get_by_role("cell", name=f"2 of {SCREENS}").wait_for()
    assert faults == []


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
    page.get_by_role("heading", name="This link is not known here").wait_for()
    page.get_by_role("link", name="start anew").click()
    page.get_by_role("button", name="Start").wait_for()


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


def test_counts_are_hidden_when_the_token_is_good_no_more(context, site):
    asked = []
    page = context.new_page()
    page.clock.install()
    page.goto(f"{site.address}/admin")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Show").click()
    page.get_by_text("does not count").first.wait_for()

    def refuse(route):
        asked.append(route)
        route.fulfill(status=401, json={"detail": "the token is wrong"})

    context.route("**/api/admin", refuse)
    page.clock.run_for(5000)
    page.get_by_text("not the token any more").wait_for()
    assert page.get_by_label("Token").is_visible()
    assert not page.get_by_text("does not count").first.is_visible()
    page.clock.run_for(60_000)
    assert len(asked) == 1
    context.unroute_all()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Show").click()
    page.get_by_text("does not count").first.wait_for()


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
    context.route("**/votes", lambda route: route.fulfill(status=422, json={"detail": "not in this study"}))
    page.get_by_role("button", name="Next").click()
    page.get_by_text("not in this study").wait_for()
    require_accessible(page)
    context.unroute_all()
    context.route("**/1/left.mp4", lambda route: route.fulfill(status=404))
    page.reload()
    page.get_by_role("button", name="Reload").wait_for()
    require_accessible(page)
    link = page.url.removeprefix(site.address)
    for position in range(1, SCREENS):
        given = {"position": position, "answers": {q.key: "left" for q in CFG.questions}, "seconds": 2}
        assert context.request.post(f"{site.address}/api{link}/votes", data=given).ok
    page.reload()
    page.get_by_text("All your answers are stored").wait_for()
    require_accessible(page)
    page.goto(site.address)
    page.get_by_role("link", name="Go on where you were").wait_for()
    require_accessible(page)
    page.goto(f"{site.address}/admin")
    require_accessible(page)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Show").click()
    page.get_by_text("does not count").first.wait_for()
    require_accessible(page)
    context.close()


def test_thirty_raters_preference_comes_out(browser, evaluation, tmp_path):
    """Every rater clicks through the pages and prefers the trained arm seven times in ten."""
    # To paint large videos that move takes longer than all the rest.
    context = browser.new_context(reduced_motion="reduce", viewport={"width": 390, "height": 500})
    context.set_default_timeout(20_000)
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
        context.close()
        told = analyse(cfg, items, site.votes.all())
    assert (told["votes"], told["counted_raters"]) == (30 * 5, 30)
    for row in told["comparisons"]:
        assert row["votes"] == 120
        assert 0.5 < row["by_rater95"][0] <= 0.7 <= row["by_rater95"][1]


def test_the_default_database_lies_in_the_study(study):
    assert str(sqlite_url(study)) == f"sqlite:///{study.resolve()}/votes.sqlite3"
