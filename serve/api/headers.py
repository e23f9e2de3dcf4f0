"""Headers between HAProxy and a replica; a client that sends them is not believed (rayserve/haproxy.py)."""

from __future__ import annotations

# A replica's to HAProxy, with a refusal: for so many milliseconds it would refuse any other text as well.
FULL_MS = "x-flywheel-full-ms"


# HAProxy's to a replica: how many predicts and infers it has refused in its name since the last request.
REFUSED = "x-flywheel-refused"
