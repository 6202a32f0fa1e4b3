#!/usr/bin/env bash
# fsspec 2026.9.0 with aiohttp 3.14.5: a file of a web server that answers in chunks, without a Content-Length, opens as a
# stream, of which `read(n)` returns what has come by then, not n bytes or all. A program that reads a document by one
# `read` of its largest size gets the first chunk and takes it for the whole. With a Content-Length the same call returns all.
#
# Expected: all 50,000 bytes both times, as of a local file and as `read` of fsspec's buffered files does.
# Seen: 50,000 with a Content-Length, 1,000 in chunks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fsspec==2026.9.0 aiohttp==3.14.5
cd "$folder"
venv/bin/python - <<'PY'
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec

PIECE, N_PIECES = b"x" * 1000, 50


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.send_response(200)
        if self.path == "/sized":
            self.send_header("Content-Length", str(len(PIECE) * N_PIECES))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        for _ in range(N_PIECES):
            self.wfile.write(PIECE if self.path == "/sized" else b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
            time.sleep(0.002)
        if self.path != "/sized":
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
files = fsspec.filesystem("http", skip_instance_cache=True)
seen = {}
for path in ("/sized", "/chunked"):
    with files.open(f"http://127.0.0.1:{server.server_port}{path}") as file:
        seen[path] = len(file.read(1_000_000))
print(f"fsspec {fsspec.__version__}: read(1000000) returned {seen}")
if seen["/sized"] != 50_000 or seen["/chunked"] >= 50_000:
    sys.exit("the behaviour has changed")
PY
