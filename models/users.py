"""Names of users: one sequence of characters for a person, however the name arrives.

Clients name a user in the header `x-user-id`, in JSON (`user`, `user.id`), on the command line and in files. Each
entrance turns what it got into a `UserName` with a function of this module, so that one person has one hash
(feedback/pseudonyms.py) and one version of a canary. See docs/decisions/0031-user-names.md.
"""

from __future__ import annotations

import os
import re
import unicodedata
from typing import NewType
from urllib.parse import quote

UserName = NewType("UserName", str)
"""A normalized name, not empty. Only this module makes one."""

_PERCENT = re.compile("(?:%[0-9A-Fa-f]{2})+")
# White space, zero-width spaces and the byte order mark.
_INVISIBLE = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u2060\ufeff"
_MAX_ROUNDS = 8  # of percent-decoding: a client encodes once, a gateway in between perhaps again
# What JavaScript's encodeURIComponent, Python's quote and strict encoders leave as it is.
_UNQUOTED = ("!~*'()", "/", "")


def user_name(name: str) -> UserName | None:
    """`name` percent-decoded, in NFC, without invisible characters around it; None if nothing is left.

    Upper and lower case stay apart, and so do `+` and a space. Normalizing twice changes nothing.
    """
    if name.isascii() and "%" not in name:
        return UserName(name.strip()) or None
    for _ in range(_MAX_ROUNDS):
        before, name = name, _PERCENT.sub(_unquoted, name)
        if name == before:
            break
    return UserName(unicodedata.normalize("NFC", name).strip(_INVISIBLE)) or None


def require_user(name: str) -> UserName:
    """`user_name(name)`. Raises ValueError for a blank name."""
    if (user := user_name(name)) is None:
        raise ValueError("the name of the user is blank")
    return user


def user_of_header(value: str | None) -> UserName | None:
    """The user in a header, whose bytes an ASGI server gives as Latin-1, whatever they are. None without one."""
    if value is None:
        return None
    return user_name(value if value.isascii() else decode_text(value.encode("latin-1")))


def user_of_argument(value: str) -> UserName | None:
    """The user in an argument of the command line, which Python has decoded by the locale."""
    try:
        raw = os.fsencode(value)
        return user_name(raw.decode())
    except UnicodeEncodeError:  # not from the command line
        return user_name(value)
    except UnicodeDecodeError:
        undecodable = any("\udc80" <= character <= "\udcff" for character in value)
        return user_name(decode_text(raw) if undecodable else value)


def former_names(name: UserName) -> set[str]:
    """The forms in which servers before decision 0031 may have hashed a user, the present one among them.

    They read headers as Latin-1 and normalized nothing.
    """
    found = set()
    for spelled in (name, unicodedata.normalize("NFD", name)):
        found.add(spelled)
        for encoding in ("utf-8", "cp1252"):
            try:
                raw = spelled.encode(encoding)
            except UnicodeEncodeError:
                continue
            found.add(raw.decode("latin-1"))
            for unquoted in _UNQUOTED:
                quoted = quote(raw, safe=unquoted)
                found |= {quoted, _PERCENT.sub(lambda match: match[0].lower(), quoted)}
    return found


def _unquoted(match: re.Match[str]) -> str:
    return decode_text(bytes.fromhex(match[0].replace("%", "")))


def decode_text(raw: bytes) -> str:
    """The text of a header or an argument: UTF-8, or else Windows-1252, which clients mean by Latin-1."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")
