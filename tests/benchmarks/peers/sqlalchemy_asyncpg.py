"""Async SQLAlchemy over asyncpg: one transaction adds the entry and moves the balance."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI, HTTPException
from sqlalchemy import BigInteger, DateTime, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.benchmarks.peers.contract import EntryRequest, PostedEntry

__all__ = ["app"]

CONNECTIONS_MAX = 40
URL = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+asyncpg:")


class Base(DeclarativeBase):
    """All tables."""


class Balance(Base):
    """The balance of an owner."""

    __tablename__ = "balances"
    owner_id: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger)


class Entry(Base):
    """One accepted operation."""

    __tablename__ = "entries"
    owner_id: Mapped[str] = mapped_column(primary_key=True)
    nonce: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str]
    amount: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


engine = create_async_engine(URL, pool_size=CONNECTIONS_MAX)
new_session = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/ledger/entry")
async def post_entry(request: EntryRequest) -> PostedEntry:
    """Post an operation."""
    amount = request.signed_amount
    fields = {
        **request.model_dump(exclude={"amount"}),
        "amount": amount,
        "created_at": datetime.now(UTC),
    }
    moved = {"balance": Balance.balance + amount}
    has_enough = (Balance.owner_id == request.owner_id) & (Balance.balance >= -amount)
    spend = update(Balance).where(has_enough).values(moved).returning(Balance.balance)
    opened = insert(Balance).values(owner_id=request.owner_id, balance=amount)
    add = opened.on_conflict_do_update(index_elements=["owner_id"], set_=moved).returning(
        Balance.balance
    )
    try:
        async with new_session.begin() as session:
            session.add(Entry(**fields))
            balance = (await session.execute(spend if amount < 0 else add)).scalar_one_or_none()
            if balance is None:
                raise HTTPException(402, "the balance is too low")
    except IntegrityError as error:
        raise HTTPException(409, "the nonce was used") from error
    return PostedEntry(**fields, balance=balance)
