"""The deployed stack over HTTP: who gets in, who may do what, and the ledger's main job.

It deploys the template on this machine. With LEDGER_API_URL it tests a real deployment instead, with tokens that
LEDGER_TOKEN_COMMAND prints; the command is given `--owner`, `--scope`, `--audience`, `--expires-seconds` as needed.
"""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from botocore.exceptions import ClientError

from infra.dynamodb import table_properties
from infra.issuer import Issuer, new_key
from infra.processes import free_port
from infra.stack import BUILT, MINISTACK, NAME, ORIGIN, SECOND_AUDIENCE, Stack, deployed
from ledger_core.account import Account
from ledger_core.audit import read_receipt
from ledger_core.dynamodb import jwk
from ledger_core.dynamodb.expressions import MOVE, entry_item, key_of_account, transact_items
from ledger_core.fields import owner_hash
from tests.conftest import MACHINE
from tests.support import NOON, change_of, operation

SECONDS_MAX = 60
READ, WRITE = "ledger/read", "ledger/write"
API_URL, TOKEN_COMMAND = (
    os.environ.get("LEDGER_API_URL"),
    os.environ.get("LEDGER_TOKEN_COMMAND", ""),
)


@dataclass
class Deployment:
    """A stack under test: where it answers, and a maker of tokens; `stack` is there when it runs on this machine."""

    url: str
    token: Callable[..., str]
    stack: Stack | None

    def __call__(
        self, method: str, path: str, token: str | None = None, body: Any = None, **headers: str
    ) -> Any:
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.request(
            method,
            self.url + path,
            json=body,
            headers={**authorization, **headers},
            timeout=SECONDS_MAX,
        )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    if API_URL:
        yield Deployment(API_URL.rstrip("/"), token_by_command, None)
        return
    if not (BUILT.exists() and MINISTACK.exists()):
        pytest.skip(
            "NOT TESTED as a deployed stack: `make e2e` builds it and sets up what it is deployed to"
        )
    with deployed(
        free_port(), Issuer(free_port(), Path(tmp_path_factory.mktemp("issuer")))
    ) as stack:
        yield Deployment(stack.url, stack.issuer.token, stack)


def token_by_command(owner_id: str, scope: str = "", **options: Any) -> str:
    """A token of the deployment's own issuer; a test whose wrong token it cannot make is skipped, and says so."""
    arguments = ["--owner", owner_id, "--scope", scope]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    command = [*shlex.split(TOKEN_COMMAND), *arguments]
    done = subprocess.run(command, env=MACHINE, capture_output=True, text=True, check=False)
    if done.returncode and not options:
        pytest.fail(f"LEDGER_TOKEN_COMMAND gave no token: {done.stderr}")
    if done.returncode:
        pytest.skip(f"NOT TESTED: LEDGER_TOKEN_COMMAND makes no token with {' '.join(options)}")
    return done.stdout.strip()


@pytest.fixture
def stack(deployment: Deployment) -> Stack:
    if deployment.stack is None:
        pytest.skip("NOT TESTED on a real deployment: it looks behind the API")
    return deployment.stack


@pytest.fixture
def owner_id() -> str:
    """An owner of the test's own, so that a deployment can be tested again and again."""
    return f"test-{uuid4()}"


@pytest.fixture
def writer(deployment: Deployment) -> str:
    return deployment.token("shop", f"{READ} {WRITE}")


def entry(owner_id: str, name: str, nonce: str | None = "n", **more: Any) -> dict[str, Any]:
    nonces = {} if nonce is None else {"nonce": nonce}
    return {"owner_id": owner_id, "operation": name, **nonces, **more}


def test_health_is_open(deployment: Deployment) -> None:
    """Whether it answers, anybody may ask."""
    answer = deployment("GET", "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_tokens_of_every_audience_are_taken(
    stack: Stack, deployment: Deployment, owner_id: str
) -> None:
    """Each app client has an audience of its own, and JwtAudience names them all."""
    token = stack.issuer.token(owner_id, audience=SECOND_AUDIENCE)
    assert deployment("GET", f"/ledger/{owner_id}/balance", token).status_code == 200


