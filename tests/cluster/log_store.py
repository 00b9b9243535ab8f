"""What stands in the cluster where Loki would: it keeps what it is sent, and gives it to who asks. It runs in a pod.

POST is answered as Loki does; GET /SKIP gives a line for each request after so many: path, headers and body as JSON.
"""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

kept: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept.append(json.dumps([self.path, dict(self.headers), base64.b64encode(body).decode()]))
        self.send_response(204)
        self.end_headers()

    def do_GET(self) -> None:
        content = "\n".join(kept[int(self.path[1:]) :]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 3100), Handler).serve_forever()
