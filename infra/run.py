"""`make run`: the Example App at 127.0.0.1:8000, on a DynamoDB that it starts or on another."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from dataclasses import dataclass
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
SHUTDOWN_SECONDS_MAX = 5
MOTO = (
    "moto, in this process, because Java or npm is missing: a fake that forgets everything at the "
    "end, grows slower with every entry and knows no contention; good for a first look only"
)
NO_TOKENS = "LEDGER_AUTH=none: every caller may do everything. With tokens: make run AUTH=jwt"
SHOP = 'OWNER=shop SCOPE="ledger/read ledger/write"'


@dataclass
class Store:
    """The DynamoDB that the app uses.

    Args:
        client: a client of it.
        description: says what it is, for the user.
        is_own: whether this program started it.
        is_fake: whether it is in this process.
    """

    client: "DynamoDBClient"
    description: str
    is_own: bool = True
    is_fake: bool = False


def main() -> None:
    options = _options()
    port = own_port(options.port)
    _set_environment(options)
    with contextlib.ExitStack() as stack:
        store = _store(options, stack)
        try:
            create_tables(store.client, os.environ)
        except (BotoCoreError, ClientError, RuntimeError) as error:
            sys.exit(f"ledger: the tables cannot be created: {error}")
        app: ASGIApp | str = _app(options, store)
        auth = NO_TOKENS
        header = ""
        if os.environ["LEDGER_AUTH"] == AuthMode.JWT:
            app = _with_authorizer(app, options, stack)
            token = f"{issuer.make_token(options.issuer_port)} {SHOP}"
            auth = f"LEDGER_AUTH=jwt: every route except /health needs a token: {token}"
            header = f' -H "Authorization: Bearer $({token})"'
        tools = ""
        if options.host == LOOPBACK and not store.is_fake:
            tools = _for_tools(is_own=store.is_own)
        print(
            f"""
The ledger answers at http://127.0.0.1:{port}, its interactive docs at http://127.0.0.1:{port}/docs
Store: {store.description}.
Auth:  {auth}.

Try it, and end it with Ctrl-C:
  curl http://127.0.0.1:{port}/ledger/entry -H 'Content-Type: application/json'{header} \\
    -d '{{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}}'
{tools}""",
            flush=True,
        )
        if options.one_cpu:
            _keep_to_one_cpu(port)
        uvicorn.run(
            app,
            host=options.host,
            port=port,
            reload=options.reload,
            reload_dirs=["functions", "ledger_core"] if options.reload else None,
            log_level="warning",
            http=Http1Protocol,
            ws="none",
            workers=1,  # also if WEB_CONCURRENCY says more
            timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.run", description=__doc__)
    parser.add_argument(
        "--host", default=LOOPBACK, help="where to listen; only in a container 0.0.0.0"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--endpoint", help="the URL of another DynamoDB; by default it starts one")
    parser.add_argument(
        "--reload", action="store_true", help="serve an edit as soon as it is saved"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=CACHE / "data",
        help="the folder of DynamoDB Local's data and of the receipts' key",
    )
    parser.add_argument(
        "--auth", choices=list(AuthMode), help="LEDGER_AUTH; jwt starts an issuer of tokens too"
    )
    parser.add_argument("--issuer-port", type=int, default=issuer.PORT)
    parser.add_argument(
        "--log", choices=list(LogStyle), default=LogStyle.SHORT, help="how a request is logged"
    )
    parser.add_argument(
        "--one-cpu", action="store_true", help="use one CPU, to measure what a request costs"
    )
    return parser.parse_args()


def _set_environment(options: argparse.Namespace) -> None:
    """Set the ledger's settings: the options first, then what is set already, then the defaults."""
    if options.auth:
        os.environ["LEDGER_AUTH"] = options.auth
    os.environ[LOG_VARIABLE] = options.log
    for name, value in ENVIRONMENT.items():
        if name.startswith("LEDGER_"):
            os.environ.setdefault(name, value)
    _keep_receipt_key(options.data.resolve() / "receipts.pem", is_own=not options.endpoint)