def forged(deployment: Deployment, owner_id: str) -> str:
    """A token that is right in everything but the key that signed it."""
    token = deployment.token(owner_id, f"{READ} {WRITE}")
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, new_key(), "RS256", headers=jwt.get_unverified_header(token))


def altered(deployment: Deployment, owner_id: str) -> str:
    """A signed token with other claims put in."""
    header, _, signature = deployment.token("eve").split(".")
    return ".".join(
        [header, deployment.token(owner_id, f"{READ} {WRITE}").split(".")[1], signature]
    )


def unsigned(deployment: Deployment, owner_id: str) -> str:
    claims = jwt.decode(deployment.token(owner_id, WRITE), options={"verify_signature": False})
    return jwt.encode(claims, "", "none")


def of_another_issuer(deployment: Deployment, owner_id: str) -> str:
    claims = jwt.decode(deployment.token(owner_id, WRITE), options={"verify_signature": False})
    return jwt.encode({**claims, "iss": "https://issuer.example"}, new_key(), "RS256")


BAD_TOKENS: dict[str, Callable[[Deployment, str], str | None]] = {
    "none": lambda *_: None,
    "garbage": lambda *_: "garbage",
    "empty": lambda *_: "..",
    "expired": lambda deployment, owner_id: deployment.token(owner_id, WRITE, expires_seconds=-60),
    "other audience": lambda deployment, owner_id: deployment.token(
        owner_id, WRITE, audience="another-app"
    ),
    "other issuer": of_another_issuer,
    "bad signature": forged,
    "altered claims": altered,
    "unsigned": unsigned,
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_without_a_valid_token_nothing_is_done(
    deployment: Deployment, writer: str, owner_id: str, kind: str
) -> None:
    """Whatever is wrong with the token: 401 on every route, and nothing is written."""
    token = BAD_TOKENS[kind](deployment, owner_id)
    body = entry(owner_id, "SIGNUP_CREDIT")
    for method, path, sent in (
        ("POST", "/ledger/entry", body),
        ("GET", f"/ledger/{owner_id}/balance", None),
        ("GET", f"/ledger/{owner_id}/entries", None),
        ("GET", f"/ledger/{owner_id}/verify", None),
        ("GET", f"/ledger/{owner_id}/receipt", None),
        ("GET", "/ledger/operations", None),
        ("PUT", "/content/c", {"owner_id": owner_id}),
        ("GET", "/docs", None),
        ("GET", "/openapi.json", None),
        ("GET", "/nowhere", None),
    ):
        assert deployment(method, path, token, sent).status_code == 401, path
    assert deployment("GET", f"/ledger/{owner_id}/balance", writer).json()["entry_count"] == 0


def test_a_token_opens_what_it_is_for_and_nothing_else(
    deployment: Deployment, writer: str, owner_id: str
) -> None:
    """An owner reads and spends its own; it neither grants to itself nor touches another's; a scope is one right."""
    owner, reader = deployment.token(owner_id), deployment.token("support", READ)
    assert (
        deployment("POST", "/ledger/entry", writer, entry(owner_id, "CREDIT_ADD")).status_code
        == 200
    )
    for path in ("balance", "entries", "verify", "receipt"):
        assert deployment("GET", f"/ledger/{owner_id}/{path}", owner).status_code == 200
        assert deployment("GET", f"/ledger/{owner_id}/{path}", reader).status_code == 200
        refused = deployment("GET", f"/ledger/{owner_id}-other/{path}", owner)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert refused.headers["content-type"] == "application/problem+json"
    assert (
        deployment(
            "POST", "/ledger/entry", owner, entry(owner_id, "CREDIT_SPEND", "spend")
        ).status_code
        == 200
    )
    for token, body in (
        (owner, entry(owner_id, "CREDIT_ADD", "mine", amount=1000)),
        (owner, entry(owner_id, "DAILY_REWARD", "mine")),
        (owner, entry(f"{owner_id}-other", "CREDIT_SPEND", "theirs")),
        (reader, entry(owner_id, "CREDIT_SPEND", "read-only")),
    ):
        assert deployment("POST", "/ledger/entry", token, body).status_code == 403
    assert deployment("GET", f"/ledger/{owner_id}/balance", owner).json()["balance"] == 9


def await_index(deployment: Deployment, token: str, owner_id: str, *, entries: int) -> None:
    """Wait until the index, which on AWS follows within moments, has all entries."""
    deadline = time.monotonic() + SECONDS_MAX
    while len(deployment("GET", f"/ledger/{owner_id}/entries", token).json()["entries"]) < entries:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_ledger_does_its_job(deployment: Deployment, writer: str, owner_id: str) -> None:
    """Entry, replay, refusal, top-up, history, balance at an instant, an audit."""
    first = deployment(
        "POST", "/ledger/entry", writer, entry(owner_id, "SIGNUP_CREDIT", metadata={"via": "e2e"})
    )
    assert (first.status_code, first.json()["balance_after"]) == (200, 3)
    again = deployment(
        "POST", "/ledger/entry", writer, entry(owner_id, "SIGNUP_CREDIT", metadata={"via": "e2e"})
    )
    assert (again.status_code, again.json()["replay"], again.json()["entry"]) == (
        409,
        True,
        first.json(),
    )
    key = {"Idempotency_Key": "topup"}
    added = deployment("POST", "/ledger/entry", writer, entry(owner_id, "CREDIT_ADD", None), **key)
    replayed = deployment(
        "POST", "/ledger/entry", writer, entry(owner_id, "CREDIT_ADD", None), **key
    )
    assert (added.status_code, replayed.status_code, replayed.json()) == (200, 200, added.json())
    assert replayed.headers["idempotency-replayed"] == "true"
    spend = entry(owner_id, "CREDIT_SPEND", "spend", amount=14)
    refused = deployment("POST", "/ledger/entry", writer, spend)
    assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_balance")
    assert (refused.json()["balance"], refused.json()["required"]) == (13, 14)
    assert (
        deployment(
            "POST", "/ledger/entry", writer, entry(owner_id, "DAILY_REWARD", "day")
        ).status_code
        == 200
    )
    assert deployment("POST", "/ledger/entry", writer, spend).json()["balance_after"] == 0
    bad = deployment(
        "POST", "/ledger/entry", writer, entry(owner_id, "CREDIT_SPEND", "bad", amount=1.5)
    )
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid")
    await_index(deployment, writer, owner_id, entries=4)
    page = deployment("GET", f"/ledger/{owner_id}/entries?limit=3", writer).json()
    rest = deployment(
        "GET", f"/ledger/{owner_id}/entries?limit=3&cursor={page['next_cursor']}", writer
    ).json()
    assert [one["id"] for one in page["entries"] + rest["entries"]] == [4, 3, 2, 1]
    at = first.json()["created_at"]
    assert deployment("GET", f"/ledger/{owner_id}/balance?at={at}", writer).json()["balance"] == 3
    report = deployment("GET", f"/ledger/{owner_id}/verify", writer).json()
    assert (report["valid"], report["entries_checked"], report["head"]["balance"]) == (True, 4, 0)


def test_receipt_is_signed_by_the_stack_s_key(
    stack: Stack, deployment: Deployment, writer: str, owner_id: str
) -> None:
    """An owner's receipt is checked with the public half of the key, and the ledger bears it out; no log has it."""
    entry_hash = deployment(
        "POST", "/ledger/entry", writer, entry(owner_id, "SIGNUP_CREDIT")
    ).json()["hash"]
    answer = deployment("GET", f"/ledger/{owner_id}/receipt", deployment.token(owner_id))
    arn = stack.outputs["ReceiptKeyArn"]
    public = jwk(stack.client("kms").get_public_key(KeyId=arn)["PublicKey"], arn.rpartition("/")[2])
    receipt = read_receipt(answer.text, [public])
    assert (receipt.sub, receipt.balance, receipt.entry_count, receipt.head_hash) == (
        owner_id,
        3,
        1,
        entry_hash,
    )
    group = stack.outputs["ApiFunctionLogGroupName"]
    log = "".join(
        event["message"]
        for event in stack.client("logs").filter_log_events(logGroupName=group)["events"]
    )
    assert not [part for part in answer.json()["receipt"].split(".") if part in log]


def test_nobody_but_the_function_signs(stack: Stack) -> None:
    """The key's policy says so: neither an administrator, nor a user with the very policies of a role, may sign."""
    key: dict[str, Any] = {"KeyId": stack.outputs["ReceiptKeyArn"]}
    everything = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}],
    }
    admin = user_client(stack, [everything], "kms")
    assert admin.get_public_key(**key)["KeySpec"] == "ECC_NIST_P256"
    roles = [
        client_of_role(stack, role, "kms")
        for role in ("ApiFunctionRole", "DailyRewardFunctionRole")
    ]
    for client in (admin, *roles):
        assert is_denied(
            client, "sign", {**key, "Message": b"m", "SigningAlgorithm": "ECDSA_SHA_256"}
        )


