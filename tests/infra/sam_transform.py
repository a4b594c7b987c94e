"""Templates as JSON, run by the SAM environment: `python sam_transform.py TEMPLATE`.

Prints {"raw": …, "transformed": …}: the file with its short forms written out, and what the SAM transform,
which is AWS's own code, makes of it. It only takes addresses in S3, so a file's name becomes one.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

logging.disable()
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samcli.yamlhelper import yaml_parse  # noqa: E402
from samtranslator.parser.parser import Parser  # noqa: E402
from samtranslator.translator.translator import Translator  # noqa: E402


def transformed(template: dict[str, Any]) -> Any:
    template = copy.deepcopy(template)
    shared = template.get("Globals", {}).get("Function", {})
    for holder in (shared, *(resource["Properties"] for resource in template["Resources"].values())):
        if isinstance(holder.get("CodeUri"), str) and not holder["CodeUri"].startswith("s3://"):
            holder["CodeUri"] = f"s3://file/{holder['CodeUri']}"
    return Translator({}, Parser()).translate(template, {})


if __name__ == "__main__":
    raw = yaml_parse(Path(sys.argv[1]).read_text("utf-8"))
    serverless = "Transform" in raw
    json.dump({"raw": raw, "transformed": transformed(raw) if serverless else raw}, sys.stdout)
