#!/usr/bin/env python3
"""Something of which there must never be two: it tells whoever asks who bills at the moment, on port 8080."""

import http.server
import os
import signal
import sys


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name, token = os.environ.get("AWAITELECT_IDENTITY", "somebody"), os.environ.get("AWAITELECT_FENCING_TOKEN", "0")
        text = f"{name} bills, with the fencing token {token}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def stop(number: int, frame: object) -> None:
    print("the bill that was begun is written", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    server = http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Answer)
    print("billing", flush=True)
    server.serve_forever()
