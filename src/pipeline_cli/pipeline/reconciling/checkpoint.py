"""A reconciliation on disk: what was listed so far, what was found, what was sent.

Objects are listed by key, thumbnails by image id, and items come in the order of DynamoDB's hash, so the three cannot
be merged as they come. Looking each of them up in the other two stores would cost a request per image and never find an
orphan. So the listings are written to a SQLite file and read back in the order of the image id: SQLite sorts by merging
runs on disk, within a cache of fixed size, so memory does not grow with the number of images, and a page is stored in
one transaction with the place where its listing goes on, so that a run may end anywhere and the next one continues it.
The file takes about half a kilobyte an image.
"""

import heapq
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline_cli.errors import ImgpipeError
from pipeline_cli.pipeline.reconciling.accounting import (
    Current,
    Finding,
    Image,
    ItemState,
    Kind,
    Repair,
    StoredThumbnail,
    Uploaded,
)
from pipeline_contract.item import Status

_FORMAT = 1  # of the file (its user_version): one of another format is begun anew
_CACHE_KIB = 4 * 1024
_MAX_AGE = 24 * 3600.0  # seconds after which what was listed says too little about what is there

_SCHEMA = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE part (store TEXT, number INTEGER, span TEXT, place TEXT, done INTEGER, PRIMARY KEY (store, number));
CREATE TABLE versions (
    image TEXT, key TEXT, e_tag TEXT, version_id TEXT, modified REAL, latest INTEGER, marker INTEGER
);
CREATE TABLE items (
    image TEXT, status TEXT, bucket TEXT, key TEXT, e_tag TEXT, sequencer TEXT, version_id TEXT, upload_date TEXT,
    as_of TEXT, thumbnails TEXT
);
CREATE TABLE thumbnails (image TEXT, key TEXT, bytes INTEGER, modified REAL);
CREATE TABLE letters (image TEXT, e_tag TEXT);
CREATE TABLE findings (
    number INTEGER PRIMARY KEY, kind TEXT, image TEXT, key TEXT, detail TEXT, repair TEXT, thumbnails TEXT,
    record TEXT, sent INTEGER DEFAULT 0
);
"""

Row = tuple[Any, ...]


class Store(StrEnum):
    """What is listed; also the names of the tables."""

    VERSIONS = "versions"
    ITEMS = "items"
    THUMBNAILS = "thumbnails"


class Phase(StrEnum):
    LISTING = "listing"
    JUDGING = "judging"
    JUDGED = "judged"
    REPAIRING = "repairing"


class BusyError(ImgpipeError):
    """Another process has the file."""

    code = "RECONCILE_RUNNING"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a listing: `span` says which, `place` where it goes on (None at its beginning)."""

    store: Store
    number: int
    span: Any
    place: Any = None


@dataclass(frozen=True, slots=True)
class Work:
    """One repair that has not been done: the record for image_processor, or the thumbnails to delete."""

    number: int
    repair: Repair
    image_id: str
    key: str | None
    thumbnails: tuple[str, ...]
    record: Mapping[str, Any] | None