def test_nobody_but_the_function_puts_segments_on_the_queue(stack: Stack) -> None:
    """The queue's policy denies it to an administrator; the function's role alone has the right, and is not denied."""
    everything = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}],
    }
    message = {"QueueUrl": stack.outputs["RewardsQueueUrl"], "MessageBody": "{}"}
    admin = user_client(stack, [everything], "sqs")
    assert is_denied(admin, "send_message", message)
    assert admin.get_queue_attributes(QueueUrl=message["QueueUrl"], AttributeNames=["Policy"])[
        "Attributes"
    ]["Policy"]


def test_web_pages_of_named_origins_may_ask(
    stack: Stack, deployment: Deployment, owner_id: str
) -> None:
    """A preflight needs no token and names what may be sent; an answer may be read by this page and by no other."""
    path = f"/ledger/{owner_id}/balance"
    asked = {
        "Access_Control_Request_Method": "GET",
        "Access_Control_Request_Headers": "authorization",
    }
    told = deployment("OPTIONS", path, Origin=ORIGIN, **asked)
    assert told.is_success
    assert told.headers["access-control-allow-origin"] == ORIGIN
    assert {"authorization", "content-type", "idempotency-key"} <= set(
        told.headers["access-control-allow-headers"].split(",")
    )
    answer = deployment("GET", path, deployment.token(owner_id), Origin=ORIGIN)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "idempotency-replayed" in answer.headers["access-control-expose-headers"]
    for elsewhere in ("https://evil.example", "null"):
        answer = deployment("GET", path, deployment.token(owner_id), Origin=elsewhere)
        assert "access-control-allow-origin" not in answer.headers


