"""Which files an upload takes and what their keys are: files, folders, globs and lists, as a stream in key order."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from pathlib import Path
from typing import BinaryIO

from pipeline_cli.errors import NotFoundError

MAX_KEY_BYTES = 1024  # S3, "Object key naming guidelines": in UTF-8
STDIN = "-"
_MAGIC = re.compile(r"[*?\[]")


class Problem(StrEnum):
    """Why a file cannot be sent, as far as this machine knows. What the pipeline would say is a FailureCode."""

    NOT_FOUND = "NOT_FOUND"
    UNREADABLE = "UNREADABLE"
    NOT_A_FILE = "NOT_A_FILE"
    NAME_NOT_UTF8 = "NAME_NOT_UTF8"
    KEY_TOO_LONG = "KEY_TOO_LONG"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    CHANGED = "CHANGED"
    CONFLICT = "CONFLICT"
    CHECKSUM = "CHECKSUM"
    THROTTLED = "THROTTLED"
    NETWORK = "NETWORK"
    STALLED = "STALLED"
    REFUSED_BY_S3 = "REFUSED_BY_S3"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to send. `path` is what the system takes, `key` where the file goes."""

    path: str
    key: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that was asked for and cannot be sent."""

    path: str
    code: Problem
    reason: str


@dataclass(slots=True)
class LeftOut:
    """How much a walk passed over without a word."""

    hidden: int = 0
    by_pattern: int = 0
    link_loops: int = 0
    not_files: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What the operator asked for. Includes and excludes have no order: a file is taken when it matches an include
    (or there is none) and no exclude."""

    paths: Sequence[str]
    prefix: str = ""
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    hidden: bool = False
    left_out: LeftOut = field(default_factory=LeftOut)


def select(selection: Selection, stdin: BinaryIO | None = None) -> Iterator[LocalFile | Unusable]:
    """Every file once, those of a folder in the order of their keys; NotFoundError for a path that is not there.

    Keys are relative to the folder that was named; a file that was named goes under its own name; a path from a list
    keeps all of its folders.
    """
    for path in selection.paths:
        if path != STDIN and not os.path.lexists(path) and not _matches_anything(path):
            raise NotFoundError(f"There is no file {path}.", "Give files, folders, globs, or - for a list on stdin.")
    return _unique(_select(selection, stdin), several=len(selection.paths) > 1 or STDIN in selection.paths)


def _select(selection: Selection, stdin: BinaryIO | None) -> Iterator[LocalFile | Unusable]:
    walk = _Walk(selection)
    for path in selection.paths:
        if path == STDIN:
            assert stdin is not None  # noqa: S101  # the caller's duty
            for listed in _listed(stdin):
                yield from walk.listed(listed)
        elif not os.path.lexists(path):
            yield from walk.matching(path)
        elif Path(path).is_dir():
            yield from walk.folder(path)
        else:
            yield from walk.file(path, os.path.basename(path))


def _unique(files: Iterator[LocalFile | Unusable], *, several: bool) -> Iterator[LocalFile | Unusable]:
    if not several:  # one walk meets every key once
        yield from files
        return
    seen: set[str] = set()
    for file in files:
        if isinstance(file, LocalFile):
            if file.key in seen:
                yield Unusable(file.path, Problem.DUPLICATE_KEY, f"another file has the key {file.key} already")
                continue
            seen.add(file.key)
        yield file


class _Walk:
    def __init__(self, selection: Selection) -> None:
        self._prefix = normal_prefix(selection.prefix)
        self._filter = Filter(selection.include, selection.exclude)
        self._hidden = selection.hidden
        self._left_out = selection.left_out
        self._entered: set[tuple[int, int]] = set()  # folders that were walked: (device, inode)

    def file(self, path: str, relative: str) -> Iterator[LocalFile | Unusable]:
        if self._filter.takes(relative):
            yield self._checked(path, relative)
        else:
            self._left_out.by_pattern += 1

    def listed(self, path: str) -> Iterator[LocalFile | Unusable]:
        if not os.path.lexists(path):
            yield Unusable(path, Problem.NOT_FOUND, "there is no such file")
        elif Path(path).is_dir():
            yield Unusable(path, Problem.NOT_A_FILE, "a list names files, not folders")
        else:
            inside = os.path.relpath(os.path.abspath(path))
            relative = os.path.abspath(path).lstrip("/") if inside.startswith("..") else inside
            yield from self.file(path, relative)

    def folder(self, root: str) -> Iterator[LocalFile | Unusable]:
        """Everything below a folder. The order of the keys is that of S3's own listings."""
        yield from self._below(root, "")

    def matching(self, pattern: str) -> Iterator[LocalFile | Unusable]:
        """The files that a glob matches; keys are relative to its folders without wildcards."""
        base, wanted = _split_glob(pattern)
        for file in self.folder(base):
            if isinstance(file, Unusable) or wanted.match(file.key[len(self._prefix) :]):
                yield file

    def _below(self, folder: str, relative: str) -> Iterator[LocalFile | Unusable]:
        try:
            self._entered.add(_identity(folder))
            with os.scandir(folder) as entries:
                names = sorted(name for entry in entries if (name := self._name(entry)))
        except OSError as error:
            yield Unusable(folder, Problem.UNREADABLE, error.strerror or str(error))
            return
        for name in names:
            if name.startswith(".") and not self._hidden:
                self._left_out.hidden += 1
                continue
            path, below = os.path.join(folder, name), relative + name
            if not name.endswith("/"):
                if not self._filter.takes(below):
                    self._left_out.by_pattern += 1
                else:
                    yield self._checked(path, below)
            elif self._filter.prunes(below[:-1]):
                self._left_out.by_pattern += 1
            elif self._is_loop(path[:-1]):
                self._left_out.link_loops += 1
            else:
                yield from self._below(path[:-1], below)

    def _name(self, entry: "os.DirEntry[str]") -> str:
        """A folder's name ends in a slash, so that names sort as keys do; pipes, sockets and devices have none."""
        try:
            if entry.is_dir():
                return entry.name + "/"
            if entry.is_symlink() or entry.is_file():
                return entry.name
        except OSError:  # a link in a circle of links: opening it will say so
            return entry.name
        self._left_out.not_files += 1
        return ""

    def _is_loop(self, folder: str) -> bool:
        """A link to a folder that was walked, or is being walked: each is entered through links only once."""
        try:
            return os.path.islink(folder) and _identity(folder) in self._entered
        except OSError:
            return False  # opening it will say why

    def _checked(self, path: str, relative: str) -> LocalFile | Unusable:
        key = self._prefix + relative
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            return Unusable(path, Problem.NAME_NOT_UTF8, "S3 keys are UTF-8, and this name is not")
        if size > MAX_KEY_BYTES:
            return Unusable(path, Problem.KEY_TOO_LONG, f"its key has {size} bytes, over {MAX_KEY_BYTES}")
        return LocalFile(path, key)


