"""The deployed stack over HTTP: tokens, permissions and the ledger's main job.

The tests deploy the template on this machine. With LEDGER_API_URL they test a real deployment
instead, with tokens that LEDGER_TOKEN_COMMAND prints; the command gets the options `--owner`,
`--scope`, `--audience` and `--expires-seconds`.
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
READ = "ledger/read"
WRITE = "ledger/write"
MOVE_VALUES = {
    ":balance": {"N": "9"},
    ":entry_count": {"N": "9"},
    ":head_hash": {"S": "h"},
    ":created_at": {"S": "t"},
    ":updated_at": {"S": "t"},
    ":active_at": {"S": "t"},
}
"""Values for the expression that moves an account."""
API_URL = os.environ.get("LEDGER_API_URL")
TOKEN_COMMAND = os.environ.get("LEDGER_TOKEN_COMMAND", "")


@dataclass
class Deployment:
    """A stack under test: its URL and its tokens. `stack` is None for a real deployment."""

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
        pytest.skip("NOT TESTED as a deployed stack: `make e2e` builds the stack and sets up AWS")
    issuer = Issuer(free_port(), Path(tmp_path_factory.mktemp("issuer")))
    with deployed(free_port(), issuer) as stack:
        yield Deployment(stack.url, stack.issuer.token, stack)


def token_by_command(owner_id: str, scope: str = "", **options: Any) -> str:
    """A token of the deployment's own issuer; skips the test if the command cannot make it."""
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


def entry(owner_id: str, name: str, nonce: str | None = "n", **fields: Any) -> dict[str, Any]:
    nonces = {} if nonce is None else {"nonce": nonce}
    return {"owner_id": owner_id, "operation": name, **nonces, **fields}


def test_health_is_open(deployment: Deployment) -> None:
    """`/health` needs no token."""
    answer = deployment("GET", "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_tokens_of_every_audience_are_taken(
    stack: Stack, deployment: Deployment, owner_id: str
) -> None:
    """Each app client has its own audience, and JwtAudience names them all."""
    token = stack.issuer.token(owner_id, audience=SECOND_AUDIENCE)
    assert deployment("GET", f"/ledger/{owner_id}/balance", token).status_code == 200


def forged(deployment: Deployment, owner_id: str) -> str:
    """A token in which only the signing key is wrong."""
    token = deployment.token(owner_id, f"{READ} {WRITE}")
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, new_key(), "RS256", headers=jwt.get_unverified_header(token))


