import json
import re
import shutil

import httpx2
import pytest
from fastapi.testclient import TestClient

from tests.study.conftest import CFG
from videogpa.errors import InputError
from videogpa.study.schedule import schedule
from videogpa.study.server import make_app, read_study
from videogpa.study.votes import Votes

TOKEN = "correct horse"


@pytest.fixture
def votes(database, study):
    return Votes(database, read_study(study)[1])


@pytest.fixture
def client(study, votes):
    return TestClient(make_app(study, CFG, votes, TOKEN))


def join(client) -> str:
    return client.post("/api/raters").json()["link"]


def answer(state, side="left", **changes):
    given = {q["key"]: side for q in state["questions"]}
    return {"position": state["position"], "answers": given, "tags": [], "seconds": 3.0} | changes


def test_a_rater_goes_through(client, votes, items):
    link = join(client)
    state = client.get(f"/api{link}").json()
    assert state["screens"] == CFG.items + CFG.checks + CFG.repeats
    for position in range(state["screens"]):
        assert (state["position"], state["done"]) == (position, False)
        assert client.get(f"{link}/{position}/left.mp4").headers["content-type"] == "video/mp4"
        state = client.post(f"/api{link}/votes", json=answer(state)).json()
    assert state["done"]
    assert [v.item for v in votes.all()] == [s.item.id for s in schedule(CFG, items, 0)]
    assert votes.finished() == 1


def test_left_is_what_the_schedule_puts_there(client, study, items):
    link = join(client)
    left, right = schedule(CFG, items, 0)[0].videos
    assert client.get(f"{link}/0/left.mp4").content == (study / left).read_bytes()
    assert client.get(f"{link}/0/right.mp4").content == (study / right).read_bytes()


def test_a_double_click_counts_once(client, votes):
    link = join(client)
    given = answer(client.get(f"/api{link}").json())
    first, second = (client.post(f"/api{link}/votes", json=given) for _ in range(2))
    assert first.json() == second.json()
    assert len(votes.all()) == 1


def test_another_answer_to_the_same_screen_is_refused(client, votes):
    link = join(client)
    state = client.get(f"/api{link}").json()
    client.post(f"/api{link}/votes", json=answer(state))
    refused = client.post(f"/api{link}/votes", json=answer(state, "right"))
    assert refused.status_code == 409
    assert [set(v.answers.values()) for v in votes.all()] == [{"left"}]


@pytest.mark.parametrize(
    "changes",
    [
        {"position": 99},
        {"position": -1},
        {"answers": {"consistent": "left"}},
        {"answers": {"consistent": "left", "better": "both"}},
        {"answers": {"consistent": "left", "better": "tie"}},
        {"tags": ["no such reason"]},
        {"seconds": -1},
        {"seconds": 1e9},
        {"seconds": "nan"},
        {"extra": 1},
    ],
)
def test_what_is_no_answer_is_refused_and_stores_nothing(client, votes, changes):
    link = join(client)
    given = answer(client.get(f"/api{link}").json(), **changes)
    assert client.post(f"/api{link}/votes", json=given).status_code == 422
    assert votes.all() == []


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(client, votes, seconds):
    link = join(client)
    given = json.dumps(answer(client.get(f"/api{link}").json(), seconds=7.25)).replace("7.25", seconds)
    assert client.post(f"/api{link}/votes", content=given).status_code == 422
    assert votes.all() == []


def test_an_answer_has_a_bounded_length(client):
    link = join(client)
    given = answer(client.get(f"/api{link}").json(), tags=["x" * 100_000])
    assert client.post(f"/api{link}/votes", json=given).status_code == 413
    assert client.post(f"/api{link}/votes", content=iter([b"{}"])).status_code == 413


def test_reasons_are_a_set(client, votes):
    link = join(client)
    state = client.get(f"/api{link}").json()
    first, second = CFG.tags[:2]
    for tags in ([second, first, second], [first, second]):
        assert client.post(f"/api{link}/votes", json=answer(state, tags=tags)).status_code == 200
    assert [vote.tags for vote in votes.all()] == [[first, second]]


def test_screens_cannot_be_skipped_or_seen_before_their_time(client, votes):
    link = join(client)
    state = client.get(f"/api{link}").json()
    assert client.post(f"/api{link}/votes", json=answer(state, position=2)).status_code == 409
    assert client.get(f"{link}/1/left.mp4").status_code == 200
    assert client.get(f"{link}/2/left.mp4").status_code == 404
    assert votes.all() == []


