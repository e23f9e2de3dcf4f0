"""The tables, and column types that store Python values the same way in SQLite and PostgreSQL.

A change here needs a new file in `migrations/versions` and a new HEAD; a test compares the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HEAD = "0006"
"""the newest revision; a database at this revision is opened without importing Alembic"""

# PostgreSQL cannot index a value of more than 2,704 bytes, and clients may choose request ids.
_MAX_ID_LENGTH = 200


def clean(text: str) -> str:
    """The text as both databases can store it.

    U+0000, which PostgreSQL refuses, and lone surrogates, which UTF-8 cannot encode, become U+FFFD.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _clean_if_any(text: str | None) -> str | None:
    return None if text is None else clean(text)


def _clean_json(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _clean_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean_json(item) for item in value]
    return value


class CleanText(TypeDecorator[str]):
    """Text that is cleaned (`clean`) whenever it is bound: stored, or compared with the column."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:
        return _clean_if_any  # `process_bind_param` costs two more calls a column


class PredictionId(TypeDecorator[str]):
    """A prediction's id; one too long to index is replaced by its digest, when stored and when looked up."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:
        return lambda value: None if value is None else prediction_id(value)


def prediction_id(value: str) -> str:
    """The id as it is stored."""
    value = clean(value)
    return value if len(value) <= _MAX_ID_LENGTH else "sha256:" + hashlib.sha256(value.encode()).hexdigest()


class Moment(TypeDecorator[datetime]):
    """A point in time with microseconds; in Python, an aware datetime in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without its zone: {value}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """A JSON value as text: no SQL looks into it, and orjson parses it faster than a driver does."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        try:
            return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a lone surrogate
            return orjson.dumps(_clean_json(value)).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else orjson.loads(value)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(column_0_label)s",
    }
)
Serial = BigInteger().with_variant(Integer, "sqlite")


def _where(name: str, table: Table, *columns: str, condition: str) -> Index:
    """A partial index of the rows for which `condition` holds."""
    from sqlalchemy import text

    return Index(
        name, *(table.c[column] for column in columns), sqlite_where=text(condition), postgresql_where=text(condition)
    )


predictions = Table(
    "predictions",
    metadata,
    Column("serial", Serial, primary_key=True),
    Column("task", CleanText, nullable=False),
    Column("id", PredictionId, nullable=False),
    Column("version", CleanText, nullable=False),
    Column("input", Json, nullable=False),
    Column("output", Json, nullable=False),
    Column("at", Moment, nullable=False),
    Column("topic", CleanText),
    Column("user", CleanText),  # who asked
    Column("subject", CleanText),  # whose data it is, if that is another user
    UniqueConstraint("task", "id"),
    Index("ix_predictions_newest", "task", "at"),
    Index("ix_predictions_at", "at"),
)
_where("ix_predictions_user", predictions, "user", condition='"user" IS NOT NULL')
_where("ix_predictions_subject", predictions, "subject", condition="subject IS NOT NULL")

feedback = Table(
    "feedback",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("key", LargeBinary, nullable=False, unique=True),
    Column("task", CleanText, nullable=False),
    Column("state", CleanText, nullable=False),
    Column("at", Moment, nullable=False),
    Column("source", CleanText, nullable=False),
    Column("text", CleanText),
    Column("label", CleanText),
    Column("user", CleanText),  # who gave the feedback
    Column("subject", CleanText),  # the user of the prediction, whose text it is
    Column("prediction_id", PredictionId),
    Column("item_id", CleanText),
    Column("event", CleanText),
    Column("value", Double),  # of an event that has one
    Column("version", CleanText),
    Column("predicted", CleanText),
    Column("attempts", Integer, nullable=False),
    Column("reason", CleanText),
    Column("owner", CleanText),
    Column("leased_until", Moment),
    Index("ix_feedback_queue", "task", "state", "at"),
    Index("ix_feedback_newest", "task", "at"),
    sqlite_autoincrement=True,  # an erased row's id is never given to another row
)
_where("ix_feedback_user", feedback, "user", condition='"user" IS NOT NULL')
_where("ix_feedback_subject", feedback, "subject", condition="subject IS NOT NULL")
_where("ix_feedback_owner", feedback, "owner", condition="owner IS NOT NULL")
_where("ix_feedback_item", feedback, "task", "prediction_id", condition="item_id IS NOT NULL")

trained = Table(
    "trained",
    metadata,
    Column("feedback_id", Serial, primary_key=True, autoincrement=False),
    Column("version", CleanText, primary_key=True),
)