def test_racing_spends_take_what_there_is_and_no_more(
    deployment: Deployment, writer: str, owner_id: str
) -> None:
    """Through API Gateway and as many functions as it starts: each spend once, never below zero."""
    deployment("POST", "/ledger/entry", writer, entry(owner_id, "CREDIT_ADD", "start"))

    deadline = time.monotonic() + 4 * SECONDS_MAX

    def spend(number: int) -> int:
        status = 503
        while status == 503 and time.monotonic() < deadline:
            sent = entry(owner_id, "CREDIT_SPEND", f"spend-{number}")
            status = deployment("POST", "/ledger/entry", writer, sent).status_code
        return status

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(spend, range(16)))
    assert answers == [200] * 10 + [402] * 6
    report = deployment("GET", f"/ledger/{owner_id}/verify", writer).json()
    assert (report["valid"], report["entries_checked"], report["head"]["balance"]) == (True, 11, 0)


def test_a_request_is_found_in_the_log_by_its_id(
    stack: Stack, deployment: Deployment, writer: str, owner_id: str
) -> None:
    """The function's own log group has the line of a request, under the id that its answer gave; and no secret."""
    sent = entry(owner_id, "CREDIT_SPEND", "secret-nonce", metadata={"note": "secret-note"})
    request_id = deployment("POST", "/ledger/entry", writer, sent).json()["request_id"]
    logs, deadline = stack.client("logs"), time.monotonic() + SECONDS_MAX
    while True:
        events = logs.filter_log_events(logGroupName=stack.outputs["ApiFunctionLogGroupName"])[
            "events"
        ]
        found = [event["message"] for event in events if request_id in event["message"]]
        if found:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    line = json.loads(found[0])
    assert (line["code"], line["service"], line["owner"]) == (
        "insufficient_balance",
        NAME,
        owner_hash(owner_id),
    )
    assert line["caller"] == owner_hash("shop")
    everything = "".join(event["message"] for event in events)
    assert not [
        secret
        for secret in ("secret-nonce", "secret-note", writer, owner_id)
        if secret in everything
    ]


