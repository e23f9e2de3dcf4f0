"""Commands of a home as a whole: back it up, restore it, and repeat the erasures that a backup does not have."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from serve.cli.settings import actor, load_config
from serve.cli.terminal import ConfigOption, err, out

if TYPE_CHECKING:
    from serve.config import Config

commands = typer.Typer()


@commands.command()
def backup(
    destination: Annotated[Path, typer.Argument(help="The archive to write, or a folder to write a new one in.")],
    small: Annotated[
        bool,
        typer.Option(
            "--small", help="Leave out MLflow's artifacts, and checkpoints of versions that no release names."
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Back up the whole home, while it serves and learns, into one .tar file.

    It has versions, releases, corpora, gate reports, the feedback store, MLflow's runs and the key of user pseudonyms.
    Only you can read it; protect it as you protect the home. It does not have flywheel.yaml and the files that it
    names, trainings that have not ended, and a database or an MLflow server elsewhere.

    Examples:

        flywheel backup /mnt/backups

        flywheel backup /mnt/backups/before-the-upgrade.tar

        flywheel backup /mnt/backups --small
    """
    from models.backup.backup import back_up

    settings = load_config(config)
    server = os.environ.get("MLFLOW_TRACKING_URI") or None
    store_url = settings.feedback.store_url(settings.home)
    with _progress("backing up") as report:
        done = back_up(settings.home, store_url, destination, report, small=small, mlflow_server=server)
    _print(f"{done.archive}: {done.files:,} files, {_size(done.size)}")
    for note in done.notes:
        _warn(f"{note}.")
    if _is_postgres(settings):
        _warn("The feedback store is in PostgreSQL and not in this file. Dump it now, after this backup: "
              "pg_dump --format=custom --file=feedback.dump DATABASE (docs/upgrade.md).")  # fmt: skip
    if server is not None:
        _warn("MLflow's runs are on a server of their own (MLFLOW_TRACKING_URI) and not in this file.")
    if settings.feedback.secret is not None:
        _warn("The key of user pseudonyms is `feedback.secret` of the configuration and not in this file: keep it too.")


@commands.command()
def restore(
    archive: Annotated[Path, typer.Argument(help="What `flywheel backup` has written.")],
    home: Annotated[
        Path | None, typer.Option("--home", help="The empty home; default: that of the configuration.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Restore a backup into an empty home. Every file is checked before the first one is put in its place.

    Users who were erased after the backup are in it: list them where that is known, and erase them again before you
    start the server, as `flywheel erasures --help` says.

    Examples:

        flywheel restore /mnt/backups/flywheel-20261130T020000Z.tar

        flywheel restore /mnt/backups/flywheel-20261130T020000Z.tar --home /srv/flywheel-copy
    """
    from models.backup.restore import check_is_empty, restore
    from models.home import server_lock
    from serve.home_lock import lock_home

    settings = load_config(config)
    target = home or settings.home
    if not server_lock(target).exists():  # else a server may run there, which is the better reason
        check_is_empty(target)
    with lock_home(target, "no address: flywheel restore", restoring=True), _progress("restoring") as report:
        header = restore(archive, target, lambda done, total: report("checking and writing", done, total))
    _print(f"{target}: restored, as it was on {header.started:%Y-%m-%d %H:%M:%S} UTC (Flywheel {header.flywheel})")
    if header.store == "postgresql":
        _warn("Its feedback store is in PostgreSQL: restore that dump too, with pg_restore (docs/upgrade.md).")
    elif settings.feedback.store is not None:
        _warn(f"feedback.store of the configuration is another place: move {target}/feedback.db there.")
    _print("Erase again who was erased since, before you start the server: flywheel erasures --help")


@commands.command()
def erasures(
    replay: Annotated[
        Path | None, typer.Option("--replay", help="Erase the users that this file lists, if the store has not.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """List the erased users, by pseudonym and time, or erase those of such a list again after a restore.

    A backup has the data of users who were erased later. Keep a list that is newer than the backup in another place; it
    has no names, and only this installation's key makes pseudonyms of them.

    Examples:

        flywheel erasures > /mnt/backups/erasures.jsonl

        flywheel erasures --replay /mnt/backups/erasures.jsonl
    """
    from models.feedback.store import Store

    settings = load_config(config)
    store = Store.open(settings.feedback.store_url(settings.home))
    if replay is None:
        for user, at in store.privacy.erasures():
            sys.stdout.buffer.write(orjson.dumps({"user": user, "at": at}, option=orjson.OPT_APPEND_NEWLINE))
        return
    listed = _read_erasures(replay)
    erased = store.privacy.replay(listed, actor=actor(), reason="erased before; the backup still had the data")
    _print(f"{len(listed):,} erasures are listed; erased now: {erased.predictions} predictions, {erased.feedback} "
           f"corrections and {erased.documents} documents")  # fmt: skip
    for task, versions in erased.versions.items():
        _print(f"{task}: version {', '.join(versions)} was trained on this data; no later training will read it")


def _read_erasures(file: Path) -> list[tuple[str, datetime]]:
    listed = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            values = orjson.loads(line)
            user, at = str(values["user"]), datetime.fromisoformat(values["at"])
            if at.tzinfo is None:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise typer.BadParameter(f"{file}, line {number} is not a line of `flywheel erasures`.") from None
        listed.append((user, at))
    return listed


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar of bytes with the time left, in a terminal only; yields what reports to it."""
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), DownloadColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, refresh_per_second=2, disable=not err.is_terminal) as progress:
        bar = progress.add_task(what, total=None)

        def report(stage: str, done: int, total: int) -> None:
            progress.update(bar, description=f"{what}: {stage}", completed=done, total=total)

        yield report


def _is_postgres(settings: Config) -> bool:
    return (settings.feedback.store or "").startswith("postgresql")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _print(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def _warn(text: str) -> None:
    err.print(text, highlight=False, markup=False)
