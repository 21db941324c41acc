"""A server that answers 200 to each request and is not AWS, as a captive portal does."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from infra import small_server

HTML = b"<html><body>Please log in.</body></html>"


class Page(NamedTuple):
    """An answer, by default HTML with status 200."""

    body: bytes = HTML
    headers: Mapping[str, str] = {}
    status: int = 200


class Impostor:
    """The server's URL, its pages and the request lines that it received.

    It gives the pages in turn, and repeats the last page.
    """

    def __init__(self, url: str, pages: list[Page]) -> None:
        self.url = url
        self.pages = pages
        self.seen: list[str] = []


@contextmanager
def impostor(*pages: Page) -> Iterator[Impostor]:
    """Run an impostor on a free loopback port; without `pages` it answers HTML."""

    class Pages(small_server.Handler):
        def respond(self) -> None:
            itself.seen.append(self.requestline)
            self.rfile.read(int(self.headers.get("content-length") or 0))
            page = itself.pages.pop(0) if len(itself.pages) > 1 else itself.pages[0]
            self.answer(page.body, {"content-type": "text/html", **page.headers}, page.status)

    with small_server.serving(Pages) as url:
        itself = Impostor(url, list(pages) or [Page()])
        yield itself
