"""Which samples each version was trained on, and what happens to them when the version is withdrawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, and_, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.schema import feedback, trained


class SampleLineage:
    """Part of a `Store`: which samples each version was trained on."""

    def __init__(self, database: Database):
        self._database = database

    def record(self, version: str, ids: Sequence[int]) -> set[int]:
        """Record which samples a version was trained on. Empty when that is done.

        Otherwise records nothing and returns the samples that were erased, or whose consent was withdrawn, since they
        were leased: a version trained on them must not serve.
        """

        def write(connection: Connection) -> set[int]:
            self._database.block_erasure(connection)
            usable: set[int] = set()
            for some in chunks(sorted(set(ids))):
                allowed = and_(feedback.c.id.in_(some), feedback.c.state != "no_consent")
                usable |= set(connection.scalars(select(feedback.c.id).where(allowed)))
            if missing := set(ids) - usable:
                return missing
            rows = [{"feedback_id": id_, "version": version} for id_ in sorted(usable)]
            if rows:
                connection.execute(self._database.insert(trained).on_conflict_do_nothing(), rows)
            return set()

        return self._database.write(write)

    def reconcile(self, task: str, live: Collection[str]) -> None:
        """Set leased samples that a version in `live` was trained on to `used`, and used samples of other versions
        only to `waiting`: these versions were withdrawn, so their samples are curated and learned again.

        The caller must hold the task's retraining lock. A version is released before its samples are settled: a run
        that was killed in between left them leased. Waiting samples may have changed since they were learned, and are
        never set to `used`.
        """
        state = feedback.c.state
        learned = feedback.c.id.in_(select(trained.c.feedback_id).where(trained.c.version.in_(live)))
        used = update(feedback).where(feedback.c.task == task, state == "leased", learned)
        again = update(feedback).where(feedback.c.task == task, state == "used", ~learned)
        unleased = {"owner": None, "leased_until": None}

        def write(connection: Connection) -> None:
            connection.execute(used.values(state="used", reason=None, **unleased))
            connection.execute(
                again.values(state="waiting", reason="no version that serves has learned it", **unleased)
            )

        self._database.write(write)
