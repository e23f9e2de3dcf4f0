"""One person has one name, however a client, a shell or an older server wrote it."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.feedback.pseudonyms import UserHasher
from models.users import former_names, require_user, user_name, user_of_argument, user_of_header

NAMES = ["Jürgen-Groß-17", "Šárka Nováková", "王小明", "Zoë d’Arc", "o'brien~(x)", "auth0|12", "a b", "שָׁלוֹם"]


def as_header(raw: bytes) -> str:
    """As an ASGI server gives the header's bytes to the application."""
    return raw.decode("latin-1")


def as_argument(raw: bytes) -> str:
    """As Python gives the argument's bytes to the program in a UTF-8 locale."""
    return raw.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", NAMES)
def test_a_person_is_one_user_by_every_entrance(name: str) -> None:
    user = unicodedata.normalize("NFC", name)
    apart = unicodedata.normalize("NFD", name)
    forms = [
        user_name(name), user_name(apart), user_name(f" {name}\u00a0\n"),
        user_name(f"\ufeff {name}\u200b"), user_name(quote(name)), user_name(quote(apart)),
        user_of_header(as_header(name.encode())), user_of_header(as_header(apart.encode())),
        user_of_header(quote(name, safe="")), user_of_header(quote(quote(name))),
        user_of_argument(name), user_of_argument(apart), user_of_argument(quote(name)),
    ]  # fmt: skip
    try:
        windows = name.encode("cp1252")
    except UnicodeEncodeError:
        pass
    else:
        forms += [user_of_header(as_header(windows)), user_of_argument(as_argument(windows)), user_name(quote(windows))]
    assert set(forms) == {user}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("u1", "U1"),
        ("Müller", "Muller"),
        ("a+b", "a b"),
        ("50%", "50"),
        ("x%domain@relay", "xdomain@relay"),
        ("1", "01"),
    ],
)
def test_different_people_stay_apart(one: str, other: str) -> None:
    assert user_name(one) != user_name(other)


def test_an_identifier_with_percent_signs_is_the_same_by_every_entrance() -> None:
    for name in ("50%", "100%25", "a%2541", "foo%bar.com@relay", "%zz%", "J%FCrgen", "%E4%F6"):
        assert user_name(name) == user_of_header(name) == user_of_argument(name) == user_name(quote(name))


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "%20", "\t\n", "\ufeff", "\u200b \u200b"])
def test_a_blank_name_is_nobodys(blank: str) -> None:
    assert user_name(blank) is None
    assert user_of_header(as_header(blank.encode())) is None
    assert user_of_argument(blank) is None
    with pytest.raises(ValueError, match="blank"):
        require_user(blank)
    assert user_of_header(None) is None


@settings(deadline=None)
@given(st.text(max_size=30) | st.text("%0123456789abcdefABCDEF é", max_size=12))
def test_normalizing_twice_changes_nothing(name: str) -> None:
    user = user_name(name)
    assert user is None or user_name(user) == user


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=20))
def test_any_bytes_of_a_header_or_an_argument_are_a_name(raw: bytes) -> None:
    assert user_of_header(as_header(raw)) == user_of_argument(as_argument(raw))


@pytest.mark.parametrize("name", NAMES)
def test_the_hashes_of_older_servers_are_among_all_hashes(name: str) -> None:
    """They hashed JSON and arguments as they came, and headers as Latin-1."""
    hasher = UserHasher(b"a secret of this test")
    apart = unicodedata.normalize("NFD", name)
    stored = [name, apart, as_header(name.encode()), as_header(apart.encode()), quote(name), quote(name, safe="")]
    stored.append(quote(name, safe="!~*'()"))  # encodeURIComponent
    if name.isascii() or name.startswith("J"):
        stored.append(as_header(name.encode("latin-1")))
    for typed in (name, apart, f"{name} "):
        hashes = hasher.all_hashes(require_user(typed), typed)
        assert hashes[0] == hasher.hashed(require_user(name))
        assert len(set(hashes)) == len(hashes) < 30
        assert {hasher.digest(form) for form in [*stored, typed]} <= set(hashes)
    assert require_user(name) in former_names(require_user(name))
