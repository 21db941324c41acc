"""`make run-stack`: the whole stack on this machine, deployed by sam from template.yaml as it would be to AWS.

ministack stands in for AWS, and enforces the roles' policies and the JWT authorizer; an issuer of tokens is beside it.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from infra.dynamodb import CACHE, ROOT
from infra.environment import keep_to_this_machine
from infra.issuer import AUDIENCE, Issuer, make_token
from infra.issuer import PORT as ISSUER_PORT
from infra.processes import own_port, running

__all__ = [
    "CREDENTIALS",
    "MINISTACK",
    "NAME",
    "ORIGIN",
    "SECOND_AUDIENCE",
    "Stack",
    "deploy",
    "deployed",
    "ministack",
]

NAME = "ledger"
SECOND_AUDIENCE = "ledger-2"
ORIGIN = "http://localhost:3000"
"""Where web pages are that are worked on; they may call the stack."""
MINISTACK = ROOT / ".local/ministack/bin/ministack"
SAM = ROOT / ".local/sam/bin/sam"
BUILT = ROOT / ".aws-sam/build/template.yaml"
# The one root user that ministack knows; whatever else is in the environment, nothing goes to AWS from here.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
ARCHITECTURE = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"


@dataclass(frozen=True)
class Stack:
    """A deployed stack: where its API answers, what it put out, who issues its tokens."""

    endpoint: str
    issuer: Issuer
    name: str = NAME

    @property
    def url(self) -> str:
        """Where the API answers; its own name, API.execute-api.localhost, is known to browsers only."""
        return f"{self.endpoint}/_aws/execute-api/{self.api_id}"

    @property
    def api_id(self) -> str:
        return self.outputs["ApiUrl"].removeprefix("http://").partition(".")[0]

    @property
    def outputs(self) -> dict[str, str]:
        (stack,) = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def client(self, service: str, key_id: str = "test", key: str = "test") -> Any:
        """A boto3 client of the stand-in for AWS, as root unless said otherwise."""
        region = CREDENTIALS["AWS_DEFAULT_REGION"]
        keys = {"aws_access_key_id": key_id, "aws_secret_access_key": key}
        where = {"endpoint_url": self.endpoint, "region_name": region, "config": Config(proxies={})}
        return _session().client(service, **where, **keys)  # type: ignore[call-overload]


@contextlib.contextmanager
def deployed(port: int, issuer: Issuer) -> Iterator[Stack]:
    """Deploy what `make build` built, and give the stack, until the end of the block.

    Raises:
        RuntimeError: it cannot be deployed; the message is sam's.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        issuer.serving(),
        ministack(port, Path(folder), AUTH="true") as endpoint,
    ):
        yield deploy(
            Stack(endpoint, issuer),
            Path(folder),
            "RewardsState=ENABLED",
            f"AllowedOrigins={ORIGIN}",
        )


def deploy(stack: Stack, folder: Path, *parameters: str) -> Stack:
    """Deploy what `make build` built as one more stack of a running stand-in for AWS.

    Raises:
        RuntimeError: it cannot be deployed; the message is sam's.
    """
    given = [
        f"JwtIssuer={stack.issuer.url}",
        f"JwtAudience={AUDIENCE},{SECOND_AUDIENCE}",
        f"Architecture={ARCHITECTURE}",
    ]
    command = [
        str(SAM),
        "deploy",
        "--template-file",
        str(_for_the_stand_in(folder)),
        "--stack-name",
        stack.name,
    ]
    command += ["--resolve-s3", "--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset"]
    done = subprocess.run(
        [*command, "--parameter-overrides", *given, *parameters],
        env={
            **_paths(),
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": stack.endpoint,
            "SAM_CLI_TELEMETRY": "0",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the stack cannot be deployed:\n{done.stdout}\n{done.stderr}")
    _mend(stack, dict(one.split("=", 1) for one in parameters).get("AllowedOrigins"))
    return stack


def _built() -> Any:
    return yaml.safe_load(BUILT.read_text())


def _for_the_stand_in(folder: Path) -> Path:
    """What `make build` built, less what the stand-in cannot do: alarms that compute, conditions of KMS.

    It hands on the function's headers for CORS beside its own, where API Gateway hands on its own.
    """
    template = _built()
    resources = template["Resources"].items()
    template["Resources"] = {
        name: one for name, one in resources if "Metrics" not in one.get("Properties", {})
    }
    for statement in template["Resources"]["ReceiptKey"]["Properties"]["KeyPolicy"]["Statement"]:
        if statement["Action"] == "kms:Sign":
            del statement["Condition"]
    del template["Resources"]["ApiFunction"]["Properties"]["Environment"]["Variables"][
        "LEDGER_ALLOWED_ORIGINS"
    ]
    for one in template["Resources"].values():
        if "CodeUri" in one["Properties"]:
            one["Properties"]["CodeUri"] = str(BUILT.parent / one["Properties"]["CodeUri"])
    path = folder / "template.json"
    path.write_text(json.dumps(template))
    return path


def _mend(stack: Stack, origins: str | None) -> None:
    """Do what the stand-in's CloudFormation leaves out.

    It keeps a number as text and cannot compare it, so that nothing would take from the queue, and hands on no CORS.
    """
    if origins:
        _condition, cors, _nothing = _built()["Resources"]["HttpApi"]["Properties"][
            "CorsConfiguration"
        ]["Fn::If"]
        cors = {**cors, "AllowOrigins": origins.split(",")}
        stack.client("apigatewayv2").update_api(ApiId=stack.api_id, CorsConfiguration=cors)
    functions = stack.client("lambda")
    for one in functions.list_event_source_mappings()["EventSourceMappings"]:
        maximum = int(one["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(
            UUID=one["UUID"], ScalingConfig={"MaximumConcurrency": maximum}
        )


@contextlib.contextmanager
def ministack(port: int, folder: Path, **settings: str) -> Iterator[str]:
    """Run the stand-in for AWS, and give its endpoint, until the end of the block."""
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        **settings,
    }
    environment = {**_paths(), **CREDENTIALS, **settings, "TMPDIR": str(folder)}
    command, log = [str(MINISTACK)], CACHE / "ministack.log"
    with running("ministack", command, port=port, log=log, folder=folder, environment=environment):
        yield f"http://127.0.0.1:{port}"


def _paths() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


@cache
def _session() -> boto3.Session:
    return boto3.Session()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.stack", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--issuer-port", type=int, default=ISSUER_PORT)
    options = parser.parse_args()
    keep_to_this_machine()
    with deployed(
        own_port(options.port), Issuer(own_port(options.issuer_port, "ISSUER_PORT"))
    ) as stack:
        token = make_token(options.issuer_port)
        print(
            f"""
The deployed API answers at {stack.url}
AWS's other APIs answer at  {stack.endpoint}, for the aws command line and boto3 with the credentials test and test.
Tokens:  {token} OWNER=ada, or {token} OWNER=shop SCOPE="ledger/read ledger/write"

Try it, and end it with Ctrl-C, which forgets everything:
  curl {stack.url}/ledger/entry -H "Authorization: Bearer $({token} OWNER=shop SCOPE=ledger/write)" \\
    -H 'Content-Type: application/json' -d '{{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}}'
""",
            flush=True,
        )
        threading.Event().wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends in order, as Ctrl-C does
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (OSError, RuntimeError) as error:
        sys.exit(f"ledger: {error}")
