"""Commands of the feedback loop: send feedback, retrain, challenge, promote, roll back, erase."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from models.tasks.base import get_task
from models.users import user_of_argument
from serve.cli.client import ServerError, call
from serve.cli.corrections import read_corrections, send
from serve.cli.settings import actor, load_config
from serve.cli.terminal import URL, ConfigOption, TaskArgument, UrlOption, err, out, print_error

if TYPE_CHECKING:
    from models.releases.rollout import Rollout

commands = typer.Typer()

ReasonOption = Annotated[str, typer.Option("--reason", "--why", help="Recorded in the audit log.")]
_MAX_REFUSED_SHOWN = 100  # refused lines of a file, in a terminal
_STORE_TIMEOUT_S = 2.0  # for a database that does not answer; then the release changes without it


@commands.command()
def promote(
    task: TaskArgument,
    version: Annotated[
        str | None, typer.Argument(help="As `flywheel releases` lists it; default: the challenger.")
    ] = None,
    reason: ReasonOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """Make VERSION of TASK the champion; running servers load it within seconds, without a restart.

    Examples:

        flywheel promote intent 2

        flywheel promote intent --reason "better on refunds"
    """
    release = _rollout(task, config).promote(version, reason)
    out.print(f"{task}: version {release.champion} is the champion")
    _update_aliases(task, config)


@commands.command()
def challenge(
    task: TaskArgument,
    version: Annotated[str, typer.Argument(help="The challenger, as `flywheel releases` lists it.")],
    mode: Annotated[
        Literal["shadow", "canary"],
        typer.Option(help="shadow: predict without responding to clients; canary: serve a fraction of the users."),
    ] = "canary",
    share: Annotated[float, typer.Option(help="Fraction of the users that a canary serves.")] = 0.1,
    reason: ReasonOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """Run VERSION of TASK beside the champion; the canary analysis, or you, promote it or roll it back.

    Examples:

        flywheel challenge intent 3 --mode shadow

        flywheel challenge intent 3 --share 0.05
    """
    release = _rollout(task, config).challenge(version, mode, share, reason)
    traffic = f"serves {release.share:.0%} of the users" if mode == "canary" else "runs in shadow"
    out.print(f"{task}: version {version} {traffic} beside champion {release.champion}")
    _update_aliases(task, config)


@commands.command()
def rollback(
    task: TaskArgument,
    version: Annotated[
        str | None, typer.Argument(help="The version to take out; default: the challenger, or the champion.")
    ] = None,
    reason: ReasonOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """Withdraw TASK's challenger; without one, return to the previous champion.

    With VERSION, the command fails if that version is no longer serving, so it is safe to repeat.

    Examples:

        flywheel rollback intent --reason "complaints about refunds"

        flywheel rollback intent 3
    """
    release = _rollout(task, config).rollback(reason, version)
    out.print(f"{task}: version {release.champion} is the champion")
    _update_aliases(task, config)


@commands.command()
def retrain(task: TaskArgument, config: ConfigOption = None) -> None:
    """Retrain TASK with its waiting corrections now, in this terminal: curate, fine-tune, gate, release.

    A running server loads the new version by itself. Exit code 1 when the run produced no version.

    Example:

        flywheel retrain intent
    """
    from models.feedback.store import Store
    from serve.cli.progress import retrain_now

    settings = load_config(config)
    get_task(task)
    result = retrain_now(settings, task, Store.open(settings.feedback.store_url(settings.home)), out)
    out.print(f"{task}: {result.sentence}", highlight=False)
    if result.version is None:
        raise typer.Exit(1)
    out.print(f"{task}: version {result.version}; see it with: flywheel releases")


@commands.command()
def feedback(
    task: TaskArgument,
    file: Annotated[
        Path | None,
        typer.Argument(help="JSONL or CSV of corrections, or of events on ranked items; without it: counts by state."),
    ] = None,
    url: UrlOption = URL,
) -> None:
    """Send corrections to a running server, or show its corrections by state.

    A line has `id` (of a prediction) or `text`, `label`, and may have `source`, `consent`, `user`, `index`. For a
    ranking it has `id`, `item_id`, `event` and, of a rating or a dwell, `value`. Files of `flywheel review --out` are
    such files: their rows without a label wait for one, and are not sent. Lines that the server refuses are listed; the
    others are stored, and the exit code is 1. A file can be sent again: what is stored already is a
    duplicate.

    Examples:

        flywheel feedback intent

        flywheel feedback intent corrections.jsonl
    """
    counts, line = Counter[str](), 0
    try:
        if file is None:
            out.print_json(data=call(url, f"/v2/models/{task}/feedback"))
            return
        for line, result in send(url, f"/v2/models/{task}/feedback", read_corrections(file)):
            counts[result.get("status", "refused")] += 1
            if "error" in result and (counts["refused"] <= _MAX_REFUSED_SHOWN or not err.is_terminal):
                err.print(f"{file}, line {line}: {result['error']}", highlight=False, markup=False)
    except ServerError as error:
        print_error(f"{error} (Stopped after line {line}; the whole file can be sent again.)" if line else error)
        raise typer.Exit(1) from None
    outcomes = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    out.print(
        f"{counts.total():,} sent: {outcomes}" if outcomes else f"{file}: there are no corrections", highlight=False
    )
    if counts["refused"]:
        if err.is_terminal and (more := counts["refused"] - _MAX_REFUSED_SHOWN) > 0:
            err.print(f"{more:,} more lines were refused; to have them all, add: 2> refused.txt", highlight=False)
        raise typer.Exit(1)


@commands.command()
def dead_letters(
    task: TaskArgument,
    requeue: Annotated[bool, typer.Option("--requeue", help="Put them all back into the queue.")] = False,
    reason: ReasonOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """List TASK's corrections that were in too many failed retrainings, or requeue them for the next one.

    Examples:

        flywheel dead-letters intent

        flywheel dead-letters intent --requeue --reason "the bound of the gate was wrong"
    """
    from models.feedback.store import Store

    settings = load_config(config)
    get_task(task)
    store = Store.open(settings.feedback.store_url(settings.home))
    if requeue:
        count = store.queue.requeue(task)
        store.audit.append(task, "requeue", None, actor(), reason, {"corrections": count})
        out.print(f"{task}: {count} corrections wait again")
        return
    letters = store.queue.dead_letters(task)
    for sample, failure in letters:
        line = f"{sample.id} {sample.at:%Y-%m-%d} {sample.source} {sample.label}: {sample.text}\n    {failure}"
        out.print(line, highlight=False, markup=False)
    out.print(f"{task}: {len(letters)} dead letters")


@commands.command()
def erase(
    user: Annotated[str, typer.Argument(help="As clients named them in `user` or x-user-id.")],
    reason: ReasonOption = "the user asked for it",
    config: ConfigOption = None,
) -> None:
    """Delete a user's predictions, corrections and documents in all tasks; prints the versions trained on them.

    Example:

        flywheel erase customer-4711
    """
    from models.feedback.pseudonyms import UserHasher
    from models.feedback.store import Store

    if (name := user_of_argument(user)) is None:
        raise typer.BadParameter("the name of the user is blank")
    settings = load_config(config)
    secret = settings.feedback.secret.get_secret_value() if settings.feedback.secret else None
    hashes = UserHasher.open(settings.home, secret).all_hashes(name, user)
    store = Store.open(settings.feedback.store_url(settings.home))
    erased = store.privacy.erase(*hashes, actor=actor(), reason=reason)
    found = f"{erased.predictions} predictions, {erased.feedback} corrections and {erased.documents} documents"
    out.print(f"erased {found}", highlight=False)
    for task, versions in erased.versions.items():
        out.print(f"{task}: version {', '.join(versions)} was trained on this data; no later training will read it")


def _rollout(task: str, config: Path | None) -> Rollout:
    from models.feedback.store import Store, StoreUnavailable
    from models.releases.rollout import Rollout

    settings = load_config(config)
    get_task(task)
    store = Store(settings.feedback.store_url(settings.home), patience_s=_STORE_TIMEOUT_S)
    with suppress(StoreUnavailable):  # the move works without it; its audit entry is written later
        store.migrate()
    return Rollout(settings.home, store, task, actor())


def _update_aliases(task: str, config: Path | None) -> None:
    """Set the aliases in MLflow to the release, which has changed already."""
    from models.releases.registry import Registry, is_installed

    if is_installed() and not Registry(load_config(config).home).follow(task):
        err.print("MLflow's aliases could not be set; a running server will retry.", highlight=False)
