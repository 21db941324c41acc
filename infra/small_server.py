"""Small HTTP servers in threads of this process: the local issuer, and fakes in tests."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Handler", "serving"]


class Handler(ABC, BaseHTTPRequestHandler):
    """Answers a request of any method by `respond`, which a subclass writes. It logs nothing."""

    @abstractmethod
    def respond(self) -> None:
        """Answer the request."""

    def __getattr__(self, name: str) -> Any:
        """The handler of an HTTP method, such as `do_GET`."""
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
    """Serve at a loopback port until the end of the block, and give the URL; 0 is any free port."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
