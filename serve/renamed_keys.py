"""Renamed configuration keys: the names until 0.1 are read with a warning until 0.3, when this module is removed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

log = logging.getLogger("flywheel.config")

_RENAMED: dict[tuple[str, ...], dict[str, str]] = {
    ("batching",): {"growth": "max_length_ratio"},
    ("learning",): {
        "after": "min_new_samples",
        "most": "max_samples",
        "held_out": "eval_fraction",
        "attempts": "max_attempts",
    },
    ("learning", "curation"): {
        "least_new_label": "min_new_label",
        "most_share_of_a_source": "max_share_of_a_source",
        "most_share_of_a_user": "max_share_of_a_user",
        "least_to_suspect": "min_to_suspect",
        "most_good_suspected": "max_good_suspected",
        "least_to_judge": "min_to_judge",
        "most_suspected": "max_suspected",
        "least_replay": "min_replay",
    },
    ("rollout",): {
        "start": "initial_stage",
        "share": "canary_fraction",
        "least_answers": "min_answers",
        "least_s": "min_duration_s",
        "most_errors": "max_error_rate",
        "most_latency_ratio": "max_latency_ratio",
        "most_disagreement": "max_disagreement",
        "least_feedback": "min_feedback",
    },
    ("tasks", "*", "gate"): {
        "most_loss": "max_loss",
        "most_recall_loss": "max_recall_loss",
        "least_label_examples": "min_label_examples",
        "most_calibration_rise": "max_calibration_rise",
        "most_latency_ratio": "max_latency_ratio",
        "least_feedback": "min_feedback",
    },
}


def with_new_names(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`content` with each old key under its new name. Logs a warning for each, which names `source`.

    When both names are given, the new one is used. Sections that are not mappings are left for validation to reject.
    """
    renamed: dict[str, Any] = _copied(content)
    for path, names in _RENAMED.items():
        for where, section in _sections(renamed, path):
            for old in names.keys() & section.keys():
                new = names[old]
                log.warning("%s: %s.%s is called %s now; the old name is read until 0.3", source, where, old, new)
                value = section.pop(old)
                section.setdefault(new, value)
    return renamed


def _sections(content: dict[str, Any], path: tuple[str, ...], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections at `path`, each with its dotted name; `*` matches any key."""
    if not path:
        yield where, content
        return
    for key in content if path[0] == "*" else [path[0]]:
        section = content.get(key)
        if isinstance(section, dict):
            yield from _sections(section, path[1:], f"{where}.{key}" if where else str(key))


def _copied(value: Any) -> Any:
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
