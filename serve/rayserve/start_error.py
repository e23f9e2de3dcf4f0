"""Why a server does not start."""

from __future__ import annotations


class StartError(Exception):
    """Raised when the server cannot start for a reason the user can mend; the text says how."""
