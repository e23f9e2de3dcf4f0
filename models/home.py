"""Paths below FLYWHEEL_HOME. No other module has the name of a file or folder there.

    bundles/<task>/<version>/       bundles; .packed and .engines beside them are derived from them (export/)
    checkpoints/<task>/<version>/   checkpoints of the bundles; training/ in them: what MLflow is told of it
    corpora/<task>/                 training data of the versions, by fingerprint
    releases/<task>.json            which versions serve; .aliased: the release to which MLflow's aliases were last set
    retraining/<task>.json          progress of a retraining
    training/<task>.json            progress of the training that `flywheel up` runs beside a first version
    gates/<task>/<version>.json     the gate's measurements of a version
    audit/<task>.jsonl              entries of the audit log that wait for the store
    work/                           running trainings, and those that can be resumed
    encoders/sentence/              the bundle of the knowledge base's encoder, made at its first entry
    feedback.db, secret             feedback and the prediction log; the key of user pseudonyms
    mlflow.db, mlartifacts/         runs and versions; mlflow.db.lock: held while mlflow.db is made
    server.lock                     locked while a server runs on this home
    .restoring/                     a restore that is not complete

Atomic writes and file locks are in export/files.py, since bundles need them too.
"""

from __future__ import annotations

from pathlib import Path


def bundles_folder(home: Path, task: str) -> Path:
    return home / "bundles" / task


def bundle_folder(home: Path, task: str, version: str) -> Path:
    return bundles_folder(home, task) / version


def checkpoint_folder(home: Path, task: str, version: str) -> Path:
    return home / "checkpoints" / task / version


def training_folder(checkpoint: Path) -> Path:
    """Parameters, metrics, figures and reports of a checkpoint's training, as MLflow gets them."""
    return checkpoint / "training"


def corpus_file(home: Path, task: str, fingerprint: str, ending: str = ".jsonl") -> Path:
    """The corpus with this `manifest.data.fingerprint`, kept for trainings that continue from it."""
    return home / "corpora" / task / f"{fingerprint}{ending}"


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


def training_progress_file(home: Path, task: str) -> Path:
    return home / "training" / f"{task}.json"


def gate_report_file(home: Path, task: str, version: str) -> Path:
    return home / "gates" / task / f"{version}.json"


def audit_outbox_file(home: Path, task: str) -> Path:
    return home / "audit" / f"{task}.jsonl"


def sentence_encoder_folder(home: Path) -> Path:
    return home / "encoders" / "sentence"


def sqlite_url(database: Path) -> str:
    """The URL of an SQLite file for SQLAlchemy and MLflow, whatever characters are in its path.

    Unquoted, `?` would end the path and `%20` become a space: the database would lie in another folder.
    """
    return f"sqlite:///{str(database.resolve()).replace('%', '%25').replace('?', '%3F')}"


def feedback_database(home: Path) -> Path:
    return home / "feedback.db"


def user_secret_file(home: Path) -> Path:
    return home / "secret"


def mlflow_database(home: Path) -> Path:
    return home / "mlflow.db"


def mlflow_lock(home: Path) -> Path:
    return mlflow_database(home).with_name("mlflow.db.lock")


def mlflow_artifacts(home: Path) -> Path:
    return home / "mlartifacts"


def server_lock(home: Path) -> Path:
    return home / "server.lock"


def restoring_folder(home: Path) -> Path:
    return home / ".restoring"
