"""The moves of a version: shadow, canary, promotion, rollback. Each writes the release file and an audit log entry.

Servers apply the file within seconds. The registry's aliases are set later (`Registry.follow`), since a move must
neither wait for MLflow nor need it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.feedback.store import AuditEntry, Store
from models.releases import audit_outbox
from models.releases.release import (
    Mode,
    Release,
    ReleaseChanged,
    ReleaseError,
    is_first_version,
    make_release,
    one_move_at_a_time,
    read_release,
    write_release,
)

log = logging.getLogger("flywheel.rollout")


@dataclass(frozen=True)
class Rollout:
    """The moves of one task's versions, in the name of `actor`. Safe from several processes at once.

    Callers that decided on a release read earlier pass it as `expected`: each move raises ReleaseChanged, and
    changes nothing, when the release has changed since. `reason` goes into the audit log.
    """

    home: Path
    store: Store
    task: str
    actor: str

    def challenge(
        self, version: str, mode: Mode, share: float, reason: str, expected: Release | None = None
    ) -> Release:
        """Make `version` the challenger: in `shadow`, or as `canary` for `share` (0 to 1) of the users.

        Raises ReleaseError when there is no such version on disk, it is the champion, or one of them has no encoder.
        """
        with one_move_at_a_time(self.home, self.task):
            current = read_release(self.home, self.task)
            self._check_unchanged(expected, current)
            if version == current.champion:
                raise ReleaseError(f"{self.task} version {version} is the champion already.")
            for either in (version, current.champion):
                if is_first_version(self.home, self.task, either):
                    raise ReleaseError(
                        f"{self.task} version {either} is the first, quick one, without an encoder: comparing it with "
                        "another says nothing of that one. Promote the version with an encoder instead."
                    )
            if mode == "canary" and not 0 < share < 1:
                raise ReleaseError(f"A canary needs a share between 0 and 1, not {share:g}.")
            share = share if mode == "canary" else 0.0
            release = make_release(
                self.home,
                self.task,
                current.champion,
                challenger=version,
                mode=mode,
                share=share,
                previous=current.previous,
                promoted=current.promoted,
            )
            return self._move(release, mode, version, reason, {"champion": current.champion, "share": share})

    def promote(self, version: str | None, reason: str, expected: Release | None = None) -> Release:
        """Make `version`, or the challenger, the champion.

        Raises ReleaseError when there is no such version on disk, or none is given and there is no challenger.
        """
        with one_move_at_a_time(self.home, self.task):
            current = self._current_release()
            self._check_unchanged(expected, current)
            version = version or (current.challenger if current else None)
            if version is None:
                raise ReleaseError(f"{self.task} has no challenger; say which version to promote.")
            before = current.champion if current else None
            if current is not None and before == version:  # only takes the challenger out
                release = make_release(
                    self.home, self.task, version, previous=current.previous, promoted=current.promoted
                )
            else:
                release = make_release(self.home, self.task, version, previous=before, promoted=datetime.now(UTC))
            return self._move(release, "promote", version, reason, {"before": before})

    def rollback(self, reason: str, version: str | None = None, expected: Release | None = None) -> Release:
        """Withdraw `version`: a challenger is taken out, a champion is replaced by the previous one and alone then.

        Without a version, withdraw the challenger, or the champion when there is none. Raises ReleaseChanged when
        `version` is neither (any more), ReleaseError when there is no previous champion.
        """
        with one_move_at_a_time(self.home, self.task):
            current = read_release(self.home, self.task)
            self._check_unchanged(expected, current)
            withdrawn = version or current.challenger or current.champion
            if withdrawn not in (current.challenger, current.champion):
                raise ReleaseChanged(f"{self.task} version {version} is neither the champion nor the challenger.")
            if withdrawn == current.challenger:
                release = make_release(
                    self.home, self.task, current.champion, previous=current.previous, promoted=current.promoted
                )
            elif current.previous is None:
                raise ReleaseError(
                    f"{self.task} version {current.champion} is the first: there is nothing to go back to."
                )
            else:
                release = make_release(self.home, self.task, current.previous)
            return self._move(release, "rollback", release.champion, reason, {"withdrawn": withdrawn})

    def _check_unchanged(self, expected: Release | None, current: Release | None) -> None:
        if expected is not None and current != expected:
            raise ReleaseChanged(f"The release of {self.task} has changed meanwhile.")

    def _current_release(self) -> Release | None:
        try:
            return read_release(self.home, self.task)
        except ReleaseError:  # missing or damaged: a promotion repairs it
            return None

    def _move(self, release: Release, action: str, version: str, reason: str, detail: dict[str, Any]) -> Release:
        write_release(self.home, release)
        # Without who and why, which people write: the audit log has them.
        log.warning("%s: %s of version %s", self.task, action, version)
        try:
            entry = AuditEntry(self.store.database.clock(), self.task, action, version, self.actor, reason, detail)
            audit_outbox.append(self.home, entry)
            audit_outbox.flush(self.home, self.task, self.store)
        except Exception as error:
            # Moves work without the database; the controller flushes the outbox when the store is back.
            log.error("%s: this %s is not in the audit log yet: %s", self.task, action, error)
        return release