def test_function_is_a_published_version_with_the_settings_of_the_template(stack: Stack) -> None:
    """The API calls the alias, which points to a version that starts from a snapshot."""
    functions = stack.client("lambda")
    (name,) = (
        one["FunctionName"]
        for one in functions.list_functions()["Functions"]
        if "ApiF" in one["FunctionName"]
    )
    configuration = functions.get_function_configuration(FunctionName=name, Qualifier="live")
    assert configuration["Version"].isdecimal()
    assert configuration["SnapStart"]["ApplyOn"] == "PublishedVersions"
    assert configuration["TracingConfig"]["Mode"] == "Active"
    assert configuration["LoggingConfig"]["LogFormat"] == "JSON"
    assert configuration["Environment"]["Variables"]["LEDGER_AUTH"] == "jwt"


def test_schedule_s_event_rewards_every_owner_once(
    stack: Stack, deployment: Deployment, writer: str, owner_id: str
) -> None:
    """The schedule's own input starts the function, whose queue starts it again; a second time changes nothing."""
    owners = [f"{owner_id}-{number}" for number in range(12)]
    for one in owners:
        assert (
            deployment("POST", "/ledger/entry", writer, entry(one, "SIGNUP_CREDIT")).status_code
            == 200
        )
    nonce = f"ledger:daily-reward:{(today := datetime.now(UTC).date())}"
    (schedule,) = stack.client("scheduler").list_schedules()["Schedules"]
    found = stack.client("scheduler").get_schedule(Name=schedule["Name"])
    assert (found["ScheduleExpressionTimezone"], found["State"]) == ("UTC", "ENABLED")
    assert found["Target"]["Arn"].endswith(":live")
    event = found["Target"]["Input"].replace("<aws.scheduler.scheduled-time>", f"{today}T04:00:00Z")
    function, queue = found["Target"]["Arn"], stack.outputs["RewardsQueueUrl"]
    for _ in range(2):
        stack.client("lambda").invoke(
            FunctionName=function, InvocationType="Event", Payload=event.encode()
        )
        await_rewards(deployment, writer, owners)
        await_empty(stack, queue)
    for one in owners:
        entries = deployment("GET", f"/ledger/{one}/entries", writer).json()["entries"]
        assert [item["nonce"] for item in entries] == [nonce, "n"]
        assert deployment("GET", f"/ledger/{one}/verify", writer).json()["valid"] is True
    assert await_empty(stack, stack.outputs["RewardsDeadLetterQueueUrl"])
    runs = stack.client("dynamodb").scan(TableName=stack.outputs["RunsTableName"])["Items"]
    assert {run["nonce"]["S"] for run in runs} == {nonce}


