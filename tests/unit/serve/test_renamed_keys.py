"""Old names of configuration keys: read, told, and never in the way of the new ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from serve.config import Config, ConfigError, load_config
from serve.renamed_keys import _RENAMED

OLD = """
batching: {growth: 2.0}
learning: {after: 7, most: 70, held_out: 0.1, attempts: 2, curation: {least_replay: 3}}
rollout: {start: shadow, share: 0.3, least_s: 5, most_errors: 0.2}
tasks:
  intent: {gate: {most_loss: 4.0}}
  sentiment: null
"""


def written(folder: Path, content: str) -> Path:
    file = folder / "flywheel.yaml"
    file.write_text(content)
    return file


def test_a_file_with_old_names_means_what_it_meant(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = OLD.replace("  sentiment: null\n", "")
    config = load_config(written(tmp_path, content))
    learning, rollout = config.learning, config.rollout
    assert config.batching.max_length_ratio == 2.0
    assert (learning.min_new_samples, learning.max_samples, learning.eval_fraction, learning.max_attempts) == (
        7,
        70,
        0.1,
        2,
    )
    assert learning.curation.min_replay == 3
    assert (rollout.initial_stage, rollout.canary_fraction, rollout.min_duration_s) == ("shadow", 0.3, 5)
    assert rollout.max_error_rate == 0.2
    assert config.thresholds("intent").max_loss == 4.0
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 11
    assert f"{tmp_path / 'flywheel.yaml'}: learning.after is called min_new_samples now" in "\n".join(told)
    assert "tasks.intent.gate.most_loss is called max_loss now" in "\n".join(told)


def test_an_old_name_in_the_environment_wins_over_the_new_one_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLYWHEEL_LEARNING__AFTER", "9")
    monkeypatch.setenv("FLYWHEEL_ROLLOUT", '{"share": 0.4}')
    config = load_config(written(tmp_path, "learning: {min_new_samples: 5}\n"))
    assert (config.learning.min_new_samples, config.rollout.canary_fraction) == (9, 0.4)
    assert "the environment: learning.after is called min_new_samples now" in caplog.text


def test_of_both_names_the_new_one_counts(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "learning: {after: 1, min_new_samples: 5}\n"))
    assert config.learning.min_new_samples == 5


def test_the_new_names_are_told_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_config(written(tmp_path, "learning: {min_new_samples: 5}\n"))
    assert not caplog.records


@pytest.mark.parametrize("content", [OLD, "learning: 3", "learning: {curation: [after]}", "rollout: {start: later}"])
def test_what_is_wrong_is_told_all_the_same(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError):
        load_config(written(tmp_path, content))


def test_each_new_name_is_a_key() -> None:
    config = Config()
    gate = config.thresholds("intent")
    for path, names in _RENAMED.items():
        section: object = gate if path[0] == "tasks" else config
        for part in path if path[0] != "tasks" else ():
            section = getattr(section, part)
        for old, new in names.items():
            assert hasattr(section, new), new
            assert not hasattr(section, old), old
