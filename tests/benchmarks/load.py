"""The load on a server that takes `POST /ledger/entry`: each connection sends its next request when it is answered.

It is a process of its own and little more than sockets, because it shares the machine with what it measures.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.support import ROOT

__all__ = ["Answered", "Load", "put_on"]

FUNDS = 1_000_000
"""Credits that each owner begins with."""
HEADER_END = b"\r\n\r\n"


class Load(NamedTuple):
    """So many entries, one after the other for each of so many owners, over so many connections.

    `name` begins the owners' ids: what has another one is new.
    """

    name: str
    entries: int
    owners: int
    connections: int
    funding: bool = False
    """Whether the entries are the credits that an owner begins with, rather than what it spends of them."""

    def bodies(self) -> Iterator[dict[str, str | int]]:
        """What is posted."""
        operation, amount = ("CREDIT_ADD", FUNDS) if self.funding else ("CREDIT_SPEND", 1)
        for number in range(self.entries):
            owner_id = f"{self.name}-{number % self.owners}"
            nonce = f"{operation}-{number}"
            yield {"owner_id": owner_id, "operation": operation, "nonce": nonce, "amount": amount}


class Answered(NamedTuple):
    """How many answers had which status, and how long it took from the first request to the last answer."""

    statuses: dict[int, int]
    seconds: float


def put_on(port: int, load: Load) -> Answered:
    """Put the load on the server at a loopback port, from a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.load", str(port), json.dumps(load)]
    done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
    return Answered(
        {int(status): number for status, number in done["statuses"].items()}, done["seconds"]
    )


async def _all(port: int, load: Load) -> Answered:
    requests = [_request(body) for body in load.bodies()]
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(load.connections)]
    statuses: Counter[int] = Counter()
    left, begun = iter(requests), time.perf_counter()
    await asyncio.gather(*(_send(left, *streams, statuses) for streams in opened))
    seconds = time.perf_counter() - begun
    for _, writer in opened:
        writer.close()
    return Answered(dict(statuses), seconds)


async def _send(
    left: Iterable[bytes],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    statuses: Counter[int],
) -> None:
    for request in left:
        writer.write(request)
        status, *headers = (await reader.readuntil(HEADER_END)).lower().split(b"\r\n")
        (length,) = (
            int(header.partition(b":")[2])
            for header in headers
            if header.startswith(b"content-length:")
        )
        await reader.readexactly(length)
        statuses[int(status.split()[1])] += 1


def _request(body: dict[str, str | int]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        "POST /ledger/entry HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.load", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("port", type=int)
    parser.add_argument("load", type=json.loads, help="the fields of Load, as JSON")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(_all(options.port, Load(*options.load)))._asdict()))


if __name__ == "__main__":
    _main()
