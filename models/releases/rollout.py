"""The moves of a version: shadow, canary, promotion, rollback. Each writes release file and audit log.

Servers follow the file within seconds, the registry's aliases later (`Registry.follow`): a move must
not wait for MLflow, and must be possible without it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.feedback.store import Audit, Store
from models.releases import audit_outbox
from models.releases.release import (
    Mode,
    Release,
    ReleaseChanged,
    ReleaseError,
    make_release,
    one_move_at_a_time,
    read_release,
    write_release,
)

log = logging.getLogger("flywheel.rollout")


@dataclass(frozen=True)
class Rollout:
    """The moves of one task's versions, in the name of `who`. Safe from several processes at once.

    Who decided on a release that was read some time ago gives it as `expected`: each move raises ReleaseChanged, and
    changes nothing, when another has moved since.
    """

    home: Path
    store: Store
    task: str
    who: str

    def challenge(self, version: str, mode: Mode, share: float, why: str, expected: Release | None = None) -> Release:
        """Let `version` answer unseen (`shadow`), or `share` of the users (`canary`).

        Raises ReleaseError when there is no such version here, or it is the champion.
        """
        with one_move_at_a_time(self.home, self.task):
            now = read_release(self.home, self.task)
            self._is_still(expected, now)
            if version == now.champion:
                raise ReleaseError(f"{self.task} version {version} is the champion already.")
            if mode == "canary" and not 0 < share < 1:
                raise ReleaseError(f"A canary needs a share between 0 and 1, not {share:g}.")
            share = share if mode == "canary" else 0.0
            release = make_release(
                self.home,
                self.task,
                now.champion,
                challenger=version,
                mode=mode,
                share=share,
                previous=now.previous,
                promoted=now.promoted,
            )
            return self._move(release, mode, version, why, {"champion": now.champion, "share": share})

    def promote(self, version: str | None, why: str, expected: Release | None = None) -> Release:
        """Make `version`, or the challenger, the champion.

        Raises ReleaseError when there is no such version here, or no challenger to mean.
        """
        with one_move_at_a_time(self.home, self.task):
            now = self._now()
            self._is_still(expected, now)
            version = version or (now.challenger if now else None)
            if version is None:
                raise ReleaseError(f"{self.task} has no challenger; say which version to promote.")
            before = now.champion if now else None
            if now is not None and before == version:  # nothing but a challenger's end
                release = make_release(self.home, self.task, version, previous=now.previous, promoted=now.promoted)
            else:
                release = make_release(self.home, self.task, version, previous=before, promoted=datetime.now(UTC))
            return self._move(release, "promote", version, why, {"before": before})

    def rollback(self, why: str, version: str | None = None, expected: Release | None = None) -> Release:
        """Take `version` out: the challenger, or the champion, which then is the one before it again, alone.

        Without a version, the challenger is meant, or the champion where there is none. Raises ReleaseChanged when
        `version` is neither (any more), ReleaseError when there is nothing to go back to.
        """
        with one_move_at_a_time(self.home, self.task):
            now = read_release(self.home, self.task)
            self._is_still(expected, now)
            withdrawn = version or now.challenger or now.champion
            if withdrawn not in (now.challenger, now.champion):
                raise ReleaseChanged(f"{self.task} version {version} is neither the champion nor the challenger.")
            if withdrawn == now.challenger:
                release = make_release(self.home, self.task, now.champion, previous=now.previous, promoted=now.promoted)
            elif now.previous is None:
                raise ReleaseError(f"{self.task} version {now.champion} is the first: there is nothing to go back to.")
            else:
                release = make_release(self.home, self.task, now.previous)
            return self._move(release, "rollback", release.champion, why, {"withdrawn": withdrawn})

    def _is_still(self, expected: Release | None, now: Release | None) -> None:
        if expected is not None and now != expected:
            raise ReleaseChanged(f"The release of {self.task} has changed meanwhile.")

    def _now(self) -> Release | None:
        try:
            return read_release(self.home, self.task)
        except ReleaseError:  # missing or damaged: a promotion is what mends it
            return None

    def _move(self, release: Release, action: str, version: str, why: str, detail: dict[str, Any]) -> Release:
        write_release(self.home, release)
        log.warning("%s: %s of version %s by %s: %s", self.task, action, version, self.who, why)
        try:
            entry = Audit(self.store.database.clock(), self.task, action, version, self.who, why, detail)
            audit_outbox.append(self.home, entry)
            audit_outbox.flush(self.home, self.task, self.store)
        except Exception as error:
            # A bad version is rolled back with or without a database; the loop hands the entry over when it is back.
            log.error("%s: this %s is not in the audit log yet: %s", self.task, action, error)
        return release
