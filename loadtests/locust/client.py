"""What all users share: how a request is sent and judged, options of the command line, and the verdict at the end."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from typing import Any

import gevent
import orjson
from locust import FastHttpUser, events
from locust.env import Environment

from loadtests.locust.bodies import seed
from loadtests.locust.scenarios import Scenario
from loadtests.locust.thresholds import REFUSED, Fact, Figures, misses, table

_TIMEOUT_S = 15.0  # more than the server's deadline, so that its own answer is seen
_MAX_REASONS = 10  # of failures, at the end
_MAX_PAUSE_S = 5.0  # of a client that was refused, whatever Retry-After says


class Seen:
    """What the answers of a run showed besides their times."""

    def __init__(self) -> None:
        self.versions: dict[str, Counter[str]] = defaultdict(Counter)
        """how many answers each version gave, by task"""
        self.facts: dict[str, Fact] = {}
        """what the scenario must see, by name"""
        self.surges = self.overloads = False
        """whether the scenario sends more than the server can do; and whether the server may still refuse for that"""
        self._texts: set[bytes] = set()
        self._sent: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()

    def note(self, fact: Fact) -> None:
        """Keep `fact` in place of what was known of its name."""
        self.facts[fact.name] = fact

    def text(self, task: str, text: str) -> None:
        """Count a text that is sent, and whether it was sent before."""
        key = hashlib.blake2b(f"{task} {text}".encode(), digest_size=12).digest()
        self._sent[task] += 1
        self._repeated[task] += key in self._texts
        self._texts.add(key)

    def lines(self) -> list[str]:
        """Sentences about the run."""
        repeats = [
            f"{self._repeated[task] / sent:.0%} of {sent:,} texts of {task} were sent before, in the same words"
            for task, sent in self._sent.items()
        ]
        versions = [
            f"versions of {task} that answered: " + ", ".join(f"{v} ({n:,})" for v, n in sorted(counts.items()))
            for task, counts in self.versions.items()
        ]
        return repeats + versions + [f"{fact.name}: {fact.sentence}" for fact in self.facts.values()]


class FlywheelUser(FastHttpUser):
    """A user whose answers are checked. While `seen.overloads`, a 503 with Retry-After is a refusal, not a failure."""

    abstract = True
    connection_timeout = network_timeout = _TIMEOUT_S

    @property
    def seen(self) -> Seen:
        return seen_in(self.environment)

    @property
    def consents(self) -> bool:
        """Whether models may learn from what this run sends."""
        return bool(self.environment.parsed_options.consent)

    def ask(
        self,
        name: str,
        path: str,
        body: Any = None,
        *,
        user: str | None = None,
        status: int = 200,
        operator: bool = False,
    ) -> Any:
        """The answer as JSON; None if the request failed or was refused, after the pause that the server asked for.

        Without a body it is a GET. `operator`: send the operator's token, if there is one.
        """
        headers = {"content-type": "application/json"}
        if user is not None:
            headers["x-user-id"] = user
        if operator and (token := self.environment.parsed_options.token):
            headers["authorization"] = f"Bearer {token}"
        data = None if body is None else orjson.dumps(body)
        method = "GET" if body is None else "POST"
        with self.client.request(method, path, name=name, data=data, headers=headers, catch_response=True) as response:
            pause_s = _pause_s(response) if self.seen.overloads else None
            if response.status_code == status:
                return self._read(response)
            if pause_s is None:
                response.failure(f"{response.status_code}: {_code(response)}")
                return None
            response.request_meta["name"] += REFUSED
            response.success()
        gevent.sleep(pause_s)
        return None

    def _read(self, response: Any) -> Any:
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            response.failure("the answer is not JSON")
            return None
        if "model_version" in answer:
            self.seen.versions[answer["model_name"]][answer["model_version"]] += 1
            if "predictions" not in answer:
                response.failure("the answer has no predictions")
        return answer


def _pause_s(response: Any) -> float | None:
    """How long the server asks to wait; None unless it refused with 503 and Retry-After."""
    after = response.headers.get("retry-after") if response.status_code == 503 and response.headers else None
    return min(float(after), _MAX_PAUSE_S) if after is not None and after.isdecimal() else None


def _code(response: Any) -> str:
    """The error's code, or what went wrong with the connection."""
    try:
        return str(orjson.loads(response.content)["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return repr(getattr(response, "error", None))[:200]


def seen_in(environment: Environment) -> Seen:
    """What this run has seen so far."""
    if not hasattr(environment, "seen"):
        environment.seen = Seen()
    found: Seen = environment.seen
    return found


def judged_by(scenario: Scenario) -> None:
    """At the end of the run, print its figures beside the scenario's thresholds; exit code 1 if one is missed."""
    verdict: list[str] = []

    @events.quitting.add_listener
    def judge(environment: Environment, **_: Any) -> None:
        seen, figures = seen_in(environment), _figures(environment)
        missed = misses(scenario.thresholds, figures, list(seen.facts.values()))
        missed += [
            f"a user failed {row['count']} times, which is a fault of the load test: {row['msg']}"
            for row in environment.runner.exceptions.values()
        ]
        environment.process_exit_code = 1 if missed else 0
        verdict.extend(
            [f"{scenario.name}: {scenario.title}", table(scenario.thresholds, figures)]
            + [*seen.lines(), *_failures(environment)]
            + ([f"MISSED {sentence}" for sentence in missed] or ["met: every threshold"])
        )

    @events.quit.add_listener
    def show(**_: Any) -> None:
        """Last, below Locust's own tables."""
        print("\n".join(verdict), flush=True)


def _figures(environment: Environment) -> dict[str, Figures]:
    return {
        entry.name: Figures(
            entry.num_requests,
            entry.num_failures,
            *(entry.get_response_time_percentile(quantile) for quantile in (0.5, 0.95, 0.99)),
        )
        for entry in environment.stats.entries.values()
    }


def _failures(environment: Environment) -> list[str]:
    """Why requests failed, the most frequent reasons first."""
    errors = sorted(environment.stats.errors.values(), key=lambda error: -error.occurrences)
    return [f"failed {error.occurrences} times: {error.name}: {error.error}" for error in errors[:_MAX_REASONS]]


@events.init.add_listener
def read_corpora(**_: Any) -> None:
    seed.load()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    parser.add_argument(
        "--token", default="", env_var="FLYWHEEL_SERVER__OPERATOR_TOKEN", is_secret=True, help="the operator's token"
    )
    parser.add_argument(
        "--consent", action="store_true", help="let the server's models learn from what is sent (default: they may not)"
    )
    parser.add_argument(
        "--retrain", default="recommendation", help="the task that `everything` retrains (default %(default)s)"
    )
