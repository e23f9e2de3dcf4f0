"""Tests in this folder get neither the trained models nor a server."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Config` takes a variable of the environment, such as FLYWHEEL_HOME, over what a test gives it."""
    for name in [name for name in os.environ if name.startswith("FLYWHEEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def trained_home() -> None:
    """Instead of the fixture of this name in tests/conftest.py, on which all that need a trained model stand."""
    pytest.fail("a test that needs a trained model belongs in tests/model")
