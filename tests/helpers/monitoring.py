"""The rules of deploy/prometheus/ and the dashboards of deploy/grafana/, as tests read them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.command import ROOT

RULES = ROOT / "deploy" / "prometheus"
CONFIGS = [RULES / "prometheus.yml", RULES / "kubernetes.yml"]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RULE_FILES = sorted(RULES.glob("*.rules.yml"))

_SERIES = re.compile(r"(?<![\w:.$])(?:[a-z_]+:)?(?:flywheel_|flywheel:|probe_|up\b)[\w:]*")
_SELECTOR = re.compile(r"(?<![\w:.$])(?:(?:[a-z_]+:)?(?:flywheel_|flywheel:|probe_)[\w:]*|up(?=\{))(?:\{[^}]*\})?")
_SUFFIXES = re.compile(r"_(?:bucket|sum|count)$")


def rules_of(file: Path) -> list[dict[str, Any]]:
    """The rules of a file."""
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts(file: Path) -> list[dict[str, Any]]:
    """The alerting rules of a file."""
    return [rule for rule in rules_of(file) if "alert" in rule]


def series_of(query: str) -> set[str]:
    """The names of the series that a query reads, without those in strings; of a histogram its own."""
    names = set(_SERIES.findall(re.sub(r'"[^"]*"', '""', query)))
    return {name if ":" in name else _SUFFIXES.sub("", name) for name in names}


def selectors_of(query: str) -> set[str]:
    """The series that a query reads, with the labels that it asks for: `name{...}`."""
    return set(_SELECTOR.findall(query))


def documented_series() -> set[str]:
    """The series of docs/metrics.md, which is generated from the collectors; of a histogram its own."""
    return set(re.findall(r"`(flywheel_\w+)", (ROOT / "docs" / "metrics.md").read_text()))


@dataclass(frozen=True)
class Panel:
    """A panel of a dashboard, with its queries as they stand there, variables included."""

    dashboard: str
    title: str
    description: str
    queries: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title}"


def panels(dashboard: Path) -> list[Panel]:
    """The panels of a dashboard's JSON, without the headings of rows; its annotations are one more."""
    board = json.loads(dashboard.read_text())
    marks = tuple(annotation["expr"] for annotation in board["annotations"]["list"])
    return [
        Panel(dashboard.stem, "annotations", "Moves of versions.", marks),
        *(
            Panel(
                dashboard.stem, panel["title"], panel["description"], tuple(query["expr"] for query in panel["targets"])
            )
            for panel in board["panels"]
            if panel["type"] != "row"
        ),
    ]
