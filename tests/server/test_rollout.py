"""A server that follows each move of a release."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.helpers.contract import assert_error
from tests.helpers.registry import mlflow_client
from tests.helpers.server import GOOD, start_server, stop_server
from tests.helpers.waiting import eventually


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_a_server_follows_shadow_canary_promotion_and_rollback(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "bundles" / "intent" / "1", home / "bundles" / "intent" / "2")
    registry = mlflow_client(home)
    registry.create_registered_model("intent")
    for _ in ("1", "2"):
        registry.create_model_version("intent", "file:///a-bundle")
    server = start_server(
        home,
        tmp_path / "log",
        tasks=["intent"],
        FLYWHEEL_LEARNING__AUTOMATIC="false",
        FLYWHEEL_ROLLOUT__AUTOMATIC="false",
        FLYWHEEL_SERVER__OPERATOR_TOKEN="s3cret-tökén",
    )
    model, operations = "/v2/models/intent", "/v2/repository/models/intent"
    operator = {"authorization": "Bearer s3cret-tökén".encode()}

    def move(name: str, **body: Any) -> httpx.Response:
        return server.post(f"{operations}/{name}", json=body, headers=operator)

    def answers(count: int = 40) -> set[str]:
        def version(user: int) -> str:
            asked = server.post(f"{model}/predict", json={"text": "hi"}, headers={"x-user-id": f"u{user}"})
            return str(asked.json()["model_version"])

        with ThreadPoolExecutor(8) as pool:  # one at a time would meet one replica alone
            return set(pool.map(version, range(count)))

    def versions_of(name: str) -> set[str]:
        """Which answer a user, in whatever form a client sends the name."""
        forms = [name.encode(), name.encode("latin-1"), quote(name).encode()]
        asked = [server.post(f"{model}/predict", json=GOOD, headers={"x-user-id": form}) for form in forms]
        return {response.json()["model_version"] for response in asked}

    def alias(version: str) -> str | None:
        details = server.get(model).json()["version_details"]
        return next((found["alias"] for found in details if found["version"] == version), None)

    def aliases() -> dict[str, str]:
        found = registry.get_registered_model("intent").aliases
        return {alias: str(version) for alias, version in found.items()}

    try:
        for path in ("promote", "challenge", "rollback", "retrain", "erase", "load", "unload"):
            assert_error(server.post(f"{operations}/{path}", json={}), 403)
        for path in ("audit", "retrain", "versions", "gate/1"):
            wrong = httpx.get(f"{server.url}{operations}/{path}", headers={"authorization": "Bearer guess"}, timeout=30)
            assert_error(wrong, 403)
        assert move("challenge", version="2", mode="shadow").status_code == 200
        eventually(lambda: alias("2") == "challenger", 10)
        eventually(lambda: answers() == {"1"} and 'result="agree"' in server.get("/metrics").text, 10)
        assert move("challenge", version="2", mode="canary", share=0.5).is_success
        eventually(lambda: answers() == {"1", "2"}, 10)
        assert [len(versions_of(f"Jürgen-Groß-{number}")) for number in range(12)] == [1] * 12
        assert move("promote", reason="test").json()["champion"] == "2"
        eventually(lambda: answers() == {"2"} and alias("2") == "champion", 10)
        assert move("rollback", version="2", reason="test").json()["champion"] == "1"
        eventually(lambda: answers() == {"1"}, 10)
        assert_error(move("rollback", version="2"), 409)
        assert move("rollback").status_code == 409
        audit = httpx.get(f"{server.url}{operations}/audit", headers=operator, timeout=30).json()["audit"]
        actions = [entry["action"] for entry in audit]
        assert actions == ["rollback", "promote", "canary", "shadow"]
        # Each move was followed in a process of its own, one after the other, and the last is what stays.
        eventually(lambda: aliases() == {"champion": "1"}, 60)
        assert move("challenge", version="2", mode="canary", share=0.5).is_success
        eventually(lambda: aliases() == {"champion": "1", "challenger": "2"}, 60)
    finally:
        assert stop_server(server) == 0
