"""A request that offers another protocol is answered like any other request."""

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from infra.processes import free_port
from infra.protocol import Http1Protocol
from tests.fakes.upgrade import H2C, JAVA
from tests.support import new_seed

pytestmark = pytest.mark.slow

BODY = b'{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "n"}'
OFFERS = {
    "h2c": H2C,
    "h2c and close": H2C | {"Connection": "Upgrade, HTTP2-Settings, close"},
    "several": {"Connection": "upgrade", "Upgrade": "TLS/1.0, h2c"},
    "WebSocket": {
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
    },
    "unknown": {"CONNECTION": "UPGRADE", "UPGRADE": "gopher/9"},
    "without Connection": {"Upgrade": "h2c"},
    "none": {},
}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the method, path, body and headers of the request."""
    request = Request(scope, receive)
    got = {
        "method": request.method,
        "path": request.url.path,
        "body": (await request.body()).decode(),
    }
    await JSONResponse(got | {"headers": sorted(request.headers)})(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server of `echo`, which is served as `make run` serves the ledger."""
    port = free_port()
    config = uvicorn.Config(
        echo, port=port, log_level="warning", lifespan="off", http=Http1Protocol, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield port
    server.should_exit = True
    thread.join()


def request(
    method: str, headers: dict[str, str], body: bytes = b"", *, chunked: bool = False
) -> bytes:
    length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    lines = [
        f"{method} /ledger/entry HTTP/1.1",
        "Host: h",
        *(f"{n}: {v}" for n, v in (headers | length).items()),
    ]
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    return "\r\n".join([*lines, "", ""]).encode() + sent


def answers(port: int, *pieces: bytes, count: int = 1) -> list[dict[str, str]]:
    """The answers to pieces of requests, which are sent one by one on a connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        with connection.makefile("rb") as stream:
            return [_answer(stream) for _ in range(count)]


def _answer(stream: Iterator[bytes]) -> dict[str, str]:
    status = next(stream)
    length = 0
    assert status == b"HTTP/1.1 200 OK\r\n", status
    while (line := next(stream).lower()) != b"\r\n":
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    found: dict[str, str] = json.loads(stream.read(length))  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("chunked", [False, True])
def test_offer_is_not_taken_up_and_the_body_is_read(port: int, offer: str, chunked: bool) -> None:
    """The app gets the method, path and body, although the request arrives in pieces."""
    random = Random(new_seed())
    sent = request("POST", OFFERS[offer], BODY, chunked=chunked)
    cuts = sorted(random.sample(range(len(sent)), 5))
    byte_by_byte = [sent[at : at + 1] for at in range(len(sent))]
    in_pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    for pieces in ([sent], in_pieces, byte_by_byte):
        (got,) = answers(port, *pieces)
        assert (got["method"], got["path"], got["body"]) == ("POST", "/ledger/entry", BODY.decode())
        assert "host" in got["headers"]
        assert "upgrade" not in got["headers"] or offer == "without Connection"


def test_offers_without_a_body_are_answered(port: int) -> None:
    """A GET with an offer is answered."""
    offer = b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    (got,) = answers(port, b"GET /health HTTP/1.1\r\nHost: h\r\n" + offer)
    assert (got["method"], got["path"], got["body"]) == ("GET", "/health", "")


def test_requests_after_an_offer_are_answered(port: int) -> None:
    """Many requests on a connection are answered, with and without offers."""
    mixed = [
        request("POST", OFFERS[offer], offer.encode())
        for offer in ("h2c", "none", "WebSocket", "h2c", "none")
    ]
    bodies = [got["body"] for got in answers(port, b"".join(mixed), count=5)]
    assert bodies == ["h2c", "none", "WebSocket", "h2c", "none"]
    assert len(answers(port, request("POST", OFFERS["unknown"]) * 1500, count=1500)) == 1500


def test_body_of_many_pieces_is_whole(port: int) -> None:
    """A body that is larger than a read is complete."""
    body = b"x" * 300_000
    (got,) = answers(port, request("POST", H2C, body))
    assert got["body"] == body.decode()


@pytest.mark.parametrize(
    "line", [b"CONNECT h:443 HTTP/1.1\r\nHost: h", b"CONNECT / HTTP/1.1\r\nHost: h"]
)
def test_connect_is_refused_or_answered_and_never_hangs(port: int, line: bytes) -> None:
    """CONNECT is no offer, and the server answers other requests afterwards."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(line + b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 ")
    (got,) = answers(port, request("POST", H2C, BODY))
    assert got["body"] == BODY.decode()


def test_java_and_curl_are_answered(port: int, tmp_path: Path) -> None:
    """Java offers HTTP/2 by default, and curl by an option."""
    url = f"http://127.0.0.1:{port}/ledger/entry"
    tried = 0
    (tmp_path / "Main.java").write_text(JAVA)
    commands = {
        "java": ["java", str(tmp_path / "Main.java"), url, BODY.decode()],
        "curl": ["curl", "-sS", "--noproxy", "*", "--http2", url, url, "-d", BODY.decode()],
    }
    for program, command in commands.items():
        if shutil.which(program):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.stdout.count(json.dumps(BODY.decode())) == 2, done.stdout + done.stderr
            tried += 1
    if not tried:
        pytest.skip("NOT TESTED: neither Java nor curl is here")