def altered(deployment: Deployment, owner_id: str) -> str:
    """A signed token with the claims of another token."""
    header, _, signature = deployment.token("eve").split(".")
    _, claims, _ = deployment.token(owner_id, f"{READ} {WRITE}").split(".")
    return f"{header}.{claims}.{signature}"


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
    """With a wrong token each route answers 401, and the ledger writes no entry."""
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
    """An owner reads and spends its own credits, but grants none; a scope gives one right."""
    owner = deployment.token(owner_id)
    reader = deployment.token("support", READ)
    added = deployment("POST", "/ledger/entry", writer, entry(owner_id, "CREDIT_ADD"))
    assert added.status_code == 200
    for path in ("balance", "entries", "verify", "receipt"):
        assert deployment("GET", f"/ledger/{owner_id}/{path}", owner).status_code == 200
        assert deployment("GET", f"/ledger/{owner_id}/{path}", reader).status_code == 200
        refused = deployment("GET", f"/ledger/{owner_id}-other/{path}", owner)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert refused.headers["content-type"] == "application/problem+json"
    spend = entry(owner_id, "CREDIT_SPEND", "spend")
    assert deployment("POST", "/ledger/entry", owner, spend).status_code == 200
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

    def post(body: dict[str, Any], **headers: str) -> Any:
        return deployment("POST", "/ledger/entry", writer, body, **headers)

    signup = entry(owner_id, "SIGNUP_CREDIT", metadata={"via": "e2e"})
    first = post(signup)
    assert (first.status_code, first.json()["balance_after"]) == (200, 3)
    again = post(signup)
    assert (again.status_code, again.json()["replay"]) == (409, True)
    assert again.json()["entry"] == first.json()
    key = {"Idempotency_Key": "topup"}
    added = post(entry(owner_id, "CREDIT_ADD", None), **key)
    replayed = post(entry(owner_id, "CREDIT_ADD", None), **key)
    assert (added.status_code, replayed.status_code, replayed.json()) == (200, 200, added.json())
    assert replayed.headers["idempotency-replayed"] == "true"
    spend = entry(owner_id, "CREDIT_SPEND", "spend", amount=14)
    refused = post(spend)
    assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_balance")
    assert (refused.json()["balance"], refused.json()["required"]) == (13, 14)
    assert post(entry(owner_id, "DAILY_REWARD", "day")).status_code == 200
    assert post(spend).json()["balance_after"] == 0
    bad = post(entry(owner_id, "CREDIT_SPEND", "bad", amount=1.5))
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid")
    await_index(deployment, writer, owner_id, entries=4)
    history = f"/ledger/{owner_id}/entries?limit=3"
    page = deployment("GET", history, writer).json()
    rest = deployment("GET", f"{history}&cursor={page['next_cursor']}", writer).json()
    assert [entry["id"] for entry in page["entries"] + rest["entries"]] == [4, 3, 2, 1]
    at = first.json()["created_at"]
    assert deployment("GET", f"/ledger/{owner_id}/balance?at={at}", writer).json()["balance"] == 3
    report = deployment("GET", f"/ledger/{owner_id}/verify", writer).json()
    assert (report["valid"], report["entries_checked"], report["head"]["balance"]) == (True, 4, 0)


def test_receipt_is_signed_by_the_stack_s_key(
    stack: Stack, deployment: Deployment, writer: str, owner_id: str
) -> None:
    """The public key verifies an owner's receipt, which fits the ledger and is in no log."""
    body = entry(owner_id, "SIGNUP_CREDIT")
    entry_hash = deployment("POST", "/ledger/entry", writer, body).json()["hash"]
    answer = deployment("GET", f"/ledger/{owner_id}/receipt", deployment.token(owner_id))
    arn = stack.outputs["ReceiptKeyArn"]
    public = jwk(stack.client("kms").get_public_key(KeyId=arn)["PublicKey"], arn.rpartition("/")[2])
    receipt = read_receipt(answer.text, [public])
    assert (receipt.sub, receipt.head_hash) == (owner_id, entry_hash)
    assert (receipt.balance, receipt.entry_count) == (3, 1)
    group = stack.outputs["ApiFunctionLogGroupName"]
    events = stack.client("logs").filter_log_events(logGroupName=group)["events"]
    log = "".join(event["message"] for event in events)
    assert not [part for part in answer.json()["receipt"].split(".") if part in log]


def test_only_the_function_signs(stack: Stack) -> None:
    """The key's policy lets neither an administrator nor a user with a role's policies sign."""
    key: dict[str, Any] = {"KeyId": stack.outputs["ReceiptKeyArn"]}
    admin = user_client(stack, [allow("kms:*")], "kms")
    assert admin.get_public_key(**key)["KeySpec"] == "ECC_NIST_P256"
    roles = ("ApiFunctionRole", "DailyRewardFunctionRole")
    role_clients = [client_of_role(stack, role, "kms") for role in roles]
    message = {**key, "Message": b"m", "SigningAlgorithm": "ECDSA_SHA_256"}
    for client in (admin, *role_clients):
        assert is_denied(client, "sign", message)


def test_only_the_function_puts_segments_on_the_queue(stack: Stack) -> None:
    """The queue's policy lets the function's role send, and denies it to an administrator."""
    queue_url = stack.outputs["RewardsQueueUrl"]
    admin = user_client(stack, [allow("sqs:*")], "sqs")
    assert is_denied(admin, "send_message", {"QueueUrl": queue_url, "MessageBody": "{}"})
    answer = admin.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["Policy"])
    assert answer["Attributes"]["Policy"]


