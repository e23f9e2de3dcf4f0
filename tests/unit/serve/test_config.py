"""The configuration: defaults, file, environment; and a sentence that names the key when something is wrong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from models.tasks.base import all_tasks
from models.training.candidate import TrainingJob
from serve.cli.progress import with_asked_precision
from serve.config import Config, ConfigError, load_config
from tests.helpers.command import ROOT, flywheel


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and nothing of this machine's environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("FLYWHEEL_"):
            monkeypatch.delenv(name)


def write(text: str | bytes, name: str = "own.yaml") -> Path:
    file = Path(name)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_there_need_be_no_file() -> None:
    config = load_config()
    assert config == Config()
    assert (config.home, config.server.host, config.server.port) == (Path("var"), "127.0.0.1", 8000)
    assert set(config.tasks) == {"intent", "sentiment", "recommendation"}


def test_the_shipped_file_says_the_defaults() -> None:
    shipped = load_config(ROOT / "flywheel.yaml")
    defaults = Config()
    assert shipped.model_dump(exclude={"tasks"}) == defaults.model_dump(exclude={"tasks"})
    assert set(shipped.tasks) == set(defaults.tasks)
    for task in shipped.tasks:
        assert shipped.task_options(task) == defaults.task_options(task)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_defaults(text: str) -> None:
    assert load_config(write(text)) == Config()


def test_the_file_in_the_directory_is_found_and_a_named_one_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    write("server: {port: 1111}", "flywheel.yaml")
    assert load_config().server.port == 1111
    monkeypatch.setenv("FLYWHEEL_CONFIG", str(write("server: {port: 2222}", "of_env.yaml")))
    assert load_config().server.port == 2222
    assert load_config(write("server: {port: 3333}")).server.port == 3333


ENVIRONMENT = {
    "FLYWHEEL_HOME": ("/srv/flywheel", "home", Path("/srv/flywheel")),
    "FLYWHEEL_SERVER__PORT": ("9000", "server.port", 9000),
    "FLYWHEEL_SERVER__HOSTS": ('["a.example", "[::1]"]', "server.hosts", ["a.example", "[::1]"]),
    "FLYWHEEL_LIMITS__TEXTS": ("5", "limits.texts", 5),
    "FLYWHEEL_LIMITS__DEADLINE_S": ("2.5", "limits.deadline_s", 2.5),
    "FLYWHEEL_BATCHING__GROWTH": ("1.5", "batching.max_length_ratio", 1.5),
    "FLYWHEEL_SESSION__PROVIDERS": ("cpu", "session.providers", "cpu"),
    "FLYWHEEL_TASKS__INTENT__REPLICAS": ("3", "tasks.intent.replicas", 3),
}


@pytest.mark.parametrize(("variable", "value", "key", "expected"), [(k, *v) for k, v in ENVIRONMENT.items()])
def test_the_environment_wins_over_the_file_and_leaves_the_rest(
    variable: str, value: str, key: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        "home: here\nserver: {host: 0.0.0.0, port: 1}\nlimits: {texts: 7, deadline_s: 7, wait_s: 7.5}\n"
        "batching: {max_length_ratio: 1.1}\nsession: {providers: auto}\n"
        "tasks: {intent: {replicas: 7, options: {top_k: 7}}, sentiment: {}}\n"
    )
    monkeypatch.setenv(variable, value)
    config = load_config(file)
    found: object = config
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == expected
    assert (config.server.host, config.limits.wait_s) == ("0.0.0.0", 7.5)
    assert config.tasks["intent"].options == {"top_k": 7}
    assert set(config.tasks) == {"intent", "sentiment"}


BAD = {
    "unknown key": ("sever: {}", "sever: there is no such key"),
    "unknown nested key": ("server: {prot: 1}", "server.prot: there is no such key"),
    "unknown key of a task": ("tasks: {intent: {replica: 1}}", "tasks.intent.replica: there is no such key"),
    "unknown option": ("tasks: {intent: {options: {topk: 1}}}", "tasks.intent.options.topk: there is no such key"),
    "option of another task": (
        "tasks: {sentiment: {options: {top_k: 1}}}",
        "tasks.sentiment.options.top_k: there is no such key",
    ),
    "option out of range": ("tasks: {intent: {options: {handoff_below: 2}}}", "tasks.intent.options.handoff_below: "),
    "port out of range": ("server: {port: 99999}", "server.port: input should be less than or equal to 65535"),
    "port a word": ("server: {port: http}", "server.port: "),
    "no hosts": ("server: {hosts: []}", "server.hosts: "),
    "host with a port": ("server: {hosts: ['a.example:80']}", "without a port"),
    "host with a scheme": ("server: {hosts: ['http://a.example']}", "is not a host"),
    "IPv6 host without brackets": ("server: {hosts: ['::1']}", "an ipv6 address goes in brackets"),
    "no texts": ("limits: {texts: 0}", "limits.texts: input should be greater than or equal to 1, found 0"),
    "no time": ("limits: {deadline_s: 0}", "limits.deadline_s: "),
    "time not a number": ("limits: {deadline_s: .nan}", "limits.deadline_s: "),
    "shrinking batches": ("batching: {max_length_ratio: 0.9}", "batching.max_length_ratio: "),
    "unknown provider": ("session: {providers: tpu}", "session.providers: "),
    "unknown task": ("tasks: {intents: {}}", "tasks: There is no task 'intents'; there are: intent, "),
    "no task": ("tasks: {}", "tasks: there is nothing to serve"),
    "tasks a list": ("tasks: [intent]", "tasks: "),
    "replicas a word": ("tasks: {intent: {replicas: many}}", "tasks.intent.replicas"),
    "replicas negative": ("tasks: {intent: {replicas: -5}}", "tasks.intent.replicas"),
    "section empty": ("server:", "server: "),
    "two mistakes": ("server: {prot: 1, port: 0}", "server.prot: there is no such key"),
    "not YAML": ("server: {port: 1", "not valid YAML"),
    "tab": ("server:\n\tport: 1", "not valid YAML"),
    "not text": (b"\xff\xfe\x00", "not valid YAML"),
    "a list": ("- server", "must hold keys and values, not list"),
    "a word": ("server", "must hold keys and values, not str"),
    "a key that is no word": ("1: 2", "1: "),
    "no file of topics": (
        "tasks: {sentiment: {options: {topics: none.yaml}}}",
        "tasks.sentiment.options.topics: none.yaml: cannot be read: No such file or directory.",
    ),
    "a file that has no topics": ("tasks: {sentiment: {options: {topics: bad.yaml}}}", "bad.yaml, line 2: an empty"),
    "no file of entities": (
        "tasks: {intent: {options: {entities: none.yaml}}}",
        "tasks.intent.options: none.yaml: cannot be read: No such file or directory.",
    ),
    "no file of answers": (
        "tasks: {intent: {options: {answers: none.yaml}}}",
        "tasks.intent.options: none.yaml: cannot be read: No such file or directory.",
    ),
    "a file that has no answers": ("tasks: {intent: {options: {answers: bad.yaml}}}", "bad.yaml: oil: Extra inputs"),
    "a default in circles": (
        "tasks: {intent: {options: {defaults: {a: '{b}', b: '{a}'}}}}",
        "defaults.a: '{b}' names a slot",
    ),
    "topics in the configuration": (
        "tasks: {sentiment: {options: {topics: [oil]}}}",
        "tasks.sentiment.options.topics: value error, must be the name of a file of topics, found",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_a_mistake_is_named(text: str | bytes, sentence: str) -> None:
    write("oil:\n- ''\n", "bad.yaml")
    file = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(str(file))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("FLYWHEEL_SERVER__PORT", "99999", "server.port"),
        ("FLYWHEEL_SERVER__PROT", "1", "server.prot"),
        ("FLYWHEEL_TASKS__INTENT__OPTIONS", '{"top_k": 0}', "tasks.intent.options.top_k"),
        ("FLYWHEEL_SERVER", "nonsense", "server"),
        ("FLYWHEEL_TASKS__INTENTS__REPLICAS", "1", "intents"),
        ("FLYWHEEL_SERVR__PORT", "1", "SERVR"),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    variable: str, value: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert key.lower() in str(caught.value).lower()


def test_a_file_that_an_option_names_is_read_once_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a replica on another machine, or one that is started later, has what the server was started with."""
    file = write("oil: [crude]\ngas: [crude]\n", "topics.yaml")
    monkeypatch.setenv("FLYWHEEL_TASKS__SENTIMENT__OPTIONS__TOPICS", "topics.yaml")
    config = load_config()
    file.unlink()
    options = pickle.loads(pickle.dumps(config)).task_options("sentiment")
    assert options.topics.names == ("oil", "gas")
    [note] = options.notes
    assert "'crude' is a word of 'oil'" in note


