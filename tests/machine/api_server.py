"""What a real API server of Kubernetes answered, told again by one on loopback; and how it is recorded.

A recording is a list of exchanges, in the order in which they were. Asked the same again, the server tells the next of
these answers, at last for ever the last. What it was never asked it does not know: that fails the test.
"""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from lab.kubernetes import Cluster

RECORDED = Path(__file__).parent.parent / "captures/kubernetes"
NOT_RECORDED = 599


class Exchange(NamedTuple):
    """What was asked by whom, and the answer."""

    who: str
    asked: str  # "GET /api/v1/…?…"
    sent: object  # as JSON; None: nothing was
    status: int
    told: object  # as JSON


class Answer(NamedTuple):
    """In terms of HTTP."""

    status: int
    body: bytes


@contextmanager
def replaying(name: str, told: list[Exchange]) -> Iterator[str]:
    """A server that tells again what was recorded under this name, until the block ends; its address.

    What was asked is added to `told`.
    """
    left = [Exchange(*one) for one in json.loads((RECORDED / f"{name}.json").read_text())]
    one_at_a_time = threading.Lock()

    def answer(asked: str, who: str, sent: bytes, _kind: str) -> Answer:
        body = json.loads(sent) if sent else None
        with one_at_a_time:
            known = [one for one in left if (one.who, one.asked, one.sent) == (who, asked, body)]
            if not known:
                return Answer(
                    NOT_RECORDED, json.dumps({"kind": "Status", "message": f"not recorded: {asked}"}).encode()
                )
            if len(known) > 1:
                left.remove(known[0])
            told.append(known[0])
        return Answer(known[0].status, json.dumps(known[0].told).encode())

    with serving(answer) as address:
        yield address


@contextmanager
def recording(
    cluster: Cluster,
    tokens: dict[str, str],
    name: str | None,
    told: list[Exchange],
    meanwhile: list[Callable[[], object]],
) -> Iterator[str]:
    """One that hands on what it is asked, and at the end writes down what was told, under a name; its address.

    `tokens` by their names, by which who asks is known here: what is written down holds none. `meanwhile`: what others
    do just before the next patches, one before each.
    """
    trusted = ssl.create_default_context(cafile=cluster.folder / "apiserver.crt")

    def answer(asked: str, who: str, sent: bytes, kind: str) -> Answer:
        method, path = asked.split(" ", 1)
        if method == "PATCH" and meanwhile:
            meanwhile.pop(0)()
        headers = {"Authorization": f"Bearer {tokens.get(who, who)}", "Content-Type": kind}
        request = urllib.request.Request(f"{cluster.url}{path}", method=method, headers=headers, data=sent or None)
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=60) as response:
                made = Answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            made = Answer(error.code, error.read())
        told.append(Exchange(who, asked, json.loads(sent) if sent else None, made.status, json.loads(made.body)))
        return made

    with serving(answer) as address:
        yield address
    if name is not None:
        RECORDED.mkdir(exist_ok=True)
        (RECORDED / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


@contextmanager
def serving(answer: Callable[[str, str, bytes, str], Answer]) -> Iterator[str]:
    """An HTTP server on loopback: what it is asked, by which bearer, with what of which type; the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            who = self.headers.get("Authorization", "").removeprefix("Bearer ")
            told = answer(f"{self.command} {self.path}", who, sent, self.headers.get("Content-Type", ""))
            self.send_response(told.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        do_GET = do_PATCH = do_POST = handle_one

        def log_message(self, *_told: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
