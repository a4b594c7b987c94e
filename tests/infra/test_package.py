"""`sam package` against an S3 of moto's: everything that the template names is uploaded as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from built import artefact
from infra.cloud import BUCKET, Cloud
from infra.conftest import ROOT, Package, Sam
from infra.reading import resources


def stored(package: Package, key: str) -> bytes:
    found: bytes = Cloud.at(package.url).client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return found


def test_all_functions_have_the_artefact_byte_for_byte(package: Package) -> None:
    functions = resources(package.template, "AWS::Lambda::Function").values()
    ((bucket, key),) = {(function["Code"]["S3Bucket"], function["Code"]["S3Key"]) for function in functions}
    assert bucket == BUCKET
    assert hashlib.sha256(stored(package, key)).digest() == hashlib.sha256(artefact().read_bytes()).digest()


def test_cloudformation_can_read_what_is_packaged(package: Package) -> None:
    assert "<<" not in package.file.read_text("utf-8"), "CloudFormation does not know YAML's merge keys"


def test_the_alarms_are_uploaded_whole(
    package: Package, sam: Sam, read_template: Callable[[Path], Any], tmp_path: Path
) -> None:
    (nested,) = resources(package.template, "AWS::CloudFormation::Stack").values()
    local = tmp_path / "alarms.yaml"
    local.write_bytes(stored(package, nested["TemplateURL"].rpartition("/")[2]))
    uploaded = read_template(local)["raw"]
    for resource in uploaded["Resources"].values():
        del resource["Metadata"]  # SAM's own mark
    assert uploaded == read_template(ROOT / "infra" / "alarms.yaml")["raw"]
    assert sam("cfn-lint", str(local)).stdout == ""
