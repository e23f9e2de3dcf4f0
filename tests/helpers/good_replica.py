"""A replica in place of a task's: it answers every GET with 200."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler


class GoodReplica(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass
