"""What of this machine's environment reaches the ledger and its clients, when its store is on this machine: nothing.

A profile that is gone, an endpoint that is left over from another emulator, or a proxy that answers for everybody would
send what is for DynamoDB Local elsewhere, at worst to AWS.
"""

import os
from pathlib import Path

__all__ = ["CREDENTIALS", "ENDPOINT", "OWN", "REGION", "keep_to_this_machine", "point_at"]

ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""AWS's fakes take any, but that DynamoDB Local takes letters and digits only."""
OWN = {
    **CREDENTIALS,
    "AWS_REGION": REGION,  # which is the ledger's, and that of most SDKs
    "AWS_DEFAULT_REGION": REGION,  # which is boto3's and the command line's
    "AWS_PROFILE": "default",
    "AWS_DEFAULT_PROFILE": "default",  # boto3 reads this one first
    "AWS_CONFIG_FILE": str(Path(__file__).parent / "aws.ini"),
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
}
"""All that AWS's tools have to be told beside the endpoint, so that nothing else tells them."""


def keep_to_this_machine(endpoint: str | None = None) -> None:
    """No variable and no file of AWS's says anything to this process and to those that it starts, nor is there a proxy.

    Args:
        endpoint: where DynamoDB is, if it is not in this process.
    """
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    _forget_proxies()
    os.environ |= OWN
    if endpoint:
        os.environ[ENDPOINT] = endpoint


def point_at(endpoint: str) -> None:
    """The store is at `endpoint`; AWS's variables say the rest, but that a fake, by plain HTTP, need not be told it."""
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
