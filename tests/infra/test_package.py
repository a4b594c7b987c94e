"""`sam package` against an S3 of moto's: everything that the template names is uploaded as it is."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from infra.conftest import ROOT, Sam
from infra.reading import resources

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_the_package_holds_the_zip_byte_for_byte_and_the_alarms(
    sam: Sam, read_template: Any, endpoint: str, tmp_path: Path
) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("handlers/chat_completions.py", "handler = None\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "gateway.zip").write_bytes(zipped.getvalue())
    for name in ("template.yaml", "infra/alarms.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    s3 = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )  # fmt: skip
    s3.create_bucket(Bucket="artefacts")
    packaged = tmp_path / "packaged.yaml"
    done = sam(
        "sam", "package", "--template-file", str(tmp_path / "template.yaml"), "--s3-bucket", "artefacts",
        "--output-template-file", str(packaged), AWS_ENDPOINT_URL=endpoint, **CREDENTIALS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    read = read_template(packaged)["transformed"]
    places = {
        (f["Code"]["S3Bucket"], f["Code"]["S3Key"]) for f in resources(read, "AWS::Lambda::Function").values()
    }
    ((bucket, key),) = places
    assert bucket == "artefacts"
    stored = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(zipped.getvalue()).digest()

    assert "<<" not in packaged.read_text("utf-8"), "CloudFormation does not know YAML's merge keys"

    (nested,) = resources(read, "AWS::CloudFormation::Stack").values()
    name = nested["TemplateURL"].rpartition("/")[2]
    local = tmp_path / "alarms.yaml"
    local.write_bytes(s3.get_object(Bucket=bucket, Key=name)["Body"].read())
    uploaded = read_template(local)["raw"]
    for resource in uploaded["Resources"].values():
        del resource["Metadata"]  # SAM's own mark
    assert uploaded == read_template(ROOT / "infra" / "alarms.yaml")["raw"]
    assert sam("cfn-lint", str(local)).stdout == ""
