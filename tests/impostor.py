"""A server that answers 200 to every request and is not AWS: a captive proxy, or a broken emulator."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

HTML = b"<html><body>Please log in.</body></html>"


class Page(NamedTuple):
    """One answer; all are 200 unless they say otherwise."""

    body: bytes = HTML
    headers: Mapping[str, str] = {}
    status: int = 200


class Impostor:
    """Where it is, and the request lines that came; it gives its pages in turn, and the last of them for ever."""

    def __init__(self, url: str, pages: list[Page]) -> None:
        self.url = url
        self.pages = pages
        self.seen: list[str] = []


@contextmanager
def impostor(*pages: Page) -> Iterator[Impostor]:
    """Run one on a free loopback port; without pages it says HTML to all."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            itself.seen.append(self.requestline)
            self.rfile.read(int(self.headers.get("content-length") or 0))
            page = itself.pages.pop(0) if len(itself.pages) > 1 else itself.pages[0]
            self.send_response(page.status)
            for name, value in {"content-type": "text/html", **page.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)

        def __getattr__(self, name: str) -> Any:
            """Whatever the method of the request, `do_GET` and its like."""
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        itself = Impostor(f"http://127.0.0.1:{server.server_port}", list(pages) or [Page()])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield itself
        finally:
            server.shutdown()
            thread.join()
