"""The study in the browser: one page for raters, one for whoever runs it, and the few requests behind them.

A rater is known by the secret in their link alone. What a rater can ask for is named by their own screens, so that no
address, size, header or time stamp tells which arm a video is of.
"""

import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from videogpa.artifact import CONFIG, MANIFEST, hash_file, hash_json, read_manifest, read_rows
from videogpa.errors import InputError
from videogpa.study.plan import Choice, StudyConfig, StudyItem
from videogpa.study.progress import progress
from videogpa.study.schedule import Showing, schedule
from videogpa.study.votes import OutOfTurn, Rater, Vote, Votes, now

PAGES = Path(__file__).parent / "pages"
POLICY = (
    *("default-src 'self'", "media-src 'self' blob:", "img-src 'self' data:"),
    *("frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"),
)
HEADERS = {
    "Content-Security-Policy": "; ".join(POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
OF_VIDEOS = {
    "Cache-Control": "private, max-age=3600",
    # The file's own would differ where a folder was copied.
    "ETag": '"1"',
    "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT",
}
LONGEST = 24 * 3600.0
"""Seconds for one screen that are believed."""
LARGEST = 64 * 1024
"""Bytes of a request's body."""


class Answer(BaseModel):
    """What the page sends for one screen."""

    model_config = ConfigDict(extra="forbid")

    position: int = Field(ge=0)
    answers: dict[str, Choice]
    tags: list[str] = []
    seconds: FiniteFloat = Field(ge=0, le=LONGEST)


def make_app(study: Path, cfg: StudyConfig, votes: Votes, admin_token: str) -> FastAPI:
    """The application. `votes` must be those of this study."""
    items = read_rows(study, StudyItem)
    app = FastAPI(title=cfg.title, docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=PAGES), name="static")

    @app.exception_handler(RequestValidationError)
    def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without what was sent: it may be what JSON cannot say (NaN).
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return JSONResponse({"detail": told}, 422)

    @app.middleware("http")
    async def guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not (length.isdecimal() and int(length) <= LARGEST):
            return JSONResponse({"detail": f"an answer has up to {LARGEST} bytes and says how many"}, 413)
        response = await call(request)
        response.headers.update(HEADERS)
        if "cache-control" not in response.headers:
            # The pages' own files may be kept, and asked about every time.
            own = request.url.path.startswith("/static/")
            response.headers["Cache-Control"] = "no-cache" if own else "no-store"
        return response

    def rater(token: str) -> Rater:
        known = votes.rater(token)
        if known is None:
            raise HTTPException(404, "nobody has this link")
        return known

    def admin(authorization: Annotated[str, Header()] = "") -> None:
        given = authorization.removeprefix("Bearer ").encode()
        if not secrets.compare_digest(given, admin_token.encode()):
            raise HTTPException(401, "the token is wrong")

    Known = Annotated[Rater, Depends(rater)]

    def screens(known: Rater) -> list[Showing]:
        return schedule(cfg, items, known.number - 1)

    @app.get("/")
    def welcome() -> FileResponse:
        return FileResponse(PAGES / "welcome.html")

    @app.get("/api/study")
    def about() -> dict[str, Any]:
        return {"title": cfg.title, "open": not _full(cfg, votes), "screens": cfg.screens}

    @app.post("/api/raters", status_code=201)
    def join() -> dict[str, str]:
        if _full(cfg, votes):
            raise HTTPException(410, "the study has all the raters that it wanted")
        _, token = votes.add_rater()
        return {"link": f"/r/{token}"}

    @app.get("/r/{token}")
    def rate(token: str) -> FileResponse:
        if votes.rater(token) is None:
            return FileResponse(PAGES / "unknown.html", 404)
        return FileResponse(PAGES / "rate.html")

    @app.get("/api/r/{token}")
    def state(known: Known) -> dict[str, Any]:
        return _state(cfg, screens(known), votes.answered(known))

    @app.post("/api/r/{token}/votes")
    def vote(known: Known, answer: Annotated[Answer, Body()]) -> dict[str, Any]:
        shown = screens(known)
        _require_fitting(cfg, shown, answer)
        showing = shown[answer.position]
        given = Vote(
            rater=known,
            position=answer.position,
            item=showing.item.id,
            left=showing.left,
            again=showing.again,
            answers=answer.answers,
            tags=[tag for tag in cfg.tags if tag in answer.tags],
            seconds=answer.seconds,
            received=now(),
        )
        try:
            votes.record(given, last=answer.position == len(shown) - 1)
        except OutOfTurn as refused:
            raise HTTPException(409, str(refused)) from refused
        return _state(cfg, shown, votes.answered(known))

    @app.get("/r/{token}/{position}/{side}.mp4")
    def video(known: Known, position: int, side: Literal["left", "right"]) -> FileResponse:
        shown = screens(known)
        # The next one, too: the page loads it ahead.
        if not 0 <= position <= min(votes.answered(known) + 1, len(shown) - 1):
            raise HTTPException(404, "this screen is not to be seen yet")
        name = shown[position].videos[side == "right"]
        return FileResponse(study / name, media_type="video/mp4", headers=OF_VIDEOS)

    @app.get("/admin")
    def admin_page() -> FileResponse:
        return FileResponse(PAGES / "admin.html")

    @app.get("/api/admin", dependencies=[Depends(admin)])
    def counts() -> dict[str, Any]:
        return progress(cfg, items, votes)

    return app


def read_study(study: Path) -> tuple[StudyConfig, str]:
    """A finished study's configuration, and the hash by which its votes know it.

    Raises:
        InputError: no complete study, or its plan was changed afterwards.
    """
    made = read_manifest(study)
    try:
        record = json.loads((study / CONFIG).read_bytes())
        cfg = StudyConfig.model_validate(record["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{study / CONFIG} is damaged: {error}") from error
    if hash_json({key: record.get(key) for key in ("stage", "config", "inputs")}) != made.config_sha256:
        raise InputError(
            f"{study / CONFIG} was changed after the study was made: its rules are not those stated before"
        )
    return cfg, hash_file(study / MANIFEST)


def _full(cfg: StudyConfig, votes: Votes) -> bool:
    return cfg.raters is not None and votes.finished() >= cfg.raters


def _state(cfg: StudyConfig, shown: list[Showing], position: int) -> dict[str, Any]:
    done = position >= len(shown)
    return {
        "title": cfg.title,
        "position": position,
        "screens": len(shown),
        "done": done,
        "text": None if done else shown[position].item.text,
        "questions": [question.model_dump() for question in cfg.questions],
        "tie": cfg.tie,
        "tags": cfg.tags,
    }


def _require_fitting(cfg: StudyConfig, shown: list[Showing], answer: Answer) -> None:
    if answer.position >= len(shown):
        raise HTTPException(422, f"there are only {len(shown)} screens")
    if answer.answers.keys() != {question.key for question in cfg.questions}:
        raise HTTPException(422, "every question wants one answer")
    if not cfg.tie and "tie" in answer.answers.values():
        raise HTTPException(422, "this study has no ties")
    if not set(answer.tags) <= set(cfg.tags):
        raise HTTPException(422, "a reason that the study does not list")
