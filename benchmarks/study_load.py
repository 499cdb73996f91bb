"""Many raters at once: how long a vote takes, and that acknowledged votes are there, also after the server was killed.

    python benchmarks/study_load.py --out work/load --result benchmarks/study_load_cpu2_DATE
    python benchmarks/study_load.py --out work/load --database postgresql+psycopg://postgres@127.0.0.1:5432/study ...

The server is a process of its own (`videogpa study serve`), the raters are coroutines of this one, on the same machine.
Each goes through the screens as the page does: it fetches both videos, waits one to two seconds, votes. With --kill the
server gets SIGKILL half way and is started again; raters send again what was not acknowledged.
"""

import asyncio
import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import httpx2
import numpy as np
import typer
from pydantic import BaseModel
from sqlalchemy import URL, make_url

from videogpa.artifact import open_artifact
from videogpa.fidelity.battery import clean_clip
from videogpa.study.material import create
from videogpa.study.plan import StudyConfig
from videogpa.study.server import read_study
from videogpa.study.votes import Votes, sqlite_url
from videogpa.types import EvalRow, Prompt
from videogpa.video_io import write_master
from videogpa.world.faults import jittered

PROMPTS = 40
PAUSE = (1.0, 2.0)
RETRY_SECONDS = 0.2


class Nothing(BaseModel):
    """No configuration."""


def main(
    out: Annotated[Path, typer.Option(help="work folder")],
    raters: int = 200,
    seconds: float = 60,
    database: Annotated[str | None, typer.Option(help="URL of an empty database; SQLite by default")] = None,
    kill: Annotated[bool, typer.Option("--kill", help="SIGKILL the server half way")] = False,
    result: Annotated[Path | None, typer.Option(help="CSV to add a row to, without suffix")] = None,
) -> None:
    study = made_study(out)
    cfg, manifest = read_study(study)
    url = make_url(database) if database else sqlite_url(study)
    if Votes(url, manifest).all():
        raise SystemExit(f"{url.render_as_string()} has votes already: give an empty database")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    load = Load(f"http://127.0.0.1:{port}", len(cfg.questions))
    asyncio.run(load.run(lambda: serve(study, url, port), raters, seconds, kill))
    votes = Votes(url, manifest)
    stored = {(vote.rater.number, vote.position) for vote in votes.all()}
    lost = 0
    for token, count in load.acknowledged.items():
        rater = votes.rater(token)
        lost += count if rater is None else sum((rater.number, p) not in stored for p in range(count))
    took = np.array(load.seconds) * 1000
    row = {
        "database": url.get_backend_name(),
        "raters": raters,
        "seconds": seconds,
        "killed": kill,
        "acknowledged": len(load.seconds),
        "stored": len(stored),
        "lost": lost,
        "not_acknowledged": len(stored) - len(load.seconds),
        "votes_per_second": round(len(took) / seconds, 1),
        "p50_ms": round(float(np.percentile(took, 50)), 2),
        "p99_ms": round(float(np.percentile(took, 99)), 2),
        "slowest_ms": round(float(took.max()), 2),
    }
    print(json.dumps(row))
    if result is not None:
        path = result.with_suffix(".csv")
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def made_study(out: Path) -> Path:
    """Clean clips against bent ones, in a study of usual size."""
    evaluation, asked = out / "evaluation", out / "prompts"
    ids = [f"scene{i:03d}" for i in range(PROMPTS)]
    with open_artifact(asked, stage="prompts", config=Nothing(), inputs={}, row_type=Prompt) as artifact:
        if not artifact.complete:
            artifact.append(*(Prompt(id=id, text=id) for id in ids))
            artifact.finish(ids)
    with open_artifact(
        evaluation, stage="evaluation", config=Nothing(), inputs={}, row_type=EvalRow
    ) as artifact:
        if not artifact.complete:
            for i, id in enumerate(ids):
                clean = clean_clip("development", i, 9, 48, 48).rgb
                bent = jittered(clean, 2.0, np.random.default_rng(i))
                for arm, frames in (("base", clean), ("bent", bent)):
                    video = f"{arm}-{id}.mkv"
                    write_master(evaluation / video, frames)
                    artifact.append(EvalRow(id=f"{arm}/{id}", arm=arm, prompt_id=id, seed=0, video=video))
            artifact.finish([row.id for row in artifact.done.values()])
    return create(StudyConfig(), evaluation, asked, out / "study")


def serve(study: Path, url: URL, port: int) -> subprocess.Popen[bytes]:
    """The server, as soon as it answers."""
    program = [sys.executable, "-c", "from videogpa.cli import main; main()"]
    given = ["--database", url.render_as_string(hide_password=False), "--port", str(port)]
    process = subprocess.Popen([*program, "study", "serve", study, *given], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/api/study")
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return process
    raise SystemExit("the server did not start")


class Load:
    """Raters that rate; how many votes of each link were acknowledged, and how many `seconds` each of all took."""

    def __init__(self, address: str, questions: int):
        self.address = address
        self.seconds: list[float] = []
        self.acknowledged: Counter[str] = Counter()

    async def run(self, start, raters: int, seconds: float, kill: bool) -> None:
        server = start()
        self.end = time.monotonic() + seconds
        limits = httpx2.Limits(max_connections=raters, max_keepalive_connections=raters)
        async with httpx2.AsyncClient(base_url=self.address, timeout=60, limits=limits) as client:
            tasks = [asyncio.create_task(self.rate(client)) for _ in range(raters)]
            if kill:
                await asyncio.sleep(seconds / 2)
                os.kill(server.pid, signal.SIGKILL)
                server.wait()
                server = await asyncio.to_thread(start)
            await asyncio.gather(*tasks)
        server.terminate()
        server.wait()

    async def rate(self, client: httpx2.AsyncClient) -> None:
        await asyncio.sleep(random.uniform(0, PAUSE[1]))
        while time.monotonic() < self.end:
            link = (await self.asked(client, "POST", "/api/raters")).json()["link"]
            state = (await self.asked(client, "GET", f"/api{link}")).json()
            while not state["done"] and time.monotonic() < self.end:
                for side in ("left", "right"):
                    await self.asked(client, "GET", f"{link}/{state['position']}/{side}.mp4")
                await asyncio.sleep(random.uniform(*PAUSE))
                answer = {
                    "position": state["position"],
                    "answers": {q["key"]: random.choice(["left", "right"]) for q in state["questions"]},
                    "seconds": 1.5,
                }
                began = time.monotonic()
                state = (await self.asked(client, "POST", f"/api{link}/votes", json=answer)).json()
                self.seconds.append(time.monotonic() - began)
                self.acknowledged[link.removeprefix("/r/")] += 1

    async def asked(self, client: httpx2.AsyncClient, method: str, path: str, **given) -> httpx2.Response:
        """Asks until there is an answer, as the page does."""
        while True:
            try:
                response = await client.request(method, path, **given)
            except httpx2.TransportError:
                response = None
            if response is not None and not response.is_server_error:
                response.raise_for_status()
                return response
            await asyncio.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    typer.run(main)
