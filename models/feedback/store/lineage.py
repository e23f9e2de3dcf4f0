"""What each version learned from, and what becomes of it when the version is withdrawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, and_, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.schema import feedback, trained


class Lineage:
    """Part of a `Store`: which samples each version learned from."""

    def __init__(self, database: Database):
        self._database = database

    def trained_on(self, version: str, ids: Sequence[int]) -> set[int]:
        """Remember which samples a version learned from.

        Or, and then nothing is remembered, return those that were erased since they were leased, or whose consent was
        taken back: a version that learned from them must not serve.
        """

        def write(connection: Connection) -> set[int]:
            self._database.hold_off_erasure(connection)
            there: set[int] = set()
            for some in chunks(sorted(set(ids))):
                allowed = and_(feedback.c.id.in_(some), feedback.c.state != "no_consent")
                there |= set(connection.scalars(select(feedback.c.id).where(allowed)))
            if gone := set(ids) - there:
                return gone
            rows = [{"feedback_id": id_, "version": version} for id_ in sorted(there)]
            if rows:
                connection.execute(self._database.insert(trained).on_conflict_do_nothing(), rows)
            return set()

        return self._database.write(write)

    def follow_versions(self, task: str, live: Collection[str]) -> None:
        """Let the leased samples that the `live` versions learned be used, and the used ones that only others learned
        wait again: they are behind a version that was withdrawn, and curated anew.

        Only for who holds the lock of the task's runs. A version is released before its samples are settled: a run that
        was killed between the two left them leased. Those that wait may have been changed since they were learned, and
        are never taken for used.
        """
        state = feedback.c.state
        learned = feedback.c.id.in_(select(trained.c.feedback_id).where(trained.c.version.in_(live)))
        used = update(feedback).where(feedback.c.task == task, state == "leased", learned)
        again = update(feedback).where(feedback.c.task == task, state == "used", ~learned)
        free = {"owner": None, "leased_until": None}

        def write(connection: Connection) -> None:
            connection.execute(used.values(state="used", reason=None, **free))
            connection.execute(again.values(state="waiting", reason="no version that serves has learned it", **free))

        self._database.write(write)
