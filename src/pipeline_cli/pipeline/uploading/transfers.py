"""Requests to S3 through awscrt's client: many at once, signed with boto3's credentials, to any endpoint.

awscrt moves bytes in threads of its own, several times faster than boto3's transfers, and cuts large files into parts
by itself. It is driven directly: s3transfer's manager around it takes no http endpoint with a port.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

MEBIBYTE = 1024 * 1024
PART_BYTES = 8 * MEBIBYTE
# Parts of one large file under way at once: with 8 MB each this bounds what it takes of memory.
PARTS_AT_ONCE = 6


# S3's own default: it is always of the whole object, also of one that came in parts; and awscrt computes it twenty
# times faster than a CRC32.
CHECKSUM_ALGORITHM = "CRC64NVME"
CHECKSUM_HEADER = "x-amz-checksum-crc64nvme"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the requests for one bucket go."""

    host: str  # with the port where there is one
    path: str  # what stands before the key: "" or "/bucket"
    tls: bool
    region: str

    def path_of(self, key: str) -> str:
        return f"{self.path}/{quote(key, safe='/-_.~')}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. `status` is None when no answer came; header names are lower-case."""

    status: int | None
    headers: Mapping[str, str]
    error: str | None = None  # S3's error code, else awscrt's error name
    message: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(slots=True)
class Meter:
    """How many bytes went out so far; for a display to look at."""

    bytes_sent: int = 0


@dataclass(slots=True, eq=False)
class _UnderWay:
    """A request. Threads of awscrt call its `on_...` methods; what they are given is made sense of in ours, since
    Python runs one of them at a time and bytes wait meanwhile."""

    token: Any
    started: float
    moved: float  # when bytes last moved
    answers: "queue.SimpleQueue[_UnderWay]"
    meter: Meter
    monotonic: Callable[[], float]
    request: Any = None
    stalled: bool = False
    status: int | None = None
    headers: Sequence[tuple[str, str]] = ()
    error: Any = None
    error_headers: Sequence[tuple[str, str]] | None = None
    error_body: bytes | None = None

    def on_headers(self, headers: Sequence[tuple[str, str]], **_: Any) -> None:
        _keep_thread_state()
        self.headers = headers

    def on_progress(self, count: int, **_: Any) -> None:
        self.moved = self.monotonic()
        self.meter.bytes_sent += count

    def on_done(self, error: Any, error_headers: Any, error_body: Any, status_code: int | None, **_: Any) -> None:
        self.status = status_code
        self.error, self.error_headers, self.error_body = error, error_headers, error_body
        self.answers.put(self)


def resolve(client: "S3Client", bucket: str) -> Endpoint:
    """Where boto3 itself would send a request for the bucket: it is asked to, and stopped before it does."""
    from botocore.awsrequest import AWSResponse

    caught: list[str] = []

    def stop(request: Any, **_: Any) -> Any:
        caught.append(request.url)
        return AWSResponse(request.url, 200, {}, _NoBody())  # type: ignore[arg-type]  # all that is read of it

    client.meta.events.register_first("before-send.s3.HeadObject", stop, unique_id="imgpipe-endpoint")
    try:
        client.head_object(Bucket=bucket, Key="k")
    finally:
        client.meta.events.unregister("before-send.s3.HeadObject", unique_id="imgpipe-endpoint")
    url = urlsplit(caught[0])
    return Endpoint(url.netloc, url.path.removesuffix("/k"), url.scheme == "https", client.meta.region_name)


class _NoBody:
    def stream(self, **_: Any) -> list[bytes]:
        return []

    def read(self, *_: Any, **__: Any) -> bytes:
        return b""


_called_back: dict[int, int] = {}  # how often each thread of awscrt called, up to two


def _keep_thread_state() -> None:
    """Lets the calling thread of awscrt keep Python's state of it, from its second call on.

    For each call from a thread that Python did not start, a state of it is made and unmade again (PyGILState_Ensure of
    the C API): pages are mapped for its stack, unmapped, and the other processors interrupted to forget them. That was
    a fifth of the CPU of a large upload. One Ensure more than there are Releases keeps the state until the process
    ends. The first call does without: for one file the import costs more.
    """
    calls = _called_back.get(thread := threading.get_ident(), 0)
    if calls < 2:
        _called_back[thread] = calls + 1
    if calls == 1:
        import ctypes

        ctypes.pythonapi.PyGILState_Ensure()


