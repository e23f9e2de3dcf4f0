#!/bin/sh
# HAProxy, ended by the kernel as soon as the process ends that started it. Ray sees to that only while its raylet
# lives: where that is killed as well, HAProxy would keep the port, and send requests to nobody.
if setpriv --pdeathsig KILL true 2>/dev/null; then # not in util-linux before 2.33
  exec setpriv --pdeathsig KILL "$HAPROXY" "$@"
fi
exec "$HAPROXY" "$@"
