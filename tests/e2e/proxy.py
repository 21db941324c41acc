"""A proxy in front of DynamoDB Local that delays, breaks or answers requests by rules."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from infra.processes import free_port, running

PROGRAM = str(Path(sys.executable).parent / "microburst")


class Proxy:
    """The proxy's URL, its rules, and how often it applied them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._control = httpx.Client(base_url=f"{url}/_microburst/")

    def rule(self, *rules: dict[str, Any]) -> None:
        """Replace the rules. The first rule that fits a request applies to it."""
        body = [{"service": "dynamodb", **rule} for rule in rules]
        self._control.post("rules", json=body).raise_for_status()

    def fired(self) -> int:
        """How often the rules were applied since `rule`."""
        answer = self._control.get("rules").raise_for_status()
        return sum(rule["fired_count"] for rule in answer.json())

    def close(self) -> None:
        self._control.close()


@contextmanager
def microburst(upstream: str, folder: Path) -> Iterator[Proxy]:
    """Run a proxy without rules until the end of the block. Its first call is slow, so make it."""
    port = free_port()
    command = [PROGRAM, "--upstream", upstream, "--port", str(port)]
    with running("microburst", command, port=port, log=folder / "microburst.log"):
        proxy = Proxy(f"http://127.0.0.1:{port}")
        config = Config(read_timeout=60)
        client = boto3.client(
            "dynamodb", endpoint_url=proxy.url, region_name="us-east-1", config=config
        )
        client.list_tables()
        yield proxy
        proxy.close()