def test_web_pages_of_named_origins_may_ask(
    stack: Stack, deployment: Deployment, owner_id: str
) -> None:
    """A preflight needs no token and names the headers; only pages of the origin may read."""
    path = f"/ledger/{owner_id}/balance"
    requested = {
        "Access_Control_Request_Method": "GET",
        "Access_Control_Request_Headers": "authorization",
    }
    preflight = deployment("OPTIONS", path, Origin=ORIGIN, **requested)
    assert preflight.is_success
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    allowed = preflight.headers["access-control-allow-headers"].split(",")
    assert {"authorization", "content-type", "idempotency-key"} <= set(allowed)
    answer = deployment("GET", path, deployment.token(owner_id), Origin=ORIGIN)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "idempotency-replayed" in answer.headers["access-control-expose-headers"]
    for elsewhere in ("https://evil.example", "null"):
        answer = deployment("GET", path, deployment.token(owner_id), Origin=elsewhere)
        assert "access-control-allow-origin" not in answer.headers


def test_racing_spends_do_not_overdraw(deployment: Deployment, writer: str, owner_id: str) -> None:
    """Through API Gateway and many functions each spend counts once, and never below zero."""
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
    """The function's log group has the line of a request under its id, without a secret."""
    sent = entry(owner_id, "CREDIT_SPEND", "secret-nonce", metadata={"note": "secret-note"})
    request_id = deployment("POST", "/ledger/entry", writer, sent).json()["request_id"]
    logs = stack.client("logs")
    group = stack.outputs["ApiFunctionLogGroupName"]
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        events = logs.filter_log_events(logGroupName=group)["events"]
        messages = [event["message"] for event in events]
        found = [message for message in messages if request_id in message]
        if found:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    line = json.loads(found[0])
    assert (line["code"], line["service"]) == ("insufficient_balance", NAME)
    assert line["owner"] == owner_hash(owner_id)
    assert line["caller"] == owner_hash("shop")
    log = "".join(messages)
    secrets = ("secret-nonce", "secret-note", writer, owner_id)
    assert not [secret for secret in secrets if secret in log]


def test_function_is_a_published_version_with_the_settings_of_the_template(stack: Stack) -> None:
    """The API calls the alias, which points to a version that starts from a snapshot."""
    functions = stack.client("lambda")
    names = [function["FunctionName"] for function in functions.list_functions()["Functions"]]
    (name,) = [name for name in names if "ApiF" in name]
    configuration = functions.get_function_configuration(FunctionName=name, Qualifier="live")
    assert configuration["Version"].isdecimal()
    assert configuration["SnapStart"]["ApplyOn"] == "PublishedVersions"
    assert configuration["TracingConfig"]["Mode"] == "Active"
    assert configuration["LoggingConfig"]["LogFormat"] == "JSON"
    assert configuration["Environment"]["Variables"]["LEDGER_AUTH"] == "jwt"


def test_schedule_s_event_rewards_every_owner_once(
    stack: Stack, deployment: Deployment, writer: str, owner_id: str
) -> None:
    """The schedule's input starts the function, and its queue the segments; twice grants once."""
    owner_ids = [f"{owner_id}-{number}" for number in range(12)]
    for rewarded_id in owner_ids:
        signup = deployment("POST", "/ledger/entry", writer, entry(rewarded_id, "SIGNUP_CREDIT"))
        assert signup.status_code == 200
    today = datetime.now(UTC).date()
    nonce = f"ledger:daily-reward:{today}"
    scheduler = stack.client("scheduler")
    (listed,) = scheduler.list_schedules()["Schedules"]
    schedule = scheduler.get_schedule(Name=listed["Name"])
    assert (schedule["ScheduleExpressionTimezone"], schedule["State"]) == ("UTC", "ENABLED")
    target = schedule["Target"]
    assert target["Arn"].endswith(":live")
    event = target["Input"].replace("<aws.scheduler.scheduled-time>", f"{today}T04:00:00Z")
    for _ in range(2):
        stack.client("lambda").invoke(
            FunctionName=target["Arn"], InvocationType="Event", Payload=event.encode()
        )
        await_rewards(deployment, writer, owner_ids)
        await_empty(stack, stack.outputs["RewardsQueueUrl"])
    for rewarded_id in owner_ids:
        entries = deployment("GET", f"/ledger/{rewarded_id}/entries", writer).json()["entries"]
        assert [entry["nonce"] for entry in entries] == [nonce, "n"]
        assert deployment("GET", f"/ledger/{rewarded_id}/verify", writer).json()["valid"] is True
    assert await_empty(stack, stack.outputs["RewardsDeadLetterQueueUrl"])
    runs = stack.client("dynamodb").scan(TableName=stack.outputs["RunsTableName"])["Items"]
    assert {run["nonce"]["S"] for run in runs} == {nonce}