def await_rewards(deployment: Deployment, writer: str, owners: list[str]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while any(
        deployment("GET", f"/ledger/{one}/balance", writer).json()["balance"] != 4 for one in owners
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def await_empty(stack: Stack, queue_url: str) -> bool:
    """Wait until a queue has no message, waiting or taken."""
    deadline = time.monotonic() + SECONDS_MAX
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    while True:
        told = stack.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)[
            "Attributes"
        ]
        if all(told[name] == "0" for name in names):
            return True
        assert time.monotonic() < deadline, told
        time.sleep(0.5)


@pytest.fixture
def role_client(stack: Stack) -> Any:
    """DynamoDB as the API function's role may use it."""
    return client_of_role(stack, "ApiFunctionRole")


def client_of_role(stack: Stack, logical_id: str, service: str = "dynamodb") -> Any:
    """DynamoDB, or another service, for a user with the very policies of a role."""
    iam = stack.client("iam")
    (role,) = (
        one["RoleName"] for one in iam.list_roles()["Roles"] if logical_id in one["RoleName"]
    )
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    policies = [
        iam.get_role_policy(RoleName=role, PolicyName=one)["PolicyDocument"] for one in names
    ]
    return user_client(stack, policies, service)


def user_client(stack: Stack, policies: list[Any], service: str = "dynamodb") -> Any:
    """DynamoDB, or another service, for a new user who has these policies."""
    iam, user = stack.client("iam"), f"user-{uuid4()}"
    iam.create_user(UserName=user)
    for number, policy in enumerate(policies):
        text = policy if isinstance(policy, str) else json.dumps(policy)
        iam.put_user_policy(UserName=user, PolicyName=f"policy-{number}", PolicyDocument=text)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    return stack.client(service, key["AccessKeyId"], key["SecretAccessKey"])


def is_denied(client: Any, call: str, arguments: dict[str, Any]) -> bool:
    with pytest.raises(ClientError) as refusal:
        getattr(client, call)(**arguments)
    return refusal.value.response["Error"]["Code"] in {"AccessDenied", "AccessDeniedException"}


def test_policy_of_the_entries_table_binds_an_administrator_too(
    stack: Stack, owner_id: str
) -> None:
    """An administrator puts entries in transactions only, and neither updates nor deletes one.

    The policy is tried as a user's own: the emulator enforces no table's. On AWS the same statements bind everybody.
    """
    entries = stack.outputs["EntriesTableName"]
    properties = table_properties("EntriesTable")
    denials = [
        {name: part for name, part in statement.items() if name != "Principal"}
        for statement in properties["ResourcePolicy"]["PolicyDocument"]["Statement"]
    ]
    everything = {"Sid": "All", "Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"}
    admin = user_client(stack, [{"Version": "2012-10-17", "Statement": [everything, *denials]}])
    made = Account(owner_id=owner_id).next_entry(operation(owner_id=owner_id), amount=3, now=NOON)
    item = entry_item(made)
    admin.transact_write_items(TransactItems=[{"Put": {"TableName": entries, "Item": item}}])
    key = {"entry_key": item["entry_key"]}
    assert admin.get_item(TableName=entries, Key=key)["Item"] == item
    assert is_denied(admin, "put_item", {"TableName": entries, "Item": item})
    assert is_denied(admin, "delete_item", {"TableName": entries, "Key": key})
    changed = {"TableName": entries, "Key": key, "UpdateExpression": "REMOVE amount"}
    assert is_denied(admin, "update_item", changed)
    assert is_denied(admin, "transact_write_items", {"TransactItems": [{"Update": changed}]})
    assert is_denied(
        admin,
        "transact_write_items",
        {"TransactItems": [{"Delete": {"TableName": entries, "Key": key}}]},
    )
    assert is_denied(
        admin, "batch_write_item", {"RequestItems": {entries: [{"DeleteRequest": {"Key": key}}]}}
    )


def test_role_appends_in_transactions_and_changes_or_drops_no_entry(
    stack: Stack, role_client: Any, owner_id: str
) -> None:
    """What the role's policies say is enforced: the ledger's transaction passes, what is not allowed is denied."""
    entries, balances = stack.outputs["EntriesTableName"], stack.outputs["AccountsTableName"]
    head = Account(owner_id=owner_id)
    made = head.next_entry(operation(owner_id=owner_id), amount=3, now=NOON)
    item, key = entry_item(made), {"entry_key": {"S": f"{owner_id}#{made.nonce}"}}
    owner = key_of_account(owner_id)
    pair = transact_items(change_of(head, made), entries_table=entries, accounts_table=balances)
    role_client.transact_write_items(TransactItems=pair)
    role_client.transact_get_items(TransactItems=[{"Get": {"TableName": entries, "Key": key}}])
    role_client.get_item(TableName=balances, Key=owner)
    denied: list[tuple[str, dict[str, Any]]] = [
        ("put_item", {"TableName": entries, "Item": item}),
        ("update_item", {"TableName": entries, "Key": key, "UpdateExpression": "SET amount = :a",
                         "ExpressionAttributeValues": {":a": {"N": "9"}}}),
        ("delete_item", {"TableName": entries, "Key": key}),
        ("batch_write_item", {"RequestItems": {entries: [{"DeleteRequest": {"Key": key}}]}}),
        ("transact_write_items", {"TransactItems": [{"Delete": {"TableName": entries, "Key": key}}]}),
        ("transact_write_items", {"TransactItems": [{"Update": {"TableName": entries, "Key": key,
                                  "UpdateExpression": "REMOVE amount"}}]}),
        ("get_item", {"TableName": entries, "Key": key}),
        ("scan", {"TableName": entries}),
        ("scan", {"TableName": balances}),
        ("put_item", {"TableName": balances, "Item": owner}),
        ("update_item", {"TableName": balances, "Key": owner, "UpdateExpression": MOVE,
                         "ExpressionAttributeValues": {":balance": {"N": "9"}, ":entry_count": {"N": "9"},
                                                       ":head_hash": {"S": "h"}, ":created_at": {"S": "t"},
                                                       ":updated_at": {"S": "t"}, ":active_at": {"S": "t"}}}),
        ("delete_item", {"TableName": balances, "Key": owner}),
        ("delete_table", {"TableName": entries}),
    ]  # fmt: skip
    for call, arguments in denied:
        assert is_denied(role_client, call, arguments), call


def test_role_of_the_scheduled_function_changes_no_entry_either(
    stack: Stack, owner_id: str
) -> None:
    """It may read all balances, which the API may not, and append; beyond that no more than the API."""
    entries, balances = stack.outputs["EntriesTableName"], stack.outputs["AccountsTableName"]
    client = client_of_role(stack, "DailyRewardFunctionRole")
    head = Account(owner_id=owner_id)
    made = head.next_entry(operation(owner_id=owner_id), amount=3, now=NOON)
    client.transact_write_items(
        TransactItems=transact_items(
            change_of(head, made), entries_table=entries, accounts_table=balances
        )
    )
    client.scan(TableName=balances, Limit=1)
    key = {"entry_key": {"S": f"{owner_id}#{made.nonce}"}}
    owner = key_of_account(owner_id)
    denied: list[tuple[str, dict[str, Any]]] = [
        ("put_item", {"TableName": entries, "Item": entry_item(made)}),
        ("delete_item", {"TableName": entries, "Key": key}),
        (
            "transact_write_items",
            {"TransactItems": [{"Delete": {"TableName": entries, "Key": key}}]},
        ),
        ("scan", {"TableName": entries}),
        ("get_item", {"TableName": entries, "Key": key}),
        (
            "update_item",
            {"TableName": balances, "Key": owner, "UpdateExpression": "REMOVE balance"},
        ),
        ("delete_item", {"TableName": balances, "Key": owner}),
        (
            "delete_item",
            {"TableName": stack.outputs["RunsTableName"], "Key": {"nonce": {"S": "n"}}},
        ),
    ]
    for call, arguments in denied:
        assert is_denied(client, call, arguments), call
