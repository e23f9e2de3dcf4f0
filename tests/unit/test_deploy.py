"""The files of deploy/ are valid, and stop the server as it wants to be stopped."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serve.cli.stopping import _MAX_ABORT_S
from tests.helpers.command import ROOT

UNIT = ROOT / "deploy" / "flywheel.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    bin_folder = Path(sys.executable).parent
    unit.write_text(UNIT.read_text().replace("/opt/flywheel/.venv/bin", str(bin_folder)))
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert "flywheel.service" not in checked.stderr
    assert checked.returncode == 0


def test_the_unit_signals_the_main_process_and_gives_it_time() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) > 30 > _MAX_ABORT_S
    assert re.search(r"/flywheel up\b", service["ExecStart"])


def test_the_deployment_has_one_server_for_its_home() -> None:
    deployment = yaml.safe_load((ROOT / "deploy" / "kubernetes.yaml").read_text())["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    pod = deployment["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    home = next(variable["value"] for variable in container["env"] if variable["name"] == "FLYWHEEL_HOME")
    assert mounts["home"] == home
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
