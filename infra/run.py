"""`make run`: the Example App at 127.0.0.1:8000 over a DynamoDB on this machine, or wherever AWS's variables point."""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

import uvicorn
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import ASGIApp

from functions.wiring import create_client
from infra import issuer
from infra.dynamodb import CACHE, ENVIRONMENT, create_tables, dynamodb_local, has_dynamodb_local, moto
from infra.processes import own_port
from infra.protocol import Http1Protocol
from ledger_core.settings import AuthMode

ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"
LOOPBACK = "127.0.0.1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.run", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="where to listen; in a container 0.0.0.0, elsewhere never")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--reload", action="store_true", help="serve an edit as soon as it is saved")
    parser.add_argument(
        "--data",
        type=Path,
        default=CACHE / "data",
        help="where DynamoDB Local keeps what is posted, and the key of receipts is",
    )
    parser.add_argument("--auth", choices=list(AuthMode), help="LEDGER_AUTH; jwt brings an issuer of tokens with it")
    parser.add_argument("--issuer-port", type=int, default=issuer.PORT)
    options = parser.parse_args()
    port = own_port(options.port)
    if options.auth:
        os.environ["LEDGER_AUTH"] = options.auth
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(OSError):  # nothing can be kept here, and so no receipts are signed
        os.environ.setdefault("LEDGER_RECEIPT_KEY", _kept_receipt_key(options.data.resolve() / "receipts.pem"))
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
        elif options.reload:
            sys.exit(f"ledger: --reload needs Java and npm, or {ENDPOINT}: the fake would forget with every edit")
        else:
            client = fake = stack.enter_context(moto())
            where = (
                "moto, in this process, because Java or npm is not here: a fake that forgets everything at the end, "
                "grows slower with every entry and knows no contention; good for a first look only"
            )
        try:
            create_tables(client, os.environ)
        except (BotoCoreError, ClientError, RuntimeError) as error:
            sys.exit(f"ledger: the tables cannot be created: {error}")
        served: ASGIApp | str
        if options.reload:
            served = "functions.example_app.app:app"  # which another process imports, anew after each edit
        else:
            from functions.example_app.app import app, create_app  # reads its settings from the environment made above

            served = create_app(fake) if fake else app
        auth, header = "LEDGER_AUTH=none: everybody may do everything. With tokens: make run AUTH=jwt", ""
        if os.environ["LEDGER_AUTH"] == AuthMode.JWT:
            if isinstance(served, str):
                sys.exit("ledger: --reload serves without tokens only: LEDGER_AUTH has to be none")
            local_issuer = issuer.Issuer(own_port(options.issuer_port, "ISSUER_PORT"))
            stack.enter_context(local_issuer.serving())
            served = issuer.JwtAuthorizer(served, local_issuer)
            token = f'{issuer.make_token(options.issuer_port)} OWNER=shop SCOPE="ledger/read ledger/write"'
            auth = f"LEDGER_AUTH=jwt, as for everything here but /health: {token}"
            header = f' -H "Authorization: Bearer $({token})"'
        print(
            f"""
The ledger answers at http://127.0.0.1:{port}, its interactive docs at http://127.0.0.1:{port}/docs
Store: {where}.
Auth:  {auth}.

Try it, and end it with Ctrl-C:
  curl http://127.0.0.1:{port}/ledger/entry -H 'Content-Type: application/json'{header} \\
    -d '{{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}}'
{_for_tools() if options.host == LOOPBACK else ""}""",
            flush=True,
        )
        _keep_to_one_cpu(port)
        uvicorn.run(
            served,
            host=options.host,
            port=port,
            reload=options.reload,
            reload_dirs=["functions", "ledger_core"] if options.reload else None,
            log_level="warning",
            http=Http1Protocol,
            ws="none",
            workers=1,  # whatever WEB_CONCURRENCY says
            timeout_graceful_shutdown=5,
        )


def _keep_to_one_cpu(port: int) -> None:
    """Python runs one thread at a time; on several CPUs they fight for their turn, for a third of the CPU time.

    Where Linux is, the choice is among those that this process may use; servers on several ports have several.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[port % len(cpus)]})


def _kept_receipt_key(path: Path) -> str:
    issuer.kept_key(path, lambda: ec.generate_private_key(ec.SECP256R1()))
    return str(path)


def _for_tools() -> str:
    """How other tools reach the same store; the credentials shown are the fake's, never the machine's."""
    if ENDPOINT not in os.environ:
        return ""
    names = (ENDPOINT, "AWS_REGION", "LEDGER_ENTRIES_TABLE", "LEDGER_BALANCES_TABLE", "LEDGER_RECEIPT_KEY")
    variables = {name: os.environ[name] for name in names if name in os.environ}
    variables |= {name: ENVIRONMENT[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    exports = " ".join(f"{name}={value}" for name, value in variables.items())
    return f"\nFor .venv/bin/ledger and other tools:\n  export {exports}\n"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends in order, as Ctrl-C does
    with contextlib.suppress(KeyboardInterrupt):
        main()