def test_the_environment_needs_no_file_to_change_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_TASKS__INTENT__REPLICAS", "1")
    assert set(load_config().tasks) == set(Config.model_fields["tasks"].default)


def test_a_missing_file_is_an_error_only_when_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"There is no configuration file nowhere\.yaml"):
        load_config("nowhere.yaml")
    monkeypatch.setenv("FLYWHEEL_CONFIG", "missing.yaml")
    with pytest.raises(ConfigError, match=r"There is no configuration file missing\.yaml"):
        load_config()


def test_replicas_are_a_number_or_one_a_core() -> None:
    config = load_config(write("tasks: {intent: {replicas: 3}, sentiment: {}}"))
    assert config.tasks["intent"].replica_count() == 3
    assert config.tasks["sentiment"].replica_count() >= 1


@pytest.mark.parametrize("task", sorted(all_tasks()))
def test_options_are_the_task_s_own(task: str) -> None:
    assert isinstance(load_config().task_options(task), all_tasks()[task].Options)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("server: {port: 99999}", "server.port"),
        ("tasks: {nope: {}}", "'nope'"),
        ("session: {providers: '[/b]'}", "[/b]"),
    ],
    ids=["value", "task", "brackets"],
)
def test_up_says_the_sentence_and_no_traceback(text: str, sentence: str, tmp_path: Path) -> None:
    bad = write(text, str(tmp_path / "bad.yaml"))
    done = flywheel("up", "--config", str(bad), home=tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {bad}: ")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


SERVICE_LINKS = {
    "FLYWHEEL_SERVICE_HOST": "10.0.0.1",
    "FLYWHEEL_SERVICE_PORT": "8000",
    "FLYWHEEL_SERVICE_PORT_HTTP": "8000",
    "FLYWHEEL_PORT": "tcp://10.0.0.1:8000",
    "FLYWHEEL_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "FLYWHEEL_PORT_8000_TCP_PROTO": "tcp",
    "FLYWHEEL_PORT_8000_TCP_PORT": "8000",
    "FLYWHEEL_PORT_8000_TCP_ADDR": "10.0.0.1",
    # services called flywheel-api and flywheel-home
    "FLYWHEEL_API_SERVICE_HOST": "10.0.0.2",
    "FLYWHEEL_API_PORT": "tcp://[fd00::1]:8000",
    "FLYWHEEL_HOME_PORT": "udp://10.0.0.3:53",
    "FLYWHEEL_HOME_PORT_53_UDP_ADDR": "10.0.0.3",
    # docker run --link web:flywheel
    "FLYWHEEL_NAME": "/client/flywheel",
    "FLYWHEEL_ENV_PATH": "/usr/bin",
}


def test_what_kubernetes_and_docker_set_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    assert load_config() == Config()


@pytest.mark.parametrize(
    ("variable", "value", "meant"),
    [
        ("FLYWHEEL_PORT", "9000", "FLYWHEEL_SERVER__PORT"),
        ("FLYWHEEL_HOST", "0.0.0.0", "FLYWHEEL_SERVER__HOST"),
        ("FLYWHEEL_SERVER_PORT", "9000", "FLYWHEEL_SERVER__PORT"),
        ("FLYWHEEL_FEEDBACK_STORE", "postgresql://db/flywheel", "FLYWHEEL_FEEDBACK__STORE"),
    ],
)
def test_a_key_without_its_section_is_told_with_it(
    variable: str, value: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"{variable}: there is no such key; did you mean {meant}\?"):
        load_config()


@pytest.mark.parametrize("variable", ["FLYWHEEL_HOEM", "FLYWHEEL_SERVICE", "FLYWHEEL_NAME", "FLYWHEEL_API_PORT"])
def test_another_unknown_variable_is_told(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "9000")
    with pytest.raises(ConfigError, match=rf"{variable}: there is no such key$"):
        load_config()


def test_a_tilde_is_the_users_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/someone")
    monkeypatch.setenv("FLYWHEEL_HOME", "~/flywheel")
    assert load_config().home == Path("/srv/someone/flywheel")
    monkeypatch.delenv("FLYWHEEL_HOME")
    assert load_config(write("home: ~/models")).home == Path("/srv/someone/models")


@pytest.mark.parametrize(
    ("home", "sentence"),
    [("", "must name a directory"), (" ", "must name a directory"), ("~nobody-here/x", "begins with ~")],
)
def test_a_home_that_is_none_is_told(home: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", home)
    with pytest.raises(ConfigError, match=sentence):
        load_config()


@pytest.mark.parametrize(
    ("written", "meant"),
    [("off", "off"), ("'off'", "off"), ("false", "off"), ("auto", "auto"), ("on", None), ("0", None)],
)
def test_early_answers_can_be_switched_off(written: str, meant: str | None) -> None:
    """A bare `off` is false to YAML."""
    file = write(f"tasks: {{intent: {{early_answers: {written}}}}}")
    if meant is None:
        with pytest.raises(ConfigError, match=r"tasks\.intent\.early_answers"):
            load_config(file)
    else:
        assert load_config(file).tasks["intent"].early_answers == meant


def test_the_environment_switches_early_answers_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_TASKS__INTENT__EARLY_ANSWERS", "off")
    assert load_config().tasks["intent"].early_answers == "off"


def test_opinion_monitoring_of_a_task_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"own\.yaml: opinion\.task: .*moods"):
        load_config(write("opinion: {task: moods}"))


def test_opinion_monitoring_of_a_task_that_is_not_served_has_no_effect() -> None:
    assert load_config(write("tasks: {intent: {}}")).opinion.task == "sentiment"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("opinion: {keep_days: 0}", "opinion.keep_days"),
        ("opinion: {story_window_h: -1}", "opinion.story_window_h"),
        ("opinion: {notify_within_h: 0}", "opinion.notify_within_h"),
        ("opinion: {webhook: {url: 'http://example.org/hook'}}", "opinion.webhook.url: .*use https"),
        ("opinion: {webhook: {url: 'example.org/hook'}}", "opinion.webhook.url: .*must be https"),
        ("opinion: {surge: {step: 7m}}", "opinion.surge.step"),
        ("opinion: {window: 3}", "opinion.window: there is no such key"),
    ],
)
def test_opinion_monitoring_with_impossible_values_is_refused(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(write(text))


def test_the_precision_that_is_asked_of_confident_answers(tmp_path: Path) -> None:
    file = tmp_path / "flywheel.yaml"
    file.write_text("tasks: {intent: {confidence: {high: 0.9}}, sentiment: {}}")
    config = load_config(file)
    asked = {
        task: dict(with_asked_precision(TrainingJob(task, recipe=(("seed", 3),)), config).recipe)
        for task in ("intent", "sentiment", "recommendation")
    }
    assert asked["intent"] == {"seed": 3, "confidence_high": 0.9, "confidence_medium": 0.8}
    assert asked["sentiment"] == asked["recommendation"] == {**asked["intent"], "confidence_high": 0.95}
    for wrong, told in (("{high: 0.7}", "medium must not be above high"), ("{medium: 95}", "less than 1")):
        file.write_text(f"tasks: {{intent: {{confidence: {wrong}}}}}")
        with pytest.raises(ConfigError, match=told):
            load_config(file)


@pytest.mark.parametrize(
    "text",
    [
        "opinion: {webhook: {url: 'https://user:s3cret@example.org/hook'}}",
        "opinion: {webhook: {url: 'http://example.org/hook?key=s3cret'}}",
        "opinion: {webhook: {secret: [s3cret]}}",
        "server: {operator_token: [s3cret]}",
        "feedback: {store: 'mysql://user:s3cret@example.org/db'}",
    ],
)
def test_a_mistake_in_a_secret_does_not_tell_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert "s3cret" not in str(caught.value)


def test_an_empty_secret_is_refused() -> None:
    """As a variable that is not set makes it: messages would go out unsigned."""
    with pytest.raises(ConfigError, match=r"opinion\.webhook\.secret"):
        load_config(write("opinion: {webhook: {secret: ''}}"))


def test_the_address_of_a_host_of_ipv6_is_in_brackets() -> None:
    assert load_config(write("server: {host: '::1', port: 9000}")).server.url == "http://[::1]:9000"
