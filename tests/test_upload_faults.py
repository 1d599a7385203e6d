"""`imgpipe upload` where things go wrong: with the server, with the files, with itself."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fault_server import Fault, Object, World, fault_server
from upload_files import command, jpeg, run


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps({"upload_bucket_name": {"value": "uploads"}}))
    monkeypatch.setenv("IMGPIPE_OUTPUTS", str(outputs))
    world = World()
    with fault_server(world) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield world


def files(folder: Path, count: int) -> dict[str, bytes]:
    contents = {f"{number % 7}/{number:04d}.jpg": jpeg(f"file {number}") for number in range(count)}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return contents


def arrived(world: World) -> dict[str, bytes]:
    return {key: stored.body for key, stored in world.objects.items()}


@pytest.mark.parametrize(
    "fault",
    [Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.BAD_DIGEST],
    ids=lambda fault: fault.name,
)
def test_a_server_that_fails_now_and_then_gets_everything(world: World, tmp_path: Path, fault: Fault) -> None:
    contents = files(tmp_path / "photos", 30)
    world.fault = lambda method, key, number: (
        fault if method == "PUT" and number == 1 and key.endswith(("3.jpg", "7.jpg")) else Fault.NONE
    )
    done = run("upload", str(tmp_path / "photos"), "--output", "json")
    assert done.code == 0, done.stderr
    assert arrived(world) == contents
    summary = json.loads(done.stdout)
    # An answer that was lost after the object was stored: its content is there, which is all that counts.
    assert summary["uploaded"] + summary["unchanged"] == 30


def test_a_server_that_never_answers_is_asked_again(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 10)
    world.fault = lambda method, key, number: (
        Fault.STALL if method == "PUT" and number == 1 and key.endswith("5.jpg") else Fault.NONE
    )
    done = run("upload", str(tmp_path / "photos"), "--read-timeout", "2")
    assert done.code == 0, done.stderr
    assert arrived(world) == contents


def test_a_server_that_fails_for_good_fails_its_file_alone(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 12)
    bad = sorted(contents)[4]
    world.fault = lambda method, key, number: Fault.BAD_DIGEST if method == "PUT" and key == bad else Fault.NONE
    done = run("upload", str(tmp_path / "photos"), "--output", "json")
    assert done.code == 1
    assert arrived(world) == {key: content for key, content in contents.items() if key != bad}
    (failure,) = json.loads(done.stdout)["failures"]
    assert (failure["key"], failure["code"]) == (bad, "CHECKSUM")


def test_a_server_that_denies_everything_is_asked_few_times(world: World, tmp_path: Path) -> None:
    files(tmp_path / "photos", 300)
    world.fault = lambda method, key, number: Fault.DENIED
    done = run("upload", str(tmp_path / "photos"), "--overwrite", "--output", "json")
    assert done.code == 3
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "AccessDenied"
    assert world.count("PUT") < 100


def test_a_race_with_another_writer_overwrites_nothing(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 8)
    raced = sorted(contents)[3]
    others = jpeg("by another writer")

    def race(key: str) -> None:
        if key == raced and key not in world.objects:
            world.objects[key] = Object(others, {}, time.time())

    world.before_put = race
    done = run("upload", str(tmp_path / "photos"), "--output", "json")
    assert done.code == 1
    (failure,) = json.loads(done.stdout)["failures"]
    assert (failure["key"], failure["code"]) == (raced, "CONFLICT")
    assert world.objects[raced].body == others
    assert arrived(world) == contents | {raced: others}
    assert run("upload", str(tmp_path / "photos"), "--overwrite").code == 0
    assert arrived(world) == contents


def test_a_file_that_changes_while_it_is_sent_arrives_as_it_is_then(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 5)
    changing = sorted(contents)[2]
    lock = threading.Lock()
    versions: list[bytes] = []

    def change(key: str) -> None:
        with lock:
            if key == changing and len(versions) < 2:
                versions.append(jpeg(f"version {len(versions)} of this file"))
                (tmp_path / "photos" / changing).write_bytes(versions[-1])

    def reset_first(method: str, key: str, number: int) -> Fault:
        # The repetition reads the file again, and must notice.
        return Fault.RESET_BEFORE if method == "PUT" and key == changing and number == 1 else Fault.NONE

    world.before_put, world.fault = change, reset_first
    (tmp_path / "photos" / changing).write_bytes(jpeg("before"))
    done = run("upload", str(tmp_path / "photos"), "--output", "jsonl")
    assert done.code == 0, done.stderr
    row = next(row for row in done.rows if row["key"] == changing)
    # What is stored is one whole version, the one whose checksum the result names.
    assert world.objects[changing].body in (jpeg("before"), *versions)
    assert row["size"] == len(world.objects[changing].body)


def test_files_that_cannot_be_read_are_named_and_the_rest_is_sent(world: World, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    contents = files(photos, 6)
    (photos / "broken-link.jpg").symlink_to("nowhere")
    (photos / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "linked-pipe.jpg").symlink_to("pipe.jpg")
    unspeakable = photos / os.fsdecode(b"not-utf8-\xff")
    unspeakable.mkdir()
    (unspeakable / "a.jpg").write_bytes(jpeg("x"))
    done = run("upload", str(photos), "--output", "json")
    assert done.code == 1
    failures = {Path(failure["path"]).name: failure["code"] for failure in json.loads(done.stdout)["failures"]}
    assert failures == {
        "broken-link.jpg": "NOT_FOUND",
        "circle.jpg": "UNREADABLE",
        "linked-pipe.jpg": "NOT_A_FILE",
        "a.jpg": "NAME_NOT_UTF8",
    }
    assert arrived(world) == contents


def test_a_file_that_vanishes_is_named(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 400)
    last = max(contents)

    def vanish(key: str) -> None:
        (tmp_path / "photos" / last).unlink(missing_ok=True)

    world.before_put = vanish
    done = run("upload", str(tmp_path / "photos"), "--concurrency", "2", "--output", "json")
    assert done.code == 1
    (failure,) = json.loads(done.stdout)["failures"]
    assert (failure["key"], failure["code"]) == (last, "NOT_FOUND")
    assert len(world.objects) == 399


def test_symlink_loops_end(world: World, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    folders = [photos / f"album{number}" for number in range(12)]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "one.jpg").write_bytes(jpeg(f"album {number}"))
    for folder in folders:
        for number, other in enumerate(folders):
            (folder / f"to{number}").symlink_to(other)
        (folder / "up").symlink_to(photos)
    done = run("upload", str(photos), "--output", "json")
    assert done.code == 0, done.stderr
    assert {key for key in world.objects if key.count("/") == 1} == {f"album{n}/one.jpg" for n in range(12)}


def test_names_that_a_terminal_must_not_see_raw(world: World, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    names = ["\x1b[31mred.jpg", "new\nline.jpg", "\u202egpj.exe.jpg", " leading and %2F ?#&+.jpg", "=1+1.jpg"]
    for name in names:
        (photos / name).write_bytes(jpeg(name))
    (photos / "bad\x1b]0;title\x07.jpg").write_text("not an image")
    for output in ("table", "tsv", "json", "jsonl"):  # CSV is for programs: its text is as it is
        done = run("upload", str(photos), "--output", output)
        assert done.code == 1
        for text in (done.stdout, done.stderr):
            assert "\x1b" not in text
            assert "\x07" not in text
            assert "\u202e" not in text
    assert set(world.objects) == set(names)


def test_a_killed_upload_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 1000)
    world.slow = 0.02
    process = subprocess.Popen(
        command("upload", str(tmp_path / "photos"), "--concurrency", "8"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(world.objects) < 300 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    stored_first = len(world.objects)
    assert 300 <= stored_first < 1000
    world.slow = 0.0
    before = world.count("PUT")
    done = run("upload", str(tmp_path / "photos"), "--output", "json")
    assert done.code == 0, done.stderr
    assert arrived(world) == contents
    summary = json.loads(done.stdout)
    assert summary["uploaded"] + summary["unchanged"] == 1000
    assert summary["unchanged"] >= stored_first
    assert world.count("PUT") - before <= 1000 - stored_first


def test_ctrl_c_says_what_was_sent_and_the_rest_is_sent_later(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 300)
    world.slow = 0.05
    process = subprocess.Popen(
        command("upload", str(tmp_path / "photos"), "--concurrency", "4", "--manifest", str(tmp_path / "m.jsonl")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(world.objects) < 50 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Run the same command again" in said
    stored = re.search(r"Interrupted: (\d+) files are stored", said)
    manifest = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert stored is not None
    assert int(stored[1]) == len(manifest) > 0
    assert {line["key"] for line in manifest} <= set(world.objects)
    world.slow = 0.0
    assert run("upload", str(tmp_path / "photos")).code == 0
    assert arrived(world) == contents


def test_a_large_file_goes_in_parts(world: World, tmp_path: Path) -> None:
    body = os.urandom(1 << 20) * 25
    (tmp_path / "large.bin").write_bytes(body)
    for expected in ("upload", "unchanged"):
        done = run("upload", str(tmp_path / "large.bin"), "--output", "jsonl")
        assert done.code == 0, done.stderr
        assert done.rows[0]["action"] == expected
    assert world.objects["large.bin"].body == body
    assert world.count("POST") == 2  # create and complete, once


def test_concurrency_follows_what_the_server_takes(world: World, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 200)
    world.slow = 0.01

    def busy(method: str, key: str, number: int) -> Fault:
        return Fault.SLOW_DOWN if method == "PUT" and world.under_way > 12 else Fault.NONE

    world.fault = busy
    done = run("upload", str(tmp_path / "photos"))
    assert done.code == 0, done.stderr
    assert arrived(world) == contents


def test_credentials_that_expire_are_fetched_again(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A profile whose credentials come from a program and are always about to expire, as those of SSO do at night."""
    contents = files(tmp_path / "photos", 40)
    program = tmp_path / "credentials.py"
    program.write_text(
        "import datetime, json, pathlib\n"
        f"calls = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "calls.open('a').write('x')\n"
        "soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=12)\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': f'KEY{calls.stat().st_size}', 'SecretAccessKey': 's',\n"
        "                  'SessionToken': 't', 'Expiration': soon.isoformat()}))\n"
    )
    config = tmp_path / "aws-config"
    config.write_text(f"[profile night]\nregion = us-east-1\ncredential_process = {sys.executable} {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = run("--profile", "night", "upload", str(tmp_path / "photos"), "--concurrency", "2")
    assert done.code == 0, done.stderr
    assert arrived(world) == contents
    assert len(set(world.access_keys)) > 2
    assert all(key.startswith("KEY") for key in world.access_keys)


def test_no_credentials_is_one_clear_error(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files(tmp_path / "photos", 2)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = run("upload", str(tmp_path / "photos"), "--output", "json")
    assert done.code == 3
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "NO_CREDENTIALS"


def test_https_with_a_ca_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    contents = files(tmp_path / "photos", 6)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path))
    (tmp_path / "outputs.json").write_text(json.dumps({"upload_bucket_name": {"value": "uploads"}}))
    monkeypatch.setenv("IMGPIPE_OUTPUTS", str(tmp_path / "outputs.json"))
    world = World()
    with fault_server(world, tls) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        done = run("upload", str(tmp_path / "photos"))
        assert done.code == 0, done.stderr
        assert arrived(world) == contents


def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    (folder / "certificate.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(pem + private)
    return file
