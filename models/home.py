"""Where everything is below FLYWHEEL_HOME. No other module knows a name of a file or folder there.

    bundles/<task>/<version>/       what serves; .packed and .engines beside them are made from them (export/)
    checkpoints/<task>/<version>/   what a bundle was exported from
    corpora/<task>/                 what versions were trained on, by fingerprint
    releases/<task>.json            which versions serve; .aliased is what MLflow's aliases were last set after
    retraining/<task>.json          how far a retraining is
    gates/<task>/<version>.json     what the gate measured of a version
    audit/<task>.jsonl              entries of the audit log that wait for the store
    work/                           trainings under way
    feedback.db, secret             feedback and the prediction log; the key of user pseudonyms
    mlflow.db, mlartifacts/         runs and versions
    metrics/                        of the processes that serve

Writing in one step and locking are in export/files.py, since bundles need them too.
"""

from __future__ import annotations

from pathlib import Path


def bundles_folder(home: Path, task: str) -> Path:
    return home / "bundles" / task


def bundle_folder(home: Path, task: str, version: str) -> Path:
    return bundles_folder(home, task) / version


def checkpoint_folder(home: Path, task: str, version: str) -> Path:
    return home / "checkpoints" / task / version


def corpus_file(home: Path, task: str, fingerprint: str) -> Path:
    """Where the corpus of a `manifest.data.fingerprint` is kept, for the trainings that continue from it."""
    return home / "corpora" / task / f"{fingerprint}.jsonl"


def work_folder(home: Path) -> Path:
    return home / "work"


def release_file(home: Path, task: str) -> Path:
    return home / "releases" / f"{task}.json"


def aliased_release_file(home: Path, task: str) -> Path:
    return home / "releases" / f"{task}.aliased"


def release_lock(home: Path, task: str) -> Path:
    return home / "releases" / f"{task}.lock"


def progress_file(home: Path, task: str) -> Path:
    return home / "retraining" / f"{task}.json"


def gate_report_file(home: Path, task: str, version: str) -> Path:
    return home / "gates" / task / f"{version}.json"


def audit_outbox_file(home: Path, task: str) -> Path:
    return home / "audit" / f"{task}.jsonl"


def feedback_database(home: Path) -> Path:
    return home / "feedback.db"


def user_secret_file(home: Path) -> Path:
    return home / "secret"


def mlflow_database(home: Path) -> Path:
    return home / "mlflow.db"


def mlflow_artifacts(home: Path) -> Path:
    return home / "mlartifacts"


def metrics_folder(home: Path) -> Path:
    return home / "metrics"
