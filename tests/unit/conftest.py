"""Tests in this folder get neither the trained models nor a server."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def trained_home() -> None:
    """Instead of the fixture of this name in tests/conftest.py, on which all that need a trained model stand."""
    pytest.fail("a test that needs a trained model belongs in tests/model")
