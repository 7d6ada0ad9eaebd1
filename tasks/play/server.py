"""The page and its socket on 127.0.0.1, for those who have the token."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, PlainTextResponse

from infra.stack.gate import Gate
from tasks.play.cars import Control
from tasks.play.errors import PlayError
from tasks.play.protocol import Choose, LeaveSeat, Message, ProtocolError, Seen, Steer, Switch, TakeSeat, parse_message
from tasks.play.session import Session
from tasks.play.truth import Truth

PAGE = Path(__file__).with_name("page")
HOST = "127.0.0.1"
NO_TOKEN = "This page needs the token of its address: open the whole line that `shareverse play` printed."
UNSEEN_FRAMES = 4
"""Frames that are under way to a page at most; while it is behind, newer ones take the place of those that wait."""
TICK_S = 0.01
MOST_PAGES = 16
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def page() -> str:
    """Return the page: one document, with its style and its script in it."""
    html = (PAGE / "page.html").read_text()
    return html.replace("/*style*/", (PAGE / "page.css").read_text()).replace(
        "/*script*/", (PAGE / "page.js").read_text()
    )


@dataclass
class Visitor:
    """One open page, or program."""

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    unseen: int = 0
    """Frames that were sent and not yet shown"""


class Play:
    """What the pages of one session share."""

    def __init__(self, session: Session, truth: Truth, about: dict[str, Any], token: str) -> None:
        """`about`: what the page says of the model, sent to each page first."""
        self.session, self.truth, self.about, self.token = session, truth, about, token
        self.visitors: set[str] = set()

    def allowed(self, token: str | None) -> bool:
        return secrets.compare_digest((token or "").encode(), self.token.encode())

    def hello(self) -> dict[str, Any]:
        """Return the first message to a page."""
        scenes = [
            {"name": scene.name, "title": scene.title, "about": scene.about, "town": scene.town,
             "weather": scene.weather, "roads": scene.roads,
             "trajectories": scene.trajectories[:, :, :2].round(2).tolist(),
             "others": [actor["transform"] for actor in scene.extra_actors]}
            for scene in self.session.scenes.values()
        ]  # fmt: skip
        return {"type": "hello", **self.about, "scenes": scenes}

    def state(self) -> dict[str, Any]:
        return self.session.state() | {"truth": self.truth.state}

    def do(self, visitor: Visitor, message: Message) -> None:
        """Do what a visitor said. PlayError where that cannot be."""
        session = self.session
        match message:
            case TakeSeat(seat=seat):
                session.seats.take(seat, visitor.name)
                session.announce()
            case LeaveSeat(seat=seat):
                session.seats.leave(visitor.name, seat)
                session.announce()
            case Steer():
                control = Control(message.throttle, message.steering)
                session.seats.drive(message.seat, visitor.name, control, message.number)
            case Choose(name=name):
                session.choose(name)
            case Switch(type="pause", on=on):
                session.pause(on)
            case Switch(type="record", on=on):
                session.record(on)
            case Switch(type="truth", on=on):
                self.truth.switch(on)
            case Seen():
                visitor.unseen = max(0, visitor.unseen - 1)

    async def listen(self, visitor: Visitor, websocket: WebSocket) -> None:
        """Do what a page says until it closes; what cannot be is answered by a sentence."""
        while True:
            received = await websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            try:
                self.do(visitor, parse_message(received.get("text") or received.get("bytes") or ""))
            except (PlayError, ProtocolError) as error:
                await websocket.send_text(json.dumps({"type": "refused", "message": str(error)}))

    async def show(self, visitor: Visitor, websocket: WebSocket) -> None:
        """Send a page what is due, the newest only, and every change of state."""
        session, version, told = self.session, -1, len(self.session.notices)
        frame = true_frame = None
        while True:
            if session.version != version:
                version = session.version
                await websocket.send_text(json.dumps(self.state()))
                for notice in session.notices[told:]:
                    await websocket.send_text(json.dumps({"type": "notice", "message": notice}))
                    told += 1
            newest = session.shown()
            if newest is not None and newest is not frame and visitor.unseen < UNSEEN_FRAMES:
                frame = newest
                visitor.unseen += 1
                await websocket.send_bytes(frame.message)
            truth = self.truth.newest
            if truth is not None and truth is not true_frame and visitor.unseen < UNSEEN_FRAMES:
                true_frame = truth
                visitor.unseen += 1
                await websocket.send_bytes(truth.message)
            await asyncio.sleep(TICK_S)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one page until it closes; its seats are free then."""
        visitor = Visitor()
        await websocket.accept()
        self.visitors.add(visitor.name)
        self.session.watch(1)
        try:
            await websocket.send_text(json.dumps(self.hello()))
            tasks = [asyncio.ensure_future(part(visitor, websocket)) for part in (self.listen, self.show)]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            for task in done:
                task.result()
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # it closed while something was being sent
        finally:
            self.visitors.discard(visitor.name)
            self.session.watch(-1)
            self.session.seats.leave(visitor.name)
            self.session.announce()


def build_app(play: Play, port: int) -> Any:
    """Return the ASGI application: the page at /, the socket at /socket."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def index(request: Request) -> Response:
        return HTMLResponse(page(), headers=HEADERS)

    @app.websocket("/socket")
    async def connect(websocket: WebSocket) -> None:
        if len(play.visitors) >= MOST_PAGES:
            await websocket.send_denial_response(PlainTextResponse("Too many pages are open: close one.\n", 503))
            return
        await play.serve(websocket)

    return Gate(TokenGate(app, play), port)


class TokenGate:
    """ASGI middleware that answers 403 with a sentence to whoever has no token, whatever is asked for."""

    def __init__(self, app: Any, play: Play) -> None:
        self.app, self.play = app, play

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if not self.play.allowed(Request(scope).query_params.get("token")):
                await PlainTextResponse(f"{NO_TOKEN}\n", 403)(scope, receive, send)
                return
        elif scope["type"] == "websocket":
            visitor = WebSocket(scope, receive, send)
            if not self.play.allowed(visitor.query_params.get("token")):
                await visitor.send_denial_response(PlainTextResponse(f"{NO_TOKEN}\n", 403))
                return
        await self.app(scope, receive, send)


def open_port(port: int) -> socket.socket:
    """Return a socket that listens on a port of 127.0.0.1, on a free one for 0. PlayError where that cannot be."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise PlayError(f"port {port} cannot be used ({reason}): choose another --port, or none.") from error
    return listener


def build_server(play: Play, listener: socket.socket) -> uvicorn.Server:
    """Return a server for `listener`; `run(sockets=[listener])` serves until Ctrl-C."""
    app = build_app(play, listener.getsockname()[1])
    return uvicorn.Server(
        uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2, ws_max_size=65536)
    )
