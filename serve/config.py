"""The configuration: one frozen model of `flywheel.yaml`, overridden by `FLYWHEEL_*` environment variables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from export.machine import usable_cores
from export.providers import GpuOptions, Providers
from models.curation.types import Rules
from models.entities import EntitiesError, Registry
from models.home import feedback_database, sqlite_url
from models.knowledge.index import MIN_SIMILARITY
from models.opinion.topics import Topics
from models.opinion.topics_file import TopicsError
from models.tasks.answers import AnswersError
from models.tasks.base import MAX_ITEMS, TaskOptions, UnknownTaskError, get_task
from models.tasks.thresholds import Thresholds
from serve.browser_guard import parse_host
from serve.receiver import Receiver
from serve.renamed_keys import with_new_names

DEFAULT_FILE = "flywheel.yaml"
DEFAULT_TASKS: dict[str, dict[str, Any]] = {
    "intent": {},
    "sentiment": {"replicas": 1},
    "recommendation": {"replicas": 1},
}
_OTHER_VARIABLES = ("config", "url")  # FLYWHEEL_ variables that are not keys of the configuration
# What Kubernetes (enableServiceLinks) and Docker (--link) set in every container beside a service or a container whose
# name begins with flywheel. FLYWHEEL_PORT is of these only with their value: 9000 there is a user's mistake.
_SERVICE_LINK = re.compile(
    r"FLYWHEEL((_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)|_ENV_\w+)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+|/\S+/\S+")  # of ..._PORT, and Docker's ..._NAME


class ConfigError(Exception):
    """Raised when the configuration is invalid; the text names the file, the key and the fault."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerConfig(_Section):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    operator_token: SecretStr | None = None
    hosts: Annotated[list[str], Field(min_length=1)] | None = None

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, hosts: list[str] | None) -> list[str] | None:
        if any(parse_host(host)[1] is not None for host in hosts or ()):
            raise ValueError("are names or addresses without a port; any port is accepted")
        return hosts

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class LimitsConfig(_Section):
    body_bytes: int = Field(1 << 20, ge=1024)
    texts: int = Field(128, ge=1, le=MAX_ITEMS)
    wait_s: float = Field(1.0, gt=0, le=300)
    deadline_s: float = Field(10.0, gt=0, le=300)


class BatchingConfig(_Section):
    tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    texts: int = Field(64, ge=1, le=1024)
    max_length_ratio: float = Field(1.5, ge=1.0)

    def max_tokens(self, auto: int = 256) -> int:
        """The tokens of a batch; `auto`, the best number for the session's provider, defaults to a CPU's."""
        return auto if self.tokens == "auto" else self.tokens


class CacheConfig(_Section):
    texts: int = Field(10_000, ge=0)


class SessionConfig(_Section):
    providers: Providers = "auto"
    threads: int = Field(1, ge=1)
    gpu: GpuOptions = GpuOptions()

    @field_validator("gpu")
    @classmethod
    def _check_cuda_graph(cls, gpu: GpuOptions, given: ValidationInfo) -> GpuOptions:
        if gpu.cuda_graph and given.data.get("providers") == "tensorrt":
            raise ValueError(
                "cuda_graph goes with providers: cuda; tensorrt splits the graph, which cannot be captured"
            )
        return gpu


class RayConfig(_Section):
    address: Annotated[str, Field(pattern=r"^(auto|[^/\s]+:\d+)$")] | None = None
    cpus: float = Field(0.0, ge=0)
    tuning: Literal["full", "stock"] = Field(
        "full", description="stock: Ray Serve as documented, without serve/rayserve/tweaks.py"
    )


class ReplicaRange(_Section):
    """Autoscaling: a number of replicas that follows the backlog (serve/rayserve/autoscaling.py)."""

    min: int = Field(1, ge=1)
    max: int = Field(ge=1)
    up_after_s: float = Field(10.0, ge=0)
    down_after_s: float = Field(300.0, ge=0)

    @field_validator("max")
    @classmethod
    def _not_less_than_min(cls, maximum: int, others: ValidationInfo) -> int:
        if maximum < others.data.get("min", 1):
            raise ValueError("must not be less than min")
        return maximum


