"""The `flywheel` command. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer

from export.bundle import MANIFEST, read_manifest
from export.errors import BundleError, ProviderError
from models.data.dataset import DatasetError
from models.disk_errors import sentence_of
from models.home import bundle_folder, checkpoint_folder
from models.releases.release import Release, ReleaseError, is_first_version, local_versions, read_release
from models.tasks.base import UnknownTaskError, get_task
from serve.cli.backup import commands as backup_commands
from serve.cli.client import ServerError, call, fetch
from serve.cli.evaluation import commands as evaluation
from serve.cli.explanations import asking_for_explanations, print_explained
from serve.cli.knowledge import commands as knowledge_commands
from serve.cli.lifecycle import commands
from serve.cli.review import commands as review_commands
from serve.cli.score import commands as scoring
from serve.cli.settings import host_of_environment, load_config
from serve.cli.stopping import StopSignals, abandon, accept_stop_signals
from serve.cli.terminal import (
    URL,
    ColumnOption,
    ConfigOption,
    ItemsOption,
    TaskArgument,
    UrlOption,
    UsersOption,
    accept_any_text,
    err,
    out,
    print_error,
    say,
)
from serve.cli.topics import commands as topic_commands
from serve.config import Config, ConfigError
from serve.metrics import process_registry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Serve fine-tuned text classifiers, and train the next version of them.",
)
app.add_typer(commands)
app.add_typer(evaluation)
app.add_typer(review_commands)
app.add_typer(scoring)
app.add_typer(topic_commands)
app.add_typer(knowledge_commands)
app.add_typer(backup_commands)

# Own errors of modules that are imported late.
_LAZY_ERRORS = (
    "CheckpointError", "ParityError", "TrainExtraMissing", "WorkersError", "StoreUnavailable", "StoreTooNew",
    "SecretError", "BackupError",
)  # fmt: skip
_MAX_NOTES = 5  # of a task's options, at the start
_ADVICE = {"StoreUnavailable": " It is `feedback.store` of the configuration, by default feedback.db in the home."}


def main() -> None:
    """Entry point: prints our own errors and a disk's as one sentence, and exits 1; others are bugs, with traceback."""
    from serve.home_lock import HomeLockError
    from serve.rayserve.start_error import StartError

    accept_any_text()
    own_errors: tuple[type[Exception], ...] = (
        ConfigError, DatasetError, ReleaseError, BundleError, ProviderError, UnknownTaskError, StartError,
        HomeLockError, FileExistsError,
    )  # fmt: skip
    try:
        app()
    except Exception as error:
        own = isinstance(error, own_errors) or type(error).__name__ in _LAZY_ERRORS
        sentence = str(error) if own and getattr(error, "errno", None) is None else sentence_of(error)
        if sentence is None:
            raise
        print_error(sentence + _ADVICE.get(type(error).__name__, ""))
        sys.exit(1)


