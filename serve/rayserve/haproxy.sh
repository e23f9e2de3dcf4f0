#!/bin/sh
# In the place of HAProxy for Ray Serve (RAY_SERVE_HAPROXY_BINARY_PATH), at the start and at each reload: haproxy.py,
# which becomes HAProxy. -S and -E: no packages, nothing of the environment, so that it starts in 20 ms.
exec "$HAPROXY_PYTHON" -S -E "$(dirname "$0")/haproxy.py" "$@"
