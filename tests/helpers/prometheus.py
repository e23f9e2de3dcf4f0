"""Debian's Prometheus over a test's server: deploy/prometheus/ with its time made short."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.helpers.command import free_port
from tests.helpers.monitoring import RULES

SPEED = 60
"""by which time passes faster in the rules: an hour is a minute"""
_MIN_RANGE_S, _MAX_RANGE_S = 5, 60
"""of ranges and offsets: five scrapes, and no test has more than a minute of past"""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+)([smhdw])")


def short(duration: str) -> str:
    """A range or offset of a rule, 60 times shorter, but from 5 s to 60 s: `1h` is `60s`, `5m` and `10m` are `5s` and
    `10s`, and what is longer than an hour is as an hour. The order of windows stays; long ones become equal."""
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(duration)) / SPEED
    return f"{min(max(round(seconds), _MIN_RANGE_S), _MAX_RANGE_S)}s"


def shortened(rules: str) -> str:
    """A file of rules with each window, offset and `for` made short, evaluated every second.

    Thresholds stay as they are, also those that are ages in seconds.
    """
    loaded = yaml.safe_load(rules)
    for group in loaded["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            expression = re.sub(r"\[(\w+)(?::(\w+))?\]", _short_range, rule["expr"])
            rule["expr"] = re.sub(r"offset (\w+)", lambda found: f"offset {short(found[1])}", expression)
            for field in ("for", "keep_firing_for"):
                if field in rule:
                    rule[field] = short(rule[field])
    return yaml.safe_dump(loaded, sort_keys=False)


def _short_range(found: re.Match[str]) -> str:
    return f"[{short(found[1])}]" if found[2] is None else f"[{short(found[1])}:1s]"


@dataclass
class Prometheus:
    """A running Prometheus that scrapes one server every second."""

    url: str
    process: subprocess.Popen[bytes]

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The samples that an expression has; fails when it does not parse."""
        return self._get("query", query=expression, **({} if at is None else {"time": at}))["result"]  # type: ignore[no-any-return]

    def query_range(self, expression: str, start: float, end: float, step_s: float = 1.0) -> list[dict[str, Any]]:
        """The series that an expression has in this time; fails when it does not parse."""
        found = self._get("query_range", query=expression, start=start, end=end, step=step_s)
        return found["result"]  # type: ignore[no-any-return]

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with `health` and `lastError` of their evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def firing(self, at: float | None = None) -> set[tuple[str, str]]:
        """Name and task (or "") of the alerts that fire."""
        found = self.query('ALERTS{alertstate="firing"}', at)
        return {(one["metric"]["alertname"], one["metric"].get("task", "")) for one in found}

    def began_to_fire(self, start: float, end: float) -> set[tuple[str, str]]:
        """Name and task of the alerts that fired in this time and did not at its start."""
        found = self.query_range('ALERTS{alertstate="firing"}', start, end)
        names = {(one["metric"]["alertname"], one["metric"].get("task", "")) for one in found}
        return names - self.firing(start)

    def annotations(self) -> list[dict[str, str]]:
        """Those of the alerts that are active now, as a person reads them."""
        return [alert["annotations"] for alert in self._get("alerts")["alerts"]]

    def _get(self, path: str, **parameters: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", (answer, parameters)
        return answer["data"]


def start_prometheus(server: str, folder: Path) -> Prometheus:
    """Prometheus with the shortened rules, scraping `server` ("host:port"); its data and log are in `folder`."""
    shutil.copytree(RULES / "targets", folder / "targets")
    (folder / "targets" / "flywheel.yml").write_text(yaml.safe_dump([{"targets": [server]}]))
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    for name in config["rule_files"]:
        (folder / name).write_text(shortened((RULES / name).read_text()))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address={address}", "--query.lookback-delta=5s"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    started = Prometheus(f"http://{address}", process)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{started.url}/-/ready", timeout=5).is_success:
                return started
        except httpx.TransportError:
            time.sleep(0.2)
    process.kill()
    raise AssertionError(f"Prometheus was not ready within 30 s:\n{(folder / 'log').read_text()}")
