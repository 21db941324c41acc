"""What `make openapi` calls: write the Example App's OpenAPI document, as a deployed stack has it."""

import json
import os
import sys
from pathlib import Path

from fastapi import FastAPI

from infra.dynamodb import ENVIRONMENT

__all__ = ["PATH", "document_text"]

PATH = Path(__file__).parent.parent / "functions/example_app/openapi.json"
SERVERS = (
    {
        "url": "https://{api}.execute-api.{region}.amazonaws.com",
        "description": "A deployed stack; `sam list stack-outputs` prints its URL.",
        "variables": {
            "api": {"default": "abcde12345", "description": "The id of the stack's HTTP API."},
            "region": {"default": "eu-central-1", "description": "The AWS region of the stack."},
        },
    },
    {"url": "http://127.0.0.1:8000", "description": "`make run` on this machine."},
)
"""A served document names no server but its own, by leaving them out."""


def document_text(app: FastAPI) -> str:
    """The document of `app`, for a file that people compare line by line."""
    document = {**app.openapi(), "servers": SERVERS}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file anew."""
    os.environ.update(ENVIRONMENT, LEDGER_AUTH="jwt")
    # Only now: an app reads its settings when it is imported.
    from functions.example_app.app import app

    PATH.write_text(document_text(app))
    print(f"Wrote {PATH}", file=sys.stderr)


if __name__ == "__main__":
    main()
