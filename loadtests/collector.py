"""A collector of traces that takes everything and keeps nothing, to measure what sending them costs.

    python loadtests/collector.py 4318 &
    python loadtests/compare.py . --environment-new FLYWHEEL_TRACING__ENDPOINT=http://127.0.0.1:4318

With `--status 503` it refuses everything, as one that is overloaded does.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--status", type=int, default=200, help="of every response (default %(default)s)")
    options = parser.parse_args()
    Sink.status = options.status
    with ThreadingHTTPServer(("127.0.0.1", options.port), Sink) as server, suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
