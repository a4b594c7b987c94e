"""The least that a Lambda runtime does, for comparison: `poll.py [module:handler]` asks for work."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import sys

if len(sys.argv) > 1:
    module, _, name = sys.argv[1].partition(":")
    handler = getattr(importlib.import_module(module), name)
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    told = api.getresponse()
    id, event = told.headers["Lambda-Runtime-Aws-Request-Id"], json.loads(told.read())
    answer = json.dumps(handler(event, None))
    api.request("POST", f"/2018-06-01/runtime/invocation/{id}/response", answer)
    api.getresponse().read()
