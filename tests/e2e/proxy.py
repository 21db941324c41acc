"""A proxy in front of DynamoDB Local that does to requests on their way what it is told to do."""

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
    """Where it is, what it does, and what it has done."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._control = httpx.Client(base_url=f"{url}/_microburst/")

    def rule(self, *rules: dict[str, Any]) -> None:
        """Do this, to each request by the first rule that is for it, and forget what was done before."""
        self._control.post(
            "rules", json=[{"service": "dynamodb", **rule} for rule in rules]
        ).raise_for_status()

    def fired(self) -> int:
        """How often it did so since."""
        return sum(
            rule["fired_count"] for rule in self._control.get("rules").raise_for_status().json()
        )

    def close(self) -> None:
        self._control.close()


@contextmanager
def microburst(upstream: str, folder: Path) -> Iterator[Proxy]:
    """Run one, without rules. Its first call is slow, and made here."""
    port = free_port()
    command = [PROGRAM, "--upstream", upstream, "--port", str(port)]
    with running("microburst", command, port=port, log=folder / "microburst.log"):
        proxy = Proxy(f"http://127.0.0.1:{port}")
        patient = Config(read_timeout=60)
        boto3.client(
            "dynamodb", endpoint_url=proxy.url, region_name="us-east-1", config=patient
        ).list_tables()
        yield proxy
        proxy.close()
