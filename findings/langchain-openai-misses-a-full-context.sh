#!/usr/bin/env bash
# langchain-openai 1.7.4 with openai 3.57.0: a context that is too full for the model is a plain invalid request. langchain-openai
# looks for the code `context_length_exceeded` in the text of the exception, where openai 3.57.0 writes the message only.
#
# Expected: LangChain's `ContextOverflowError`, as with openai 3.3.0, so that the fallback for it takes the long prompt. langchain
# 1.5.2's `SummarizationMiddleware` shortens a prompt at the same error.
# Seen: `OpenAIInvalidRequestError`, with the code in its `code`; the fallback is never asked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/ask.py" <<'PY'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI

message = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9120 tokens."
error = {"message": message, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}


class Full(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"error": error}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), Full)
threading.Thread(target=server.serve_forever, daemon=True).start()
model = ChatOpenAI(model="small", api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0)
large = FakeListChatModel(responses=["from the large model"])
try:
    answer = model.with_fallbacks([large], exceptions_to_handle=(ContextOverflowError,)).invoke("a long text").content
except openai.BadRequestError as caught:
    answer = f"{type(caught).__name__}, code {caught.code}, overflow: {isinstance(caught, ContextOverflowError)}"
print("openai", openai.__version__, "|", answer)
if answer != sys.argv[1]:
    sys.exit("the behaviour has changed")
PY
for case in "3.57.0 OpenAIInvalidRequestError, code context_length_exceeded, overflow: False" "3.3.0 from the large model"; do
    python3 -m venv "$folder/${case%% *}"
    "$folder/${case%% *}/bin/pip" install --quiet --disable-pip-version-check langchain-openai==1.7.4 langchain-core==1.8.3 "openai==${case%% *}"
    "$folder/${case%% *}/bin/python" "$folder/ask.py" "${case#* }"
done
