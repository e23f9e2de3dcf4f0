"""The wrapper around HAProxy: it closes HAProxy's own pages to other machines."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.command import ROOT

WRAPPER = ROOT / "serve" / "rayserve" / "haproxy.sh"


# As Ray's template has them.
PAGES = {
    "frontend prometheus": "frontend prometheus\n    bind :9101\n    mode http\n",
    "listen stats": "listen stats\n  bind *:8404\n  stats enable\n",
}


ENTRANCE = "frontend http_frontend\n    bind 0.0.0.0:8000\n"


def start_wrapper(configuration: Path) -> str:
    """What the wrapper says on stderr; in HAProxy's place it starts a program that prints its arguments."""
    command = [WRAPPER, "-db", "-f", configuration, "-sf", "1"]
    done = subprocess.run(command, env={**os.environ, "HAPROXY": "echo"}, capture_output=True, text=True, check=True)
    assert done.stdout == f"-db -f {configuration} -sf 1\n"
    return done.stderr


def test_the_wrapper_changes_the_addresses_of_haproxys_own_pages_alone(tmp_path: Path) -> None:
    configuration = tmp_path / "a folder" / "haproxy.cfg"
    configuration.parent.mkdir()
    before = PAGES["frontend prometheus"] + ENTRANCE + PAGES["listen stats"]
    after = before.replace("bind :9101", "bind 127.0.0.1:9101").replace("bind *:8404", "bind 127.0.0.1:8404")
    configuration.write_text(before)
    for _ in range(2):  # changed already, it stays as it is
        assert start_wrapper(configuration) == ""
        assert configuration.read_text() == after


@pytest.mark.parametrize("missing", PAGES)
def test_haproxy_starts_with_a_warning_where_one_of_its_pages_is_not_found(tmp_path: Path, missing: str) -> None:
    configuration = tmp_path / "haproxy.cfg"
    rest = "".join(text for section, text in PAGES.items() if section != missing)
    configuration.write_text(rest + f"{missing}\n  mode http\n" + ENTRANCE)
    said = start_wrapper(configuration)
    assert said.count("warning") == 1
    assert missing in said
    assert ENTRANCE in configuration.read_text()
