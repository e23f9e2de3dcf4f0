"""The configuration: one frozen model of `flywheel.yaml`, overridden by `FLYWHEEL_*` from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from export.machine import usable_cores
from export.providers import GpuOptions, Providers
from models.curation.types import Rules
from models.home import feedback_database
from models.tasks.base import MAX_ITEMS, TaskOptions, UnknownTaskError, get_task
from models.tasks.thresholds import Thresholds
from serve.browser_guard import parse_host
from serve.renamed_keys import with_new_names

DEFAULT_FILE = "flywheel.yaml"
DEFAULT_TASKS: dict[str, dict[str, Any]] = {
    "intent": {},
    "sentiment": {"replicas": 1},
    "recommendation": {"replicas": 1},
}
_OTHER_VARIABLES = ("config", "url")  # FLYWHEEL_ variables that are not keys of the configuration


class ConfigError(Exception):
    """Raised when the configuration cannot be used; the text names the file, the key and what is wrong with it."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerConfig(_Section):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    operator_token: SecretStr | None = None
    hosts: Annotated[list[str], Field(min_length=1)] | None = None

    @field_validator("hosts")
    @classmethod
    def _are_hosts_of_any_port(cls, hosts: list[str] | None) -> list[str] | None:
        if any(parse_host(host)[1] is not None for host in hosts or ()):
            raise ValueError("are names or addresses without a port; any port is accepted")
        return hosts


class Limits(_Section):
    body_bytes: int = Field(1 << 20, ge=1024)
    texts: int = Field(128, ge=1, le=MAX_ITEMS)
    wait_s: float = Field(1.0, gt=0, le=300)
    deadline_s: float = Field(10.0, gt=0, le=300)


class Batching(_Section):
    tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    texts: int = Field(64, ge=1, le=1024)
    max_length_ratio: float = Field(1.5, ge=1.0)

    def max_tokens(self, auto: int = 256) -> int:
        """`auto` is what the session's provider runs best with: the default is a CPU's."""
        return auto if self.tokens == "auto" else self.tokens


class Cache(_Section):
    texts: int = Field(10_000, ge=0)


class SessionConfig(_Section):
    providers: Providers = "auto"
    threads: int = Field(1, ge=1)
    gpu: GpuOptions = GpuOptions()

    @field_validator("gpu")
    @classmethod
    def _graphs_are_of_cuda(cls, gpu: GpuOptions, given: ValidationInfo) -> GpuOptions:
        if gpu.cuda_graph and given.data.get("providers") == "tensorrt":
            raise ValueError("cuda_graph goes with providers: cuda; beside tensorrt no graph is whole")
        return gpu


class RayConfig(_Section):
    address: Annotated[str, Field(pattern=r"^(auto|[^/\s]+:\d+)$")] | None = None
    cpus: float = Field(0.0, ge=0)
    tuning: Literal["full", "stock"] = Field(
        "full", description="stock: Ray Serve as documented, without serve/rayserve/tweaks.py"
    )


class ReplicaRange(_Section):
    """As many replicas as the waiting work asks for (serve/rayserve/autoscaling.py)."""

    min: int = Field(1, ge=1)
    max: int = Field(ge=1)
    up_after_s: float = Field(10.0, ge=0)
    down_after_s: float = Field(300.0, ge=0)

    @field_validator("max")
    @classmethod
    def _not_less_than_min(cls, most: int, others: ValidationInfo) -> int:
        if most < others.data.get("min", 1):
            raise ValueError("must not be less than min")
        return most


def _kind(replicas: object) -> str:
    """Which of the three ways to say it was meant, so that only its own errors are told."""
    return "range" if isinstance(replicas, dict | ReplicaRange) else "auto" if replicas == "auto" else "number"


class PredictionLogConfig(_Section):
    sample: float = Field(1.0, ge=0, le=1)
    keep_days: float = Field(30.0, gt=0, le=3650)
    buffer: int = Field(10_000, ge=0)


class FeedbackConfig(_Section):
    store: str | None = None
    secret: SecretStr | None = None
    items: int = Field(1000, ge=1, le=MAX_ITEMS)
    log: PredictionLogConfig = PredictionLogConfig()

    @field_validator("store")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("must begin with postgresql:// or sqlite:///")
        return url

    def store_url(self, home: Path) -> str:
        return self.store or f"sqlite:///{feedback_database(home).resolve()}"


class LearningConfig(_Section):
    """When a task is retrained by itself, and what it may learn from."""

    automatic: bool = True
    min_new_samples: int = Field(200, ge=1)
    every_hours: float | None = Field(None, gt=0)
    on_drift: bool = True
    max_samples: int = Field(20_000, ge=1)
    eval_fraction: float = Field(0.2, ge=0, le=0.5)
    max_attempts: int = Field(3, ge=1)
    method: Literal["full", "lora"] = "full"
    workers: int = Field(1, ge=1, description="that train together on Ray Train, each on a CPU or a GPU of the cluster")
    curation: Rules = Rules()


