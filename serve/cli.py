"""The `flywheel` command. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer
from rich.console import Console

from export.bundle import BundleError
from export.session import ProviderError
from models.dataset import DatasetError
from models.releases import ReleaseError, read_release
from models.task import UnknownTaskError, get_task
from serve.config import Config, ConfigError, load_config

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Serve fine-tuned text classifiers, and train the next version of them.",
)
out = Console()
err = Console(stderr=True, soft_wrap=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration; default ./flywheel.yaml.")]
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="intent, sentiment, recommendation, or your own.")]
UrlOption = Annotated[str, typer.Option("--url", help="The server.", envvar="FLYWHEEL_URL")]
_URL = "http://127.0.0.1:8000"


def main() -> None:
    """Entry point: our own errors are one sentence and exit 1, everything else is a bug and keeps its traceback."""
    from serve.app import StartError

    known: tuple[type[Exception], ...] = (
        ConfigError, DatasetError, ReleaseError, BundleError, ProviderError, UnknownTaskError, StartError,
        FileExistsError,
    )  # fmt: skip
    try:
        app()
    except known as error:
        err.print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ in ("CheckpointError", "ParityError"):  # of modules that need the train extra
            err.print(f"[red]error:[/red] {error}", highlight=False)
            sys.exit(1)
        raise


@app.command()
def up(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Overrides server.host.", envvar="HOST")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides server.port.", envvar="PORT")] = None,
) -> None:
    """Serve until Ctrl-C; train first whatever task has no version yet.

    Examples:

        flywheel up

        flywheel up --port 9000 --config production.yaml
    """
    settings = load_config(config)
    address = {k: v for k, v in {"host": host, "port": port}.items() if v is not None}
    server = type(settings.server).model_validate({**settings.server.model_dump(), **address})
    settings = settings.model_copy(update={"server": server})
    from serve.app import check_port, has_haproxy, running

    check_port(server.host, server.port)
    prepare(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if not has_haproxy():
        out.print("This platform has no HAProxy from Ray: its Python proxy routes instead, at lower throughput.")
    started = time.monotonic()
    with out.status("starting Ray and loading the models"):
        server_context = running(settings)
        server_context.__enter__()
    url = f"http://{server.host}:{server.port}"
    out.print(f"[green]ready[/green] at {url} after {time.monotonic() - started:.0f} s   (docs: {url}/docs)")
    for task in settings.tasks:
        out.print(f"  {url}/v2/models/{task}/predict   version {read_release(settings.home, task).champion}")
    while not stop.wait(0.5):
        pass
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    out.print("draining: answering what was accepted")
    server_context.__exit__(None, None, None)


def prepare(config: Config) -> None:
    """Train, once, every configured task that has no released version yet."""
    from models.train import Job

    missing = []
    for task in config.tasks:
        try:
            read_release(config.home, task)
        except ReleaseError:
            missing.append(Job(task))
    if missing:
        names = ", ".join(job.task for job in missing)
        out.print(f"No model yet for {names}: fine-tuning from the seed corpora, once.")
        _train(missing, config.home)


def _train(jobs: list[Any], home: Path) -> None:
    """Build, register and report each job, with a bar each: steps, rate and time left."""
    try:
        import torch  # noqa: F401
    except ImportError:
        err.print("[red]error:[/red] training needs the train extra: pip install 'flywheel-serve\\[cpu,train]'")
        raise typer.Exit(1) from None
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from models.train import build_in_parallel, register_candidate

    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=out, refresh_per_second=2) as progress:
        bars = {job.task: progress.add_task(f"{job.task}: waiting", total=None, rate="", start=False) for job in jobs}
        plain = _PlainProgress() if not out.is_terminal else None

        def report(task: str, stage: str, done: int, total: int) -> None:
            bar = bars[task]
            progress.start_task(bar)
            speed = progress.tasks[bar].speed
            rate = f"{speed:.1f} steps/s" if speed else ""
            if total:
                progress.update(bar, description=f"{task}: {stage}", completed=done, total=total, rate=rate)
            else:
                progress.update(bar, description=f"{task}: {stage}")
            if plain:
                plain.report(task, stage, done, total)

        for candidate in build_in_parallel(jobs, home, report):
            progress.update(bars[candidate.task], description=f"{candidate.task}: registering")
            version = register_candidate(candidate, home)
            progress.update(bars[candidate.task], description=f"{candidate.task}: version {version}")
            figures = ", ".join(f"{name} {value:g}" for name, value in candidate.metrics.items())
            out.print(f"{candidate.task} version {version}: {figures}", highlight=False)
            champion = read_release(home, candidate.task).champion
            if champion != version:
                out.print(f"  version {champion} keeps serving; to serve this one: "
                          f"flywheel promote {candidate.task} {version}")  # fmt: skip


class _PlainProgress:
    """One line every few seconds for each task, for logs and CI, where a bar cannot be redrawn."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}
        self._began: dict[str, float] = {}

    def report(self, task: str, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        last_stage, last_time = self._last.get(task, ("", 0.0))
        if stage == last_stage and now - last_time < 10:
            return
        self._last[task] = (stage, now)
        if stage != last_stage:
            self._began[task] = now
        if total and done:
            left = (now - self._began[task]) / done * (total - done)
            out.print(f"{task}: {stage} {done}/{total}, about {left:.0f} s left", highlight=False)
        else:
            out.print(f"{task}: {stage}", highlight=False)


@app.command()
def train(
    task: TaskArgument,
    data: Annotated[Path | None, typer.Option(help="Your .csv or .jsonl; default: the seed corpus.")] = None,
    base: Annotated[str | None, typer.Option(help="Encoder: a Hugging Face name or a directory.")] = None,
    method: Annotated[Literal["full", "lora"], typer.Option(help="Fine-tune all weights, or adapters.")] = "full",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training texts.")] = None,
    precision: Annotated[Literal["int8", "fp16", "fp32"], typer.Option(help="int8 for CPUs, fp16 for GPUs.")] = "int8",
    config: ConfigOption = None,
) -> None:
    """Fine-tune, export, check and register a new version of TASK.

    A file for a classifier has the columns `text` and `label`; one for recommendation `user_id`, `item_id`,
    `event`, `time` and `text`. A task's first version serves at once, a later one after `flywheel promote`.

    Examples:

        flywheel train intent

        flywheel train sentiment --data posts.csv --epochs 4

        flywheel train intent --data tickets.jsonl --base ./my-encoder --method lora
    """
    from models.behaviour import load_behaviour
    from models.dataset import load_dataset
    from models.train import Job

    settings = load_config(config)
    # Before the seconds that importing torch takes: most mistakes are in the file.
    if get_task(task).kind == "classifier":
        load_dataset(task, data)
    else:
        load_behaviour(data)
    recipe: dict[str, Any] = {"method": method}
    recipe |= {key: value for key, value in {"base": base, "epochs": epochs}.items() if value is not None}
    _train([Job(task, data, precision, tuple(recipe.items()))], settings.home)


@app.command()
def export(
    task: TaskArgument,
    version: Annotated[str, typer.Argument(help="The version whose checkpoint to export.")],
    bundle: Annotated[Path, typer.Argument(help="The bundle directory to write; it must not exist.")],
    precision: Annotated[Literal["int8", "fp16", "fp32"], typer.Option(help="int8 for CPUs, fp16 for GPUs.")] = "int8",
    data: Annotated[Path | None, typer.Option(help="What it was trained on; default: the seed corpus.")] = None,
    config: ConfigOption = None,
) -> None:
    """Export a version's checkpoint again, in another precision, and check it against PyTorch.

    Example:

        flywheel export intent 1 ./intent-fp16 --precision fp16
    """
    from models.train import Job, export_checkpoint

    settings = load_config(config)
    get_task(task)
    checkpoint = settings.home / "checkpoints" / task / version
    manifest = export_checkpoint(Job(task, data, precision), checkpoint, bundle).manifest
    out.print_json(data={"bundle": str(bundle), "metrics": manifest.metrics, "parity": manifest.parity})


@app.command()
def promote(
    task: TaskArgument,
    version: Annotated[str, typer.Argument(help="The version to serve, as `flywheel releases` lists it.")],
    config: ConfigOption = None,
) -> None:
    """Make VERSION of TASK the champion; running servers take it up within seconds, without a restart.

    Example:

        flywheel promote intent 2
    """
    from models.registry import Registry

    settings = load_config(config)
    get_task(task)
    release = Registry(settings.home).promote(task, version)
    out.print(f"{task}: version {release.champion} is the champion")


@app.command()
def releases(config: ConfigOption = None) -> None:
    """List each task's versions on this machine and which one serves.

    Example:

        flywheel releases
    """
    from rich.table import Table

    settings = load_config(config)
    table = Table("task", "version", "alias", "metrics")
    for task in settings.tasks:
        try:
            champion = read_release(settings.home, task).champion
        except ReleaseError:
            champion = None
        for folder in sorted((settings.home / "bundles" / task).glob("*"), key=lambda p: p.name.zfill(9)):
            manifest = orjson.loads((folder / "manifest.json").read_bytes())
            metrics = ", ".join(f"{name} {value:g}" for name, value in manifest["metrics"].items())
            table.add_row(task, folder.name, "champion" if folder.name == champion else "", metrics)
    out.print(table)


@app.command()
def status(url: UrlOption = _URL) -> None:
    """Ask a running server which models it has and whether they are ready; exit 1 when one is not.

    Example:

        flywheel status --url http://127.0.0.1:9000
    """
    server = _call(f"{url}/v2")
    ready = True
    for name in server["models"]:
        try:
            metadata = _call(f"{url}/v2/models/{name}")
        except _ServerError as error:
            ready = False
            out.print(f"{name}: {error}")
        else:
            versions = ", ".join(f"{v['version']} ({v['provider']})" for v in metadata["version_details"])
            out.print(f"{name}: ready, version {versions}", highlight=False)
    if not ready:
        raise typer.Exit(1)


@app.command()
def predict(
    task: TaskArgument,
    texts: Annotated[
        list[str] | None, typer.Argument(help="One or more texts; none: JSON from standard input.")
    ] = None,
    url: UrlOption = _URL,
) -> None:
    """Ask a running server.

    Examples:

        flywheel predict intent "where is my order?"

        flywheel predict recommendation < request.json
    """
    body = orjson.dumps({"texts": texts}) if texts else sys.stdin.buffer.read()
    try:
        out.print_json(data=_call(f"{url}/v2/models/{task}/predict", body))
    except _ServerError as error:
        err.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from None


class _ServerError(Exception):
    """Raised when a server refuses or cannot be reached."""


def _call(url: str, body: bytes | None = None) -> Any:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, body, {"content-type": "application/json"}), timeout=30) as response:
            return orjson.loads(response.read())
    except HTTPError as error:
        try:
            message = orjson.loads(error.read())["error"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            message = error.reason
        raise _ServerError(f"{error.code}: {message}") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise _ServerError(f"No server answers at {url} ({reason}). Start one with: flywheel up") from None


@app.command()
def bench(
    args: Annotated[list[str] | None, typer.Argument(help="Options of loadtests/bench.py.")] = None,
) -> None:
    """Measure this machine's limit and the server in one run (the same as `make bench`).

    Example:

        flywheel bench -- --seconds 5
    """
    import subprocess

    script = Path(__file__).parent.parent / "loadtests" / "bench.py"
    if not script.is_file():
        err.print("[red]error:[/red] the benchmark is part of the repository; run it from a clone.")
        raise typer.Exit(1)
    raise typer.Exit(subprocess.call([sys.executable, str(script), *(args or [])]))


if __name__ == "__main__":
    main()
