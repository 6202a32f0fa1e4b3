#!/usr/bin/env bash
# ollama 0.6.3, the Python client: a function handed over in `tools=[…]` becomes a JSON schema that lacks most of its types.
#
# Expected: pydantic's schema of the parameters, which the client makes on its way, or a refusal.
# Seen: a parameter that is a pydantic model is told to the model as a text (its fields stand in `$defs`, where nothing points);
# the values of a Literal and the kind of a list's elements are gone; `int | str` has the type "integer, string" or "string,
# integer", by the process's hash seed, which is no JSON Schema and makes the same prompt two; parameters with a default are
# required, so the model is told to make up a value for each.
# Matters to whoever wonders why a model calls a tool with texts for objects: it was told so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ollama==0.6.3 pydantic==2.12.5
cd "$folder"
cat > tool.py <<'PY'
import http.server
import json
import threading
from typing import Literal

import ollama
from pydantic import BaseModel


class Line(BaseModel):
    name: str
    price: float


def book(day: Literal["mon", "tue"], line: Line, counts: list[int], code: int | str, limit: int = 3) -> str:
    """Book a line.

    Args:
        day: The day.
        line: What is booked.
        counts: How many of each.
        code: The code.
        limit: The most.
    """
    return ""


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        print(json.dumps(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["tools"][0]["function"]["parameters"]))
        body = b'{"message": {"role": "assistant", "content": ""}, "done": true}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ollama.Client(f"http://127.0.0.1:{server.server_port}")
client.chat("m", [{"role": "user", "content": "hello"}], tools=[book])
PY
for seed in 0 1 2 3 4 5 6 7; do PYTHONHASHSEED=$seed venv/bin/python tool.py; done > sent.txt
venv/bin/python - <<'PY'
import json
import sys

sent = [json.loads(line) for line in open("sent.txt", encoding="utf-8")]
properties = sent[0]["properties"]
print(json.dumps(sent[0], indent=1))
codes = sorted({schema["properties"]["code"]["type"] for schema in sent})
print("the type of `code` in 8 processes:", codes)
if (
    {name: set(schema) for name, schema in properties.items()} != dict.fromkeys(properties, {"type", "description"})
    or [properties[name]["type"] for name in ("day", "line", "counts", "limit")] != ["string", "string", "array", "integer"]
    or codes != ["integer, string", "string, integer"]
    or sent[0]["required"] != ["day", "line", "counts", "code", "limit"]
    or list(sent[0]["$defs"]) != ["Line"]
):
    sys.exit("the behaviour has changed")
PY
