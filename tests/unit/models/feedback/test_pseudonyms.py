"""Names of users become hashes, by a secret that is made once and kept."""

from __future__ import annotations

import multiprocessing
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.feedback.pseudonyms import UserHasher


def test_users_are_hashed_with_the_kept_secret(tmp_path: Path) -> None:
    hasher = UserHasher.open(tmp_path / "var")
    hashed = hasher.hashed("ann@example.com")
    assert re.fullmatch("[0-9a-f]{32}", hashed)
    assert hashed == UserHasher.open(tmp_path / "var").hashed("ann@example.com")
    assert hashed != hasher.hashed("bob@example.com")
    assert hashed != UserHasher.open(tmp_path / "other").hashed("ann@example.com")
    assert stat.S_IMODE((tmp_path / "var" / "secret").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "var").iterdir()] == ["secret"]


def test_a_configured_secret_goes_before_the_kept_one(tmp_path: Path) -> None:
    configured = UserHasher.open(tmp_path, "a secret of the operator")
    assert configured.hashed("ann") == UserHasher(b"a secret of the operator").hashed("ann")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="16"):
        UserHasher.open(tmp_path, "short")
    (tmp_path / "secret").write_text("")
    with pytest.raises(ValueError, match="0 bytes"):
        UserHasher.open(tmp_path)


def _hash_in(home: Path) -> str:
    return UserHasher.open(home).hashed("ann")


def test_processes_that_start_together_agree_on_the_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        hashes = pool.map(_hash_in, [tmp_path] * 16, chunksize=1)
    assert len(set(hashes)) == 1


@given(st.text(max_size=30))
def test_any_user_name_can_be_hashed(user: str) -> None:
    assert len(UserHasher(b"0" * 16).hashed(user)) == 32
