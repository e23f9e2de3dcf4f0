"""Headers between HAProxy and a replica; clients can neither set nor see them (rayserve/haproxy.py)."""

from __future__ import annotations

# From a replica to HAProxy, with a refusal: the replica will refuse every request for this many milliseconds.
FULL_MS = "x-flywheel-full-ms"


# From HAProxy to a replica: numbers of predict and infer requests that it has refused for it since the last request.
REFUSED = "x-flywheel-refused"
