"""HTTP/1.1 for uvicorn, which reads a request that offers to go on in another protocol as any other request.

Java's HttpClient and `curl --http2` offer HTTP/2 with each first request, and send its body all the same.
"""

from array import array
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Http1Protocol"]


class Http1Protocol(HttpToolsProtocol):
    """Takes up no offer, as a server may (RFC 9110, 7.8): not HTTP/2's, and not that of WebSocket."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = _Parser(self)

    @property
    def is_offered(self) -> bool:
        """Whether the head that was read ends in an offer. (CONNECT does as well, and has no header for it.)"""
        return self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers)

    def head_without_offer(self) -> bytes:
        """The same request's head, as it was read, less the header."""
        start = b" ".join(
            [self.parser.get_method(), self.url, b"HTTP/" + self.parser.get_http_version().encode()]
        )
        headers = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"%b\r\n%b\r\n" % (start, b"".join(headers))

    def on_headers_complete(self) -> None:
        if not self.is_offered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.is_offered:
            super().on_message_complete()


class _Parser(httptools.HttpRequestParser):
    """Stops behind a head with an offer, as what follows is in the other protocol for it; then it begins anew."""

    def __init__(self, protocol: Http1Protocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        while True:
            try:
                return super().feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if not self._protocol.is_offered:
                    raise
                (at,) = stopped.args
                data = self._protocol.head_without_offer() + bytes(data[at:])
                self.__init__(self._protocol)  # type: ignore[misc]  # what httptools has instead of a reset
