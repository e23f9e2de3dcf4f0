"""User pseudonyms: a keyed hash that only this installation can compute, so that logs and samples contain no names."""

from __future__ import annotations

import errno
import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from models.home import user_secret_file
from models.users import UserName, former_names

_MIN_SECRET_BYTES = 16  # bytes
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_HEX_DIGITS = 32  # 128 bits: no collisions


class SecretError(ValueError):
    """Raised when the key of user pseudonyms cannot be used; the text says which, and what to do."""


class UserHasher:
    """HMAC-SHA256 of a user's name, as 32 hexadecimal digits. A user has the same hash for as long as the
    secret is the same."""

    def __init__(self, secret: bytes) -> None:
        """Raises SecretError for a secret under 16 bytes, which could be guessed from a few known users."""
        if len(secret) < _MIN_SECRET_BYTES:
            raise SecretError(
                f"the key of user pseudonyms has {len(secret)} bytes, it needs at least {_MIN_SECRET_BYTES}"
            )
        self._secret = secret

    @classmethod
    def open(cls, home: Path, secret: str | None = None) -> UserHasher:
        """With the configured secret, or the one in `home/secret`, which the first call creates.

        Processes that call this at the same time get the same secret. Raises SecretError when the secret is too short,
        OSError when the directory cannot be written.
        """
        file = user_secret_file(home)
        if not secret and not file.exists():
            _create(file)
        try:
            return cls(secret.encode() if secret else file.read_bytes().strip())
        except SecretError as error:
            if secret:
                raise SecretError(f"feedback.secret: {error}") from None
            raise SecretError(
                f"{file}: {error}. Restore it from a backup. Without one delete it, and a new one is made: "
                "what users have sent until now is then no longer found by their names, as an erasure needs it."
            ) from None

    def hashed(self, user: UserName) -> str:
        """The pseudonym that is stored instead of the name; it cannot be reversed without the secret."""
        return self.digest(user)

    def all_hashes(self, user: UserName, given: str) -> list[str]:
        """Every pseudonym under which data of `user` may be stored, the present one first.

        Servers before decision 0031 hashed other forms of the name, among them `given`, the name as it was typed.
        """
        return list(dict.fromkeys([self.hashed(user), self.digest(given), *map(self.digest, former_names(user))]))

    def digest(self, text: str) -> str:
        """The keyed hash of any text."""
        name = text.encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, name, "sha256").hex()[:_HEX_DIGITS]


def _create(file: Path) -> None:
    """Write the file atomically, readable only by its owner; the first of several processes wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mkstemp's mode is 0600
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(secrets.token_hex(32).encode())
            opened.flush()
            os.fsync(opened.fileno())
        # A link fails if the file exists; a rename would replace a secret that another process may have used already.
        with suppress(FileExistsError):
            _link(name, file)
    finally:
        os.unlink(name)


def _link(name: str, file: Path) -> None:
    """Give the file at `name` the second name `file`; a copy, where the file system has no hard links (SMB, FUSE)."""
    try:
        os.link(name, file)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            copy.write(Path(name).read_bytes())
