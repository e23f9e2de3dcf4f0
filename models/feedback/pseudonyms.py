"""Users under a name that only this installation can compute: a keyed hash, so that logs and samples hold no names."""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from pathlib import Path

from models.home import user_secret_file

_LEAST = 16  # bytes
_HEX_DIGITS = 32  # 128 bits: no two users meet


class UserHasher:
    """HMAC-SHA256 of a user's name, as 32 hexadecimal digits. The same user has the same hash as long as the secret."""

    def __init__(self, secret: bytes) -> None:
        """Raises ValueError for a secret under 16 bytes: short ones can be guessed from a few known users."""
        if len(secret) < _LEAST:
            raise ValueError(f"the secret for user hashes has {len(secret)} bytes, it needs at least {_LEAST}")
        self._secret = secret

    @classmethod
    def open(cls, home: Path, secret: str | None = None) -> UserHasher:
        """With the configured secret, or the one kept in `home/secret`, which is made at the first call.

        Processes that call this at the same time get the same secret. Raises ValueError when the kept or configured
        one is too short, OSError when the directory cannot be written.
        """
        if secret:
            return cls(secret.encode())
        file = user_secret_file(home)
        if not file.exists():
            _create(file)
        return cls(file.read_bytes().strip())

    def hashed(self, user: str) -> str:
        """What is kept in place of the name; it cannot be turned back without the secret."""
        name = user.encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, name, "sha256").hex()[:_HEX_DIGITS]


def _create(file: Path) -> None:
    """Readable by its owner alone; whole at once, and the first of several processes wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mkstemp's mode is 0600
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(secrets.token_hex(32).encode())
            opened.flush()
            os.fsync(opened.fileno())
        # A link fails where a rename would replace what another process has made, and has perhaps used already.
        os.link(name, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
