"""An S3 that keeps nothing: it speaks single and multipart uploads, throws the bytes away and counts them.

python benchmarks/_sink.py PORT     then GET /-/bytes says how many bytes of bodies arrived since the last time.
"""

import re
import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from typing import ClassVar

_BUFFER = 1 << 20
_ETAG = "0123456789abcdef0123456789abcdef"
_EMPTY_LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


class Handler(socketserver.BaseRequestHandler):
    received: ClassVar[int] = 0
    counting: ClassVar[threading.Lock] = threading.Lock()

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(_BUFFER)
        rest = b""
        while True:
            while b"\r\n\r\n" not in rest:
                more = self.request.recv(65536)
                if not more:
                    return
                rest += more
            head, _, rest = rest.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ", 2)
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
            }
            length = int(headers.get("content-length", "0"))
            if headers.get("expect", "").lower() == "100-continue":
                self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            rest = self._swallow(length, rest, buffer)
            self._answer(method, target)

    def _swallow(self, length: int, rest: bytes, buffer: bytearray) -> bytes:
        """Reads a body of `length` bytes, of which `rest` has come already; returns what comes after it."""
        missing = length - min(length, len(rest))
        rest = rest[length - missing :]
        view = memoryview(buffer)
        while missing:
            count = self.request.recv_into(view[: min(missing, _BUFFER)])
            if not count:
                raise ConnectionError("the client went in the middle of a body")
            missing -= count
        with self.counting:
            Handler.received += length
        return rest

    def _answer(self, method: str, target: str) -> None:
        if target == "/-/bytes":
            with self.counting:
                body, Handler.received = str(Handler.received).encode(), 0
            return self._send(HTTPStatus.OK, body)
        query = target.partition("?")[2]
        if method == "POST" and re.match(r"uploads\b", query):
            return self._send(
                HTTPStatus.OK,
                b"<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>"
                b"</InitiateMultipartUploadResult>",
            )
        if method == "POST":
            return self._send(
                HTTPStatus.OK,
                f"<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>&quot;{_ETAG}-2&quot;</ETag>"
                "</CompleteMultipartUploadResult>".encode(),
            )
        if method == "HEAD":
            return self._send(HTTPStatus.NOT_FOUND, b"")
        if method == "GET":
            return self._send(HTTPStatus.OK, _EMPTY_LISTING)
        return self._send(HTTPStatus.OK, b"")

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        head = f'HTTP/1.1 {status.value} {status.phrase}\r\nETag: "{_ETAG}"\r\nContent-Length: {len(body)}\r\n\r\n'
        self.request.sendall(head.encode() + body)


class Sink(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


if __name__ == "__main__":
    with Sink(("127.0.0.1", int(sys.argv[1])), Handler) as sink:
        sink.serve_forever()
