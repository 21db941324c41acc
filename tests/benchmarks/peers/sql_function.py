"""The ledger as a function in PostgreSQL, called by psycopg: a statement for each entry."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from psycopg.errors import CheckViolation, UniqueViolation
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.peers.contract import EntryRequest, PostedEntry

__all__ = ["app"]

CONNECTIONS_MAX = 40
SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger_balances (
    owner_id text PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);
CREATE TABLE IF NOT EXISTS ledger_entries (
    owner_id text NOT NULL,
    nonce text NOT NULL,
    operation text NOT NULL,
    amount bigint NOT NULL,
    balance bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, nonce)
);
CREATE OR REPLACE FUNCTION post_entry(owner_ text, operation_ text, nonce_ text, amount_ bigint)
RETURNS SETOF ledger_entries LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    INSERT INTO ledger_balances VALUES (owner_, 0) ON CONFLICT DO NOTHING;
    UPDATE ledger_balances SET balance = balance + amount_ WHERE owner_id = owner_
        RETURNING balance INTO moved;
    RETURN QUERY
        INSERT INTO ledger_entries VALUES (owner_, nonce_, operation_, amount_, moved) RETURNING *;
END $$;
"""
POST_ENTRY = "SELECT * FROM post_entry(%(owner_id)s, %(operation)s, %(nonce)s, %(amount)s)"

pool = AsyncConnectionPool(
    os.environ["DATABASE_URL"],
    kwargs={"autocommit": True},
    min_size=1,
    max_size=CONNECTIONS_MAX,
    open=False,
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the tables and the function."""
    async with pool:
        async with pool.connection() as connection:
            await connection.execute(SCHEMA)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/ledger/entry")
async def post_entry(request: EntryRequest) -> PostedEntry:
    """Post an operation."""
    values = {**request.model_dump(), "amount": request.signed_amount}
    try:
        async with (
            pool.connection() as connection,
            connection.cursor(row_factory=class_row(PostedEntry)) as cursor,
        ):
            await cursor.execute(POST_ENTRY, values)
            (posted,) = await cursor.fetchall()
    except UniqueViolation as error:
        raise HTTPException(409, "the nonce was used") from error
    except CheckViolation as error:
        raise HTTPException(402, "the balance is too low") from error
    return posted