@pytest.mark.parametrize(
    "path",
    [
        "/r/{t}/0/../../../study.json",
        "/r/{t}/0/left.mp4/../../../../rows.jsonl",
        "/r/{t}/0/..%2F..%2Frows.jsonl",
        "/r/{t}/0/%2e%2e/rows.jsonl",
        "/static/../server.py",
        "/static/..%2Fserver.py",
        "/static/%2e%2e/votes.py",
        "/videos/",
        "/rows.jsonl",
        "/r/{t}/0/middle.mp4",
        "/r/{t}/x/left.mp4",
        "/r/{t}/-1/left.mp4",
        "/openapi.json",
        "/docs",
    ],
)
def test_nothing_but_the_screens_videos_can_be_reached(client, path):
    token = join(client).removeprefix("/r/")
    assert client.get(path.format(t=token)).status_code in (404, 422)


def test_nobody_sees_or_changes_anothers_votes(client, votes):
    mine, theirs = join(client), join(client)
    client.post(f"/api{mine}/votes", json=answer(client.get(f"/api{mine}").json()))
    assert client.get(f"/api{theirs}").json()["position"] == 0
    for link in ("/r/1", "/r/2", f"{mine}x", mine[:-1], "/r/' or 1=1 --", "/r/%00"):
        assert client.get(f"/api{link}").status_code == 404
        assert client.post(f"/api{link}/votes", json={}).status_code in (404, 422)
    assert [v.rater.number for v in votes.all()] == [1]


def test_answers_tell_no_arm(client, items):
    link = join(client)
    arms = {arm for item in items for arm in item.arms}
    told = [client.get(path) for path in ("/", link, f"/api{link}", "/api/study", "/admin")]
    videos = [client.get(f"{link}/{p}/{side}.mp4") for p in (0, 1) for side in ("left", "right")]
    for response in [*told, *videos]:
        headers = {k: v for k, v in response.headers.items() if k != "content-security-policy"}
        said = str(headers) + (response.text if response in told else "")
        assert not any(re.search(rf"\b{arm}\b", said) for arm in arms)
    same = [{k: v for k, v in video.headers.items()} for video in videos]
    assert all(headers == same[0] for headers in same)


def test_a_copied_study_tells_no_more(study, votes, tmp_path):
    """Copies have time stamps of their own, in the order in which they were made."""
    copy = tmp_path / "study"
    shutil.copytree(study, copy, copy_function=shutil.copy)
    client = TestClient(make_app(copy, CFG, votes, TOKEN))
    link = join(client)
    videos = [client.get(f"{link}/{p}/{side}.mp4") for p in (0, 1) for side in ("left", "right")]
    assert all(dict(video.headers) == dict(videos[0].headers) for video in videos)


def test_counts_are_for_the_token_alone(client, votes):
    assert client.get("/api/admin").status_code == 401
    assert client.get("/api/admin", headers={"Authorization": f"Bearer {TOKEN[:-1]}"}).status_code == 401
    assert (
        client.get("/api/admin", headers={"Authorization": "Bearer é".encode("latin-1")}).status_code == 401
    )
    link = join(client)
    client.post(f"/api{link}/votes", json=answer(client.get(f"/api{link}").json(), seconds=0.2))
    told = client.get("/api/admin", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert (told["raters"], told["finished"], told["votes"]) == (1, 0, 1)
    assert told["excluded"] == {"too quick": 1}
    assert "arm" not in str(told)


def test_a_full_study_lets_nobody_new_in_and_everybody_finish(study, votes):
    client = TestClient(make_app(study, CFG.model_copy(update={"raters": 1}), votes, TOKEN))
    first, second = join(client), join(client)
    for link in (first, second):
        state = client.get(f"/api{link}").json()
        while not state["done"]:
            state = client.post(f"/api{link}/votes", json=answer(state)).json()
    assert client.get("/api/study").json()["open"] is False
    assert client.post("/api/raters").status_code == 410
    assert votes.finished() == 2


def test_pages_run_no_foreign_and_no_inline_code(client):
    for path in ("/", "/admin", join(client)):
        response = client.get(path)
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", response.text)


def test_the_pages_own_files_may_be_kept_and_nothing_else(client):
    assert client.get("/static/study.css").headers["cache-control"] == "no-cache"
    for path in ("/", "/admin", join(client), "/api/study"):
        assert client.get(path).headers["cache-control"] == "no-store"


def test_a_video_can_be_asked_for_in_parts(client, study):
    link = join(client)
    whole = client.get(f"{link}/0/left.mp4").content
    part = client.get(f"{link}/0/left.mp4", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])


def test_rules_that_were_changed_after_the_study_was_made_are_refused(study, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    plan = (copy / "config.json").read_text()
    for changed in (plan.replace('"median_seconds": 1.5', '"median_seconds": 0.0'), "{"):
        (copy / "config.json").write_text(changed)
        with pytest.raises(InputError, match=r"config\.json is not the file that"):
            read_study(copy)


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not an artifact"):
        read_study(tmp_path)


def test_paths_are_not_normalised_before_they_are_sent():
    # What the test of escaping paths relies on.
    assert httpx2.URL("http://x/a/%2e%2e/b").raw_path == b"/a/%2e%2e/b"
