"""`sam build` and `sam package` in a fresh clone, to an S3 of moto's: what is uploaded is what was tested."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.cloud import BUCKET, CREDENTIALS, Cloud
from infra.conftest import Package, Sam
from infra.reading import resources
from support import ROOT
from support.built import ARCH, MINOR, artefact


def stored(package: Package, key: str) -> bytes:
    found: bytes = Cloud.at(package.url).client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return found


def entries(archive: zipfile.ZipFile) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of each file, by name."""
    return {
        entry.filename: (entry.external_attr >> 16 & 0o777, archive.read(entry))
        for entry in archive.infolist()
    }


def test_sam_build_ships_the_bundle_of_scripts_build(package: Package) -> None:
    """All functions have one upload, with the names, bytes and modes of the tested artefact."""
    functions = resources(package.template, "AWS::Lambda::Function").values()
    ((bucket, key),) = {(function["Code"]["S3Bucket"], function["Code"]["S3Key"]) for function in functions}
    assert bucket == BUCKET
    with (
        zipfile.ZipFile(io.BytesIO(stored(package, key))) as shipped,
        zipfile.ZipFile(artefact()) as tested,
    ):
        assert entries(shipped) == entries(tested)
    uploads = Cloud.at(package.url).client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert len(uploads) == 2  # the bundle, the alarms


def test_the_bundle_is_built_once_for_all_functions(package: Package) -> None:
    made = package.clone / "build" / f"{ARCH}-{MINOR}"
    assert (made / "bundle.zip").read_bytes() == artefact().read_bytes(), "another checkout gives other bytes"
    first = (made / "bundle.zip").stat().st_mtime_ns
    options = {"PYTHON": sys.executable}
    again = [made.parents[1] / "scripts" / "build", "--arch", ARCH, "--python", MINOR, "--unpacked"]
    target = package.clone / "again"
    done = subprocess.run([*again, target], env=os.environ | options, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (made / "bundle.zip").stat().st_mtime_ns == first
    assert (target / "stream").stat().st_mode & 0o777 == 0o755
    with (package.clone / "functions" / "handlers" / "models.py").open("a") as source:
        source.write("# changed\n")
    subprocess.run([*again, target], env=os.environ | options, check=True, capture_output=True)
    assert (target / "handlers" / "models.py").read_text().endswith("# changed\n")


def test_a_deployment_without_a_build_fails_and_uploads_nothing(package: Package, sam: Sam) -> None:
    """Else it would ship a folder of sources that no function can run from."""
    done = sam(
        "sam", "package", "--template-file", "template.yaml", "--s3-bucket", BUCKET, "--s3-prefix", "unbuilt",
        cwd=package.clone, AWS_ENDPOINT_URL=package.url, **CREDENTIALS,
    )  # fmt: skip
    assert done.returncode != 0
    assert "build/bundle" in done.stderr
    found = Cloud.at(package.url).client("s3").list_objects_v2(Bucket=BUCKET, Prefix="unbuilt")
    assert found["KeyCount"] == 0


def test_the_guided_deployment_is_answered_by_its_defaults(package: Package, sam: Sam) -> None:
    """With nothing but the return key, up to the bucket that SAM makes, which moto cannot make for it."""
    done = sam(
        "sam",
        "deploy",
        "--guided",
        cwd=package.clone,
        typed="\n" * 60,
        AWS_ENDPOINT_URL=package.url,
        **CREDENTIALS,
    )
    assert "Looking for resources needed for deployment" in done.stdout, done.stdout + done.stderr
    assert "Stack Name [kimi-gateway]" in done.stdout
    assert "no authentication" not in done.stdout


def test_cloudformation_can_read_what_is_packaged(package: Package) -> None:
    assert "<<" not in package.file.read_text("utf-8"), "CloudFormation does not know YAML's merge keys"


def test_the_alarms_are_uploaded_whole(
    package: Package, read_template: Callable[[Path], Any], tmp_path: Path
) -> None:
    (nested,) = resources(package.template, "AWS::CloudFormation::Stack").values()
    local = tmp_path / "alarms.yaml"
    local.write_bytes(stored(package, nested["TemplateURL"].rpartition("/")[2]))
    uploaded = read_template(local)["raw"]
    for resource in uploaded["Resources"].values():
        del resource["Metadata"]  # SAM's own mark
    assert uploaded == read_template(ROOT / "infra" / "alarms.yaml")["raw"]
