"""The AWS command line against the local pipeline: the commands that the original project's README gives."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from local_pipeline import PATIENCE, LocalPipeline, eventually
from test_local_pipeline import jpeg


def aws_version_2() -> str | None:
    """The AWS CLI, when it is version 2: version 1 has no `logs tail`."""
    for found in ("/usr/bin/aws", shutil.which("aws")):
        if found and Path(found).exists():
            said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
            if said.stdout.startswith("aws-cli/2"):
                return found
    return None


AWS = aws_version_2()
pytestmark = [
    pytest.mark.emulator,
    pytest.mark.slow,
    pytest.mark.skipif(AWS is None, reason="needs version 2 of the AWS command line (Debian: awscli)"),
]


def environ(pipeline: LocalPipeline) -> dict[str, str]:
    return pipeline.environ | {
        "AWS_ENDPOINT_URL": pipeline.clients.endpoint_url or "",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_PAGER": "",
    }


def aws(pipeline: LocalPipeline, *args: str) -> str:
    """Run `aws`, old enough to know the endpoint by its option alone."""
    command = [AWS or "", "--endpoint-url", pipeline.clients.endpoint_url or "", *args]
    done = subprocess.run(command, env=environ(pipeline), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"aws {args}: {done.stderr}"
    return done.stdout


def test_the_original_commands_work(pipeline: LocalPipeline, tmp_path: Path) -> None:
    outputs = pipeline.outputs
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(700, 500))
    group = f"/aws/lambda/{outputs['image_processor_function_name']}"
    tail = subprocess.Popen(
        [AWS or "", "--endpoint-url", pipeline.clients.endpoint_url or "", "logs", "tail", group, "--follow"],
        env=environ(pipeline),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(3)  # it shows what comes from now on, and a little of what came before
        aws(pipeline, "s3", "cp", str(photo), f"s3://{outputs['upload_bucket_name']}/")
        item = eventually(lambda: pipeline.items().get("photo.jpg"), "an item")
        assert f"{item['imageId']}.jpg" in aws(
            pipeline, "s3", "ls", f"s3://{outputs['thumbnail_bucket_name']}/thumbnails/"
        )
        scanned = json.loads(aws(pipeline, "dynamodb", "scan", "--table-name", outputs["dynamodb_table_name"]))
        assert "photo.jpg" in [found["originalKey"]["S"] for found in scanned["Items"]]
        time.sleep(6)  # `aws logs tail --follow` looks every five seconds
    finally:
        tail.terminate()
    said, _ = tail.communicate(timeout=PATIENCE)
    assert '"key":"photo.jpg"' in said.replace('": "', '":"')
