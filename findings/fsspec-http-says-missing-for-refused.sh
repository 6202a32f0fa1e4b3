#!/usr/bin/env bash
# fsspec 2026.9.0 with aiohttp 3.14.5: of a file on a web server, `info` raises FileNotFoundError whatever went wrong: the
# server asks for a password (401), forbids (403), fails itself (500) or cannot be reached at all. The reason stands in
# `__cause__` alone, so a program that skips missing files skips these as well. `cat_file` names the status.
#
# Expected: PermissionError or the client's own error, as of `cat_file`; FileNotFoundError of 404 alone.
# Seen: FileNotFoundError five times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fsspec==2026.9.0 aiohttp==3.14.5
cd "$folder"
venv/bin/python - <<'PY'
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    nobody = free.getsockname()[1]
files = fsspec.filesystem("http", skip_instance_cache=True)
urls = [f"http://127.0.0.1:{server.server_port}/{status}" for status in (401, 403, 404, 500)]
seen = {}
for url in [*urls, f"http://127.0.0.1:{nobody}/1"]:
    for name in ("info", "cat_file"):
        try:
            getattr(files, name)(url)
            kind = "no error"
        except Exception as error:
            kind = type(error).__name__
        seen.setdefault(name, []).append(kind)
print(f"fsspec {fsspec.__version__}: {seen}")
if set(seen["info"]) != {"FileNotFoundError"} or seen["cat_file"][0] == "FileNotFoundError":
    sys.exit("the behaviour has changed")
PY