def _store(options: argparse.Namespace, stack: contextlib.ExitStack) -> Store:
    """The named DynamoDB, or DynamoDB Local, or moto where DynamoDB Local cannot run."""
    if options.endpoint:
        point_at(options.endpoint)
        return Store(create_client(), f"the DynamoDB at {options.endpoint}", is_own=False)
    if has_dynamodb_local():
        try:
            endpoint = stack.enter_context(dynamodb_local(options.data.resolve()))
        except (OSError, RuntimeError) as error:
            sys.exit(f"ledger: DynamoDB Local cannot start: {error}")
        keep_to_this_machine(endpoint)
        client = create_client()
        assert client.meta.endpoint_url == endpoint  # else the tables are created elsewhere
        return Store(client, f"DynamoDB Local, which keeps its data in {options.data}")
    if options.reload:
        sys.exit("ledger: --reload needs Java and npm, or --endpoint: moto forgets at each edit")
    keep_to_this_machine()
    return Store(stack.enter_context(moto()), MOTO, is_fake=True)


def _app(options: argparse.Namespace, store: Store) -> ASGIApp | str:
    """The Example App; with `--reload` its name, for another process imports it after each edit."""
    if options.reload:
        return "functions.example_app.app:app"
    # The app reads its settings when it is imported, so the environment must be complete now.
    from functions.example_app.app import app, create_app

    return create_app(store.client) if store.is_fake else app


def _with_authorizer(
    app: ASGIApp | str, options: argparse.Namespace, stack: contextlib.ExitStack
) -> ASGIApp:
    """The app behind an authorizer, which accepts the tokens of a local issuer."""
    if isinstance(app, str):
        sys.exit("ledger: --reload works without tokens only: set LEDGER_AUTH=none")
    local_issuer = issuer.Issuer(own_port(options.issuer_port, "ISSUER_PORT"))
    stack.enter_context(local_issuer.serving())
    return issuer.JwtAuthorizer(app, local_issuer)


def _keep_to_one_cpu(port: int) -> None:
    """Use one CPU. On several, Python's threads spend a third of the CPU time on their turns.

    Works on Linux only. Servers on neighbouring ports use different CPUs.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[port % len(cpus)]})


def _keep_receipt_key(path: Path, *, is_own: bool) -> None:
    """Set the key that signs receipts to a file, unless the environment names a usable key.

    A key of AWS is not usable with a store on this machine.
    """
    named = os.environ.get("LEDGER_RECEIPT_KEY", "")
    if named.endswith(".pem") or (named and not is_own):
        return
    os.environ.pop("LEDGER_RECEIPT_KEY", None)
    with contextlib.suppress(OSError):  # the folder is read-only: no receipts are signed
        issuer.kept_key(path, lambda: ec.generate_private_key(ec.SECP256R1()))
        os.environ["LEDGER_RECEIPT_KEY"] = str(path)


def _for_tools(*, is_own: bool) -> str:
    """The shell commands that point other tools at the same store. They show no real secret."""
    ledger = [name for name in (*ENVIRONMENT, "LEDGER_RECEIPT_KEY") if name.startswith("LEDGER_")]
    if is_own:
        names = [ENDPOINT, *OWN, *ledger]
    else:
        names = [ENDPOINT, "AWS_REGION", "AWS_DEFAULT_REGION", *ledger]
        if CREDENTIALS.items() <= os.environ.items():
            names += CREDENTIALS
    exports = [f"{name}={shlex.quote(os.environ[name])}" for name in names if name in os.environ]
    unset = ""
    if is_own:
        exports += [f"{name}={LOOPBACK},${name}" for name in ("NO_PROXY", "no_proxy")]
        unset = "\n  unset AWS_SESSION_TOKEN $(env | grep -o '^AWS_[A-Z0-9_]*')"
    export = f"\n  export {' '.join(exports)}\n"
    return f"\nFor .venv/bin/ledger and other tools, in another terminal:{unset}{export}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as with Ctrl-C
    with contextlib.suppress(KeyboardInterrupt):
        main()