class RolloutConfig(_Section):
    """What happens to a version that passed the gate, and what is evidence enough to move it on."""

    automatic: bool = True
    initial_stage: Literal["promote", "canary", "shadow"] = "canary"
    canary_fraction: float = Field(0.1, gt=0, lt=1)
    min_answers: int = Field(200, ge=1)
    min_duration_s: float = Field(60.0, ge=0)
    max_error_rate: float = Field(0.01, ge=0, le=1)
    max_latency_ratio: float = Field(2.0, gt=0)
    max_disagreement: float = Field(0.5, ge=0, le=1)
    min_feedback: int = Field(30, ge=1)
    watch_s: float = Field(3600.0, ge=0, description="so long after a promotion it is taken back if answers fail")


class TaskConfig(_Section):
    replicas: Annotated[
        Annotated[int, Field(ge=1), Tag("number")]
        | Annotated[Literal["auto"], Tag("auto")]
        | Annotated[ReplicaRange, Tag("range")],
        Discriminator(_kind),
    ] = "auto"
    gpus: float = Field(0.0, ge=0, description="GPUs that Ray reserves for each replica: a fraction, or whole ones")
    new_labels: bool = Field(False, description="whether corrections may bring labels that the champion does not know")
    gate: dict[str, Any] = {}
    options: dict[str, Any] = {}

    def replica_count(self, cores: int | None = None) -> int:
        """At the start. `auto` is one a core, of `cores` or of this machine: a replica runs one onnxruntime thread."""
        if isinstance(self.replicas, ReplicaRange):
            return self.replicas.min
        if self.replicas != "auto":
            return self.replicas
        if cores is not None:
            return cores
        return usable_cores()


class _Environment(PydanticBaseSettingsSource):
    """What the environment sets, with each key under the name that it has now."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource):
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return with_new_names(self._source(), "the environment")


class Config(BaseSettings):
    """Everything that can be configured. Build it with `load_config`, once, and pass it down."""

    model_config = SettingsConfigDict(
        env_prefix="FLYWHEEL_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Path("var")
    server: ServerConfig = ServerConfig()
    limits: Limits = Limits()
    batching: Batching = Batching()
    cache: Cache = Cache()
    session: SessionConfig = SessionConfig()
    ray: RayConfig = RayConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    learning: LearningConfig = LearningConfig()
    rollout: RolloutConfig = RolloutConfig()
    tasks: dict[str, TaskConfig] = {name: TaskConfig(**settings) for name, settings in DEFAULT_TASKS.items()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's content comes as init settings, and the environment wins over it.
        return _Environment(settings_cls, env_settings), init_settings

    def task_options(self, task: str) -> TaskOptions:
        """The task's own options, validated by the task."""
        return get_task(task).Options.model_validate(self.tasks[task].options)

    def thresholds(self, task: str) -> Thresholds:
        """The task's own gate, with what the configuration changes of it."""
        return Thresholds.model_validate({**get_task(task).gate.model_dump(), **self.tasks[task].gate})


def load_config(file: str | Path | None = None) -> Config:
    """Read `file`, else $FLYWHEEL_CONFIG, else ./flywheel.yaml if there is one, else the defaults.

    Raises ConfigError; its text says which key, what is wrong and what was found.
    """
    named = file or os.environ.get("FLYWHEEL_CONFIG")
    path = Path(named or DEFAULT_FILE)
    if named and not path.is_file():
        raise ConfigError(f"There is no configuration file {path}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    content = content or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(content).__name__}.")
    if strange := [key for key in content if not isinstance(key, str)]:
        raise ConfigError(f"{path}: {strange[0]!r}: there is no such key")
    content = with_new_names(content, str(path))
    # Given as content and not as a default, so that FLYWHEEL_TASKS__INTENT__... changes one task and keeps the others.
    content.setdefault("tasks", DEFAULT_TASKS)
    _check_environment()
    try:
        config = Config(**content)
        for task in config.tasks:
            for part, check in (("options", config.task_options), ("gate", config.thresholds)):
                try:
                    check(task)
                except ValidationError as error:
                    raise ConfigError(f"{path}: tasks.{task}.{part}.{_sentence(error)}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error)}") from error
    except UnknownTaskError as error:
        raise ConfigError(f"{path}: tasks: {error}") from error
    except SettingsError as error:
        raise ConfigError(
            f"the environment: {error}. Sections nest with two underscores: FLYWHEEL_SERVER__PORT=9000."
        ) from error
    if not config.tasks:
        raise ConfigError(f"{path}: tasks: there is nothing to serve; name at least one task.")
    return config


def _check_environment() -> None:
    """pydantic-settings passes over variables it does not know; a misspelt one would change nothing, in silence."""
    known = {*Config.model_fields, *_OTHER_VARIABLES}
    for name in os.environ:
        if name.startswith("FLYWHEEL_") and name.removeprefix("FLYWHEEL_").lower().partition("__")[0] not in known:
            raise ConfigError(f"the environment: {name}: there is no such key")


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            parts.append(f"{where}: there is no such key")
        else:
            parts.append(f"{where}: {item['msg'].lower()}, found {item['input']!r}")
    return "; ".join(parts)