def _kind(replicas: object) -> str:
    """The tag of the union's member that was meant, so that only its errors are reported."""
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
    def _check_store(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("must begin with postgresql:// or sqlite:///")
        return url

    def store_url(self, home: Path) -> str:
        return self.store or sqlite_url(feedback_database(home))


class SurgeConfig(_Section):
    """When negative stories on a topic are a surge."""

    step: Literal["15m", "30m", "1h", "2h", "3h", "4h", "6h", "12h", "1d"] = "1h"
    false_alarms_per_month: float = Field(1.0, gt=0, le=100)
    min_stories: int = Field(5, ge=1)


class WebhookConfig(_Section):
    url: str | None = None
    secret: SecretStr | None = Field(None, min_length=1)
    timeout_s: float = Field(10.0, gt=0, le=60)

    @property
    def receiver(self) -> Receiver | None:
        """Where alerts are sent; None for nowhere. Raises ValueError for an address that cannot be used."""
        if self.url is None:
            return None
        return Receiver(self.url, self.secret.get_secret_value() if self.secret else None, self.timeout_s)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None:
            Receiver(url)
        return url


class OpinionConfig(_Section):
    """Opinion monitoring: the texts of one task counted by topic and time."""

    task: str = "sentiment"
    keep_days: float = Field(400.0, gt=0, le=3650)
    story_window_h: float = Field(72.0, gt=0, le=720)
    notify_within_h: float = Field(24.0, gt=0, le=8760)
    surge: SurgeConfig = SurgeConfig()
    webhook: WebhookConfig = WebhookConfig()


class KnowledgeConfig(_Section):
    """The knowledge base of customer service."""

    max_entries: int = Field(100_000, ge=1, le=100_000)
    min_similarity: float = Field(MIN_SIMILARITY, ge=0, le=1)


class LearningConfig(_Section):
    """When a task is retrained automatically, and the data and method of a retraining."""

    automatic: bool = True
    min_new_samples: int = Field(200, ge=1)
    every_hours: float | None = Field(None, gt=0)
    on_drift: bool = True
    drift_every_s: float = Field(1800.0, gt=0, description="how often the log is tested for drift")
    max_samples: int = Field(20_000, ge=1)
    eval_fraction: float = Field(0.2, ge=0, le=0.5)
    max_attempts: int = Field(3, ge=1)
    method: Literal["full", "lora"] = "full"
    workers: int = Field(1, ge=1, description="Ray Train workers, each on a CPU or a GPU of the cluster")
    curation: Rules = Rules()


class RolloutConfig(_Section):
    """The rollout of a version that passed the gate, and the canary analysis's bounds."""

    automatic: bool = True
    initial_stage: Literal["promote", "canary", "shadow"] = "canary"
    canary_fraction: float = Field(0.1, gt=0, lt=1)
    min_answers: int = Field(200, ge=1)
    min_duration_s: float = Field(60.0, ge=0)
    max_error_rate: float = Field(0.01, ge=0, le=1)
    max_latency_ratio: float = Field(2.0, gt=0)
    max_disagreement: float = Field(0.5, ge=0, le=1)
    min_feedback: int = Field(30, ge=1)
    watch_s: float = Field(3600.0, ge=0, description="how long after a promotion failing answers revert it")


def _off(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


class PrecisionConfig(_Section):
    """How often answers of high and of medium confidence are to be right, from the least sure one of each on."""

    high: float = Field(0.95, gt=0.5, lt=1)
    medium: float = Field(0.80, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.medium > self.high:
            raise ValueError("medium must not be above high")
        return self


class TaskConfig(_Section):
    replicas: Annotated[
        Annotated[int, Field(ge=1), Tag("number")]
        | Annotated[Literal["auto"], Tag("auto")]
        | Annotated[ReplicaRange, Tag("range")],
        Discriminator(_kind),
    ] = "auto"
    gpus: float = Field(0.0, ge=0, description="GPUs reserved for each replica: a fraction or a whole number")
    early_answers: Annotated[Literal["auto", "off"], BeforeValidator(_off)] = Field(
        "auto", description="whether the linear reader answers alone where it is sure; auto: where that pays"
    )
    new_labels: bool = Field(False, description="whether corrections may add labels that the champion does not have")
    confidence: PrecisionConfig = Field(
        PrecisionConfig(), description="asked for at a training; from it come the bounds of an answer's confidence"
    )
    gate: dict[str, Any] = {}
    options: dict[str, Any] = {}

    def replica_count(self, cores: int | None = None) -> int:
        """The initial number. `auto` is one per core, since a replica runs one onnxruntime thread.

        `cores` defaults to this machine's usable cores.
        """
        if isinstance(self.replicas, ReplicaRange):
            return self.replicas.min
        if self.replicas != "auto":
            return self.replicas
        if cores is not None:
            return cores
        return usable_cores()


class _Environment(PydanticBaseSettingsSource):
    """The environment's settings, with renamed keys under their new names."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource):
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return with_new_names(self._source(), "the environment")


class Config(BaseSettings):
    """The whole configuration. Build it once, with `load_config`, and pass it down."""

    model_config = SettingsConfigDict(
        env_prefix="FLYWHEEL_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Path("var")
    server: ServerConfig = ServerConfig()
    limits: LimitsConfig = LimitsConfig()
    batching: BatchingConfig = BatchingConfig()
    cache: CacheConfig = CacheConfig()
    session: SessionConfig = SessionConfig()
    ray: RayConfig = RayConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    learning: LearningConfig = LearningConfig()
    rollout: RolloutConfig = RolloutConfig()
    opinion: OpinionConfig = OpinionConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    tasks: dict[str, TaskConfig] = {name: TaskConfig(**settings) for name, settings in DEFAULT_TASKS.items()}

    @field_validator("home", mode="before")
    @classmethod
    def _check_home(cls, home: object) -> object:
        """Neither systemd nor Docker replaces `~`, and an empty variable would be the current directory."""
        if not isinstance(home, str):
            return home
        if not home.strip():
            raise ValueError("must name a directory")
        try:
            return Path(home).expanduser()
        except RuntimeError as error:
            raise ValueError("begins with ~, and this user has no home directory") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's content is passed as init settings; the environment takes precedence over it.
        return _Environment(settings_cls, env_settings), init_settings

    def task_options(self, task: str) -> TaskOptions:
        """The task's options, validated by its `Options` model."""
        return get_task(task).Options.model_validate(self.tasks[task].options)

    def entities(self, task: str) -> Registry | None:
        """The types of entities that the task's options add; None where they add none."""
        registry = getattr(self.task_options(task), "entities", None)
        return registry if isinstance(registry, Registry) else None

    @property
    def opinion_topics(self) -> tuple[str, ...]:
        """The names of the topics file of the task whose opinions are monitored; none without one."""
        if self.opinion.task not in self.tasks:
            return ()
        topics = getattr(self.task_options(self.opinion.task), "topics", None)
        return topics.names if isinstance(topics, Topics) else ()

    def thresholds(self, task: str) -> Thresholds:
        """The task's default gate with the configuration's changes."""
        return Thresholds.model_validate({**get_task(task).gate.model_dump(), **self.tasks[task].gate})


def load_config(file: str | Path | None = None) -> Config:
    """Read `file`, else $FLYWHEEL_CONFIG, else ./flywheel.yaml if it exists, else use the defaults.

    Raises ConfigError, whose text names the key, the fault and the value found.
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
    # In the content, not as a field default, so that FLYWHEEL_TASKS__INTENT__... changes one task and keeps the others.
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
                except (AnswersError, EntitiesError) as error:
                    raise ConfigError(f"{path}: tasks.{task}.{part}: {error}") from error
                except TopicsError as error:
                    raise ConfigError(f"{path}: tasks.{task}.{part}.topics: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error)}") from error
    except UnknownTaskError as error:
        raise ConfigError(f"{path}: tasks: {error}") from error
    except SettingsError as error:
        raise ConfigError(
            f"the environment: {error}. Sections nest with two underscores: FLYWHEEL_SERVER__PORT=9000."
        ) from error
    _check_opinion(config, path)
    if not config.tasks:
        raise ConfigError(f"{path}: tasks: there is nothing to serve; name at least one task.")
    return _with_read_files(config)


def _with_read_files(config: Config) -> Config:
    """The configuration with the content of files that options name, so that replicas on other machines have it.

    A replica that is started later also has what the server was started with, whatever the file has become.
    """
    tasks = {}
    for name, settings in config.tasks.items():
        options = config.task_options(name)
        read = {key: getattr(options, key) for key in settings.options}
        tasks[name] = settings.model_copy(update={"options": read})
    return config.model_copy(update={"tasks": tasks})


def _check_opinion(config: Config, path: Path) -> None:
    """Raises ConfigError for a task that does not exist. One that exists and is not served has no opinions."""
    if config.opinion.task in config.tasks:
        return
    try:
        get_task(config.opinion.task)
    except UnknownTaskError as error:
        raise ConfigError(f"{path}: opinion.task: {error}") from error


def _check_environment() -> None:
    """Raises ConfigError for an unknown FLYWHEEL_ variable, since pydantic-settings silently ignores misspelt ones."""
    known = {*Config.model_fields, *_OTHER_VARIABLES}
    for name, value in os.environ.items():
        if not name.startswith("FLYWHEEL_") or _is_service_link(name, value):
            continue
        key = name.removeprefix("FLYWHEEL_").lower().partition("__")[0]
        if key not in known:
            raise ConfigError(f"the environment: {name}: there is no such key{_suggestion(key)}")


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes or Docker has set this variable."""
    if _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith(("_PORT", "_NAME")) and "__" not in name and bool(_SERVICE_ADDRESS.fullmatch(value))


def _suggestion(key: str) -> str:
    """`; did you mean ...?` if `key` is a key without its section, or with one underscore after it."""
    for section, field in Config.model_fields.items():
        if not isinstance(field.default, _Section):
            continue
        for name in type(field.default).model_fields:
            if key in (name, f"{section}_{name}"):
                return f"; did you mean FLYWHEEL_{section.upper()}__{name.upper()}?"
    return ""


_SECRETS = [("operator_token",), ("secret",), ("store",), ("url",)]
"""keys whose values are not repeated in an error: they are secrets, or addresses that may have some"""


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            parts.append(f"{where}: there is no such key")
        else:
            found = "" if item["loc"][-1:] in _SECRETS else f", found {item['input']!r}"
            parts.append(f"{where}: {item['msg'].lower()}{found}")
    return "; ".join(parts)
