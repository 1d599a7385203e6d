"""An S3 that behaves as badly as it is told to: it fails, throttles, stalls, resets, lies, and keeps what it accepts.

Speaks what `imgpipe upload` needs of S3: PutObject with conditions and CRC64NVME, multipart uploads, HeadObject,
ListObjectsV2. Faults are handed out per request by a function of the test.
"""

import base64
import hashlib
import http.server
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from awscrt import checksums


class Fault(Enum):
    NONE = "none"
    INTERNAL_ERROR = "500"
    SLOW_DOWN = "503"
    STALL = "accepts the request and never answers"
    RESET_BEFORE = "resets the connection in the middle of the body"
    RESET_AFTER = "stores the object and resets the connection instead of answering"
    BAD_DIGEST = "says that the bytes do not have their checksum"
    DENIED = "403"


@dataclass
class Object:
    body: bytes
    headers: dict[str, str]
    modified: float

    @property
    def e_tag(self) -> str:
        return hashlib.md5(self.body).hexdigest()


@dataclass
class World:
    """What the server holds and saw. `fault` is asked for each request: method, key, how many there were of them."""

    fault: Callable[[str, str, int], Fault] = lambda method, key, number: Fault.NONE
    before_put: Callable[[str], None] = lambda key: None
    objects: dict[str, Object] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    access_keys: list[str] = field(default_factory=list)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    slow: float = 0.0  # seconds that every PUT takes
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def count(self, method: str, key: str = "") -> int:
        return sum(1 for seen in self.requests if seen[0] == method and (not key or seen[1] == key))


@contextmanager
def fault_server(world: World, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    class Handler(_Handler):
        pass

    Handler.world = world
    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        world.stop.set()
        server.shutdown()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was reset or killed is what these tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _begin(self) -> tuple[str, dict[str, list[str]], Fault]:
        url = urlsplit(self.path)
        key = unquote(url.path).split("/", 2)[2] if url.path.count("/") > 1 else ""
        with self.world.lock:
            self.world.requests.append((self.command, key))
            self.world.access_keys.append(self.headers["Authorization"].partition("Credential=")[2].partition("/")[0])
            number = self.world.count(self.command, key)
        return key, parse_qs(url.query, keep_blank_values=True), self.world.fault(self.command, key, number)

    def do_PUT(self) -> None:
        with self.world.lock:
            self.world.under_way += 1
            self.world.most_under_way = max(self.world.most_under_way, self.world.under_way)
        try:
            self._put()
        finally:
            with self.world.lock:
                self.world.under_way -= 1

    def _put(self) -> None:
        key, query, fault = self._begin()
        length = int(self.headers.get("Content-Length", "0"))
        if fault is Fault.RESET_BEFORE:
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if len(body) < length:
            return self._reset()
        if self.headers.get("Content-Encoding") == "aws-chunked":
            body = _without_chunks(body)
        self.world.before_put(key)
        if self.world.slow:
            time.sleep(self.world.slow)
        if fault is Fault.STALL:
            self.world.stop.wait(600)
            return self._reset()
        if self._refused(fault):
            return None
        if not self._has_its_checksum(body):
            return self._error(400, "XAmzContentChecksumMismatch")
        if "partNumber" in query:
            with self.world.lock:
                self.world.parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
            return self._answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
        with self.world.lock:
            there = self.world.objects.get(key)
            if (self.headers.get("If-None-Match") == "*" and there) or (
                self.headers.get("If-Match") not in (None, f'"{there.e_tag}"' if there else None)
            ):
                return self._error(412, "PreconditionFailed")
            self.world.objects[key] = stored = Object(body, dict(self.headers.items()), time.time())
        if fault is Fault.RESET_AFTER:
            return self._reset()
        return self._answer(200, ETag=f'"{stored.e_tag}"', **self._checksum(body))

    def do_POST(self) -> None:
        key, query, fault = self._begin()
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self._refused(fault):
            return
        if "uploads" in query:
            upload = f"upload-{len(self.world.parts)}"
            self.world.parts[upload] = {}
            self._xml(f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
            return
        assert b"CompleteMultipartUpload" in body
        parts = self.world.parts.pop(query["uploadId"][0])
        whole = b"".join(parts[number] for number in sorted(parts))
        if not self._has_its_checksum(whole):
            self._error(400, "BadDigest")
            return
        self.world.objects[key] = Object(whole, dict(self.headers.items()), time.time())
        e_tag = f"{hashlib.md5(whole).hexdigest()}-{len(parts)}"
        self._xml(f"<CompleteMultipartUploadResult><ETag>&quot;{e_tag}&quot;</ETag></CompleteMultipartUploadResult>")

    def do_DELETE(self) -> None:
        _, query, _ = self._begin()
        self.world.parts.pop(query.get("uploadId", [""])[0], None)
        self._answer(204)

    def do_HEAD(self) -> None:
        key, _, fault = self._begin()
        if self._refused(fault):
            return
        stored = self.world.objects.get(key)
        if stored is None:
            self._answer(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(stored.body)))
        self.send_header("ETag", f'"{stored.e_tag}"')
        self.send_header("Last-Modified", formatdate(stored.modified, usegmt=True))
        for name, value in self._checksum(stored.body).items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        _, query, fault = self._begin()
        if self._refused(fault):
            return
        prefix, after = query.get("prefix", [""])[0], query.get("start-after", [""])[0]
        found = sorted(
            (key for key in self.world.objects if key.startswith(prefix) and key.encode() > after.encode()),
            key=str.encode,
        )
        entries = "".join(
            f"<Contents><Key>{escape(quote(key, safe='/'))}</Key><Size>{len(self.world.objects[key].body)}</Size>"
            f"<ETag>&quot;{self.world.objects[key].e_tag}&quot;</ETag></Contents>"
            for key in found[:1000]
        )
        truncated = "true" if len(found) > 1000 else "false"
        self._xml(
            f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated><EncodingType>url</EncodingType>"
            f"{entries}</ListBucketResult>"
        )

    def _has_its_checksum(self, body: bytes) -> bool:
        said = self.headers.get("x-amz-checksum-crc64nvme")
        return said is None or said == _crc64nvme(body)

    def _checksum(self, body: bytes) -> dict[str, str]:
        return {"x-amz-checksum-crc64nvme": _crc64nvme(body)}

    def _refused(self, fault: Fault) -> bool:
        match fault:
            case Fault.INTERNAL_ERROR:
                self._error(500, "InternalError")
            case Fault.SLOW_DOWN:
                self._error(503, "SlowDown")
            case Fault.BAD_DIGEST:
                self._error(400, "BadDigest")
            case Fault.DENIED:
                self._error(403, "AccessDenied")
            case _:
                return False
        return True

    def _error(self, status: int, code: str) -> None:
        self._xml(f"<Error><Code>{code}</Code><Message>{code}, as told</Message></Error>", status)

    def _xml(self, body: str, status: int = 200) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _reset(self) -> None:
        """Ends the connection with RST, as a crashed host does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.close()


def _crc64nvme(body: bytes) -> str:
    """As S3 writes it in headers."""
    return base64.b64encode(checksums.crc64nvme(body).to_bytes(8, "big")).decode()


def _without_chunks(body: bytes) -> bytes:
    """The content of an aws-chunked body, whose trailing checksum must be right."""
    content, rest = b"", body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size.partition(b";")[0], 16)
        if not count:
            break
        content, rest = content + rest[:count], rest[count + 2 :]
    name, _, value = rest.strip().decode().partition(":")
    assert name == "x-amz-checksum-crc64nvme"
    assert value == _crc64nvme(content)
    return content
