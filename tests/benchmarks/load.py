"""The load on a server: each connection posts its next entry when the last one is answered.

It runs in its own process and uses plain sockets, because it shares the machine with the server.
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
"""The credits with which each owner begins."""
HEADER_END = b"\r\n\r\n"


class Load(NamedTuple):
    """Entries for some owners, over some connections.

    `name` is the beginning of the owners' ids, so a new name has new owners.
    """

    name: str
    entries: int
    owners: int
    connections: int
    funding: bool = False
    """Whether the entries add the owners' first credits; else they spend."""

    def bodies(self) -> Iterator[dict[str, str | int]]:
        """The bodies of the requests."""
        operation, amount = ("CREDIT_ADD", FUNDS) if self.funding else ("CREDIT_SPEND", 1)
        for number in range(self.entries):
            owner_id = f"{self.name}-{number % self.owners}"
            nonce = f"{operation}-{number}"
            yield {"owner_id": owner_id, "operation": operation, "nonce": nonce, "amount": amount}


class Answered(NamedTuple):
    """The number of answers of each status, and the time from first request to last answer."""

    statuses: dict[int, int]
    seconds: float


def put_on(port: int, load: Load) -> Answered:
    """Put the load on the server at a loopback port, from a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.load", str(port), json.dumps(load)]
    program = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    printed = json.loads(program.stdout)
    statuses = {int(status): number for status, number in printed["statuses"].items()}
    return Answered(statuses, printed["seconds"])


async def _all(port: int, load: Load) -> Answered:
    requests = [_request(body) for body in load.bodies()]
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(load.connections)]
    statuses: Counter[int] = Counter()
    left = iter(requests)
    begun = time.perf_counter()
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
        (length,) = [header for header in headers if header.startswith(b"content-length:")]
        await reader.readexactly(int(length.partition(b":")[2]))
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
