#!/bin/sh
# HAProxy, its own pages for this machine alone, and ended by the kernel as soon as the process ends that started it.

# Ray's template has the metrics and the statistics listen on all addresses, without a login, and there is no setting for
# it. The file is written anew before each start and reload. Ray itself asks HAProxy over its socket, not over these. The
# sections are known by their names, for each run may have other ports.
for argument in "$@"; do
  [ "$before" = -f ] && configuration=$argument
  before=$argument
done
sed -i -E -e '/^[^[:space:]#]/h' -e '/^[[:space:]]*bind /{
  G
  s/^([[:space:]]*bind )[^ ]*:([0-9]+.*)\n(frontend prometheus|listen stats)$/\1127.0.0.1:\2/
  s/\n.*//
}' "$configuration"
for section in "frontend prometheus" "listen stats"; do
  if ! sed -n -e '/^[^[:space:]#]/h' -e '/^[[:space:]]*bind 127\.0\.0\.1:/{G;p;}' "$configuration" | grep -qx "$section"; then
    echo "warning: $configuration has no address to change in '$section'; HAProxy's page may answer other machines" >&2
  fi
done

# Ray ends HAProxy only while its raylet lives: where that is killed as well, HAProxy would keep the port, and send
# requests to nobody.
if setpriv --pdeathsig KILL true 2>/dev/null; then # not in util-linux before 2.33
  exec setpriv --pdeathsig KILL "$HAPROXY" "$@"
fi
exec "$HAPROXY" "$@"
