"""What a start says of its home: what it cannot do without, and what it does without."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from serve.config import Config, FeedbackConfig, TracingConfig
from serve.rayserve.server import check_port, check_secret, check_tracing, home_problem
from serve.rayserve.start_error import StartError

UNWRITABLE = Path("/sys/flywheel")  # not even root makes folders there
needs_sys = pytest.mark.skipif(not UNWRITABLE.parent.is_dir(), reason="this system has no /sys")


def config(home: Path, secret: str | None = None) -> Config:
    feedback = FeedbackConfig(secret=None if secret is None else SecretStr(secret))
    return Config(feedback=feedback).model_copy(update={"home": home})


def test_a_port_that_a_killed_server_is_about_to_leave_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        end = threading.Timer(0.5, other.close)
        end.start()
        check_port("127.0.0.1", port)
    end.join()


@needs_sys
def test_the_key_of_pseudonyms_is_written_or_configured() -> None:
    with pytest.raises(StartError, match=r"/sys/flywheel/secret: .*set feedback.secret"):
        check_secret(config(UNWRITABLE))
    check_secret(config(UNWRITABLE, "a secret of sixteen bytes"))
    with pytest.raises(StartError, match="at least 16"):
        check_secret(config(UNWRITABLE, "short"))


@needs_sys
def test_a_home_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    assert home_problem(config(tmp_path)) is None
    assert "No such file" in str(home_problem(config(UNWRITABLE)))
    problem = str(home_problem(config(UNWRITABLE.parent)))
    assert problem.startswith(("/sys cannot be written: predictions are answered", "/sys has no room"))


def test_traces_without_their_package_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Config(tracing=TracingConfig(endpoint="http://127.0.0.1:4318"))
    check_tracing(traced)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    check_tracing(Config())
    with pytest.raises(StartError, match=r"pip install 'flywheel-serve\[tracing\]'"):
        check_tracing(traced)
