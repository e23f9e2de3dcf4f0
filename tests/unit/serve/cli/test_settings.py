"""What a command makes of its environment and of its arguments."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from models.users import user_of_header
from serve.cli.settings import host_of_environment, load_config
from tests.helpers.command import ROOT, flywheel, refused

FLYWHEEL = Path(sys.executable).parent / "flywheel"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::1", "localhost"])
def test_an_address_in_the_environment_is_used(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", host)
    assert host_of_environment() == host


@pytest.mark.parametrize("host", ["x86_64-conda-linux-gnu", "my-laptop.example", "tcp://10.0.0.1:8000", "300.1.1.1"])
def test_another_name_there_is_ignored_and_told(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOST", host)
    assert host_of_environment() is None
    assert f"warning: HOST={host} in the environment is ignored" in capsys.readouterr().err


def test_an_address_of_another_machine_is_told_with_the_settings_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", "192.0.2.77")
    sentence = refused(flywheel("up", home=tmp_path))
    assert sentence.startswith("Cannot listen on 192.0.2.77:8000: ")
    assert "set --host, HOST, FLYWHEEL_SERVER__HOST or server.host" in sentence


@pytest.mark.parametrize("home", ["/nonexistent", None])
def test_a_user_without_a_home_directory_is_given_one(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    if home is None:
        monkeypatch.setenv("HOME", "set so that it is restored")
        monkeypatch.setattr(Path, "home", _no_home)
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    load_config()
    assert os.environ["HOME"] == str(tmp_path / "home" / "cache")
    assert not (tmp_path / "home").exists()  # whoever needs it creates it


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")  # as for a user without an entry in passwd


def test_a_home_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    load_config()
    assert os.environ["HOME"] == str(tmp_path)


def test_without_a_directory_for_temporary_files_they_go_below_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", "set so that it is restored")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    load_config()
    assert os.environ["TMPDIR"] == str(tmp_path / "tmp")
    assert (tmp_path / "tmp").is_dir()


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {}],
)
def test_arguments_in_latin_1_are_text_under_every_locale(environment: dict[str, str], tmp_path: Path) -> None:
    """`erase` reads a user, and no server is needed for it."""
    command = [os.fsencode(FLYWHEEL), b"erase", b"J\xfcrgen", b"--reason", b"caf\xe9 \xe2\x82\xac"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment, "FLYWHEEL_HOME": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"erased 0 predictions")


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_an_argument_names_the_user_that_a_header_of_these_bytes_names(environment: dict[str, str]) -> None:
    program = (
        "import sys; from serve.cli.terminal import accept_any_text; from models.users import user_of_argument;"
        "accept_any_text(); print(*map(ascii, map(user_of_argument, sys.argv[1:])), sep='|')"
    )
    given = [b"J\xc3\xbcrgen", b"J\xfcrgen", b"Zo\xeb d\x92Arc", b"J%FCrgen"]
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-c", program.encode(), *given],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().split("|") == [ascii(user_of_header(raw.decode("latin-1"))) for raw in given]


def test_a_path_in_latin_1_is_that_file(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    Path(os.fsdecode(file)).write_text("text,label\n,greet\n")
    done = subprocess.run([os.fsencode(FLYWHEEL), b"train", b"intent", b"--data", file], cwd=ROOT, capture_output=True)
    assert done.returncode == 1
    assert b"line 2: the text is empty" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_server_goes_on_where_nobody_reads_its_output() -> None:
    program = "import sys; from serve.cli.terminal import say; sys.stdin.read(); say('ready'); say('draining')"
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE
    ) as process:
        os.close(write)
        os.close(read)
        _, errors = process.communicate(b"")
    assert (process.returncode, errors) == (0, b"")
