"""An OpenAI-compatible endpoint on loopback that misbehaves as it is told, over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

KEY = "sk-a-key-that-must-not-be-written"
Body = dict[str, Any]


class Say(NamedTuple):
    """A chat completion."""

    text: str | None
    tokens: tuple[int, int] | None = (100, 10)
    finish: str = "stop"


class Fail(NamedTuple):
    """An error of HTTP; {key} is the key that was sent."""

    status: int
    message: str = "no"
    headers: tuple[tuple[str, str], ...] = ()


class Raw(NamedTuple):
    """Any body with status 200; ``promised`` bytes more than there are before the connection is closed."""

    content: bytes
    promised: int = 0


class Hang(NamedTuple):
    """Nothing, for so many seconds."""

    seconds: float


Reaction = Say | Fail | Raw | Hang


class Server:
    """What it was asked, and how it reacts: by the next of ``script``, and then by ``otherwise``."""

    def __init__(self, script: list[Reaction], otherwise: Callable[[Body], Reaction]) -> None:
        self.script, self.otherwise = list(script), otherwise
        self.bodies: list[Body] = []
        self.times: list[float] = []
        self.busy = self.busiest = 0
        self.url = ""
        self.lock = threading.Lock()

    def react(self, body: Body) -> Reaction:
        with self.lock:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
            reaction = self.script.pop(0) if self.script else None
        return self.otherwise(body) if reaction is None else reaction


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reaction = self.state.react(body)
        with self.state.lock:
            self.state.busy -= 1
        if isinstance(reaction, Hang):
            time.sleep(reaction.seconds)
            self.close_connection = True
        elif isinstance(reaction, Raw):
            self.answer(200, reaction.content, promised=reaction.promised)
        elif isinstance(reaction, Fail):
            sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
            error = {"error": {"message": reaction.message.replace("{key}", sent)}}
            self.answer(reaction.status, json.dumps(error).encode(), reaction.headers)
        else:
            usage = (
                dict(zip(("prompt_tokens", "completion_tokens"), reaction.tokens, strict=True))
                if reaction.tokens
                else None
            )
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": reaction.text},
                "finish_reason": reaction.finish,
            }
            self.answer(200, json.dumps({"choices": [choice], "usage": usage}).encode())

    def answer(self, status: int, content: bytes, headers: tuple[tuple[str, str], ...] = (), promised: int = 0) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), *headers):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + promised))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = bool(promised)

    def log_message(self, *_: Any) -> None:
        pass


def silence(body: Body) -> Reaction:
    return Fail(500, "nothing is planned for this request")


@contextmanager
def serving(*script: Reaction, otherwise: Callable[[Body], Reaction] = silence) -> Iterator[Server]:
    """A server on loopback; its address is ``url``."""
    state = Server(list(script), otherwise)
    handler = type("Bound", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
