#!/bin/sh
# HAProxy, ended by the kernel as soon as the process ends that started it. Ray sees to that only while its raylet
# lives: where that is killed as well, HAProxy would keep the port, and send requests to nobody.
exec setpriv --pdeathsig KILL "$HAPROXY" "$@"
