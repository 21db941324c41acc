"""`make openapi`: write the Example App's OpenAPI document, as a deployed stack serves it."""

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
"""The servers of the file. A served document has no such list: its own server is meant."""


def document_text(app: FastAPI) -> str:
    """The OpenAPI document of `app` as the text of the file."""
    document = {**app.openapi(), "servers": SERVERS}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file."""
    os.environ.update(ENVIRONMENT, LEDGER_AUTH="jwt")
    # An app reads its settings when it is imported.
    from functions.example_app.app import app

    PATH.write_text(document_text(app))
    print(f"Wrote {PATH}", file=sys.stderr)


if __name__ == "__main__":
    main()
