"""As much of the model hub as an upload asks for, on the loopback; all files go the way of small ones."""

import base64
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response


@dataclass
class Hub:
    """Repositories by name: what they hold, and whether they are private."""

    token: str = "hub-token"
    refuse: str | None = None
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    address: str = ""

    def __enter__(self) -> "Hub":
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self._app(), log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def known(request: Request, call: Any) -> Response:
            if request.headers.get("authorization") != f"Bearer {self.token}":
                return Response("who are you?", 401)
            if self.refuse:
                return Response(self.refuse, 403, headers={"X-Error-Message": self.refuse})
            return await call(request)

        @app.get("/api/whoami-v2")
        def whoami() -> dict[str, Any]:
            return {"type": "user", "name": "somebody", "orgs": []}

        @app.post("/api/validate-yaml")
        def validate() -> dict[str, Any]:
            return {"errors": [], "warnings": []}

        @app.post("/api/repos/create")
        async def create(request: Request) -> Response:
            asked = await request.json()
            owner = asked.get("organization") or "somebody"
            name = f"{owner}/{asked['name']}"
            kind = asked.get("type") or "model"
            place = f"{self.address}/{'datasets/' if kind == 'dataset' else ''}{name}"
            told = json.dumps({"url": place, "name": name, "id": name})
            if name in self.files:
                return Response(told, 409, media_type="application/json")
            self.files[name], self.kinds[name] = {}, kind
            self.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return Response(told, 200, media_type="application/json")

        @app.post("/api/{kinds}/{owner}/{name}/preupload/{revision}")
        async def preupload(request: Request) -> dict[str, Any]:
            asked = (await request.json())["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in asked
            ]
            return {"files": modes}

        @app.post("/api/{kinds}/{owner}/{name}/commit/{revision}")
        async def commit(owner: str, name: str, request: Request) -> dict[str, Any]:
            held = self.files[f"{owner}/{name}"]
            for line in (await request.body()).splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    held[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            place = f"{self.address}/{owner}/{name}/commit/1"
            return {"success": True, "commitOid": "1", "commitUrl": place, "hookOutput": ""}

        return app
