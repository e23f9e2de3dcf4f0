#!/bin/sh
# Ray Serve runs this instead of HAProxy (RAY_SERVE_HAPROXY_BINARY_PATH) at the start and at each reload: haproxy.py
# prepares the configuration and becomes HAProxy. -S and -E: no site packages and no PYTHON* variables, to start in 20 ms.
exec "$HAPROXY_PYTHON" -S -E "$(dirname "$0")/haproxy.py" "$@"
