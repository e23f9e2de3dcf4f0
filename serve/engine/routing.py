"""Which loaded version answers a request: the champion, a canary for some users, or the one that was asked for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from hashlib import blake2b
from typing import Generic, TypeVar

from models.releases.release import Release
from serve.errors import NotFound

Version = TypeVar("Version")


class Router(Generic[Version]):
    """One release's versions. Never changed: a new release is a new router, swapped in one assignment."""

    def __init__(self, release: Release, versions: Mapping[str, Version]):
        self.release = release
        self.versions = dict(versions)
        self._champion = self.versions[release.champion]
        self._challenger = self.versions[release.challenger] if release.challenger is not None else None
        self._canary = self._challenger if release.mode == "canary" else None
        self.shadow = self._challenger if release.mode == "shadow" else None

    def choose(self, pinned: str | None = None, user: str | None = None) -> Version:
        """The pinned version, else the canary for its share of the users, else the champion.

        A user always gets the same version of a release; who does not say who they are is drawn anew each time.
        Raises NotFound for a version that is not loaded.
        """
        if pinned is not None:
            try:
                return self.versions[pinned]
            except KeyError:
                loaded = ", ".join(self.versions)
                raise NotFound(f"version {pinned!r} is not loaded; loaded: {loaded}") from None
        if self._canary is None:
            return self._champion
        drawn = random.random() if user is None else self._place(user)
        return self._canary if drawn < self.release.share else self._champion

    def _place(self, user: str) -> float:
        """From 0 to 1, uniform over users, and new for each challenger: no user is the first to try them all."""
        name = f"{self.release.challenger}/{user}".encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") / 2**64