erased = Table(
    "erased",
    metadata,
    Column("user", CleanText, primary_key=True),
    Column("at", Moment, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("name", CleanText, primary_key=True),
    Column("owner", CleanText, nullable=False),
    Column("until", Moment, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("task", CleanText, nullable=False),
    Column("action", CleanText, nullable=False),
    Column("version", CleanText),
    Column("actor", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
    Column("detail", Json, nullable=False),
    Index("ix_audit_log_task", "task", "id"),
)

retraining_requests = Table(
    "retraining_requests",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("task", CleanText, nullable=False),
    Column("state", CleanText, nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("outcome", CleanText),
    Column("sentence", CleanText),
    Column("version", CleanText),
    Column("attempts", Integer, nullable=False),  # number of runs started for it
    Index("ix_retraining_requests_task", "task", "state", "id"),
)

opinion_inbox = Table(
    "opinion_inbox",
    metadata,
    Column("serial", Serial, primary_key=True),
    Column("task", CleanText, nullable=False),
    Column("document", Json, nullable=False),
    Column("at", Moment, nullable=False),
    Column("prediction_id", PredictionId, nullable=False),
    Column("user", CleanText),  # who sent it
    Index("ix_opinion_inbox_task", "task", "serial"),
    sqlite_autoincrement=True,  # the serial of a document that has left is its id, and never given to another one
)

opinion_documents = Table(
    "opinion_documents",
    metadata,
    Column("serial", Serial, primary_key=True, autoincrement=False),  # that of the inbox
    Column("task", CleanText, nullable=False),
    Column("key", LargeBinary, nullable=False),  # digest of document_id
    Column("document_id", CleanText, nullable=False),
    Column("story", BigInteger, nullable=False),
    Column("published", Moment, nullable=False),
    Column("label", CleanText, nullable=False),
    Column("score", Double, nullable=False),
    Column("topics", Json, nullable=False),
    Column("prediction_id", PredictionId, nullable=False),
    Column("at", Moment, nullable=False),
    Column("user", CleanText),
    UniqueConstraint("task", "key"),
    Index("ix_opinion_documents_published", "task", "published"),
    Index("ix_opinion_documents_prediction", "task", "prediction_id"),
    Index("ix_opinion_documents_at", "at"),
)
_where("ix_opinion_documents_user", opinion_documents, "user", condition='"user" IS NOT NULL')

opinion_stories = Table(
    "opinion_stories",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=False),  # the serial of the document that began it
    Column("task", CleanText, nullable=False),
    Column("first", BigInteger, nullable=False),  # seconds since 1970, of its earliest text
    Column("last", BigInteger, nullable=False),  # of its latest
    Column("words", LargeBinary, nullable=False),  # hashes of the words of the text that began it
    Column("topics", Json, nullable=False),  # by topic: time and label of its first text there
    Index("ix_opinion_stories_first", "first"),
)

opinion_bands = Table(
    "opinion_bands",
    metadata,
    Column("bucket", Integer, primary_key=True, autoincrement=False),  # of time, so that a batch changes few pages
    Column("band", BigInteger, primary_key=True, autoincrement=False),
    Column("story", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

opinion_counts = Table(
    "opinion_counts",
    metadata,
    Column("task", CleanText, primary_key=True),
    Column("topic", CleanText, primary_key=True),  # "": all documents
    Column("step_s", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),  # seconds since 1970
    *(
        Column(name, Integer, nullable=False)
        for name in ("texts", "positive", "neutral", "negative", "stories", "story_positive", "story_negative")
    ),
    sqlite_with_rowid=False,
)

opinion_changes = Table(
    "opinion_changes",
    metadata,
    Column("task", CleanText, primary_key=True),
    Column("topic", CleanText, primary_key=True),
    Column("since", BigInteger, nullable=False),  # seconds since 1970: the earliest count that changed
    Column("serial", BigInteger, nullable=False),  # of a document of the batch that changed it last
    sqlite_with_rowid=False,
)

opinion_alerts = Table(
    "opinion_alerts",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("task", CleanText, nullable=False),
    Column("topic", CleanText, nullable=False),
    Column("kind", CleanText, nullable=False),
    Column("started", Moment, nullable=False),
    Column("ended", Moment),
    Column("observed", Double, nullable=False),
    Column("expected", Double, nullable=False),
    Column("score", Double, nullable=False),
    Column("examples", Json, nullable=False),
    Column("notified", Integer, nullable=False),  # 0: not sent; 1: its start; 2: its end too; 3: never
    UniqueConstraint("task", "topic", "kind", "started"),
    Index("ix_opinion_alerts_started", "task", "started"),
)

knowledge_entries = Table(
    "knowledge_entries",
    metadata,
    Column("serial", Serial, primary_key=True, autoincrement=False),  # a new one with each change of the row
    Column("id", CleanText, nullable=False, unique=True),
    Column("question", CleanText, nullable=False),
    Column("answer", CleanText, nullable=False),
    Column("language", CleanText),
    Column("tags", Json, nullable=False),
    Column("at", Moment, nullable=False),
    Column("vector", LargeBinary),  # of the question
    Column("encoder", CleanText),  # by which
)

# One row: the number of changes, which is also the last serial of an entry.
knowledge_revision = Table(
    "knowledge_revision",
    metadata,
    Column("key", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)
