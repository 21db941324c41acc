"""`make run`: the Example App at 127.0.0.1:8000 over a DynamoDB of its own on this machine, or over a named one."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import ASGIApp

from infra import issuer
from infra.dynamodb import (
    CACHE,
    ENVIRONMENT,
    create_tables,
    dynamodb_local,
    has_dynamodb_local,
    moto,
)
from infra.environment import CREDENTIALS, ENDPOINT, OWN, keep_to_this_machine, point_at
from infra.processes import own_port
from infra.protocol import Http1Protocol
from ledger_core.observability import LOG_VARIABLE, LogStyle
from ledger_core.settings import AuthMode
from ledger_core.wiring import create_client

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LOOPBACK = "127.0.0.1"


def main() -> None:
    options = _options()
    port = own_port(options.port)
    if options.auth:
        os.environ["LEDGER_AUTH"] = options.auth
    os.environ[LOG_VARIABLE] = options.log
    for name, value in ENVIRONMENT.items():
        if name.startswith("LEDGER_"):
            os.environ.setdefault(name, value)
    _keep_receipt_key(options.data.resolve() / "receipts.pem", is_own=not options.endpoint)
    with contextlib.ExitStack() as stack:
        client, fake, where = _store(options, stack)
        try:
            create_tables(client, os.environ)
        except (BotoCoreError, ClientError, RuntimeError) as error:
            sys.exit(f"ledger: the tables cannot be created: {error}")
        served: ASGIApp | str
        if options.reload:
            served = "functions.example_app.app:app"  # which another process imports, anew after each edit
        else:
            from functions.example_app.app import (
                app,
                create_app,
            )  # reads its settings from the environment made above

            served = create_app(fake) if fake else app
        auth, header = (
            "LEDGER_AUTH=none: everybody may do everything. With tokens: make run AUTH=jwt",
            "",
        )
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
{_for_tools(is_own=not options.endpoint) if options.host == LOOPBACK and not fake else ""}""",
            flush=True,
        )
        if options.one_cpu:
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.run", description=__doc__)
    parser.add_argument(
        "--host", default=LOOPBACK, help="where to listen; in a container 0.0.0.0, elsewhere never"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--endpoint", help="the URL of another DynamoDB, to be used instead of one of its own"
    )
    parser.add_argument(
        "--reload", action="store_true", help="serve an edit as soon as it is saved"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=CACHE / "data",
        help="where DynamoDB Local keeps what is posted, and the key of receipts is",
    )
    parser.add_argument(
        "--auth", choices=list(AuthMode), help="LEDGER_AUTH; jwt brings an issuer of tokens with it"
    )
    parser.add_argument("--issuer-port", type=int, default=issuer.PORT)
    parser.add_argument(
        "--log", choices=list(LogStyle), default=LogStyle.SHORT, help="what is logged of a request"
    )
    parser.add_argument(
        "--one-cpu", action="store_true", help="keep to one CPU, to measure what a request costs"
    )
    return parser.parse_args()


def _store(
    options: argparse.Namespace, stack: contextlib.ExitStack
) -> "tuple[DynamoDBClient, DynamoDBClient | None, str]":
    """A client of the store, the same again if the store is in this process, and what to tell people of it."""
    if options.endpoint:
        point_at(options.endpoint)
        return create_client(), None, f"the DynamoDB at {options.endpoint}"
    if has_dynamodb_local():
        try:
            endpoint = stack.enter_context(dynamodb_local(options.data.resolve()))
        except (OSError, RuntimeError) as error:
            sys.exit(f"ledger: DynamoDB Local cannot be had: {error}")
        keep_to_this_machine(endpoint)
        client = create_client()
        assert client.meta.endpoint_url == endpoint  # or tables would be created elsewhere
        return client, None, f"DynamoDB Local, which keeps its data in {options.data}"
    if options.reload:
        sys.exit(
            "ledger: --reload needs Java and npm, or --endpoint: the fake would forget with every edit"
        )
    keep_to_this_machine()
    fake = stack.enter_context(moto())
    where = (
        "moto, in this process, because Java or npm is not here: a fake that forgets everything at the end, "
        "grows slower with every entry and knows no contention; good for a first look only"
    )
    return fake, fake, where


def _keep_to_one_cpu(port: int) -> None:
    """Python runs one thread at a time; on several CPUs they fight for their turn, for a third of the CPU time.

    Where Linux is, the choice is among those that this process may use; servers on several ports have several.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[port % len(cpus)]})


def _keep_receipt_key(path: Path, *, is_own: bool) -> None:
    """Name the key that signs receipts, unless one is named; with a store of our own it is a file, none of AWS's."""
    named = os.environ.get("LEDGER_RECEIPT_KEY", "")
    if named.endswith(".pem") or (named and not is_own):
        return
    os.environ.pop("LEDGER_RECEIPT_KEY", None)
    with contextlib.suppress(OSError):  # nothing can be kept here, and so no receipts are signed
        issuer.kept_key(path, lambda: ec.generate_private_key(ec.SECP256R1()))
        os.environ["LEDGER_RECEIPT_KEY"] = str(path)


def _for_tools(*, is_own: bool) -> str:
    """How other tools reach the same store, whatever their terminal says; only a fake's credentials are shown."""
    is_fake = CREDENTIALS.items() <= os.environ.items()
    regions, credentials = ("AWS_REGION", "AWS_DEFAULT_REGION"), CREDENTIALS if is_fake else ()
    ledger = [name for name in (*ENVIRONMENT, "LEDGER_RECEIPT_KEY") if name.startswith("LEDGER_")]
    names = (ENDPOINT, *(OWN if is_own else (*regions, *credentials)), *ledger)
    exports = [f"{name}={shlex.quote(os.environ[name])}" for name in names if name in os.environ]
    forget = ""
    if is_own:
        exports += [f"{name}={LOOPBACK},${name}" for name in ("NO_PROXY", "no_proxy")]
        forget = "\n  unset AWS_SESSION_TOKEN $(env | grep -o '^AWS_[A-Z0-9_]*')"
    return f"\nFor .venv/bin/ledger and other tools, in another terminal:{forget}\n  export {' '.join(exports)}\n"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends in order, as Ctrl-C does
    with contextlib.suppress(KeyboardInterrupt):
        main()
