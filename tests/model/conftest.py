"""What the tests of trainings stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import flywheel


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a user trained the intent task on own data; only to be read."""
    from tests.helpers.own_corpus import own_data

    home = tmp_path_factory.mktemp("parent")
    done = flywheel("train", "intent", "--data", str(own_data(home)), "--epochs", "4", home=home, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not any((home / "work").iterdir())
    assert list((home / "bundles" / "intent" / ".packed" / "1").glob("*/weights.bin"))
    (home / "version1.txt").write_text(done.stdout)
    return home