def await_rewards(deployment: Deployment, writer: str, owner_ids: list[str]) -> None:
    """Wait until each owner has 4 credits."""

    def balance(owner_id: str) -> int:
        answer = deployment("GET", f"/ledger/{owner_id}/balance", writer)
        return int(answer.json()["balance"])

    deadline = time.monotonic() + SECONDS_MAX
    while any(balance(owner_id) != 4 for owner_id in owner_ids):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def await_empty(stack: Stack, queue_url: str) -> bool:
    """Wait until a queue has no message, also none that a worker works on."""
    deadline = time.monotonic() + SECONDS_MAX
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    while True:
        answer = stack.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
        counts = answer["Attributes"]
        if all(counts[name] == "0" for name in names):
            return True
        assert time.monotonic() < deadline, counts
        time.sleep(0.5)


@pytest.fixture
def role_client(stack: Stack) -> Any:
    """A client of DynamoDB with the policies of the API function's role."""
    return client_of_role(stack, "ApiFunctionRole")


def client_of_role(stack: Stack, logical_id: str, service: str = "dynamodb") -> Any:
    """A client of a service for a user with the policies of a role."""
    iam = stack.client("iam")
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    (role,) = [role for role in roles if logical_id in role]
    policies = [
        iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]
    return user_client(stack, policies, service)


def allow(action: str) -> dict[str, Any]:
    """A policy that allows an action on all resources."""
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def user_client(stack: Stack, policies: list[Any], service: str = "dynamodb") -> Any:
    """A client of a service for a new user with some policies."""
    iam = stack.client("iam")
    user = f"user-{uuid4()}"
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
    """An administrator puts entries only in transactions, and neither updates nor deletes them.

    The emulator enforces no policy of a table, so the test gives its statements to a user. On AWS
    they bind every user.
    """
    entries = stack.outputs["EntriesTableName"]
    properties = table_properties("EntriesTable")
    denials = [
        {name: part for name, part in statement.items() if name != "Principal"}
        for statement in properties["ResourcePolicy"]["PolicyDocument"]["Statement"]
    ]
    policy = allow("dynamodb:*")
    policy["Statement"] += denials
    admin = user_client(stack, [policy])
    first = Account(owner_id=owner_id).next_entry(operation(owner_id=owner_id), amount=3, now=NOON)
    item = entry_item(first)
    admin.transact_write_items(TransactItems=[{"Put": {"TableName": entries, "Item": item}}])
    key = {"entry_key": item["entry_key"]}
    assert admin.get_item(TableName=entries, Key=key)["Item"] == item
    assert is_denied(admin, "put_item", {"TableName": entries, "Item": item})
    assert is_denied(admin, "delete_item", {"TableName": entries, "Key": key})
    update = {"TableName": entries, "Key": key, "UpdateExpression": "REMOVE amount"}
    assert is_denied(admin, "update_item", update)
    assert is_denied(admin, "transact_write_items", {"TransactItems": [{"Update": update}]})
    deletion = {"TableName": entries, "Key": key}
    assert is_denied(admin, "transact_write_items", {"TransactItems": [{"Delete": deletion}]})
    deletions = {entries: [{"DeleteRequest": {"Key": key}}]}
    assert is_denied(admin, "batch_write_item", {"RequestItems": deletions})


