"""The zips work as Lambda would use them: unpacked into an empty folder, beside boto3 and nothing else."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from pipeline_cli.pipeline import packaging

HOST = f"{sys.version_info.major}.{sys.version_info.minor}"
pytestmark = [
    pytest.mark.slow,  # wheels come from the package index
    pytest.mark.skipif(
        sys.version_info >= (3, 14), reason="the requirements name the wheels of Python 3.11 to 3.13 alone"
    ),
]
# What the Lambda runtime for Python brings: boto3 and what that needs.
RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")
# -S: no site-packages. Only the standard library, the zip and the runtime's libraries can be imported.
CALL = """
import json, sys
zipped, runtime, handler, event = sys.argv[1:]
sys.path[:0] = [zipped, runtime]
module, _, function = handler.rpartition(".")
import importlib
answer = getattr(importlib.import_module(module), function)(json.loads(event), None)
outside = [
    f"{name} from {module.__file__}" for name, module in list(sys.modules.items())
    if (getattr(module, "__file__", None) or "").find("site-packages") >= 0
]
cached = [
    name for name, module in list(sys.modules.items())
    if (getattr(module, "__file__", None) or "").startswith(zipped) and module.__file__.endswith(".py")
    and not (module.__spec__.cached and __import__("os").path.exists(module.__spec__.cached))
]
print(json.dumps({"answer": answer, "outside": outside, "withoutBytecode": cached}))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each function, as Lambda unpacks its zip; read-only, as /var/task is."""
    folder = tmp_path_factory.mktemp("task")
    folders = {}
    for built in packaging.build(folder / "zips", arch=packaging.host_arch(), runtime=HOST):
        folders[built.function] = folder / built.function
        with zipfile.ZipFile(built.path) as archive:
            archive.extractall(folders[built.function])
    return folders


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME:
        module = __import__(name.removesuffix(".py"))
        assert module.__file__
        source = Path(module.__file__) if name.endswith(".py") else Path(module.__file__).parent
        (folder / name).symlink_to(source)
    return folder


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def call(folder: Path, runtime: Path, handler: str, event: Any, environ: dict[str, str]) -> Any:
    command = [sys.executable, "-S", "-P", "-c", CALL, str(folder), str(runtime), handler, json.dumps(event)]
    result = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["outside"] == [], "something came from this machine's packages"
    assert said["withoutBytecode"] == [], "modules that Lambda would compile at every cold start"
    return said["answer"]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_an_image_goes_through_both(unpacked: dict[str, Path], runtime: Path, endpoint: str, image_format: str) -> None:
    aws = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": os.environ["PATH"],
    }
    s3, sqs, dynamodb = (
        boto3.client(service, endpoint_url=endpoint, region_name="us-east-1") for service in ("s3", "sqs", "dynamodb")
    )
    run = image_format.lower()
    uploads, thumbnails, table = f"uploads-{run}", f"thumbnails-{run}", f"images-{run}"
    for bucket in (uploads, thumbnails):
        s3.create_bucket(Bucket=bucket)
    metadata = sqs.create_queue(QueueName=f"metadata-{run}")["QueueUrl"]
    failures = sqs.create_queue(QueueName=f"failures-{run}")["QueueUrl"]
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "imageId", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "imageId", "KeyType": "HASH"}],
    )
    out = io.BytesIO()
    Image.effect_noise((640, 480), 60).convert("RGB").save(out, image_format)
    key = f"photo.{'jpg' if image_format == 'JPEG' else run}"
    s3.put_object(Bucket=uploads, Key=key, Body=out.getvalue())

    record = {
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-10-03T12:00:00.000Z",
        "s3": {"bucket": {"name": uploads}, "object": {"key": key, "sequencer": "01"}},
    }
    settings = {"THUMBNAIL_BUCKET": thumbnails, "METADATA_QUEUE": metadata, "IMAGE_DLQ": failures}
    answer = call(
        unpacked["image_processor"],
        runtime,
        "image_processor.handler.lambda_handler",
        {"Records": [record]},
        {**aws, **settings, "THUMBNAIL_SIZE": "200"},
    )
    assert answer == {"COMPLETED": 1}
    (listed,) = s3.list_objects_v2(Bucket=thumbnails)["Contents"]
    with Image.open(io.BytesIO(s3.get_object(Bucket=thumbnails, Key=listed["Key"])["Body"].read())) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (200, 150))

    (message,) = sqs.receive_message(QueueUrl=metadata)["Messages"]
    answer = call(
        unpacked["db_writer"],
        runtime,
        "db_writer.handler.lambda_handler",
        {"Records": [{"messageId": message["MessageId"], "body": message["Body"], "attributes": {}}]},
        {**aws, "DYNAMODB_TABLE": table, "METADATA_DLQ": failures},
    )
    assert answer == {"batchItemFailures": []}
    (item,) = dynamodb.scan(TableName=table)["Items"]
    assert (item["status"]["S"], item["format"]["S"]) == ("COMPLETED", image_format)


def test_pillows_own_libwebp_is_there_to_be_asked(unpacked: dict[str, Path]) -> None:
    """What is left out of Pillow must not cost the shorter way to decode WebP."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom image_processor import libwebp\nprint(libwebp.library())"
    )
    command = [sys.executable, "-S", "-P", "-c", script, str(unpacked["image_processor"])]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert str(unpacked["image_processor"] / "pillow.libs") in result.stdout, result.stdout + result.stderr
