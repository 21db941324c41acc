"""HTTP/1.1 for uvicorn that ignores a request's offer to change the protocol (`Upgrade`).

Java's HttpClient and `curl --http2` offer HTTP/2 with each first request, and send its body too.
"""

from array import array
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Http1Protocol"]


class Http1Protocol(HttpToolsProtocol):
    """Accepts no offer, as RFC 9110, 7.8 allows: neither of HTTP/2 nor of WebSocket."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = _Parser(self)

    @property
    def is_offered(self) -> bool:
        """Whether the head offers another protocol. (CONNECT does so without a header.)"""
        return self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers)

    def head_without_offer(self) -> bytes:
        """The head of the request without the header of the offer."""
        version = self.parser.get_http_version().encode()
        start = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        headers = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"%b%b\r\n" % (start, b"".join(headers))

    def on_headers_complete(self) -> None:
        if not self.is_offered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.is_offered:
            super().on_message_complete()


class _Parser(httptools.HttpRequestParser):
    """Parses a request with an offer again, without the offer.

    httptools stops after a head with an offer, because it expects the other protocol next.
    """

    def __init__(self, protocol: Http1Protocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        while True:
            try:
                return super().feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if not self._protocol.is_offered:
                    raise
                (head_length,) = stopped.args
                data = self._protocol.head_without_offer() + bytes(data[head_length:])
                self.__init__(self._protocol)  # type: ignore[misc]  # httptools has no reset
