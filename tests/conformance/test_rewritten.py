"""A kept receipt shows what a chain of hashes cannot show; in the store and offline."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from infra.issuer import kept_key
from ledger_core.audit import Receipt, audit_store, signed
from ledger_core.cli import main
from ledger_core.wiring import create_receipt_key, create_store
from tests.fakes.written_ledger import ENTRIES, Rows, put, written

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def clear(client: "DynamoDBClient", owner_id: str) -> None:
    """Delete an owner's ledger, as somebody can who may write to both tables."""
    table = os.environ["LEDGER_ENTRIES_TABLE"]
    account = {"S": owner_id}
    for item in client.scan(TableName=table)["Items"]:
        if item["account"] == account:
            client.delete_item(TableName=table, Key={"entry_key": item["entry_key"]})
    client.delete_item(TableName=os.environ["LEDGER_ACCOUNTS_TABLE"], Key={"account": account})


def rewritten_from(first: int, owner_id: str) -> tuple[dict[str, Any], Rows]:
    """The same entries before the first changed one, and then others, all with right hashes."""
    return written(owner_id, amounts=[n if n < first else 1000 * n for n in range(1, ENTRIES + 1)])


# What replaces the ledger, and how many of the first entries have receipts that still hold.
ATTACKS: dict[str, tuple[Callable[[str], tuple[dict[str, Any], Rows]], int]] = {
    "all of it rewritten": (partial(rewritten_from, 1), 0),
    "rewritten from the third entry on": (partial(rewritten_from, 3), 2),
    "the last entry rewritten": (partial(rewritten_from, ENTRIES), ENTRIES - 1),
    "cut after the second entry, with the head": (lambda owner_id: written(owner_id, entries=2), 2),
    "cut down to nothing, with the head": (lambda owner_id: written(owner_id, entries=0), 0),
    "set back to the second entry, and gone on with": (
        lambda owner_id: written(owner_id, amounts=[1, 2, 70, 70, 70, 70, 70]),
        2,
    ),
}


def receipt_of(owner_id: str, entries: int) -> Receipt:
    """As it was signed when the ledger had that many entries."""
    return Receipt(
        iss="ledger",
        sub=owner_id,
        iat=0,
        **{k: v for k, v in written(owner_id, entries)[0].items() if k != "owner_id"},
    )


def test_attacks_pass_an_audit_and_contradict_the_receipts(client: "DynamoDBClient") -> None:
    """A ledger that is rewritten, cut or set back is a valid chain; receipts show the change."""
    store = create_store(client)
    for number, (name, (attack, still_true)) in enumerate(ATTACKS.items()):
        owner_id = f"owner-{number}"
        receipts = [receipt_of(owner_id, entries) for entries in range(ENTRIES + 1)]
        put(client, *written(owner_id))
        audited = partial(
            audit_store, store, owner_id, read=lambda call: call(), sleep=lambda _: None
        )
        assert audited(receipts=[*receipts, receipt_of("somebody-else", 9)]).valid
        clear(client, owner_id)
        head, rows = attack(owner_id)
        put(client, head, rows)
        assert audited().valid, name
        report = audited(receipts=receipts)
        false = range(still_true + 1, ENTRIES + 1)
        assert [(one.kind, one.first_id) for one in report.findings] == [
            ("contradicts_receipt", n) for n in false
        ]
        there = {row["id"]: row["hash"] for row in rows}
        assert [one.model_dump() for one in report.discrepancies] == [
            {
                "entry_id": n,
                "field": "receipt",
                "expected": receipts[n].head_hash,
                "found": there.get(n),
            }
            for n in false
        ]
        assert not report.valid


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ada keeps: an export of her ledger, and receipts of the third and the last entry."""
    kept_key(tmp_path / "receipts.pem", lambda: ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setenv("LEDGER_RECEIPT_KEY", str(tmp_path / "receipts.pem"))
    key = create_receipt_key()
    assert key
    (tmp_path / "third").write_text(signed(receipt_of("ada", 3), key) + "\n")
    (tmp_path / "last").write_text(json.dumps({"receipt": signed(receipt_of("ada", ENTRIES), key)}))
    save(tmp_path / "export", *written())
    return tmp_path


def save(file: Path, head: dict[str, Any], rows: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in (head, *rows)))


def test_command_line_holds_receipts_against_a_ledger(
    kept: Path,
    client: "DynamoDBClient",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`ledger verify --receipt` works on the store, and offline on an export with the keys."""
    monkeypatch.setattr("ledger_core.wiring.create_client", lambda: client)
    put(client, *written())
    receipts = ["--receipt", str(kept / "third"), "--receipt", str(kept / "last")]
    of_export = ["verify", "--file", str(kept / "export"), *receipts]
    assert main(["receipt-key"]) == 0
    (kept / "keys").write_text(capsys.readouterr().out)
    assert main(["verify", "ada", *receipts]) == main(of_export) == 0
    monkeypatch.delenv("LEDGER_RECEIPT_KEY")
    assert main([*of_export, "--key", str(kept / "keys")]) == 0
    assert {json.loads(line)["valid"] for line in capsys.readouterr().out.splitlines()} == {True}
    clear(client, "ada")
    put(client, *rewritten_from(4, "ada"))
    save(kept / "export", *rewritten_from(4, "ada"))
    assert main(["verify", "ada"]) == 0
    assert main(["verify", "ada", *receipts, "--key", str(kept / "keys")]) == 1
    assert main([*of_export, "--key", str(kept / "keys")]) == 1
    plain, *told = map(json.loads, capsys.readouterr().out.splitlines())
    assert plain["valid"]
    assert [[(one["kind"], one["first_id"]) for one in report["findings"]] for report in told] == [
        [("contradicts_receipt", 5)]
    ] * 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--receipt", "export"], "export: is not signed by this key: "),
        (["--receipt", "third", "--receipt", "missing"], "No such file"),
        (
            ["--receipt", "third", "--key", "export"],
            "export: holds no public keys: neither a JWK set nor PEM",
        ),
        (["--receipt", "bob"], "bob: is of an account that is not among these; add its owner"),
        (["--receipt", "third", "--receipt", "no key"], "LEDGER_RECEIPT_KEY is not set"),
    ],
)
def test_command_line_refuses_what_is_no_receipt_of_the_ledger(
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    line: str,
) -> None:
    """One line says which file it is and what is wrong, and the exit code is 2."""
    monkeypatch.chdir(kept)
    key = create_receipt_key()
    assert key
    (kept / "bob").write_text(signed(receipt_of("bob", 1), key))
    if arguments[-1] == "no key":
        monkeypatch.delenv("LEDGER_RECEIPT_KEY")
    assert main(["verify", "--file", "export", *arguments]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert len(told.splitlines()) == 1
