"""The ledger's endpoints: parse, call one function, map the answer."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from ledger_core.account import Account
from ledger_core.audit import Receipt, Report, audit_store, signed
from ledger_core.dynamodb import ReceiptKey
from ledger_core.errors import DuplicateNonceError, InvalidRequestError, LedgerError
from ledger_core.fields import OwnerId
from ledger_core.http.authorization import Caller
from ledger_core.http.cursor import CURSOR_LENGTH_MAX, cursor_at, cursor_position
from ledger_core.http.entry_route import EntryRoute
from ledger_core.http.executor import Executor, is_in_lambda, seconds_left
from ledger_core.http.request_context import caller_of, context_of
from ledger_core.http.schemas import (
    KEYED,
    REPLAYABLE,
    Balance,
    Health,
    History,
    Operation,
    Operations,
    QueryInstant,
    SignedReceipt,
    entry_request,
    one_nonce,
    sent_once,
)
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.posting import GroupCommit, OperationProcessor
from ledger_core.rewards import GrantOnAccess

__all__ = ["HISTORY_LIMIT_DEFAULT", "HISTORY_LIMIT_MAX", "LedgerRouter"]

HISTORY_LIMIT_DEFAULT = 50
HISTORY_LIMIT_MAX = 100


class LedgerRouter(APIRouter):
    """The ledger's own routes, for any app; the app's routers post through `post_operation`.

    It needs `create_api`, which finds out who is calling. FastAPI's `dependencies` do not apply to
    POST /ledger/entry.

    Args:
        processor: posts the app's operations.
        on_access: grants a reward to an owner who calls, or for whom an app posts; None grants nothing.
        receipt_key: signs receipts; without it the route for receipts answers 404.
    """

    def __init__(
        self,
        processor: OperationProcessor,
        on_access: GrantOnAccess | None = None,
        receipt_key: ReceiptKey | None = None,
    ) -> None:
        super().__init__(tags=["ledger"])
        self.processor = processor
        self._on_access = on_access
        self._receipt_key = receipt_key
        self._calls = Executor()
        self._group = GroupCommit(processor)
        self.add_api_route(
            "/ledger/entry",
            self._post_entry(),
            methods=["POST"],
            response_model=LedgerEntry,
            responses=REPLAYABLE,
            openapi_extra=KEYED,
            route_class_override=EntryRoute,
        )
        self.add_api_route("/ledger/operations", self.get_operations)
        self.add_api_route("/ledger/{owner_id}/balance", self.get_balance)
        self.add_api_route("/ledger/{owner_id}/entries", self.get_entries)
        self.add_api_route("/ledger/{owner_id}/verify", self.verify_ledger)
        self.add_api_route("/ledger/{owner_id}/receipt", self.get_receipt)
        self.add_api_route("/health", self.get_health)

    async def post_operation(self, request: Request, operation: OperationRequest) -> LedgerEntry:
        """Post an operation for the caller of `request`, and return its entry.

        Raises:
            ForbiddenError: the sender may not post it.
            InvalidRequestError: the request has several `Idempotency-Key`s.
            LedgerError: what `OperationProcessor.process` raises.
        """
        sent_once(request.headers.getlist("idempotency-key"))
        context = context_of(request.scope)
        context.owner_id = operation.owner_id
        context.operation = operation.operation
        caller = caller_of(request)
        caller.check_may_post(operation.owner_id, self.processor.config_of(operation.operation))
        if self._on_access and not self._on_access.has_nothing_for(operation.owner_id):
            await self._calls.run(request, partial(self._grant, operation.owner_id))
        entry = await self._post(request, caller.posted(operation))
        context.code = "accepted"
        return entry

    async def _post(self, request: Request, operation: OperationRequest) -> LedgerEntry:
        """Post in this thread in Lambda; on a server together with other requests to the account."""
        if is_in_lambda(request):
            return self.processor.process(operation, timeout_seconds=seconds_left(request))
        waiting = self._group.join(operation)

        def finish(seconds: float) -> LedgerEntry:
            return self._group.finish(waiting, timeout_seconds=seconds)

        try:
            if not waiting.turn.done():
                await self._calls.wait(request, waiting.turn)
            if waiting.pending.is_settled:
                return self._group.finish(waiting)
            return await self._calls.run(request, finish)
        except LedgerError as error:
            self._group.leave(waiting, error)
            return waiting.pending.result()  # which another request may have written meanwhile
        except BaseException as error:
            self._group.leave(waiting, error)
            raise

    async def answer(
        self, request: Request, nonce: str | None, operation: Callable[[str], OperationRequest]
    ) -> Response:
        """Post the `operation` of the body's `nonce`, or of the header's, and answer by the convention of either."""
        in_header, headers = sent_once(request.headers.getlist("idempotency-key")), None
        try:
            entry = await self.post_operation(request, operation(one_nonce(nonce, in_header)))
        except DuplicateNonceError as error:
            context = context_of(request.scope)
            context.nonce_in_header = in_header is not None
            if in_header is None or not error.replay:
                raise
            context.code = error.code
            entry, headers = error.entry, {"idempotency-replayed": "true"}
        return Response(entry.model_dump_json(), headers=headers, media_type="application/json")

    async def get_operations(self) -> Operations:
        """What may be posted, and for how many credits."""
        items = self.processor.operations.items()
        return Operations(operations=[Operation(operation=name, **vars(config)) for name, config in items])

    async def get_balance(self, request: Request, owner_id: OwnerId, at: QueryInstant | None = None) -> Balance:
        """The balance now, strongly consistent; or as it was at an instant, from the index."""
        self._check_may_read(request, owner_id)
        if at is None:
            read = partial(self._account, caller_of(request), owner_id)
        else:
            read = partial(self._account_at, at, owner_id)
        account = await self._calls.run(request, read)
        return Balance.model_validate(account)

    async def get_entries(
        self,
        request: Request,
        owner_id: OwnerId,
        limit: Annotated[int, Query(ge=1, le=HISTORY_LIMIT_MAX)] = HISTORY_LIMIT_DEFAULT,
        cursor: Annotated[str | None, Query(max_length=CURSOR_LENGTH_MAX)] = None,
        operation: str | None = None,
        since: Annotated[QueryInstant | None, Query(alias="from")] = None,
        before: Annotated[QueryInstant | None, Query(alias="to")] = None,
    ) -> History:
        """The entries from `from` (inclusive) to `to` (exclusive), newest first.

        With `operation`, a page may be short though more entries follow: go on until `next_cursor` is null.
        """
        self._check_may_read(request, owner_id)
        if operation is not None:
            self.processor.config_of(operation)
        if since and before and since > before:
            raise InvalidRequestError("from: must not be later than to")
        if cursor is not None:
            position = cursor_position(owner_id, cursor)
            before = min(before, position) if before else position
        page = partial(
            self.processor.store.page,
            owner_id,
            since=since,
            before=before,
            operation=operation,
            limit=limit,
        )
        entries, following = await self._calls.run(
            request,
            lambda seconds: page(read=self.processor.budget(seconds).call),
            is_slow=True,
        )
        next_cursor = cursor_at(owner_id, following) if following else None
        return History(entries=entries, next_cursor=next_cursor)

    async def verify_ledger(self, request: Request, owner_id: OwnerId) -> Report:
        """Fold the owner's entries and compare the outcome with its balance."""
        self._check_may_read(request, owner_id)
        audit = partial(audit_store, self.processor.store, owner_id)
        return await self._calls.run(
            request,
            lambda seconds: audit(read=self.processor.budget(seconds).call),
            is_slow=True,
        )

    async def get_receipt(self, request: Request, owner_id: OwnerId) -> SignedReceipt:
        """The balance now and the hash of the last entry, signed: a JWT to keep, and to hold against the ledger later.

        404 where the ledger has no key to sign with.
        """
        self._check_may_read(request, owner_id)
        if self._receipt_key is None:
            raise HTTPException(404, "This ledger signs no receipts: it has no LEDGER_RECEIPT_KEY.")
        sign = partial(self._receipt, owner_id, self._receipt_key)
        receipt = await self._calls.run(request, sign, is_slow=True)
        return SignedReceipt(receipt=receipt)

    async def get_health(self) -> Health:
        """Whether the process answers; asks nothing of DynamoDB."""
        return Health()

    def _post_entry(self) -> Callable[..., Coroutine[Any, Any, Response]]:
        body_model = entry_request(self.processor.operations)

        async def post_entry(request: Request, body: body_model) -> Response:  # type: ignore[valid-type]
            """Post an operation. A nonce in the body is refused the second time (409, with the original entry); one in
            `Idempotency-Key` gets the original answer again when the request is the same, 422 when it differs."""
            sent: OperationRequest = body

            def under(nonce: str) -> OperationRequest:
                if nonce == sent.nonce:
                    return sent
                return sent.model_copy(update={"nonce": nonce})

            return await self.answer(request, sent.nonce, under)

        return post_entry

    def _grant(self, owner_id: str, timeout_seconds: float) -> None:
        if self._on_access:
            self._on_access.touch(owner_id, timeout_seconds=timeout_seconds / 2)

    def _account(self, caller: Caller, owner_id: str, timeout_seconds: float) -> Account:
        budget = self.processor.budget(timeout_seconds)
        if caller.may_act_for(owner_id):
            self._grant(owner_id, timeout_seconds)
        account = budget.call(partial(self.processor.store.account, owner_id, consistent=True))
        if self._on_access:
            self._on_access.saw(account)
        return account

    def _account_at(self, at: datetime, owner_id: str, timeout_seconds: float) -> Account:
        latest = partial(self.processor.store.latest, owner_id, at=at)
        entry = self.processor.budget(timeout_seconds).call(latest)
        beginning = Account(owner_id=owner_id)
        return beginning.after(entry) if entry else beginning

    def _receipt(self, owner_id: str, key: ReceiptKey, timeout_seconds: float) -> str:
        budget = self.processor.budget(timeout_seconds)
        account = budget.call(partial(self.processor.store.account, owner_id, consistent=True))
        return budget.call(partial(signed, Receipt.of(account.head, datetime.now(UTC)), key))

    def _check_may_read(self, request: Request, owner_id: str) -> None:
        context_of(request.scope).owner_id = owner_id
        caller_of(request).check_may_read(owner_id)
