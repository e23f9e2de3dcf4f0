"""Names of users become hashes, by a secret that is made once and kept."""

from __future__ import annotations

import multiprocessing
import platform
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.feedback.pseudonyms import SecretError, UserHasher
from tests.helpers.command import ROOT


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
    with pytest.raises(SecretError, match=r"^feedback\.secret: .* 16"):
        UserHasher.open(tmp_path, "short")
    (tmp_path / "secret").write_text("")
    with pytest.raises(SecretError, match=r"/secret: .* 0 bytes.*Restore it"):
        UserHasher.open(tmp_path)


# A process for which the kernel refuses hard links, as file systems without them do: seccomp, EPERM for linkat.
NO_LINKS = """
import ctypes, errno, platform, struct, sys
from pathlib import Path
from models.feedback.pseudonyms import UserHasher
numbers = {"x86_64": (86, 265), "aarch64": (37, 37)}[platform.machine()]
load, equal, end = 0x20, 0x15, 0x06
steps = [(load, 0, 0, 0), (equal, 1, 0, numbers[0]), (equal, 0, 1, numbers[1]),
         (end, 0, 0, 0x50000 | errno.EPERM), (end, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(77)
print(UserHasher.open(Path(sys.argv[1])).hashed("ann"))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="other numbers of system calls")
def test_a_home_without_hard_links_keeps_a_secret(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_LINKS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("this machine has no seccomp")
    assert done.stdout.strip() == UserHasher.open(tmp_path).hashed("ann"), done.stderr
    assert [(file.name, stat.S_IMODE(file.stat().st_mode)) for file in tmp_path.iterdir()] == [("secret", 0o600)]


def _hash_in(home: Path) -> str:
    return UserHasher.open(home).hashed("ann")


def test_processes_that_start_together_agree_on_the_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        hashes = pool.map(_hash_in, [tmp_path] * 16, chunksize=1)
    assert len(set(hashes)) == 1


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_user_name_can_be_hashed(user: str) -> None:
    assert len(UserHasher(b"0" * 16).hashed(user)) == 32
