"""MLflow, asked as a user would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.releases.registry import Registry


def mlflow_client(home: Path) -> Any:
    return Registry(home)._client
