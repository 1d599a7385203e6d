"""S3: ListObjectVersions encodes keys when it is asked to, so that a key with a control character can be listed.

ministack's ignores encoding-type, and XML 1.0 cannot hold an escape character: the whole answer is unreadable.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
"""

import re
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import unescape

from pipeline_cli.local.adaptations.original import original

_KEYS = re.compile(r"<(Key|Prefix|Delimiter|KeyMarker|NextKeyMarker)>([^<]*)</\1>")


def apply() -> None:
    from ministack.services import s3

    list_versions = original("services.s3", "_list_object_versions", "2a656b63124a")

    def list_object_versions(bucket_name: str, query_params: dict[str, Any]) -> Any:
        status, headers, body = list_versions(bucket_name, query_params)
        if status == 200 and s3._qp(query_params, "encoding-type", "") == "url":
            body = encoded(body)
        return status, headers, body

    s3._list_object_versions = list_object_versions


def encoded(body: bytes) -> bytes:
    """An answer with its keys percent-encoded, and the word that they are."""
    text = _KEYS.sub(lambda match: f"<{match[1]}>{quote(unescape(match[2]), safe='/')}</{match[1]}>", body.decode())
    return text.replace("<IsTruncated>", "<EncodingType>url</EncodingType><IsTruncated>", 1).encode()
