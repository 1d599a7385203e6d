"""Texts that strangers wrote, made fit to be stored and shown."""

import contextlib
import unicodedata
from typing import Any

MAX_TEXT = 256
_BREAKS = frozenset({"Cc", "Zl", "Zp"})
# Format (bidirectional, zero-width), surrogate, private and unassigned characters: nothing that a reader would see.
_INVISIBLE = frozenset({"Cf", "Cs", "Co", "Cn"})


def clean(value: Any) -> str | None:
    """One line of visible text, at most `MAX_TEXT` characters, or None.

    Ends at the first NUL. Pillow reads EXIF's ASCII as Latin-1; many cameras write UTF-8 there.
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return None
    value = value.split("\0", 1)[0][: 8 * MAX_TEXT]
    with contextlib.suppress(UnicodeError):  # real Latin-1, or already beyond it
        value = value.encode("latin-1").decode()
    kinds = [(character, unicodedata.category(character)) for character in value]
    visible = "".join(" " if kind in _BREAKS else character for character, kind in kinds if kind not in _INVISIBLE)
    return " ".join(visible.split())[:MAX_TEXT].strip() or None
