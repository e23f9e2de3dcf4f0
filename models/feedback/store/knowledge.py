"""The knowledge base: entries, the vectors of their questions, and a revision by which replicas follow.

Each change of a row gives it a new serial. So a reader that holds some rows asks for the serials, drops what is gone
and reads what is new, and no trace of a deleted entry has to stay for it. A revision that has not changed says that
there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from models.feedback.store.database import Database, StoreError, chunks
from models.feedback.store.schema import clean, knowledge_entries, knowledge_revision
from models.knowledge.types import Entry, StoredEntry, VectorOf

_c = knowledge_entries.c
_CONTENT = (_c.serial, _c.id, _c.question, _c.answer, _c.language, _c.tags, _c.at)


class KnowledgeFull(StoreError):
    """Raised when entries would be more than there may be; nothing was stored."""


@dataclass(frozen=True, slots=True)
class KnowledgeState:
    """The number of entries, of those whose vector is still to be computed, and of changes so far."""

    entries: int
    waiting: int
    revision: int


@dataclass(frozen=True, slots=True)
class Written:
    """How many entries were added, changed, and found as they were."""

    added: int
    changed: int
    unchanged: int
    revision: int


class Knowledge:
    """Part of a `Store`: the knowledge base. `encoder` is the fingerprint of the encoder by which vectors are made."""

    def __init__(self, database: Database):
        self._database = database

    def revision(self) -> int:
        """The number of changes so far."""
        with self._database.read() as connection:
            return _revision(connection)

    def state(self) -> KnowledgeState:
        """What there is now."""
        with self._database.read() as connection:
            revision = _revision(connection)
            entries = connection.execute(select(func.count()).select_from(knowledge_entries)).scalar_one()
            without = select(func.count()).select_from(knowledge_entries).where(_c.encoder.is_(None))
            return KnowledgeState(entries, connection.execute(without).scalar_one(), revision)

    def put(self, entries: Sequence[Entry], max_entries: int) -> Written:
        """Add the entries, or replace those with their ids, in one transaction. Each id is given once.

        The vector of a question that stays the same is kept. Raises KnowledgeFull.
        """
        return self._database.write(lambda connection: self._put(connection, entries, max_entries))

    def _put(self, connection: Connection, entries: Sequence[Entry], max_entries: int) -> Written:
        revision = _next_revisions(connection, 0)  # writers wait for each other here
        known: dict[str, Any] = {}
        for some in chunks([entry.key for entry in entries]):
            query = select(*_CONTENT, _c.vector, _c.encoder).where(_c.id.in_(some))
            known |= {row.id: row for row in connection.execute(query)}
        changed = [entry for entry in entries if not _is_same(entry, known.get(entry.key))]
        added = sum(entry.key not in known for entry in changed)
        there = connection.execute(select(func.count()).select_from(knowledge_entries)).scalar_one()
        if there + added > max_entries:
            raise KnowledgeFull(
                f"there would be {there + added:,} entries, and there may be {max_entries:,} "
                "(knowledge.max_entries in flywheel.yaml); none of these was stored"
            )
        if changed:
            revision = _next_revisions(connection, len(changed))
            now, first = self._database.clock(), revision - len(changed) + 1
            rows = [
                _row(entry, known.get(entry.key)) | {"serial": first + i, "at": now} for i, entry in enumerate(changed)
            ]
            for some in chunks([entry.key for entry in changed]):
                connection.execute(delete(knowledge_entries).where(_c.id.in_(some)))
            connection.execute(insert(knowledge_entries), rows)
        return Written(added, len(changed) - added, len(entries) - len(changed), revision)

    def delete(self, ids: Collection[str]) -> int:
        """Delete the entries with these ids, and overwrite their bytes. How many there were."""

        def do(connection: Connection) -> int:
            _next_revisions(connection, 1)
            return sum(
                connection.execute(delete(knowledge_entries).where(_c.id.in_(some))).rowcount
                for some in chunks(sorted(ids))
            )

        return self._deleted(self._database.write(do))

    def delete_all(self) -> int:
        """Delete every entry, and overwrite their bytes. How many there were."""

        def do(connection: Connection) -> int:
            _next_revisions(connection, 1)
            return connection.execute(delete(knowledge_entries)).rowcount

        return self._deleted(self._database.write(do))

    def _deleted(self, count: int) -> int:
        if count:
            self._database.overwrite_deleted()
        return count

    def get(self, id_: str) -> StoredEntry | None:
        """The entry with this id; None when there is none."""
        with self._database.read() as connection:
            row = connection.execute(select(*_CONTENT).where(_c.id == id_)).first()
        return None if row is None else _stored(row)

    def page(self, after: str | None, limit: int) -> list[StoredEntry]:
        """The first `limit` entries in the order of their ids, of those behind the id `after`."""
        query = select(*_CONTENT).order_by(_c.id).limit(limit)
        if after is not None:
            query = query.where(_c.id > after)
        with self._database.read() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def without_vector(self, encoder: str, limit: int) -> list[StoredEntry]:
        """Entries whose vector of this encoder is still to be computed, oldest change first."""
        query = select(*_CONTENT).where(_without_vector(encoder)).order_by(_c.serial).limit(limit)
        with self._database.read() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def set_vectors(self, encoder: str, vectors: Sequence[VectorOf]) -> int:
        """Store vectors of entries; one that was changed or deleted since is left out. How many were stored."""

        def do(connection: Connection) -> int:
            serial = _next_revisions(connection, len(vectors)) - len(vectors)
            stored = 0
            for number, (old, vector) in enumerate(vectors, start=1):
                row = {"vector": vector, "encoder": encoder, "serial": serial + number}
                stored += connection.execute(update(knowledge_entries).where(_c.serial == old).values(row)).rowcount
            return stored

        return self._database.write(do)

    def has_vectors(self) -> bool:
        """Whether any entry has a vector, of whatever encoder."""
        with self._database.read() as connection:
            return connection.execute(select(_c.serial).where(_c.encoder.is_not(None)).limit(1)).first() is not None

    def serials(self, encoder: str) -> set[int]:
        """The serials of the entries that have a vector of this encoder."""
        with self._database.read() as connection:
            return set(connection.scalars(select(_c.serial).where(_c.encoder == encoder)))

    def read(self, encoder: str, serials: Iterable[int]) -> Iterator[tuple[StoredEntry, bytes]]:
        """The entries with these serials and their vectors, some at a time; what is gone meanwhile is left out."""
        for some in chunks(sorted(serials)):
            query = select(*_CONTENT, _c.vector).where(_c.serial.in_(some), _c.encoder == encoder)
            with self._database.read() as connection:
                rows = connection.execute(query).all()
            yield from ((_stored(row[:-1]), row[-1]) for row in rows)


def _revision(connection: Connection) -> int:
    return int(connection.execute(select(knowledge_revision.c.revision)).scalar_one())


def _next_revisions(connection: Connection, count: int) -> int:
    """Count so many changes, and return the new revision. Other writers wait until the transaction ends."""
    column = knowledge_revision.c.revision
    counted = update(knowledge_revision).values(revision=column + count).returning(column)
    return int(connection.execute(counted).scalar_one())


def _without_vector(encoder: str) -> Any:
    return or_(_c.encoder.is_(None), _c.encoder != encoder)


def _is_same(entry: Entry, row: Any) -> bool:
    return row is not None and _content(entry) == (row.question, row.answer, row.language, row.tags)


def _content(entry: Entry) -> tuple[Any, ...]:
    return clean(entry.question), clean(entry.answer), entry.language, [clean(tag) for tag in entry.tags]


def _row(entry: Entry, known: Any) -> dict[str, Any]:
    """The new row of an entry, with the vector of the old one if its question is the same."""
    question, answer, language, tags = _content(entry)
    keeps = known is not None and known.question == question
    return {
        "id": entry.key, "question": question, "answer": answer, "language": language, "tags": tags,
        "vector": known.vector if keeps else None, "encoder": known.encoder if keeps else None,
    }  # fmt: skip


def _stored(row: Any) -> StoredEntry:
    serial, id_, question, answer, language, tags, at = row
    return StoredEntry(serial, id_, question, answer, language, tuple(tags), at)
