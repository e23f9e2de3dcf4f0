"""The configuration, and what the environment of this machine lacks for the libraries that commands use."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from export.machine import user_name
from serve import config
from serve.cli.terminal import err
from serve.config import Config


def load_config(file: str | Path | None = None) -> Config:
    """The configuration, as `serve.config.load_config` reads it; and directories for libraries that need them.

    MLflow, matplotlib and Hugging Face write below the user's home directory, or fail where there is none. A user
    without one, as in many containers, is given `home`/cache; without a directory for temporary files, `home`/tmp.
    """
    settings = config.load_config(file)
    if not _has_home_directory():
        os.environ["HOME"] = str(settings.home.absolute() / "cache")
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # as in a container with a read-only root
        folder = settings.home.absolute() / "tmp"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(folder)
    return settings


def actor(command: str = "flywheel") -> str:
    """Who runs this command, for the audit log."""
    return f"{user_name()}, {command} on {socket.gethostname()}"


def host_of_environment() -> str | None:
    """$HOST if it is an address or localhost. Other names, which conda and shells set, are ignored with a warning."""
    host = os.environ.get("HOST", "").strip()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host not in ("", "localhost"):
            err.print(
                f"warning: HOST={host} in the environment is ignored, because other programs set HOST to such names. "
                f"To listen on that name: flywheel up --host {host}",
                highlight=False, markup=False,
            )  # fmt: skip
            return None
    return host or None


def _has_home_directory() -> bool:
    """Whether the user has a home directory that can be written, or one with caches in it."""
    try:
        folder = Path.home()
    except RuntimeError:
        return False
    return os.access(folder, os.W_OK | os.X_OK) or (folder / ".cache").is_dir()
