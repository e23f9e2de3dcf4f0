"""The commands of docs/upgrade.md for a store in PostgreSQL, run on one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from models.feedback.store import Store
from tests.helpers.command import ROOT
from tests.helpers.documented import blocks_of
from tests.helpers.postgres import PostgresServer
from tests.helpers.store_fixtures import add, correction

BLOCKS = blocks_of((ROOT / "docs" / "upgrade.md").read_text("utf-8"), "sh")


@pytest.mark.skipif(shutil.which("pg_dump") is None, reason="needs pg_dump (Debian: apt-get install postgresql-client)")
def test_a_dumped_store_comes_back(postgres: PostgresServer, tmp_path: Path) -> None:
    old, new = postgres.new_database(), postgres.new_database()
    store = Store.open(old)
    add(store, correction(text="one"), correction(text="two", user="erased"))
    store.privacy.erase("erased")
    store.close()
    dump, restore = (block for block in BLOCKS if "DATABASE_URL" in block)
    for block in (dump, restore):
        subprocess.run(
            ["bash", "-e", "-c", block.replace("/mnt/backups", str(tmp_path))],
            env={**os.environ, "DATABASE_URL": plain(old), "NEW_DATABASE_URL": plain(new)},
            check=True,
        )
    restored = Store.open(new)
    assert [sample.text for sample in restored.queue.lease("intent", "me", 9, 60)] == ["one"]
    assert [user for user, _ in restored.privacy.erasures()] == ["erased"]
    add(restored, correction(text="three"))  # numbers of rows go on
    restored.close()


def plain(url: str) -> str:
    """As PostgreSQL's programs take it: without the driver's name."""
    return url.replace("postgresql+psycopg://", "postgresql://")
