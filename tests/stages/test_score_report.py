import itertools
import json
import re

import pytest
import torch

from tests.html_page import Page
from videogpa.errors import InputError
from videogpa.stages import score_report
from videogpa.stages.score import ScoreConfig, jobs_for_paths, protocol_hash
from videogpa.video_io import write_master
from videogpa.world.render import render
from videogpa.world.scene import sample_scene

CFG = ScoreConfig(geometry="embedded")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Pages of a good video, one that cannot be judged, and a broken one; and their scores."""
    folder = tmp_path_factory.mktemp("score_report")
    frames = render(sample_scene(7), 9, 48, 48).rgb
    write_master(folder / "clips" / "good & <bold>.mkv", frames)
    write_master(folder / "clips" / "frozen.mkv", frames[:1].expand(4, -1, -1, -1))
    (folder / "clips" / "broken.mp4").write_bytes(b"")
    scores = score_report.run(CFG, jobs_for_paths([folder / "clips"]), folder / "report", workers=1)
    return folder / "report", {s.video.rsplit("/", 1)[-1]: s for s in scores}


def page_of(scored, name: str) -> str:
    report, scores = scored
    return (report / "videos" / scores[name].id / "index.html").read_text(encoding="utf-8")


def test_pages_are_whole_and_need_nothing_but_their_folder(scored):
    report, _ = scored
    pages = list(report.rglob("*.html"))
    assert len(pages) == 3
    for path in pages:
        html = path.read_text(encoding="utf-8")
        page = Page(html)
        assert not page.open
        targets = [a.get("src") or a.get("href") for _, a in page.elements]
        for target in (t for t in targets if t and not t.startswith(("#", "data:"))):
            assert (path.parent / target).is_file(), target
        assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
        ids = [a["id"] for _, a in page.elements if a.get("id")]
        assert len(ids) == len(set(ids))
        anchors = {a["href"][1:] for a in page.all("a") if (a.get("href") or "").startswith("#")}
        assert anchors <= set(ids)


def test_the_list_has_every_video_with_its_numbers_or_its_reason(scored):
    report, scores = scored
    html = (report / "index.html").read_text(encoding="utf-8")
    text = " ".join(" ".join(Page(html).text).split())
    assert text.index("good & <bold>.mkv") < text.index("frozen.mkv") < text.index("broken.mp4")
    good = scores["good & <bold>.mkv"].metrics
    numbers = [float(v) for v in re.findall(r'<data value="([^"]+)"', html)]
    assert good["consistency"] in numbers
    assert scores["frozen.mkv"].reason in text
    assert scores["broken.mp4"].reason in text
    assert protocol_hash(CFG) in text
    assert json.loads((report / "scores.json").read_text())["protocol"] == protocol_hash(CFG)


def test_a_judged_video_shows_all_its_numbers_frames_and_points(scored):
    html = page_of(scored, "good & <bold>.mkv")
    page = Page(html)
    shown = {
        m: float(v) for m, v in re.findall(r'data-metric="(\w+)".*?<data value="([^"]+)"', html, re.DOTALL)
    }
    values = scored[1]["good & <bold>.mkv"].metrics
    assert shown == {m: v for m, v in values.items() if v is not None}
    assert [v["src"] for v in page.all("video")] == [
        "frames.mp4", "redrawn.mp4", "errors.mp4", "depth.mp4", "normals.mp4",
    ]  # fmt: skip
    assert [s.get("src") for s in page.all("script")] == ["cloud.js", None]
    assert len(page.all("canvas")) == 1
    assert float(page.all("input")[0]["step"]) == 1 / 8


def test_an_unjudged_video_shows_its_frames_and_the_reason_of_every_missing_number(scored):
    html = page_of(scored, "frozen.mkv")
    page = Page(html)
    text = " ".join(" ".join(page.text).split())
    assert "frozen.mkv cannot be judged" in text
    assert text.count("the frames do not move") > 2
    assert [v["src"] for v in page.all("video")] == ["frames.mp4"]
    assert not page.all("canvas")
    assert "cloud.js" not in html


def test_pages_are_for_everybody(scored):
    for path in scored[0].rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        page = Page(html)
        assert page.all("html")[0]["lang"] == "en"
        assert len(page.all("h1")) == 1
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
        assert all(a.get("alt") for a in page.all("img"))
        assert all(a.get("aria-label") for tag in ("video", "canvas") for a in page.all(tag))
        assert all(a.get("tabindex") == "0" for a in page.all("canvas"))
        for needed in ("prefers-color-scheme: dark", "width=device-width"):
            assert needed in html


def test_a_folder_of_other_files_is_refused_before_anything_is_scored(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        score_report.run(CFG, [], tmp_path, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_same_videos_give_the_same_pages(tmp_path):
    write_master(tmp_path / "grey.mkv", torch.full((4, 3, 48, 48), 0.5))
    jobs = jobs_for_paths([tmp_path / "grey.mkv"])
    for name in ("a", "b"):
        score_report.run(CFG, jobs, tmp_path / name, workers=1)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert files
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


@pytest.mark.parametrize("metrics", [("sharpness", "dynamic_degree"), ("oracle_psnr",)])
def test_pages_without_geometry_show_frames_and_claim_no_order(tmp_path, metrics):
    for name in ("b.mkv", "a.mkv"):
        write_master(tmp_path / "clips" / name, torch.rand(4, 3, 48, 48))
    cfg = ScoreConfig(geometry="vggt", metrics=metrics)
    page = tmp_path / "page"
    scores = score_report.run(
        cfg, jobs_for_paths([tmp_path / "clips"]), page, workers=1, pictures=tmp_path / "p"
    )
    html = (page / "index.html").read_text(encoding="utf-8")
    text = " ".join(" ".join(Page(html).text).split())
    assert text.index("a.mkv") < text.index("b.mkv")
    assert "2 videos" in text
    for claim in ("cannot be judged", "most consistent", "largest error", "vggt"):
        assert claim not in text.replace(cfg.model_dump_json(indent=2), "").split("Configuration")[0]
    assert "none: no metric needs it" in text
    for row in scores:
        assert [p.suffix for p in tmp_path.glob(f"p/{row.id}*")] == [".png"]
        one = Page((page / "videos" / row.id / "index.html").read_text(encoding="utf-8"))
        assert not one.open
        assert [v["src"] for v in one.all("video")] == ["frames.mp4"]
        assert not one.all("canvas")
