"""What the store's tests stand on: an empty database of each kind, a clock that tests move, and rows in few words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.feedback.store import Store
from models.feedback.store.queries import samples_where, to_sample
from models.feedback.store.schema import feedback
from models.feedback.types import LoggedPrediction, NewFeedback, Sample
from tests.helpers.postgres import PostgresMissing, PostgresServer, postgres_server

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    try:
        with postgres_server() as server:
            yield server
    except PostgresMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'var' / 'feedback.db'}"
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    store = Store.open(url, clock=clock)
    yield store
    store.close()


def made(number: int, at: datetime = NOW) -> str:
    """A prediction id: 12 digits of milliseconds, then anything."""
    return f"{int(at.timestamp() * 1000):012x}{number:020x}"


def prediction(number: int, *texts: str, **changes: Any) -> LoggedPrediction:
    texts = texts or (f"text {number}",)
    output = [{"label": "refund", "score": 0.9} for _ in texts]
    values: dict[str, Any] = {"id": made(number), "task": "intent", "version": "1", "input": list(texts), "at": NOW}
    return LoggedPrediction(**values | {"output": output} | changes)


def correction(number: int | None = None, label: str | None = "cancel", **changes: Any) -> NewFeedback:
    """Of the prediction with this number, or with its own text."""
    values: dict[str, Any] = {"task": "intent", "source": "agent", "consent": True, "at": NOW, "label": label}
    id_ = made(number) if number is not None else None
    return NewFeedback(**values | {"prediction_id": id_} | changes)


def add(store: Store, *items: NewFeedback) -> list[str]:
    return [receipt.outcome for receipt in store.feedback.add(items, keep_days=30)]


def newest(store: Store, task: str, limit: int) -> list[Sample]:
    """The newest samples that were or may be learned from, newest first."""
    c = feedback.c
    query = samples_where(c.task == task, c.state.in_(("waiting", "leased", "used")))
    with store.database.read() as connection:
        rows = connection.execute(query.order_by(c.at.desc(), c.id.desc()).limit(limit)).all()
    return [to_sample(row) for row in rows]


def fill_queue(store: Store, count: int) -> None:
    """`count` samples in the queue, one a minute, the first the oldest."""
    items = [correction(text=f"text {i}", at=NOW + timedelta(minutes=i)) for i in range(count)]
    assert add(store, *items) == ["accepted"] * count
