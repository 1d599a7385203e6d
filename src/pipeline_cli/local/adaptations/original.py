"""Finding what is adapted, and refusing what is not what it was."""

import hashlib
import inspect
from collections.abc import Callable
from importlib import import_module, metadata
from operator import attrgetter
from typing import Any

MINISTACK_VERSION = "1.5.33"


class AdaptationError(Exception):
    """ministack is missing, or is not the one that the adaptations were written against."""


def require_version() -> None:
    """Refuse every ministack but the pinned one: the adaptations reach into its inside."""
    try:
        found = metadata.version("ministack")
    except metadata.PackageNotFoundError as error:
        raise AdaptationError("ministack is not installed") from error
    if found != MINISTACK_VERSION:
        raise AdaptationError(f"ministack {found} is installed, and {MINISTACK_VERSION} is needed")


def original(module: str, name: str, fingerprint: str) -> Callable[..., Any]:
    """The function `name` of `ministack.<module>`, when its source is still the one with this fingerprint.

    A method is named with its class.
    """
    function: Callable[..., Any] | None
    try:
        function = attrgetter(name)(import_module(f"ministack.{module}"))
    except AttributeError:
        function = None
    if not callable(function):
        raise AdaptationError(f"ministack.{module} has no function {name}")
    found = source_fingerprint(function)
    if found != fingerprint:
        raise AdaptationError(f"ministack.{module}.{name} has changed: {found}, adapted was {fingerprint}")
    return function


def source_fingerprint(function: Callable[..., Any]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]
