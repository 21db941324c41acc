"""Keeps the environment of this machine away from a ledger whose store is on this machine.

A deleted profile, the endpoint of another emulator or a proxy would send the requests for DynamoDB
Local elsewhere, at worst to AWS.
"""

import os
from pathlib import Path

__all__ = ["CREDENTIALS", "ENDPOINT", "OWN", "REGION", "keep_to_this_machine", "point_at"]

ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""The fakes of AWS accept any credentials; DynamoDB Local accepts only letters and digits."""
OWN = {
    **CREDENTIALS,
    "AWS_REGION": REGION,  # the ledger and most SDKs read this one
    "AWS_DEFAULT_REGION": REGION,  # boto3 and the command line read this one
    "AWS_PROFILE": "default",
    "AWS_DEFAULT_PROFILE": "default",  # boto3 reads this one first
    "AWS_CONFIG_FILE": str(Path(__file__).parent / "aws.ini"),
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
}
"""Every setting of AWS's tools except the endpoint, so that they read no other source."""


def keep_to_this_machine(endpoint: str | None = None) -> None:
    """Remove AWS's variables and the proxies from this process and from those that it starts.

    Args:
        endpoint: the URL of DynamoDB, if it is not in this process.
    """
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    _forget_proxies()
    os.environ |= OWN
    if endpoint:
        os.environ[ENDPOINT] = endpoint


def point_at(endpoint: str) -> None:
    """Use the store at `endpoint`, with AWS's variables for the rest.

    An endpoint by plain HTTP is a fake: it gets fake credentials if the environment has none.
    """
    os.environ |= {ENDPOINT: endpoint, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"}
    if endpoint.startswith("http://"):
        _forget_proxies()
        if "AWS_PROFILE" not in os.environ:
            os.environ |= {name: os.environ.get(name, value) for name, value in CREDENTIALS.items()}
            os.environ.setdefault("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION") or REGION)


def _forget_proxies() -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