class Checkpoint:
    """One run over one deployment. `with` closes it; what was stored stays."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @classmethod
    def open(cls, file: Path, about: Mapping[str, Any], now: float, *, anew: bool = False) -> "Checkpoint":
        """The run that `file` holds, or a new one: when there is none, it is `anew`, about something else, or old.

        BusyError when another process is at it.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        wanted = json.dumps(about, sort_keys=True)
        checkpoint = cls(_connect(file))
        readable = checkpoint._one("PRAGMA user_version") == _FORMAT
        if anew or not readable or checkpoint._get("about") != wanted or now - checkpoint.started > _MAX_AGE:
            checkpoint.begin(about, now)
        return checkpoint

    def begin(self, about: Mapping[str, Any], now: float) -> None:
        """Forgets everything and starts a new run."""
        names = [row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        with self._db:
            for name in names:
                self._db.execute(f"DROP TABLE {name}")
        self._db.execute("VACUUM")  # gives the disk back
        self._db.executescript(_SCHEMA)
        with self._db:
            self._set("about", json.dumps(about, sort_keys=True))
            self._set("started", repr(now))
            self._set("phase", Phase.LISTING)
        self._db.execute(f"PRAGMA user_version = {_FORMAT}")

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        return float(self._get("started") or 0)

    @property
    def phase(self) -> Phase:
        return Phase(self._get("phase") or Phase.LISTING)

    @phase.setter
    def phase(self, phase: Phase) -> None:
        with self._db:
            self._set("phase", phase)

    def plan(self, parts: Iterable[Part]) -> None:
        """Which stretches there are to list."""
        with self._db:
            self._db.executemany(
                "INSERT INTO part VALUES (?, ?, ?, 'null', 0)",
                [(part.store, part.number, json.dumps(part.span)) for part in parts],
            )

    def planned(self) -> int:
        return int(self._one("SELECT count(*) FROM part"))

    def unfinished(self) -> list[Part]:
        rows = self._db.execute("SELECT store, number, span, place FROM part WHERE NOT done ORDER BY store, number")
        return [Part(Store(store), number, json.loads(span), json.loads(place)) for store, number, span, place in rows]

    def add_page(self, part: Part, rows: Sequence[Row], place: Any) -> None:
        """Rows of a part, and where it goes on; `place` None ends it."""
        with self._db:
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                self._db.executemany(f"INSERT INTO {part.store} VALUES ({marks})", rows)  # noqa: S608  # our own names
            self._db.execute(
                "UPDATE part SET place = ?, done = ? WHERE store = ? AND number = ?",
                (json.dumps(place), place is None, part.store, part.number),
            )

    def set_letters(self, rows: Iterable[tuple[str, str | None]]) -> None:
        """The images that dead letters speak of, each with the eTag."""
        with self._db:
            self._db.execute("DELETE FROM letters")
            self._db.executemany("INSERT INTO letters VALUES (?, ?)", rows)

    @property
    def queued(self) -> int:
        """Messages that were in the metadata queue."""
        return int(self._get("queued") or 0)

    @queued.setter
    def queued(self, number: int) -> None:
        with self._db:
            self._set("queued", str(number))

    def count(self, store: Store) -> int:
        return int(self._one(f"SELECT count(*) FROM {store}"))  # noqa: S608  # our own names

    def images(self) -> Iterator[Image]:
        """Every image that any store knows, in the order of its id, after the last one that was judged."""
        after = self.judged[0]
        streams = [self._db.execute(query, (after,)) for query in _STREAMS]
        for image, rows in groupby(heapq.merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
            yield _image(image, rows)

    @property
    def judged(self) -> tuple[str, dict[str, int]]:
        """The last image that was judged, and the tally so far."""
        after, counted = json.loads(self._get("judged") or '["", {}]')
        return after, counted

    def add_findings(self, found: Iterable[tuple[Finding, Any]], after: str, counted: Mapping[str, int]) -> None:
        """Findings, each with its record for image_processor or None, up to the image `after`."""
        with self._db:
            self._db.executemany(
                "INSERT INTO findings (kind, image, key, detail, repair, thumbnails, record)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        one.kind,
                        one.image_id,
                        one.key,
                        one.detail,
                        one.repair,
                        json.dumps(one.thumbnails),
                        None if record is None else json.dumps(record),
                    )
                    for one, record in found
                ],
            )
            self._set("judged", json.dumps([after, counted]))

    def findings(self, limit: int | None = None) -> Iterator[Finding]:
        """In the order of the image id."""
        rows = self._db.execute(
            "SELECT kind, image, key, detail, repair, thumbnails FROM findings ORDER BY number LIMIT ?",
            (-1 if limit is None else limit,),
        )
        for kind, image, key, detail, repair, thumbnails in rows:
            yield Finding(Kind(kind), image, key, detail, Repair(repair), tuple(json.loads(thumbnails)))

    def kinds(self) -> dict[Kind, int]:
        """How many findings there are of each kind."""
        found = dict(self._db.execute("SELECT kind, count(*) FROM findings GROUP BY kind"))
        return {kind: found.get(kind, 0) for kind in Kind}

    def repairs(self) -> dict[Repair, int]:
        """How many repairs of each sort have not been done."""
        found = dict(self._db.execute("SELECT repair, count(*) FROM findings WHERE NOT sent GROUP BY repair"))
        return {repair: found.get(repair, 0) for repair in Repair}

    def work(self, repairs: Iterable[Repair], after: int, limit: int) -> list[Work]:
        """The next repairs of these sorts that have not been done, after number `after`."""
        wanted = list(repairs)
        marks = ", ".join("?" * len(wanted))
        rows = self._db.execute(
            "SELECT number, repair, image, key, thumbnails, record FROM findings"  # noqa: S608  # marks alone
            f" WHERE NOT sent AND number > ? AND repair IN ({marks}) ORDER BY number LIMIT ?",
            (after, *wanted, limit),
        )
        return [
            Work(
                number,
                Repair(repair),
                image,
                key,
                tuple(json.loads(keys)),
                None if record is None else json.loads(record),
            )
            for number, repair, image, key, keys, record in rows
        ]

    def done(self, numbers: Iterable[int]) -> None:
        """Repairs that were accepted: no later run does them again."""
        with self._db:
            self._db.executemany("UPDATE findings SET sent = 1 WHERE number = ?", [(number,) for number in numbers])

    def _get(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, value))

    def _one(self, query: str) -> Any:
        with closing(self._db.execute(query)) as rows:
            return rows.fetchone()[0]


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=1.0)
    try:
        # One process at a time, and the lock falls with the process, however it ends.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("BEGIN IMMEDIATE")
        connection.commit()
    except sqlite3.OperationalError as error:
        connection.close()
        raise BusyError(
            f"The checkpoint {file} cannot be used: {error}.", "Another imgpipe may be at it; wait for its end."
        ) from error
    return connection


