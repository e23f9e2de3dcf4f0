"""The command `evaluate`: what the prediction log says of a version that did not give the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from models.home import bundle_folder
from models.releases.release import ReleaseError, local_versions
from models.tasks.base import get_task
from serve.cli.settings import load_config
from serve.cli.terminal import ConfigOption, TaskArgument, out, print_error
from serve.config import Config

if TYPE_CHECKING:
    from export.bundle import Bundle
    from models.evaluation.logged_rankings import LoggedRanking
    from models.evaluation.off_policy import Estimate, JudgedRanking, PolicyValue
    from models.tasks.event_names import RatingScale
    from models.tasks.recommendation import Recommendation

commands = typer.Typer()


@commands.command()
def evaluate(
    task: TaskArgument,
    policy: Annotated[str, typer.Option(help="The version to judge, as `flywheel releases` lists it.")],
    positions: Annotated[int, typer.Option(min=1, help="Judge the first so many items of each answer.")] = 3,
    explore: Annotated[
        float | None, typer.Option(min=0, max=1, help="Judge it with so much exploration; default: as each was asked.")
    ] = None,
    answers: Annotated[int, typer.Option(min=1, help="Read at most so many answers of the log, the newest.")] = 10_000,
    config: ConfigOption = None,
) -> None:
    """Estimate from the prediction log what users would have chosen, had a version of TASK answered them.

    Needs answers to requests with `explore` above 0, and feedback on them. The version is asked again what was asked
    then. The value is the number of chosen items an answer, discounted by position: by importance weights (SNIPS),
    and doubly robust. Exit code 1 when the log cannot tell. docs/recommendation.md.

    Examples:

        flywheel evaluate recommendation --policy 3

        flywheel evaluate recommendation --policy 3 --positions 1 --explore 0
    """
    from models.tasks.recommendation import Recommendation
    from serve.cli.progress import check_train_extra

    settings = load_config(config)
    if not issubclass(get_task(task), Recommendation):
        print_error(
            f"only rankings are judged by their log, and {task} ranks nothing. `flywheel releases` lists the metrics "
            "of its versions."
        )
        raise typer.Exit(1)
    if policy not in (versions := local_versions(settings.home, task)):
        raise ReleaseError(
            f"{task} has no version {policy} on this machine; there are: {', '.join(versions) or 'none'}."
        )
    check_train_extra("sklearn")
    from export.bundle import Bundle
    from models.evaluation.off_policy import TooFewError, estimate

    bundle = Bundle.open(bundle_folder(settings.home, task, policy))
    ranker = Recommendation(bundle, settings.task_options(task) if task in settings.tasks else None)
    logged = _logged(settings, task, answers, ranker.ratings)
    judged = _judged(bundle, ranker, positions, explore, logged) if logged else []
    try:
        value = estimate(judged, positions)
    except TooFewError as error:
        print_error(error)
        raise typer.Exit(1) from None
    _print(task, policy, value, len(logged) - len(judged))


def _logged(settings: Config, task: str, answers: int, ratings: RatingScale) -> list[LoggedRanking]:
    from models.evaluation.logged_rankings import read_rankings
    from models.feedback.store import Store

    store = Store.open(settings.feedback.store_url(settings.home))
    try:
        with out.status("reading the prediction log"):
            return read_rankings(store, task, answers, ratings)
    finally:
        store.close()


def _judged(
    bundle: Bundle, ranker: Recommendation, positions: int, explore: float | None, logged: list[LoggedRanking]
) -> list[JudgedRanking]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from export.model import Model
    from models.evaluation.logged_rankings import judge

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=out, refresh_per_second=2) as progress:
        bar = progress.add_task("ranking what was asked", total=len(logged))
        return judge(
            logged, ranker, Model.open(bundle), positions,
            lambda done: progress.update(bar, completed=done), explore=explore,
        )  # fmt: skip


def _print(task: str, version: str, value: PolicyValue, left_out: int) -> None:
    lines = [
        f"{task}: version {version}, judged by {value.answers:,} answers to {value.users:,} users, who chose "
        f"{value.chosen:,} items among the first {len(value.effective)}"
    ]
    if left_out:
        lines.append(f"left out: {left_out:,} answers that this version cannot be asked for again")
    lines.append(f"{'discounted choices an answer':<36}value    95 % interval")
    named = {
        "as shown": value.logged,
        f"version {version}, SNIPS": value.snips,
        f"version {version}, doubly robust": value.doubly_robust,
        "difference": value.difference,
    }
    lines += [f"  {name:<30}{_figures(found, signed=name == 'difference')}" for name, found in named.items()]
    effective = ", ".join(f"{count:,.0f}" for count in value.effective)
    lines += [f"effective sample size by position: {effective}", conclusion(version, value)]
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _figures(found: Estimate, *, signed: bool) -> str:
    sign = "+" if signed else ""
    return f"{found.value:{sign}9.4f}    {found.low:{sign}.4f} to {found.high:{sign}.4f}"


def conclusion(version: str, value: PolicyValue) -> str:
    """What the interval of the difference says, in a sentence."""
    if value.difference.low > 0:
        return f"Users would choose more with version {version} than with what was shown."
    if value.difference.high < 0:
        return f"Users would choose less with version {version} than with what was shown."
    return f"The log does not tell version {version} from what was shown: the difference may be 0."
