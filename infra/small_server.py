"""HTTP servers for a few answers, in threads of this process: the local issuer, and stand-ins for others in tests."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Handler", "serving"]


class Handler(BaseHTTPRequestHandler):
    """Of one request, whatever its method; a subclass says by `respond` what to answer. It logs nothing."""

    def respond(self) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        """What answers a method: `do_GET` and its like."""
        if name.startswith("do_"):
            return self.respond
        raise AttributeError(name)

    def answer(self, body: bytes, headers: Mapping[str, str], status: int = 200) -> None:
        """Send the whole answer."""
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(handler: type[Handler], port: int = 0) -> Iterator[str]:
    """Answer at a loopback port, or at any free one, until the end of the block; gives the URL."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
