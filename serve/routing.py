"""Which loaded version answers a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from serve.errors import NotFound

Version = TypeVar("Version")


class Router(Generic[Version]):
    """One release's versions. Never changed: a new release is a new router, swapped in one assignment."""

    def __init__(self, champion: str, versions: Mapping[str, Version]):
        self.champion = champion
        self.versions = dict(versions)

    def choose(self, pinned: str | None = None) -> Version:
        """The pinned version, else the champion. Raises NotFound for a version that is not loaded."""
        if pinned is None:
            return self.versions[self.champion]
        try:
            return self.versions[pinned]
        except KeyError:
            loaded = ", ".join(self.versions)
            raise NotFound(f"version {pinned!r} is not loaded; loaded: {loaded}") from None
