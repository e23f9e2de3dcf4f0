"""The error of a server that cannot start."""

from __future__ import annotations


class StartError(Exception):
    """Raised when the server cannot start for a reason that the user can fix; the text says how."""