_STREAMS = (
    "SELECT image, 'version', key, e_tag, version_id, modified, latest, marker FROM versions"
    " WHERE image > ? ORDER BY image",
    "SELECT image, 'item', status, bucket, key, e_tag, sequencer, version_id, upload_date, as_of, thumbnails FROM items"
    " WHERE image > ? ORDER BY image",
    "SELECT image, 'thumbnail', key, bytes, modified FROM thumbnails WHERE image > ? ORDER BY image, key",
    "SELECT image, 'letter', e_tag FROM letters WHERE image > ? ORDER BY image",
)


def _image(image: str, rows: Iterable[Row]) -> Image:
    """One image of its rows, folded as they come: a key may have very many versions."""
    key: str | None = None
    versions = 0
    current: Current | None = None
    removed_at: float | None = None
    item: ItemState | None = None
    thumbnails: list[StoredThumbnail] = []
    letters: set[str | None] = set()
    for _, what, *rest in rows:
        if what == "version":
            key, e_tag, version_id, modified, latest, marker = rest
            versions += not marker
            if latest and marker:
                removed_at = modified
            elif latest:
                current = Current(e_tag, modified, version_id)
        elif what == "item":
            status, bucket, item_key, e_tag, sequencer, version_id, upload_date, as_of, names = rest
            item = ItemState(
                Status(status), bucket, item_key, e_tag, sequencer, version_id, upload_date, as_of, json.loads(names)
            )
        elif what == "thumbnail":
            thumbnails.append(StoredThumbnail(*rest))
        else:
            letters.add(rest[0])
    uploaded = None if key is None else Uploaded(key, versions, current, removed_at)
    return Image(image, uploaded, item, tuple(thumbnails), frozenset(letters))
