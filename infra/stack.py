"""`make run-stack`: the whole stack on this machine, deployed by sam from template.yaml.

ministack is the fake of AWS; it enforces the roles' policies and the JWT authorizer. An issuer of
tokens runs beside it.
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
"""The origin of web pages in development, which may call the stack."""
MINISTACK = ROOT / ".local/ministack/bin/ministack"
SAM = ROOT / ".local/sam/bin/sam"
BUILT = ROOT / ".aws-sam/build/template.yaml"
# The root user of ministack. With these settings no request goes to AWS.
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
    """A deployed stack: its API, its outputs and the issuer of its tokens."""

    endpoint: str
    issuer: Issuer
    name: str = NAME

    @property
    def url(self) -> str:
        """The URL of the API. Only browsers resolve its host name, API.execute-api.localhost."""
        return f"{self.endpoint}/_aws/execute-api/{self.api_id}"

    @property
    def api_id(self) -> str:
        return self.outputs["ApiUrl"].removeprefix("http://").partition(".")[0]

    @property
    def outputs(self) -> dict[str, str]:
        (stack,) = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def client(self, service: str, key_id: str = "test", key: str = "test") -> Any:
        """A boto3 client of the fake AWS, by default with the root user's key."""
        return _session().client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id=key_id,
            aws_secret_access_key=key,
            config=Config(proxies={}),
        )


@contextlib.contextmanager
def deployed(port: int, issuer: Issuer) -> Iterator[Stack]:
    """Deploy the build of `make build`, and run the stack until the end of the block.

    Raises:
        RuntimeError: sam cannot deploy it; the message is sam's.
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
    """Deploy the build of `make build` as a further stack of a running ministack.

    Args:
        stack: the endpoint, the issuer and the name.
        folder: a folder for the template that sam deploys.
        parameters: parameters of template.yaml, as `AllowedOrigins=http://localhost:3000`.

    Raises:
        RuntimeError: sam cannot deploy it; the message is sam's.
    """
    parameters = (
        f"JwtIssuer={stack.issuer.url}",
        f"JwtAudience={AUDIENCE},{SECOND_AUDIENCE}",
        f"Architecture={ARCHITECTURE}",
        *parameters,
    )
    command = (
        *(str(SAM), "deploy"),
        *("--template-file", str(_template_for_ministack(folder))),
        *("--stack-name", stack.name),
        *("--resolve-s3", "--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset"),
        *("--parameter-overrides", *parameters),
    )
    endpoint = {"AWS_ENDPOINT_URL": stack.endpoint}
    sam = subprocess.run(
        command,
        env={**_paths(), **CREDENTIALS, **endpoint, "SAM_CLI_TELEMETRY": "0"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if sam.returncode:
        raise RuntimeError(f"the stack cannot be deployed:\n{sam.stdout}\n{sam.stderr}")
    values = dict(parameter.split("=", 1) for parameter in parameters)
    if origins := values.get("AllowedOrigins"):
        _configure_cors(stack, origins.split(","))
    _start_event_sources(stack)
    return stack


def _built() -> Any:
    return yaml.safe_load(BUILT.read_text())


def _template_for_ministack(folder: Path) -> Path:
    """Write the built template without what ministack cannot do.

    ministack has no alarms that compute, and no conditions of KMS. It sends the function's headers
    for CORS beside its own, where API Gateway sends only its own.
    """
    template = _built()
    template["Resources"] = {
        name: resource
        for name, resource in template["Resources"].items()
        if "Metrics" not in resource.get("Properties", {})
    }
    resources = template["Resources"]
    for statement in resources["ReceiptKey"]["Properties"]["KeyPolicy"]["Statement"]:
        if statement["Action"] == "kms:Sign":
            del statement["Condition"]
    variables = resources["ApiFunction"]["Properties"]["Environment"]["Variables"]
    del variables["LEDGER_ALLOWED_ORIGINS"]
    for resource in resources.values():
        properties = resource["Properties"]
        if "CodeUri" in properties:
            properties["CodeUri"] = str(BUILT.parent / properties["CodeUri"])
    path = folder / "template.json"
    path.write_text(json.dumps(template))
    return path


def _configure_cors(stack: Stack, origins: list[str]) -> None:
    """Configure CORS as the template does: ministack's CloudFormation leaves it out."""
    api = _built()["Resources"]["HttpApi"]["Properties"]
    _condition, cors, _no_value = api["CorsConfiguration"]["Fn::If"]
    stack.client("apigatewayv2").update_api(
        ApiId=stack.api_id, CorsConfiguration={**cors, "AllowOrigins": origins}
    )


def _start_event_sources(stack: Stack) -> None:
    """Set each concurrency as a number. ministack keeps it as text, and then reads no queue."""
    functions = stack.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        concurrency = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": concurrency}
        )


@contextlib.contextmanager
def ministack(port: int, folder: Path, **settings: str) -> Iterator[str]:
    """Run the fake AWS until the end of the block, and give its endpoint."""
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        **settings,
    }
    environment = {**_paths(), **CREDENTIALS, **settings, "TMPDIR": str(folder)}
    with running(
        "ministack",
        [str(MINISTACK)],
        port=port,
        log=CACHE / "ministack.log",
        folder=folder,
        environment=environment,
    ):
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
    port = own_port(options.port)
    issuer = Issuer(own_port(options.issuer_port, "ISSUER_PORT"))
    with deployed(port, issuer) as stack:
        token = make_token(options.issuer_port)
        shop_token = f"{token} OWNER=shop SCOPE=ledger/write"
        print(
            f"""
The deployed API answers at {stack.url}
AWS's other APIs answer at  {stack.endpoint}: use the credentials test and test.
Tokens:  {token} OWNER=ada, or {token} OWNER=shop SCOPE="ledger/read ledger/write"

Try it, and end it with Ctrl-C, which forgets everything:
  curl {stack.url}/ledger/entry -H "Authorization: Bearer $({shop_token})" \\
    -H 'Content-Type: application/json' \\
    -d '{{"owner_id": "ada", "operation": "SIGNUP_CREDIT", "nonce": "signup"}}'
""",
            flush=True,
        )
        threading.Event().wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as with Ctrl-C
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (OSError, RuntimeError) as error:
        sys.exit(f"ledger: {error}")