@app.command()
def up(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Overrides server.host; default: $HOST if it is an address.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Overrides server.port.", envvar="PORT")] = None,
    train_first: Annotated[
        bool, typer.Option("--train-first", help="Serve no first versions: train those with an encoder before.")
    ] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    A task that has no version yet is served after seconds with a first one, a linear model of its seed corpus. Its
    version with an encoder is trained beside the server, which takes it up without a restart.

    Examples:

        flywheel up

        flywheel up --port 9000 --config production.yaml

        flywheel up --train-first
    """
    settings = load_config(config)
    address = {k: v for k, v in {"host": host or host_of_environment(), "port": port}.items() if v is not None}
    server = type(settings.server).model_validate({**settings.server.model_dump(), **address})
    settings = settings.model_copy(update={"server": server})
    signals = StopSignals()
    from serve.cli.first_start import training_beside
    from serve.cli.progress import untrained, without_encoder
    from serve.home_lock import lock_home
    from serve.rayserve.server import check_port
    from serve.rayserve.worker_output import drop_what_cannot_be_written

    drop_what_cannot_be_written()  # a server does not end because its output's disk is full, or its reader has left
    with lock_home(settings.home, settings.server.url) as locked:
        if not locked:
            sentence = f"{settings.home} cannot be locked: start one server at most on this home"
            err.print(f"warning: {sentence}", highlight=False, markup=False)
        if settings.ray.address is None:  # on a cluster, Serve may already listen on the port
            check_port(server.host, server.port)
        missing = untrained(settings)
        if missing or (train_first and without_encoder(settings)):
            _prepare_in_subprocess(config, signals, [] if train_first else ["--first"])
        with training_beside(settings, config, signals):
            _serve(settings, signals)


def _serve(settings: Config, signals: StopSignals) -> None:
    """Run the server until a stop signal, then drain it."""
    from serve.rayserve.server import Stopped, inactive_tweaks, running

    _print_warnings(settings)
    started = time.monotonic()
    with ExitStack() as server:
        try:
            with out.status("starting Ray and loading the models"):
                server.enter_context(running(settings, signals.requested.wait, _ray_ended))
        except Stopped:
            say("stopped before it was ready")
            return
        signals.ready = True
        _print_ready(settings, time.monotonic() - started)
        for sentence in inactive_tweaks(settings, signals.requested.wait):
            err.print(f"warning: {sentence}", highlight=False, markup=False)
        signals.requested.wait()
        say("draining: answering the accepted requests")


def _ray_ended() -> None:
    """Nothing serves any more, and nothing is left to drain: end, so that a supervisor starts the server again."""
    abandon(b"error: Ray has ended; its logs are in TMPDIR/ray/session_latest/logs. Start the server again.\n", 1)


def _print_warnings(settings: Config) -> None:
    from serve.rayserve import scratch
    from serve.rayserve.environment import few_connections, has_haproxy
    from serve.rayserve.memory import few_threads, shortage
    from serve.rayserve.server import home_problem
    from serve.rayserve.tweaks import untested_versions

    small = [shortage(settings), few_threads(settings)]
    warnings = [scratch.choose(settings.home).warning, *small, home_problem(settings)]
    if settings.ray.tuning == "stock":
        out.print("tuning: stock: Ray Serve as documented, at lower throughput.", highlight=False)
    else:
        if not has_haproxy():
            out.print("Ray brings no HAProxy for this platform: its Python proxy is used, at lower throughput.")
        warnings += [few_connections(), *untested_versions()]
    for sentence in filter(None, warnings):
        err.print(f"warning: {sentence}", highlight=False, markup=False)
    for task in settings.tasks:
        notes = settings.task_options(task).notes
        for note in notes[:_MAX_NOTES]:
            err.print(f"note: tasks.{task}.options: {note}", highlight=False, markup=False)
        if len(notes) > _MAX_NOTES:
            err.print(f"note: tasks.{task}.options: {len(notes) - _MAX_NOTES:,} more such notes", highlight=False)


def _print_ready(settings: Config, seconds: float) -> None:
    url = settings.server.url
    say(f"[green]ready[/green] at {url} after {seconds:.0f} s   (docs: {url}/docs)")
    for task in settings.tasks:
        champion = read_release(settings.home, task).champion
        first = ", the first" if is_first_version(settings.home, task, champion) else ""
        say(f"  {url}/v2/models/{task}/predict   version {champion}{first}")


@app.command(hidden=True)
def prepare(
    first: Annotated[bool, typer.Option("--first", help="First versions only.")] = False,
    beside: Annotated[bool, typer.Option("--beside", help="Beside a server, at the lowest priority.")] = False,
    config: ConfigOption = None,
) -> None:
    """Train every task that has no version with an encoder yet, as `flywheel up` does."""
    from serve.cli import first_start, progress
    from serve.rayserve.worker_output import drop_what_cannot_be_written

    accept_stop_signals()
    settings = load_config(config)
    if first or beside:
        drop_what_cannot_be_written()  # as the server does
    if first:
        first_start.make_first_versions(settings)
    elif beside:
        if not first_start.train_beside(settings):
            raise typer.Exit(1)
    else:
        progress.prepare(settings, out)


def _prepare_in_subprocess(config: Path | None, signals: StopSignals, options: Sequence[str]) -> None:
    """Run `prepare` in a subprocess: in this process, torch would occupy 300 MB for as long as it serves.

    A stop signal ends it and its workers. If it fails without one, this process exits with its code.
    """
    from serve.cli.first_start import prepare_command

    command = prepare_command(config, *options)
    with subprocess.Popen(command, process_group=0) as training, signals.passed_to(training.pid):
        code = training.wait()
    if code and not signals.requested.is_set():
        raise typer.Exit(code if code > 0 else 128 - code)


@app.command()
def train(
    task: TaskArgument,
    data: Annotated[Path | None, typer.Option(help="Your .csv or .jsonl; default: the seed corpus.")] = None,
    items: ItemsOption = None,
    users: UsersOption = None,
    column: ColumnOption = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS", help="What the file calls an event, such as buy=purchase; others are left out."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Encoder: a Hugging Face name or a directory.")] = None,
    method: Annotated[Literal["full", "lora"], typer.Option(help="Fine-tune all weights, or LoRA adapters.")] = "full",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training texts; default: 3, more of a small file.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="End after so many batches, to try a large file first.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all draws; another one shows how much is chance.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Ray Train workers for a large recommendation corpus, on RAY_ADDRESS's cluster.")
    ] = 1,
    precision: Annotated[Literal["int8", "fp16", "fp32"], typer.Option(help="int8 for CPUs, fp16 for GPUs.")] = "int8",
    check: Annotated[bool, typer.Option("--check", help="Only check the data, and print what was found.")] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Work folder of a training that failed after its last step: go on from there.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Fine-tune, export, check and register a new version of TASK.

    A file for a classifier has the columns `text` and `label`; one for recommendation, which may be .parquet too,
    `user_id`, `item_id`, `event`, `time` and `text`, or the texts stand in a second file (docs/recommendation.md).
    `--column` and `--event` name what your file calls otherwise. A task's first version with an encoder is released at
    once, a later one by `flywheel promote`.

    Examples:

        flywheel train intent

        flywheel train sentiment --data posts.csv --epochs 4

        flywheel train intent --data tickets.jsonl --base ./my-encoder --method lora

        flywheel train intent --data tickets.csv --check

        flywheel train intent --data export.csv --column text=subject --column text=body --column label=queue

        flywheel train recommendation --data events.csv --items items.csv
    """
    from models.data.naming import parse_naming
    from models.training.candidate import TrainingJob
    from models.training.families import family_of
    from models.training.unfinished import read_trained
    from serve.cli.progress import train_jobs, with_asked_precision

    settings, family = load_config(config), family_of(task)
    if resume is not None:
        others = data, items, users, column, event, base, epochs, max_steps, seed
        if any(option is not None for option in others) or check or workers > 1:
            raise typer.BadParameter("--resume goes on with the data and options of that training; give no others.")
        read_trained(resume, task)
        train_jobs([TrainingJob(task, resume=resume)], settings, out)
        return
    if base is not None and Path(base).is_dir():
        base = str(Path(base).resolve())  # a ranker is retrained from it, wherever the server was started
    options: dict[str, Any] = {"method": method}
    given = {"base": base, "epochs": epochs, "max_steps": max_steps, "seed": seed}
    options |= {key: value for key, value in given.items() if value is not None}
    try:
        family.check_options(task, options)
        if workers > 1 and family.kind != "ranker":
            raise ValueError("--workers is for recommendation; retrainings of classifiers have learning.workers")
        naming = parse_naming(column or (), event or ())
        job = TrainingJob(
            task, data, precision, tuple(options.items()), items=items, users=users, workers=workers, naming=naming
        )
        job = with_asked_precision(job, settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    # Check the file before the slow import of torch, since most mistakes are in the file.
    report = family.load(job, settings.home, family.recipe(job, settings.home)).report
    for line in report.lines() if report is not None else ():
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if not check:
        train_jobs([job], settings, out)


@app.command()
def register(
    task: TaskArgument,
    version: Annotated[str, typer.Argument(help="The version that MLflow missed.")],
    config: ConfigOption = None,
) -> None:
    """Add a version to MLflow whose registration failed, for instance because MLflow's server was away.

    Example:

        flywheel register intent 3
    """
    from models.releases.versions import register_version

    register_version(load_config(config).home, task, version)
    out.print(f"{task}: version {version} is in MLflow", highlight=False)


@app.command()
def export(
    task: TaskArgument,
    version: Annotated[str, typer.Argument(help="The version whose checkpoint to export.")],
    bundle: Annotated[Path, typer.Argument(help="The bundle directory to write; it must not exist.")],
    precision: Annotated[Literal["int8", "fp16", "fp32"], typer.Option(help="int8 for CPUs, fp16 for GPUs.")] = "int8",
    data: Annotated[
        Path | None, typer.Option(help="The version's training data; default: what the home keeps.")
    ] = None,
    items: ItemsOption = None,
    users: UsersOption = None,
    config: ConfigOption = None,
) -> None:
    """Export a version's checkpoint again, in another precision, and check its parity with PyTorch.

    Example:

        flywheel export intent 1 ./intent-fp16 --precision fp16
    """
    from models.training.candidate import TrainingJob
    from models.training.pipeline import export_checkpoint

    settings = load_config(config)
    get_task(task)
    checkpoint, served = checkpoint_folder(settings.home, task, version), bundle_folder(settings.home, task, version)
    trained = read_manifest(served) if (served / MANIFEST).is_file() else None
    job = TrainingJob(task, data, precision, items=items, users=users)
    manifest = export_checkpoint(job, settings.home, checkpoint, bundle, trained).manifest
    shown = {"bundle": str(bundle), "metrics": manifest.metrics, "parity": manifest.parity.model_dump()}
    out.print_json(data={**shown, "notes": manifest.notes})


@app.command()
def releases(config: ConfigOption = None) -> None:
    """List each task's versions on this machine, with their aliases and metrics.

    Example:

        flywheel releases
    """
    from rich.table import Table

    settings = load_config(config)
    table = Table("task", "version", "alias", "metrics")
    for task in settings.tasks:
        try:
            release = read_release(settings.home, task)
        except ReleaseError:
            release = None
        for version in local_versions(settings.home, task):
            manifest = orjson.loads((bundle_folder(settings.home, task, version) / MANIFEST).read_bytes())
            metrics = ", ".join(f"{name} {value:g}" for name, value in manifest["metrics"].items())
            table.add_row(task, version, _role(release, version), metrics)
    out.print(table)


def _role(release: Release | None, version: str) -> str:
    if release is None:
        return ""
    if version == release.champion:
        return "champion"
    if version == release.challenger:
        return f"challenger, canary {release.share:.0%}" if release.mode == "canary" else "challenger, shadow"
    return "previous" if version == release.previous else ""


@app.command()
def status(url: UrlOption = URL) -> None:
    """Show the models of a running server and whether they are ready; exit 1 when one is not.

    Of a version whose linear reader answers alone where it is sure, the share of these early answers is shown.

    Example:

        flywheel status --url http://127.0.0.1:9000
    """
    try:
        server = call(url, "/v2")
        shares = _early_shares(fetch(url, "/metrics").decode())
    except ServerError as error:
        print_error(error)
        raise typer.Exit(1) from None
    ready = True
    for name in server["models"]:
        try:
            metadata = call(url, f"/v2/models/{name}")
        except ServerError as error:
            ready = False
            out.print(f"{name}: {error}")
        else:
            versions = ", ".join(_described(name, details, shares) for details in metadata["version_details"])
            out.print(f"{name}: ready, version {versions}", highlight=False)
            for note in {note: None for v in metadata["version_details"] for note in v.get("notes", ())}:
                out.print(f"  note: {note}", highlight=False, markup=False, soft_wrap=True)
    for name, training in server.get("training", {}).items():
        out.print(_training_line(name, training), highlight=False, markup=False, soft_wrap=True)
    _print_tuning(server.get("tuning") or {})
    if not ready:
        raise typer.Exit(1)


def _early_shares(metrics: str) -> dict[tuple[str, str], float]:
    """By task and version: the share of its texts that were answered early since the server's start."""
    process_registry()
    from prometheus_client.parser import text_string_to_metric_families

    texts, early = defaultdict[tuple[str, str], float](float), defaultdict[tuple[str, str], float](float)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "flywheel_texts_total":
                key = sample.labels["task"], sample.labels["version"]
                texts[key] += sample.value
                early[key] += sample.value if sample.labels["stage"] == "linear" else 0
    return {key: early[key] / count for key, count in texts.items() if count}


def _described(task: str, details: dict[str, Any], early_shares: Mapping[tuple[str, str], float]) -> str:
    """A version for `status`: its number, its provider and, if it answers early, the share of these answers."""
    described, share = details["provider"], early_shares.get((task, details["version"]))
    if details.get("early_answers") and share is not None:
        described += f", {share:.0%} of its texts answered early"
    return f"{details['version']} ({described})"


def _training_line(task: str, training: dict[str, Any]) -> str:
    """What GET /v2 tells of the training of a task's version with an encoder, beside its first version."""
    if training["state"] != "running":
        return f"{task}: training {training['state']}: {training['sentence']}"
    steps = f" {training['done']}/{training['total']}" if training["total"] else ""
    stage = f"{training['stage']}{steps}, {training['seconds']:.0f} s so far"
    return f"{task}: its version with an encoder is being trained: {stage}"


def _print_tuning(tuning: dict[str, Any]) -> None:
    """Print the tuning mode and, in mode full, a line for each tweak that is not in effect."""
    from serve.rayserve.tweaks import inactive

    mode, tweaks = tuning.get("mode"), tuning.get("tweaks", {})
    if mode == "stock":
        out.print("tuning: stock, Ray Serve as documented", highlight=False)
    elif mode == "full":
        out.print(f"tuning: full, {sum(tweaks.values())} of {len(tweaks)} tweaks are in effect", highlight=False)
        for sentence in inactive(tweaks):
            out.print(f"  {sentence}", highlight=False, markup=False)


@app.command()
def predict(
    task: TaskArgument,
    texts: Annotated[
        list[str] | None, typer.Argument(help="One or more texts; without them: JSON from standard input.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each word adds to the label, or the reasons for a ranking.")
    ] = False,
    url: UrlOption = URL,
) -> None:
    """Send texts or a JSON request to a running server and print the response.

    Examples:

        flywheel predict intent "where is my order?"

        flywheel predict intent "where is my order?" --explain

        flywheel predict recommendation < request.json
    """
    body = orjson.dumps({"texts": texts}) if texts else sys.stdin.buffer.read()
    if explain:
        body = asking_for_explanations(body)
    try:
        answer = call(url, f"/v2/models/{task}/predict", body)
        if explain:
            print_explained(out, answer["predictions"])
        else:
            out.print_json(data=answer)
    except ServerError as error:
        print_error(error)
        raise typer.Exit(1) from None


@app.command()
def bench(
    args: Annotated[list[str] | None, typer.Argument(help="Options of loadtests/bench.py.")] = None,
) -> None:
    """Benchmark the server against this machine's limit in one run (the same as `make bench`).

    Example:

        flywheel bench -- --seconds 5
    """
    script = Path(__file__).parent.parent.parent / "loadtests" / "bench.py"
    if not script.is_file():
        print_error("the benchmark is part of the repository; run it from a clone.")
        raise typer.Exit(1)
    raise typer.Exit(subprocess.call([sys.executable, str(script), *(args or [])]))


if __name__ == "__main__":
    main()
