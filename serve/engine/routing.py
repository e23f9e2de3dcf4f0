"""The choice of the version that answers a request: the champion, a canary for some users, or a pinned version."""

from __future__ import annotations

import random
from collections.abc import Mapping
from hashlib import blake2b
from typing import Generic, TypeVar

from models.releases.release import Release
from models.users import UserName
from serve.errors import NotFound

Version = TypeVar("Version")


class Router(Generic[Version]):
    """The versions of one release. Immutable: a new release is a new router, swapped in one assignment."""

    def __init__(self, release: Release, versions: Mapping[str, Version]):
        self.release = release
        self.versions = dict(versions)
        self._champion = self.versions[release.champion]
        self._challenger = self.versions[release.challenger] if release.challenger is not None else None
        self._canary = self._challenger if release.mode == "canary" else None
        self.shadow = self._challenger if release.mode == "shadow" else None

    def choose(self, pinned: str | None = None, user: UserName | None = None) -> Version:
        """The pinned version, else the canary for its share of the users, else the champion.

        A user always gets the same version of a release; a request without a user is assigned at random. Raises
        NotFound for a version that is not loaded.
        """
        if pinned is not None:
            try:
                return self.versions[pinned]
            except KeyError:
                loaded = ", ".join(self.versions)
                raise NotFound(f"version {pinned!r} is not loaded; loaded: {loaded}") from None
        if self._canary is None:
            return self._champion
        drawn = random.random() if user is None else self._user_fraction(user)
        return self._canary if drawn < self.release.share else self._champion

    def _user_fraction(self, user: UserName) -> float:
        """A hash of the user in [0, 1), uniform, and different for each challenger, so that canary users vary."""
        name = f"{self.release.challenger}/{user}".encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") / 2**64
