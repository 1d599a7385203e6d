"""Images that were sent back are followed until each has an outcome."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from failures import image_failure, received
from pipeline_cli.pipeline.dead_letters import following
from pipeline_cli.pipeline.dead_letters.following import Followed, follow
from pipeline_cli.pipeline.dead_letters.messages import DeadLetter, dead_letter
from pipeline_cli.pipeline.dead_letters.queues import Listing, Queue
from pipeline_cli.pipeline.outcomes import CLOCK_TOLERANCE, Outcome
from pipeline_contract.failures import Stage

STARTED = 1_790_000_000.0
LETTER = replace(dead_letter(received(image_failure()), Stage.IMAGE_PROCESSOR), message_id="sent")
IMAGE_ID = LETTER.image_id or ""
SEQUENCER = LETTER.source.sequencer if LETTER.source else None
assert IMAGE_ID
assert SEQUENCER
BEFORE = datetime.fromtimestamp(STARTED - 3600, UTC)
AFTER = datetime.fromtimestamp(STARTED + 1, UTC)


@dataclass
class World:
    """A table and a dead-letter queue, changed by what is planned for a second."""

    items: dict[str, Any] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    plan: dict[int, Callable[["World"], None]] = field(default_factory=dict)
    second: int = 0
    reads: list[int] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        assert seconds == 1.0
        self.second += 1
        self.plan.get(self.second, lambda _: None)(self)

    def read(self, *_: Any) -> Listing:
        self.reads.append(self.second)
        return Listing(tuple(self.letters), 0)

    def follow(self, letters: list[DeadLetter], timeout: float = 30.0) -> list[Followed]:
        return list(
            follow(
                None,  # type: ignore[arg-type]  # asked through what the fixture replaces
                [Queue(Stage.IMAGE_PROCESSOR, "url")],
                None,  # type: ignore[arg-type]
                "images",
                letters,
                started=STARTED,
                now=lambda: STARTED + self.second,
                sleep=self.sleep,
                timeout=timeout,
            )
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(
        following, "get_many", lambda _, __, ids: {one: world.items[one] for one in ids if one in world.items}
    )
    monkeypatch.setattr(following, "counts", lambda *_: (len(world.letters), 0, 0))
    monkeypatch.setattr(following, "read", world.read)
    return world


def item(status: str, sequencer: str | None = SEQUENCER) -> dict[str, Any]:
    return {"status": status, "sequencer": sequencer}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (item("COMPLETED"), Outcome.COMPLETED),
        (item("DELETED"), Outcome.DELETED),
        (item("COMPLETED", SEQUENCER + "0"), Outcome.SUPERSEDED),
        (item("DELETED", SEQUENCER + "0"), Outcome.SUPERSEDED),
        (item("COMPLETED", None), Outcome.COMPLETED),
        (item("COMPLETED", "0"), Outcome.IN_FLIGHT),  # of an older event
        (item("FAILED"), Outcome.IN_FLIGHT),  # as before the redrive: the dead letter will tell
    ],
)
def test_the_item_tells(world: World, found: dict[str, Any], expected: Outcome) -> None:
    world.plan[3] = lambda world: world.items.update({IMAGE_ID: found})
    (followed,) = world.follow([LETTER])
    assert (followed.letter, followed.outcome) == (LETTER, expected)
    assert world.second == (30 if expected is Outcome.IN_FLIGHT else 3)


def back(**changed: Any) -> DeadLetter:
    return replace(LETTER, **{"message_id": "back", "message": "still broken", "failed_at": AFTER, **changed})


@pytest.mark.parametrize(
    ("letter", "comes_back"),
    [
        (back(), True),
        (back(failed_at=BEFORE, redrives=LETTER.redrives + 1), True),  # it says so itself, whatever its clock
        (back(failed_at=datetime.fromtimestamp(STARTED - CLOCK_TOLERANCE + 1, UTC)), True),
        (back(failed_at=BEFORE), False),  # a twin from before
        (back(message_id="sent"), False),  # the very message, not yet deleted
        (back(image_id="another"), False),
        (back(image_id=None), False),
    ],
)
def test_a_dead_letter_tells(world: World, letter: DeadLetter, comes_back: bool) -> None:
    world.plan[2] = lambda world: world.letters.append(letter)
    (followed,) = world.follow([LETTER])
    if comes_back:
        assert (followed.outcome, followed.reason) == (Outcome.DEAD_LETTERED, f"{letter.code}: still broken")
        assert world.second == 5
    else:
        assert followed.outcome is Outcome.IN_FLIGHT
        assert world.second == 30


def test_a_queue_that_does_not_change_is_not_read_again_but_for_a_last_time(world: World) -> None:
    """To read a message is a receive of it, and too many receives are what a dead-letter queue is about."""
    world.letters.append(back(image_id="another"))
    world.follow([LETTER])
    assert world.reads == [0, 30]


def test_letters_about_one_image_share_its_outcome(world: World) -> None:
    twin, other = replace(LETTER, message_id="twin"), replace(LETTER, message_id="other", image_id="other")
    world.plan[1] = lambda world: world.items.update({IMAGE_ID: item("COMPLETED")})
    followed = world.follow([LETTER, twin, other], timeout=4)
    assert [(one.letter.message_id, one.outcome) for one in followed] == [
        ("sent", Outcome.COMPLETED),
        ("twin", Outcome.COMPLETED),
        ("other", Outcome.IN_FLIGHT),
    ]
    assert followed[-1].reason


def test_what_names_no_image_is_not_waited_for(world: World) -> None:
    assert world.follow([replace(LETTER, image_id=None)]) == []
    assert world.second == 0
