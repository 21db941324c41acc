"""Group commit: the requests to one account that wait at the same time share transactions. For
servers and bulk.

It decides nothing: the processor plans and writes. One waiting request at a time leads: its caller
writes for all that wait, until its own request is settled, and then passes the lead on. In Lambda,
where a process has one request at a time, it is not on the way.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field

from ledger_core.account import Mark
from ledger_core.errors import ContentionError
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.operations import OperationConfig
from ledger_core.posting.batch import Batch, Pending
from ledger_core.posting.processor import TIMEOUT_SECONDS, OperationProcessor

__all__ = ["QUEUE_MAX", "GroupCommit", "Waiting"]

QUEUE_MAX = 1000
"""Requests that may wait for one account in a process."""


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue of its account."""

    pending: Pending
    queue: "_Queue"
    turn: "Future[None]" = field(default_factory=Future)
    """Done once the request is settled, or leads: then its caller must call `GroupCommit.finish`.
    """


@dataclass(eq=False, slots=True)
class _Queue:
    """The waiting requests of one account, which exists while there are any. The first of them
    leads."""

    key: str
    batch: Batch = field(default_factory=Batch)
    members: list[Waiting] = field(default_factory=list)


def wait_for(turn: "Future[None]", seconds: float) -> bool:
    """Block this thread until a turn is done; False if the time is up before."""
    try:
        turn.result(timeout=max(seconds, 0))
    except FutureTimeoutError:
        return False
    return True


class GroupCommit:
    """Posts operations through a processor, several of one account in one transaction.

    Args:
        processor: plans and writes.
        wait: blocks the caller until a turn is done, for some seconds at most.
    """

    def __init__(
        self,
        processor: OperationProcessor,
        *,
        wait: Callable[["Future[None]", float], bool] = wait_for,
    ) -> None:
        self._processor = processor
        self._wait = wait
        self._queues: dict[str, _Queue] = {}
        self._lock = threading.Lock()

    def process(
        self,
        request: OperationRequest,
        *,
        config: OperationConfig | None = None,
        mark: Mark | None = None,
        begins: bool = True,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> LedgerEntry:
        """Post one operation, as `OperationProcessor.process` does; the thread waits its turn."""
        budget = self._processor.budget(timeout_seconds)
        waiting = self.join(request, config=config, mark=mark, begins=begins)
        try:
            is_turn = self._wait(waiting.turn, timeout_seconds)
        except BaseException as error:
            self.leave(waiting, error)
            raise
        if not is_turn:
            self.leave(
                waiting,
                ContentionError("Other operations of this owner took all the time there was."),
            )
        return self.finish(waiting, timeout_seconds=budget.seconds_left)

    def join(
        self,
        request: OperationRequest,
        *,
        config: OperationConfig | None = None,
        mark: Mark | None = None,
        begins: bool = True,
    ) -> Waiting:
        """Queue a request. The caller must then wait for its turn and call `finish`, or `leave` if
        it stops waiting.

        Raises:
            ContentionError: QUEUE_MAX requests wait for the account.
            UnknownOperationError, InvalidRequestError: as for `OperationProcessor.process`.
        """
        pending = self._processor.accept(request, config=config, mark=mark, begins=begins)
        with self._lock:
            key = pending.posting.account_key
            queue = self._queues.setdefault(key, _Queue(key))
            if len(queue.members) >= QUEUE_MAX:
                raise ContentionError(f"{QUEUE_MAX} operations of this owner are waiting already.")
            waiting = Waiting(pending, queue)
            queue.members.append(waiting)
            queue.batch.arrivals.append(pending)
            if queue.members[0] is waiting:
                waiting.turn.set_result(None)
        return waiting

    def finish(self, waiting: Waiting, *, timeout_seconds: float = TIMEOUT_SECONDS) -> LedgerEntry:
        """The entry of a request whose turn is done; its thread writes, if the request leads."""
        pending = waiting.pending
        try:
            if not pending.is_settled:
                self._processor.settle(
                    pending, waiting.queue.batch, self._processor.budget(timeout_seconds)
                )
        except BaseException as error:
            pending.fail(error)
            raise
        finally:
            self._pass_on(waiting)
        return pending.result()

    def leave(self, waiting: Waiting, reason: BaseException) -> None:
        """Stop waiting. A request that is being written may be stored all the same."""
        waiting.pending.fail(reason)
        self._pass_on(waiting)

    def _pass_on(self, waiting: Waiting) -> None:
        """Release the requests that are settled, and give the lead to the first that is not, if
        `waiting` leads."""
        queue = waiting.queue
        with self._lock:
            # A leader that is settled leads on until it is done: its thread may be about to settle
            # the others.
            if queue.members[:1] != [waiting]:
                return
            released = [member for member in queue.members if member.pending.is_settled]
            queue.members = [member for member in queue.members if not member.pending.is_settled]
            released += queue.members[:1]
            for member in released:
                if not member.turn.done():
                    member.turn.set_result(None)
            if not queue.members:
                del self._queues[queue.key]
