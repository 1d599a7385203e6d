"""Which objects claim to be images, and what their first bytes say they are."""

# Format names as Pillow spells them.
EXTENSIONS = {
    "jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG",
    "png": "PNG", "apng": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "tif": "TIFF", "tiff": "TIFF",
    "bmp": "BMP", "dib": "BMP",
    "avif": "AVIF",
    "heic": "HEIF", "heif": "HEIF", "hif": "HEIF",
}  # fmt: skip

MIME_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
}


def claims_to_be_image(key: str, content_type: str | None) -> bool:
    """Whether its extension or its content type says image. What does not is ignored, not failed."""
    if (content_type or "").strip().lower().startswith("image/"):
        return True
    # Not pathlib, which keeps every name that it has seen: this is asked of each key of a bucket.
    stem, _, extension = key.rpartition("/")[2].rpartition(".")
    return bool(stem) and extension.lower() in EXTENSIONS


def sniff(head: bytes) -> str | None:
    """The format that the first 32 bytes show, whatever the name says; None when it is none of ours."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, len(head) - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIF"
    return None