class Transfers:
    """Requests under way to one bucket. Start them with `put` and `head`, collect their answers with `next`."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: "Credentials",
        *,
        connections: int,
        stall_seconds: float,
        ca_bundle: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        from awscrt import http, s3

        self._http, self._s3 = http, s3
        self._checksums_of_parts = s3.S3ChecksumConfig(s3.S3ChecksumAlgorithm.CRC64NVME, s3.S3ChecksumLocation.TRAILER)
        self._endpoint = endpoint
        self._credentials = credentials
        self._ca_bundle = ca_bundle
        self._stall_seconds = stall_seconds
        self._monotonic = monotonic
        self.meter = Meter()
        self._answers: queue.SimpleQueue[_UnderWay] = queue.SimpleQueue()
        self._under_way: dict[Any, _UnderWay] = {}
        self._looked_for_stalls = monotonic()
        self._client = self._make_client(connections)

    @cached_property
    def _client_for_parts(self) -> Any:
        """Another client for large files: how many parts awscrt holds in memory goes by its connections."""
        return self._make_client(PARTS_AT_ONCE)

    def _make_client(self, connections: int) -> Any:
        s3, tls = self._s3, self._endpoint.tls
        return s3.S3Client(
            region=self._endpoint.region,
            tls_mode=s3.S3RequestTlsMode.ENABLED if tls else s3.S3RequestTlsMode.DISABLED,
            tls_connection_options=_trusting(self._ca_bundle) if tls and self._ca_bundle else None,
            signing_config=s3.create_default_s3_signing_config(
                region=self._endpoint.region, credential_provider=_provider(self._credentials)
            ),
            part_size=PART_BYTES,
            multipart_upload_threshold=PART_BYTES,
            max_active_connections_override=connections,
            # Parts are read as they are sent, not into memory first.
            fio_options=s3.S3FileIoOptions(should_stream=True),
        )

    def __len__(self) -> int:
        return len(self._under_way)

    def put(self, token: Any, path: str, key: str, size: int, headers: Mapping[str, str]) -> None:
        """Sends a file. S3 stores it under its key when its bytes have the checksum that `headers` name."""
        # awscrt gives each part of a large file a checksum of its own; the one in `headers` it sends at the end, and
        # S3 verifies it when the parts are put together. Without one in `headers`, the parts' are all there is.
        self._start(
            self._client_for_parts if size > PART_BYTES else self._client,
            token,
            "PUT",
            key,
            {"Content-Length": str(size), **headers},
            type=self._s3.S3RequestType.PUT_OBJECT,
            send_filepath=path,
            checksum_config=None if CHECKSUM_HEADER in headers else self._checksums_of_parts,
        )

    def head(self, token: Any, key: str) -> None:
        """Asks for an object's eTag and checksums."""
        self._start(
            self._client,
            token,
            "HEAD",
            key,
            {"x-amz-checksum-mode": "ENABLED"},
            type=self._s3.S3RequestType.DEFAULT,
            operation_name="HeadObject",
        )

    def next(self, timeout: float) -> tuple[Any, Answer] | None:
        """The next answer, in whatever order they come; None when none came within `timeout` seconds."""
        try:
            done = self._answers.get(timeout=timeout)
        except queue.Empty:
            self._cancel_stalled(self._monotonic())
            return None
        now = self._monotonic()
        self._cancel_stalled(now)
        del self._under_way[done.token]
        done.request = None  # it holds us by its callbacks: without this, memory waits for the cycle collector
        seconds = now - done.started
        if done.error is None:
            return done.token, Answer(
                done.status, {name.lower(): value for name, value in done.headers}, None, "", seconds
            )
        if done.stalled:
            return done.token, Answer(None, {}, "STALLED", f"no bytes moved for {self._stall_seconds:.0f} s", seconds)
        return done.token, _failed(done, seconds)

    def cancel_all(self) -> None:
        for under_way in self._under_way.values():
            if under_way.request is not None:  # an interrupt may come before it is made
                under_way.request.cancel()

    def _start(self, client: Any, token: Any, method: str, key: str, headers: Mapping[str, str], **how: Any) -> None:
        now = self._monotonic()
        under_way = _UnderWay(token, now, now, self._answers, self.meter, self._monotonic)
        request = self._http.HttpRequest(
            method,
            self._endpoint.path_of(key),
            self._http.HttpHeaders([("Host", self._endpoint.host), *headers.items()]),
        )
        self._under_way[token] = under_way
        under_way.request = client.make_request(
            request=request,
            on_headers=under_way.on_headers,
            on_done=under_way.on_done,
            on_progress=under_way.on_progress,
            **how,
        )

    def _cancel_stalled(self, now: float) -> None:
        if now - self._looked_for_stalls < min(1.0, self._stall_seconds / 4):
            return
        self._looked_for_stalls = now
        for under_way in self._under_way.values():
            if not under_way.stalled and now - under_way.moved > self._stall_seconds:
                under_way.stalled = True
                under_way.request.cancel()


def _failed(done: _UnderWay, seconds: float) -> Answer:
    text = (done.error_body or b"").decode("utf-8", "replace")
    name = getattr(done.error, "name", type(done.error).__name__)
    code = _element("Code", text) or _BY_STATUS.get(done.status or 0) or name
    message = _element("Message", text) or str(done.error)
    return Answer(
        done.status, {name.lower(): value for name, value in done.error_headers or ()}, code, message, seconds
    )


_BY_STATUS = {403: "AccessDenied", 404: "NoSuchKey", 409: "ConditionalRequestConflict", 412: "PreconditionFailed"}


def _element(name: str, xml: str) -> str:
    match = re.search(f"<{name}>([^<]*)</{name}>", xml)
    return match[1] if match else ""


def _provider(credentials: "Credentials") -> Any:
    from awscrt.auth import AwsCredentials, AwsCredentialsProvider
    from botocore.credentials import RefreshableCredentials

    def current() -> AwsCredentials:
        frozen = credentials.get_frozen_credentials()  # refreshes those that expire
        return AwsCredentials(frozen.access_key, frozen.secret_key, frozen.token)

    if isinstance(credentials, RefreshableCredentials):
        return AwsCredentialsProvider.new_delegate(current)
    frozen = credentials.get_frozen_credentials()
    return AwsCredentialsProvider.new_static(frozen.access_key, frozen.secret_key, frozen.token)


def _trusting(ca_bundle: str) -> Any:
    from awscrt.io import ClientTlsContext, TlsContextOptions

    options = TlsContextOptions()
    options.override_default_trust_store_from_path(ca_filepath=ca_bundle)
    return ClientTlsContext(options).new_connection_options()
