"""The study in the browser: one page for raters, one for whoever runs it, and the few requests behind them.

A rater is known by the secret in their link alone. What a rater can ask for is named by their own screens, so that no
address, size, header or time stamp tells which arm a video is of.
"""

import json
import secrets
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videogpa.artifact import CONFIG, MANIFEST, hash_file, read_manifest, read_rows
from videogpa.errors import InputError, first_problem
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
    "Accept-Ranges": "bytes",
}
LONGEST = 24 * 3600.0
"""Seconds for one screen that are believed."""
LARGEST = 64 * 1024
"""Bytes of a request's body."""
KEPT_BYTES = 256 << 20
"""Of videos, in memory: every rater asks for the same ones."""
REMEMBERED = 10_000
"""Raters whose screens are kept."""


class Answer(BaseModel):
    """What the page sends for one screen."""

    model_config = ConfigDict(extra="forbid")

    position: int = Field(ge=0)
    answers: dict[str, Choice]
    tags: list[str] = []
    seconds: FiniteFloat = Field(ge=0, le=LONGEST)


class _Guard:
    """Bounds what is sent, and adds headers to every answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # The pages' own files may be kept, and asked about every time.
                own = scope["path"].startswith("/static/")
                headers.setdefault("Cache-Control", "no-cache" if own else "no-store")
            await send(message)

        length = Headers(scope=scope).get("content-length", "")
        app = self.app
        if scope["method"] == "POST" and not (length.isdecimal() and int(length) <= LARGEST):
            app = JSONResponse({"detail": f"an answer has up to {LARGEST} bytes and says how many"}, 413)
        await app(scope, receive, send_guarded)


def make_app(study: Path, cfg: StudyConfig, votes: Votes, admin_token: str) -> FastAPI:
    """The application. `votes` must be those of this study."""
    items = read_rows(study, StudyItem)
    app = FastAPI(title=cfg.title, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Guard)
    app.mount("/static", StaticFiles(directory=PAGES), name="static")

    @app.exception_handler(RequestValidationError)
    def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without what was sent: it may be what JSON cannot say (NaN).
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return JSONResponse({"detail": told}, 422)

    async def rater(token: str) -> Rater:
        known = votes.remembered(token) or await run_in_threadpool(votes.rater, token)
        if known is None:
            raise HTTPException(404, "nobody has this link")
        return known

    def admin(authorization: Annotated[str, Header()] = "") -> None:
        given = authorization.removeprefix("Bearer ").encode()
        if not secrets.compare_digest(given, admin_token.encode()):
            raise HTTPException(401, "the token is wrong")

    Known = Annotated[Rater, Depends(rater)]

    @lru_cache(maxsize=max(1, KEPT_BYTES // _largest(study, items)))
    def content(file: Path) -> bytes:
        return file.read_bytes()

    @lru_cache(maxsize=REMEMBERED)
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
    def state(known: Known) -> JSONResponse:
        return JSONResponse(_state(cfg, screens(known), votes.answered(known)))

    @app.post("/api/r/{token}/votes")
    def vote(known: Known, answer: Annotated[Answer, Body()]) -> JSONResponse:
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
            new = votes.record(given, last=answer.position == len(shown) - 1)
        except OutOfTurn as refused:
            raise HTTPException(409, str(refused)) from refused
        position = answer.position + 1 if new else votes.answered(known)
        return JSONResponse(_state(cfg, shown, position))

    @app.get("/r/{token}/{position}/{side}.mp4")
    async def video(
        known: Known,
        position: int,
        side: Literal["left", "right"],
        part: Annotated[str | None, Header(alias="range")] = None,
    ) -> Response:
        shown, answered = screens(known), votes.answered_at_least(known)
        # The next one, too: the page loads it ahead.
        if position > answered + 1:
            answered = await run_in_threadpool(votes.answered, known)
        if not 0 <= position <= min(answered + 1, len(shown) - 1):
            raise HTTPException(404, "this screen is not to be seen yet")
        file = study / shown[position].videos[side == "right"]
        if part is not None:
            return FileResponse(file, media_type="video/mp4", headers=OF_VIDEOS)
        return Response(content(file), media_type="video/mp4", headers=OF_VIDEOS)

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
    read_manifest(study)
    try:
        record = json.loads((study / CONFIG).read_bytes())
        cfg = StudyConfig.model_validate(record["config"])
    except ValidationError as error:
        raise InputError(f"{study / CONFIG} is no study's: {first_problem(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{study / CONFIG} is damaged: {error}") from error
    return cfg, hash_file(study / MANIFEST)


def _largest(study: Path, items: Sequence[StudyItem]) -> int:
    return max((study / name).stat().st_size for item in items for name in item.videos)


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
