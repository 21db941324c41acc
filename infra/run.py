"""`make run`: the Example App at 127.0.0.1:8000 over a DynamoDB on this machine, or wherever AWS's variables point."""

import argparse
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from botocore.exceptions import BotoCoreError, ClientError

from functions.wiring import create_client
from infra.dynamodb import CACHE, ENVIRONMENT, create_tables, dynamodb_local, has_dynamodb_local, moto

ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.run", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="where DynamoDB Local keeps what is posted")
    options = parser.parse_args()
    port = _free(options.port)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    fake = None
    with contextlib.ExitStack() as stack:
        if endpoint := os.environ.get(ENDPOINT) or os.environ.get("AWS_ENDPOINT_URL"):
            client, where = create_client(), f"the DynamoDB at {endpoint}"
        elif has_dynamodb_local():
            try:
                os.environ[ENDPOINT] = stack.enter_context(dynamodb_local(options.data.resolve()))
            except (OSError, RuntimeError) as error:
                sys.exit(f"ledger: DynamoDB Local cannot be had: {error}")
            client, where = create_client(), f"DynamoDB Local, which keeps its data in {options.data}"
        else:
            client = fake = stack.enter_context(moto())
            where = (
                "moto, in this process, because Java or npm is not here: a fake that forgets everything at the end, "
                "grows slower with every entry and knows no contention; good for a first look only"
            )
        try:
            create_tables(client, os.environ)
        except (BotoCoreError, ClientError) as error:
            sys.exit(f"ledger: the tables cannot be created: {error}")
        from functions.example_app.app import app, create_app  # reads its settings from the environment made above

        print(
            f"""
The ledger answers at http://127.0.0.1:{port}, its interactive docs at http://127.0.0.1:{port}/docs
Store: {where}.
Auth:  LEDGER_AUTH={os.environ["LEDGER_AUTH"]} (with `none` everybody may do everything).

Try it, and end it with Ctrl-C:
  curl http://127.0.0.1:{port}/ledger/entry -H 'Content-Type: application/json' \\
    -d '{{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}}'
{_for_tools()}""",
            flush=True,
        )
        uvicorn.run(
            create_app(fake) if fake else app,
            host="127.0.0.1",
            port=port,
            log_level="warning",
            ws="none",
            timeout_graceful_shutdown=5,
        )


def _for_tools() -> str:
    """How other tools reach the same store; the credentials shown are the fake's, never the machine's."""
    if ENDPOINT not in os.environ:
        return ""
    names = (ENDPOINT, "AWS_REGION", "LEDGER_ENTRIES_TABLE", "LEDGER_BALANCES_TABLE")
    variables = {name: os.environ[name] for name in names}
    variables |= {name: ENVIRONMENT[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    exports = " ".join(f"{name}={value}" for name, value in variables.items())
    return f"\nFor .venv/bin/ledger and other tools:\n  export {exports}\n"


def _free(port: int) -> int:
    """The port, if it can be had; else this ends with one line."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            sys.exit(f"ledger: port {port} cannot be had ({error}); choose another, as in: make run PORT=8001")
    return port


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends in order, as Ctrl-C does
    with contextlib.suppress(KeyboardInterrupt):
        main()
