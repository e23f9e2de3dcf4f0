"""One server whose versions were fine-tuned from bases of different families."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.heads import softmax
from export.session import OnnxSession
from models.home import bundle_folder
from models.releases.release import Release, write_release
from tests.helpers.bases import TEXTS, MakeVersion
from tests.helpers.server import start_server, stop_server

SERVED = {"1": ("deberta-v3", "lora"), "2": ("roberta", "full"), "3": ("modernbert", "full")}


@pytest.mark.slow
def test_versions_of_several_families_answer_as_in_this_process(
    trained_home: Path, tiny_version: MakeVersion, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, home / part)
    shutil.rmtree(home / "bundles" / "intent")
    for version, (name, method) in SERVED.items():
        shutil.copytree(
            tiny_version(name, method=method, precision="int8").bundle.path, bundle_folder(home, "intent", version)
        )
    paths = {version: f"bundles/intent/{version}" for version in SERVED}
    release = Release(task="intent", champion="1", versions=paths, challenger="2", mode="shadow", previous="3")
    write_release(home, release)
    server = start_server(home, tmp_path / "server.log")
    try:
        for version, (name, method) in SERVED.items():
            path = f"/v2/models/intent/versions/{version}/predict"
            answer = server.post(path, json={"texts": TEXTS})
            assert answer.status_code == 200, answer.text
            session = OnnxSession(tiny_version(name, method=method, precision="int8").bundle, providers="cpu")
            scores = softmax(session.predict(TEXTS)).max(axis=1)
            given = [prediction["score"] for prediction in answer.json()["predictions"]]
            np.testing.assert_allclose(given, scores, rtol=0, atol=2e-4)
            assert np.ptp(given) > 1e-3
    finally:
        stop_server(server)
