"""The commands of the loop: correct, retrain, try, promote, roll back, erase."""

from __future__ import annotations

import getpass
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer

from models.tasks.base import get_task
from serve.cli.client import ServerError, call
from serve.cli.terminal import URL, ConfigOption, TaskArgument, UrlOption, err, out, print_error
from serve.config import load_config

if TYPE_CHECKING:
    from models.releases.rollout import Rollout

commands = typer.Typer()

WhyOption = Annotated[str, typer.Option(help="For the audit log.")]
_PATIENCE_S = 2.0  # with a database that does not answer, before a version is moved without it
_ITEMS = 1000  # corrections a request: what the server takes by default


@commands.command()
def promote(
    task: TaskArgument,
    version: Annotated[
        str | None, typer.Argument(help="As `flywheel releases` lists it; default: the challenger.")
    ] = None,
    why: WhyOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """Make VERSION of TASK the champion; running servers take it up within seconds, without a restart.

    Examples:

        flywheel promote intent 2

        flywheel promote intent --why "better on refunds"
    """
    release = _rollout(task, config).promote(version, why)
    out.print(f"{task}: version {release.champion} is the champion")
    _follow(task, config)


@commands.command()
def challenge(
    task: TaskArgument,
    version: Annotated[str, typer.Argument(help="The version to try, as `flywheel releases` lists it.")],
    mode: Annotated[Literal["shadow", "canary"], typer.Option(help="Answer unseen, or answer some users.")] = "canary",
    share: Annotated[float, typer.Option(help="Of the users, for a canary.")] = 0.1,
    why: WhyOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """Try VERSION of TASK beside the champion; it is promoted or rolled back on live evidence, or by you.

    Examples:

        flywheel challenge intent 3 --mode shadow

        flywheel challenge intent 3 --share 0.05
    """
    release = _rollout(task, config).challenge(version, mode, share, why)
    whom = f"answers {release.share:.0%} of the users" if mode == "canary" else "answers unseen"
    out.print(f"{task}: version {version} {whom} beside champion {release.champion}")
    _follow(task, config)


@commands.command()
def rollback(
    task: TaskArgument,
    version: Annotated[
        str | None, typer.Argument(help="The version to take out; default: the challenger, or the champion.")
    ] = None,
    why: WhyOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """Withdraw TASK's challenger; where there is none, return to the champion before this one.

    Name the version, and the command does nothing if another has taken it out already.

    Examples:

        flywheel rollback intent --why "complaints about refunds"

        flywheel rollback intent 3
    """
    release = _rollout(task, config).rollback(why, version)
    out.print(f"{task}: version {release.champion} is the champion")
    _follow(task, config)


@commands.command()
def retrain(task: TaskArgument, config: ConfigOption = None) -> None:
    """Learn from TASK's waiting corrections now, in this terminal: curate, fine-tune, judge, release.

    A running server follows by itself. Exit code 1 when no version came of it.

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
        typer.Argument(help="JSONL of corrections, or of events on ranked items, to send; none: counts by state."),
    ] = None,
    url: UrlOption = URL,
) -> None:
    """Send corrections to a running server, or ask it what became of them.

    A line has `id` (of a prediction) or `text`, `label`, and may have `source`, `consent`, `user`, `index`.

    Examples:

        flywheel feedback intent

        flywheel feedback intent corrections.jsonl
    """
    try:
        if file is None:
            out.print_json(data=call(f"{url}/v2/models/{task}/feedback"))
            return
        lines = [orjson.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
        for start in range(0, len(lines), _ITEMS):
            body = orjson.dumps({"feedback": lines[start : start + _ITEMS]})
            results = call(f"{url}/v2/models/{task}/feedback", body)["results"]
            for number, result in enumerate(results, start + 1):
                if "error" in result:
                    err.print(f"item {number}: {result['error']}", highlight=False, markup=False)
        out.print(f"{len(lines)} sent")
    except orjson.JSONDecodeError as error:
        print_error(f"{file}: not JSONL: {error}")
        raise typer.Exit(1) from None
    except OSError as error:
        print_error(f"{file}: cannot be read: {error.strerror}")
        raise typer.Exit(1) from None
    except ServerError as error:
        print_error(error)
        raise typer.Exit(1) from None


@commands.command()
def dead_letters(
    task: TaskArgument,
    requeue: Annotated[bool, typer.Option("--requeue", help="Put all of them back into the queue.")] = False,
    why: WhyOption = "no reason given",
    config: ConfigOption = None,
) -> None:
    """List TASK's corrections that were in too many failed retrainings, or let the next ones try them again.

    Examples:

        flywheel dead-letters intent

        flywheel dead-letters intent --requeue --why "the bound of the gate was wrong"
    """
    from models.feedback.store import Store

    settings = load_config(config)
    get_task(task)
    store = Store.open(settings.feedback.store_url(settings.home))
    if requeue:
        count = store.queue.requeue(task)
        store.audit.append(task, "requeue", None, _who(), why, {"corrections": count})
        out.print(f"{task}: {count} corrections wait again")
        return
    letters = store.queue.dead_letters(task)
    for sample, reason in letters:
        line = f"{sample.id} {sample.at:%Y-%m-%d} {sample.source} {sample.label}: {sample.text}\n    {reason}"
        out.print(line, highlight=False, markup=False)
    out.print(f"{task}: {len(letters)} dead letters")


@commands.command()
def erase(
    user: Annotated[str, typer.Argument(help="As clients named them in `user` or x-user-id.")],
    why: WhyOption = "the user asked for it",
    config: ConfigOption = None,
) -> None:
    """Delete all that is kept of one user: predictions and corrections, in all tasks; says which versions learned.

    Example:

        flywheel erase customer-4711
    """
    from models.feedback.pseudonyms import UserHasher
    from models.feedback.store import Store

    settings = load_config(config)
    secret = settings.feedback.secret.get_secret_value() if settings.feedback.secret else None
    hashed = UserHasher.open(settings.home, secret).hashed(user)
    store = Store.open(settings.feedback.store_url(settings.home))
    erased = store.privacy.erase(hashed, actor=_who(), reason=why)
    out.print(f"erased {erased.predictions} predictions and {erased.feedback} corrections", highlight=False)
    for task, versions in erased.versions.items():
        out.print(f"{task}: learned by version {', '.join(versions)}, which remember it; no later training reads it")


def _rollout(task: str, config: Path | None) -> Rollout:
    from models.feedback.store import Store, StoreUnavailable
    from models.releases.rollout import Rollout

    settings = load_config(config)
    get_task(task)
    store = Store(settings.feedback.store_url(settings.home), patience_s=_PATIENCE_S)
    with suppress(StoreUnavailable):  # a move needs no database; what it was is kept for the audit log
        store.migrate()
    return Rollout(settings.home, store, task, _who())


def _follow(task: str, config: Path | None) -> None:
    """The aliases in MLflow; what serves has moved already."""
    try:
        from models.releases.registry import Registry
    except ImportError:
        return  # an installation that only serves
    if not Registry(load_config(config).home).follow(task):
        err.print("MLflow's aliases are behind; a running server brings them after.", highlight=False)


def _who() -> str:
    return f"{getpass.getuser()}, flywheel on {socket.gethostname()}"