class Filter:
    """Includes and excludes as `aws s3` spells them (`*` crosses folders), with no order between them.

    A pattern also matches a name on its own at any depth, and a folder stands for everything in it.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        if include:
            # `--exclude "*" --include "*.jpg"` is how aws s3 says "only these".
            exclude = [pattern for pattern in exclude if pattern not in ("*", "**")]
        self._include = _any_of(include)
        self._exclude = _any_of(exclude)

    def takes(self, relative: str) -> bool:
        if self._exclude is not None and _matches(self._exclude, relative):
            return False
        return self._include is None or _matches(self._include, relative)

    def prunes(self, folder: str) -> bool:
        """Whether nothing below the folder can be taken."""
        return self._exclude is not None and _matches(self._exclude, folder)


def normal_prefix(prefix: str) -> str:
    """A prefix as keys begin with it: a folder, without the slash that S3 would take for a folder without a name."""
    prefix = prefix.lstrip("/")
    return prefix if not prefix or prefix.endswith("/") else prefix + "/"


def count(selection: Selection) -> int:
    """How many files a selection without a list on stdin has; costs a walk."""
    fresh = Selection(selection.paths, selection.prefix, selection.include, selection.exclude, selection.hidden)
    return sum(isinstance(file, LocalFile) for file in select(fresh))


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    translated = [translate(pattern.rstrip("/")) for pattern in patterns]
    return re.compile("|".join(translated)) if translated else None


def _matches(pattern: re.Pattern[str], relative: str) -> bool:
    if pattern.match(relative) or pattern.match(relative.rpartition("/")[2]):
        return True
    folder = relative
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        if pattern.match(folder) or pattern.match(folder.rpartition("/")[2]):
            return True
    return False


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _listed(stream: BinaryIO) -> Iterator[str]:
    """Paths, one a line, or ended by NUL as `find -print0` writes them."""
    head = stream.read(65536)
    separator = b"\0" if b"\0" in head else b"\n"
    rest = head
    while rest:
        *whole, rest = rest.split(separator)
        for path in whole:
            if path:
                yield os.fsdecode(path)
        more = stream.read(65536)
        if not more:
            break
        rest += more
    if rest:
        yield os.fsdecode(rest)


def _matches_anything(pattern: str) -> bool:
    if not _MAGIC.search(pattern):
        return False
    base, wanted = _split_glob(pattern)
    if not Path(base).is_dir():
        return False
    walk = _Walk(Selection([base]))
    return any(isinstance(file, LocalFile) and wanted.match(file.key) for file in walk.folder(base))


def _split_glob(pattern: str) -> tuple[str, re.Pattern[str]]:
    """The folder in which a glob begins, and what it matches below it."""
    parts = pattern.split("/")
    first = next(at for at, part in enumerate(parts) if _MAGIC.search(part))
    base = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
    return base, re.compile(_glob("/".join(parts[first:])))


def _glob(pattern: str) -> str:
    """A shell's glob as a regular expression: `*` and `?` stay in one folder, `**` crosses folders."""
    done = []
    at = 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/"):
            done.append("(?:.*/)?")
            at += 3
        elif rest.startswith("**"):
            done.append(".*")
            at += 2
        elif rest[0] == "*":
            done.append("[^/]*")
            at += 1
        elif rest[0] == "?":
            done.append("[^/]")
            at += 1
        elif (bracket := re.match(r"\[([!^]?)(\]?[^\]/]*)\]", rest)) is not None:
            inside = bracket[2].replace("\\", r"\\").replace("[", r"\[")
            done.append(f"[{'^' if bracket[1] else ''}{inside}]")
            at += bracket.end()
        else:
            done.append(re.escape(rest[0]))
            at += 1
    return "(?s:" + "".join(done) + r")\Z"
