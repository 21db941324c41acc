"""What a processor keeps between an owner's operations, and what it asks of the store."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.example_app.operations import ExampleAppOperations
from ledger_core import ContentionError, InsufficientBalanceError, OperationProcessor, UnavailableError
from ledger_core.errors import RequestState
from ledger_core.items import Mark
from ledger_core.processor import HEADS_MAX, TIMEOUT_SECONDS
from ledger_core.responses import Cancelled
from ledger_core.usage import measured
from tests.support import add, spend
from tests.test_processor import NEW, Bench, ScriptedStore, head, moved


def test_constants_are_what_operators_are_told() -> None:
    """Ten seconds, and four thousand owners."""
    assert (TIMEOUT_SECONDS, HEADS_MAX) == (10.0, 4096)


def test_as_many_owners_are_remembered_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was not seen for longest is forgotten, and read again."""
    monkeypatch.setattr("ledger_core.processor.HEADS_MAX", 2)
    bench = Bench(*[NEW, None] * 2, None, *[NEW, None] * 2)
    for owner_id in ("ada", "bob", "ada", "eve", "bob"):
        bench.processor.process(add(1, f"n{len(bench.store.calls)}", owner_id=owner_id))
    read = [arguments["owner_id"] for name, arguments in bench.store.calls if name == "head"]
    assert read == ["ada", "bob", "eve", "bob"]


def test_head_is_read_at_half_the_cost_and_written_on_with_its_mark() -> None:
    """A head that is a little old is found out by the write; a mark is noted in the same transaction."""
    bench, mark = Bench(NEW, moved(7, 3), None), Mark("DAILY_REWARD:day", "2026-11-22")
    bench.processor.process(add(1, "n"), mark=mark)
    assert bench.store.calls[0] == ("head", {"owner_id": "ada", "consistent": False})
    assert bench.appended("head") == [NEW, head(7, 3)]
    assert bench.appended("mark") == [mark, mark]


def test_cancellation_that_shows_no_head_leaves_the_one_that_is_known() -> None:
    """Conflict alone says nothing of the balance: the entry is sent again on the same head, after a pause."""
    bench = Bench(head(2, 1), Cancelled(entry=None, head=None, contended=True), None)
    assert bench.processor.process(add(1, "n")).id == 2
    assert bench.appended("head") == [head(2, 1)] * 2
    assert len(bench.pauses) == 1


def test_attempts_and_stale_heads_are_told() -> None:
    """Each transaction begun counts, and each that another writer's entry spoilt."""
    conflict = Cancelled(entry=None, head=None, contended=True)
    bench = Bench(NEW, moved(0, 1), conflict, moved(0, 2), UnavailableError("lost"), None)
    with measured() as usage:
        bench.processor.process(add(1, "n"))
    assert (usage.attempts, usage.stale_heads, usage.retries) == (4, 2, 3)


def test_head_that_a_refusal_is_told_by_is_remembered() -> None:
    """What was read to confirm a refusal need not be read again."""
    bench = Bench(NEW, (None, head(4, 2)), None)
    with pytest.raises(InsufficientBalanceError):
        bench.processor.process(spend(5, "n"))
    assert bench.processor.process(spend(4, "n")).id == 3
    assert [name for name, _ in bench.store.calls] == ["head", "look_up", "append"]
    assert bench.store.calls[1][1] == {"owner_id": "ada", "nonce": "n"}


def test_confirmation_that_fails_fails_while_checking_the_nonce() -> None:
    """For that is what it asks for first."""
    bench = Bench(NEW, UnavailableError("down"))
    with pytest.raises(UnavailableError) as failure:
        bench.processor.process(spend(5, "n"), timeout_seconds=0)
    assert failure.value.state == RequestState.CHECKING_NONCE


@pytest.mark.parametrize(("timeout_seconds", "waits"), [(3, 3), (0, 0), (-1, 0)])
def test_waiting_in_line_takes_the_time_that_there_is(timeout_seconds: float, waits: float) -> None:
    """And none when there is none."""
    asked: list[Any] = []

    class Taken:
        def acquire(self, *, timeout: float) -> bool:
            asked.append(timeout)
            return False

    bench = Bench()
    bench.processor._lane_of("ada").lock = Taken()  # type: ignore[assignment]  # stands in
    with pytest.raises(ContentionError, match=r"^Other operations of this owner took all the time there was\.$"):
        bench.processor.process(add(1, "n"), timeout_seconds=timeout_seconds)
    assert asked == [waits]


def test_time_is_utc_wherever_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's time zone moves no entry."""
    store: Any = ScriptedStore(NEW, None)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        entry = OperationProcessor(store, ExampleAppOperations).process(add(1, "n"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert abs(entry.created_at - datetime.now(UTC)) < timedelta(hours=1)