def test_role_appends_in_transactions_and_changes_or_drops_no_entry(
    stack: Stack, role_client: Any, owner_id: str
) -> None:
    """The role's policies let the ledger's transaction pass, and deny all other changes."""
    entries = stack.outputs["EntriesTableName"]
    accounts = stack.outputs["AccountsTableName"]
    account = Account(owner_id=owner_id)
    entry = account.next_entry(operation(owner_id=owner_id), amount=3, now=NOON)
    change = change_of(account, entry)
    items = transact_items(change, entries_table=entries, accounts_table=accounts)
    stored_entry = {"TableName": entries, "Key": {"entry_key": entry_item(entry)["entry_key"]}}
    stored_account = {"TableName": accounts, "Key": key_of_account(owner_id)}
    role_client.transact_write_items(TransactItems=items)
    role_client.transact_get_items(TransactItems=[{"Get": stored_entry}])
    role_client.get_item(**stored_account)
    amount = {
        "UpdateExpression": "SET amount = :a",
        "ExpressionAttributeValues": {":a": {"N": "9"}},
    }
    no_amount = {"UpdateExpression": "REMOVE amount"}
    move = {"UpdateExpression": MOVE, "ExpressionAttributeValues": MOVE_VALUES}
    deletions = {entries: [{"DeleteRequest": {"Key": stored_entry["Key"]}}]}
    denied: list[tuple[str, dict[str, Any]]] = [
        ("put_item", {"TableName": entries, "Item": entry_item(entry)}),
        ("update_item", {**stored_entry, **amount}),
        ("delete_item", stored_entry),
        ("batch_write_item", {"RequestItems": deletions}),
        ("transact_write_items", {"TransactItems": [{"Delete": stored_entry}]}),
        ("transact_write_items", {"TransactItems": [{"Update": {**stored_entry, **no_amount}}]}),
        ("get_item", stored_entry),
        ("scan", {"TableName": entries}),
        ("scan", {"TableName": accounts}),
        ("put_item", {"TableName": accounts, "Item": key_of_account(owner_id)}),
        ("update_item", {**stored_account, **move}),
        ("delete_item", stored_account),
        ("delete_table", {"TableName": entries}),
    ]
    for call, arguments in denied:
        assert is_denied(role_client, call, arguments), call


def test_role_of_the_scheduled_function_changes_no_entry_either(
    stack: Stack, owner_id: str
) -> None:
    """The role may append, and read all accounts, which the API may not; it may do no more."""
    entries = stack.outputs["EntriesTableName"]
    accounts = stack.outputs["AccountsTableName"]
    client = client_of_role(stack, "DailyRewardFunctionRole")
    account = Account(owner_id=owner_id)
    entry = account.next_entry(operation(owner_id=owner_id), amount=3, now=NOON)
    change = change_of(account, entry)
    items = transact_items(change, entries_table=entries, accounts_table=accounts)
    client.transact_write_items(TransactItems=items)
    client.scan(TableName=accounts, Limit=1)
    stored_entry = {"TableName": entries, "Key": {"entry_key": entry_item(entry)["entry_key"]}}
    stored_account = {"TableName": accounts, "Key": key_of_account(owner_id)}
    stored_run = {"TableName": stack.outputs["RunsTableName"], "Key": {"nonce": {"S": "n"}}}
    denied: list[tuple[str, dict[str, Any]]] = [
        ("put_item", {"TableName": entries, "Item": entry_item(entry)}),
        ("delete_item", stored_entry),
        ("transact_write_items", {"TransactItems": [{"Delete": stored_entry}]}),
        ("scan", {"TableName": entries}),
        ("get_item", stored_entry),
        ("update_item", {**stored_account, "UpdateExpression": "REMOVE balance"}),
        ("delete_item", stored_account),
        ("delete_item", stored_run),
    ]
    for call, arguments in denied:
        assert is_denied(client, call, arguments), call
