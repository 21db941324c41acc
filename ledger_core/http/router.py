"""The ledger's endpoints: read the request, call a function of the ledger, map the result."""

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
    IDEMPOTENCY_KEY,
    REPLAYED,
    Balance,
    Health,
    History,
    Operation,
    Operations,
    QueryApp,
    QueryInstant,
    QueryUnit,
    SignedReceipt,
    entry_request,
    idempotency_key,
    nonce_of,
)
from ledger_core.keys import CREDIT, account_key
from ledger_core.models import LedgerEntry, OperationRequest
from ledger_core.operations import OperationConfig
from ledger_core.posting import GroupCommit, OperationProcessor
from ledger_core.rewards import GrantOnAccess

__all__ = ["HISTORY_LIMIT_DEFAULT", "HISTORY_LIMIT_MAX", "LedgerRouter"]

HISTORY_LIMIT_DEFAULT = 50
HISTORY_LIMIT_MAX = 100


class LedgerRouter(APIRouter):
    """The ledger's own routes, for any app. The app's routers post through `post_operation`.

    It needs `create_api`, which finds out who is calling. FastAPI's `dependencies` do not apply to
    POST /ledger/entry.

    Args:
        processor: posts the app's operations.
        on_access: grants a reward to an owner who calls, or for whom an app posts.
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
            responses=REPLAYED,
            openapi_extra=IDEMPOTENCY_KEY,
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
            ForbiddenError: the caller may not post it.
            InvalidRequestError: the request has several `Idempotency-Key`s.
            LedgerError: what `OperationProcessor.process` raises.
        """
        idempotency_key(request.headers.getlist("idempotency-key"))
        context = context_of(request.scope)
        context.owner_id = operation.owner_id
        context.operation = operation.operation
        caller = caller_of(request)
        config = self.processor.config_of(operation.operation)
        caller.check_may_post(operation.owner_id, config)
        if self._on_access and not self._on_access.has_nothing_for(operation.owner_id):
            await self._calls.run(request, partial(self._grant, operation.owner_id))
        entry = await self._post(request, caller.posted(operation), config)
        context.code = "accepted"
        return entry

    async def _post(
        self,
        request: Request,
        operation: OperationRequest,
        config: OperationConfig,
    ) -> LedgerEntry:
        """Post in this thread in Lambda; on a server, with other requests to the account."""
        if is_in_lambda(request):
            return self.processor.process(
                operation,
                config=config,
                timeout_seconds=seconds_left(request),
            )
        waiting = self._group.join(operation, config=config)

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
        """Post an operation under a nonce of the body or of the `Idempotency-Key` header.

        A duplicate nonce of the body is refused. A duplicate nonce of the header gets the original
        answer again if the request is the same.

        Args:
            request: the request to answer.
            nonce: the nonce of the body, if it has one.
            operation: makes the operation, given its nonce.
        """
        in_header = idempotency_key(request.headers.getlist("idempotency-key"))
        headers = None
        try:
            entry = await self.post_operation(request, operation(nonce_of(nonce, in_header)))
        except DuplicateNonceError as error:
            context = context_of(request.scope)
            context.nonce_in_header = in_header is not None
            if in_header is None or not error.replay:
                raise
            context.code = error.code
            entry = error.entry
            headers = {"idempotency-replayed": "true"}
        return Response(entry.model_dump_json(), headers=headers, media_type="application/json")

    async def get_operations(self) -> Operations:
        """Every operation that may be posted, and its credits."""
        configs = self.processor.operations.items()
        operations = [Operation(operation=name, **vars(config)) for name, config in configs]
        return Operations(operations=operations)

    async def get_balance(
        self,
        request: Request,
        owner_id: OwnerId,
        unit: QueryUnit = CREDIT,
        at: QueryInstant | None = None,
    ) -> Balance:
        """The balance now, strongly consistent; or the balance at an instant, from the index."""
        self._check_may_read(request, owner_id)
        if at is None:
            read = partial(self._account, caller_of(request), owner_id, unit)
        else:
            read = partial(self._account_at, at, owner_id, unit)
        account = await self._calls.run(request, read)
        return Balance.model_validate(account)

    async def get_entries(
        self,
        request: Request,
        owner_id: OwnerId,
        unit: QueryUnit = CREDIT,
        limit: Annotated[int, Query(ge=1, le=HISTORY_LIMIT_MAX)] = HISTORY_LIMIT_DEFAULT,
        cursor: Annotated[str | None, Query(max_length=CURSOR_LENGTH_MAX)] = None,
        operation: str | None = None,
        app: QueryApp | None = None,
        since: Annotated[QueryInstant | None, Query(alias="from")] = None,
        before: Annotated[QueryInstant | None, Query(alias="to")] = None,
    ) -> History:
        """The entries from `from` (inclusive) to `to` (exclusive), newest first.

        With `operation` or `app`, a page may be short although more entries follow: ask for the
        next page until `next_cursor` is null.
        """
        self._check_may_read(request, owner_id)
        if operation is not None:
            self.processor.config_of(operation)
        if since and before and since > before:
            raise InvalidRequestError("from: is later than to; swap them")
        key = account_key(owner_id, unit)
        if cursor is not None:
            position = cursor_position(key, cursor)
            before = min(before, position) if before else position
        page = partial(
            self.processor.store.page,
            key,
            since=since,
            before=before,
            operation=operation,
            app=app,
            limit=limit,
        )
        entries, following = await self._calls.run(
            request,
            lambda seconds: page(read=self.processor.budget(seconds).call),
            is_slow=True,
        )
        next_cursor = cursor_at(key, following) if following else None
        return History(entries=entries, next_cursor=next_cursor)

    async def verify_ledger(
        self,
        request: Request,
        owner_id: OwnerId,
        unit: QueryUnit = CREDIT,
    ) -> Report:
        """Fold the entries of an account, and compare the result with the balance."""
        self._check_may_read(request, owner_id)
        audit = partial(audit_store, self.processor.store, account_key(owner_id, unit))
        return await self._calls.run(
            request,
            lambda seconds: audit(read=self.processor.budget(seconds).call),
            is_slow=True,
        )

    async def get_receipt(
        self,
        request: Request,
        owner_id: OwnerId,
        unit: QueryUnit = CREDIT,
    ) -> SignedReceipt:
        """The balance now and the hash of the last entry, signed as a JWT.

        The owner keeps it, and `ledger verify` compares the ledger with it later. 404 if the ledger
        has no key that signs.
        """
        self._check_may_read(request, owner_id)
        if self._receipt_key is None:
            raise HTTPException(404, "receipt: this ledger has no LEDGER_RECEIPT_KEY")
        sign = partial(self._receipt, account_key(owner_id, unit), self._receipt_key)
        receipt = await self._calls.run(request, sign, is_slow=True)
        return SignedReceipt(receipt=receipt)

    async def get_health(self) -> Health:
        """Answers as long as the process runs; sends no request to DynamoDB."""
        return Health()

    def _post_entry(self) -> Callable[..., Coroutine[Any, Any, Response]]:
        # FastAPI reads the model from the annotation; for mypy it is what each such model is.
        body_model: Any = entry_request(self.processor.operations)

        async def post_entry(request: Request, body: body_model) -> Response:
            """Post an operation, under a nonce of the body or of the `Idempotency-Key` header.

            - A nonce of the body is refused the second time: 409, with the original entry.
            - A nonce of the header gets the original answer again for the same request, else 422.
            """
            operation: OperationRequest = body

            def with_nonce(nonce: str) -> OperationRequest:
                if nonce == operation.nonce:
                    return operation
                return operation.model_copy(update={"nonce": nonce})

            return await self.answer(request, operation.nonce, with_nonce)

        return post_entry

    def _grant(self, owner_id: str, timeout_seconds: float) -> None:
        if self._on_access:
            self._on_access.touch(owner_id, timeout_seconds=timeout_seconds / 2)

    def _account(self, caller: Caller, owner_id: str, unit: str, timeout_seconds: float) -> Account:
        budget = self.processor.budget(timeout_seconds)
        if caller.may_act_for(owner_id):
            self._grant(owner_id, timeout_seconds)
        key = account_key(owner_id, unit)
        account = budget.call(partial(self.processor.store.account, key, consistent=True))
        if self._on_access:
            self._on_access.saw(account)
        return account

    def _account_at(
        self, at: datetime, owner_id: str, unit: str, timeout_seconds: float
    ) -> Account:
        beginning = Account(owner_id=owner_id, unit=unit)
        latest = partial(self.processor.store.latest, beginning.key, at=at)
        entry = self.processor.budget(timeout_seconds).call(latest)
        return beginning.after(entry) if entry else beginning

    def _receipt(self, account_key: str, key: ReceiptKey, timeout_seconds: float) -> str:
        budget = self.processor.budget(timeout_seconds)
        account = budget.call(partial(self.processor.store.account, account_key, consistent=True))
        receipt = Receipt.of(account.head, datetime.now(UTC), key.issuer)
        return budget.call(partial(signed, receipt, key))

    def _check_may_read(self, request: Request, owner_id: str) -> None:
        context_of(request.scope).owner_id = owner_id
        caller_of(request).check_may_read(owner_id)
