"""Sending dead letters back to where they failed, so that none can be lost.

For each message, in this order: write it to the archive (and to the disk), send it, and delete it only when what it
was sent to has accepted it. Whatever interrupts this leaves the message in the queue, or twice in the pipeline, which
takes duplicates for what they are.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline_cli.pipeline.dead_letters.archives import Archive
from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_cli.pipeline.dead_letters.queues import Held, Queue, Selection, holding, receive
from pipeline_cli.pipeline.invocations import invoke
from pipeline_contract.failures import FailureClass
from pipeline_contract.messages import REDRIVES

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_sqs import SQSClient

MAX_REDRIVES = 3  # a message that came back so often comes back again
INVOKES_AT_ONCE = 8
# SQS: a message has at most 10 attributes; the count of redrives is one of them.
MAX_ATTRIBUTES = 10


class Action(StrEnum):
    """What was done with a message, or why nothing was."""

    REDRIVEN = "redriven"
    WOULD_REDRIVE = "would redrive"
    REFUSED = "refused"  # permanent, unreadable, or redriven too often
    RETURNED = "returned"  # came back while this redrive ran
    FAILED = "failed"  # not accepted; the message is still in the queue
    TAKEN = "taken"  # somebody else holds it
    DUPLICATE = "sent, not deleted"  # accepted, but SQS did not delete it
    INTERRUPTED = "interrupted"  # while it was being sent: accepted or still in the queue, perhaps both


@dataclass(frozen=True, slots=True)
class Redriven:
    """`twin` is the id of the message that one with Action.RETURNED asks the same as."""

    letter: DeadLetter
    action: Action
    reason: str = ""
    twin: str | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """Where messages go back to."""

    lambda_: "LambdaClient"
    processor_function: str
    metadata_queue_url: str


def refusal(letter: DeadLetter, *, force: bool) -> str | None:
    """Why a message is not redriven; None when it is."""
    if not letter.redrivable:
        return "not a message of this pipeline; archive it"
    if force:
        return None
    if letter.class_ is FailureClass.PERMANENT:
        return "permanent: it would fail again (--force to try)"
    if letter.redrives >= MAX_REDRIVES:
        return f"redriven {letter.redrives} times already (--force to try again)"
    return None


def redrive(
    sqs: "SQSClient",
    queues: Sequence[Queue],
    targets: Targets,
    selection: Selection,
    *,
    archive: Archive,
    sleep: Callable[[float], None],
    force: bool = False,
    rate: float | None = None,
    only: frozenset[str] | None = None,
    hidden: Callable[[int], None] = lambda _: None,
) -> Iterator[Redriven]:
    """Redrives what is meant, and says of each message what was done, even when it is interrupted.

    `only` are the ids of the messages that the operator has seen and agreed to; reading ends when each was met.
    `rate` is the most messages a second. A message that fails again meanwhile and comes back is left in the queue.
    `hidden` is told, of each queue that was read to its end, how many messages somebody else is reading.
    """
    sent: dict[str, str] = {}
    for queue in queues:
        left = None if only is None else set(only)
        with holding(sqs, queue) as held:
            for batch in receive(held, enough=lambda left=left: left is not None and not left):  # type: ignore[misc]
                if left is not None:
                    left -= {letter.message_id for letter in batch}
                meant = [
                    letter
                    for letter in batch
                    if selection.matches(letter) and (only is None or letter.message_id in only)
                ]
                yield from _one_batch(sqs, held, targets, meant, sent, archive, force=force)
                if rate and meant:
                    sleep(len(meant) / rate)
            hidden(held.elsewhere)


def _one_batch(
    sqs: "SQSClient",
    held: Held,
    targets: Targets,
    letters: Sequence[DeadLetter],
    sent: dict[str, str],
    archive: Archive,
    *,
    force: bool,
) -> Iterator[Redriven]:
    going: list[DeadLetter] = []
    for letter in letters:
        if (reason := refusal(letter, force=force)) is not None:
            yield Redriven(letter, Action.REFUSED, reason)
        elif (mark := _fingerprint(letter)) in sent:
            yield Redriven(letter, Action.RETURNED, "the same message was redriven a moment ago", sent[mark])
        else:
            sent[mark] = letter.message_id
            going.append(letter)
    if not going:
        return
    ours = held.extend(going)
    for letter in going:
        if letter not in ours:
            yield Redriven(letter, Action.TAKEN, "somebody else is reading it")
    archive.write(ours, "redrive")
    try:
        refused = _send(sqs, targets, ours)
        accepted = [letter for letter in ours if letter.message_id not in refused]
        undeleted = held.delete(held.delete(accepted))  # what SQS did not delete is tried once more
    except BaseException:
        for letter in ours:
            yield Redriven(
                letter, Action.INTERRUPTED, "it may have gone back to the pipeline, be in the queue, or both"
            )
        raise
    for letter in ours:
        if letter.message_id in refused:
            yield Redriven(letter, Action.FAILED, refused[letter.message_id])
        elif letter in undeleted:
            yield Redriven(letter, Action.DUPLICATE, "it went back to the pipeline and is still in the queue")
        else:
            yield Redriven(letter, Action.REDRIVEN)


def _send(sqs: "SQSClient", targets: Targets, letters: Sequence[DeadLetter]) -> dict[str, str]:
    """Sends each message to where it failed; returns the ids of those not accepted, with the reason."""
    refused: dict[str, str] = {}
    images = [letter for letter in letters if letter.records]
    with ThreadPoolExecutor(INVOKES_AT_ONCE) as pool:
        for letter, reason in zip(images, pool.map(lambda one: _invoke(targets, one), images), strict=True):
            if reason is not None:
                refused[letter.message_id] = reason
    for batch, entries in _metadata_batches([letter for letter in letters if not letter.records]):
        refused |= _send_metadata(sqs, targets.metadata_queue_url, batch, entries)
    return refused


def _invoke(targets: Targets, letter: DeadLetter) -> str | None:
    records = [{**record, REDRIVES: letter.redrives + 1} for record in letter.records]
    return invoke(targets.lambda_, targets.processor_function, records)


MAX_BATCH_BYTES = 256 * 1024  # SQS: of a batch, in every region


def _metadata_batches(letters: Sequence[DeadLetter]) -> Iterator[tuple[list[DeadLetter], list[dict[str, Any]]]]:
    """Batches of at most 10 messages and 256 KB."""
    batch: list[DeadLetter] = []
    entries: list[dict[str, Any]] = []
    size = 0
    for letter in letters:
        entry = {
            "MessageBody": letter.metadata_body,
            "MessageAttributes": attributes(letter.raw, letter.redrives + 1),
        }
        if trace := (letter.raw.get("Attributes") or {}).get("AWSTraceHeader"):
            entry["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
        weight = len(json.dumps(entry, default=repr))
        if batch and (len(batch) == 10 or size + weight > MAX_BATCH_BYTES):
            yield batch, entries
            batch, entries, size = [], [], 0
        entries.append({"Id": str(len(batch)), **entry})
        batch.append(letter)
        size += weight
    if batch:
        yield batch, entries


def _send_metadata(
    sqs: "SQSClient", queue_url: str, letters: Sequence[DeadLetter], entries: Sequence[dict[str, Any]]
) -> dict[str, str]:
    from botocore.exceptions import BotoCoreError, ClientError

    sending: Any = entries
    try:
        answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=sending)
    except (ClientError, BotoCoreError) as error:
        return {letter.message_id: str(error) for letter in letters}
    accepted = {int(entry["Id"]) for entry in answer.get("Successful", [])}
    reasons = {int(entry["Id"]): entry.get("Message") or entry["Code"] for entry in answer.get("Failed", [])}
    return {
        letter.message_id: reasons.get(index, "SQS did not say that it took it")
        for index, letter in enumerate(letters)
        if index not in accepted
    }


def attributes(raw: Mapping[str, Any], redrives: int | None = None) -> dict[str, Any]:
    """The attributes of a message as `SendMessage` takes them, all types kept; with the count of redrives."""
    kept = {
        name: {part: value for part, value in attribute.items() if not part.endswith("ListValues")}
        for name, attribute in (raw.get("MessageAttributes") or {}).items()
    }
    if redrives is not None and (REDRIVES in kept or len(kept) < MAX_ATTRIBUTES):
        kept[REDRIVES] = {"DataType": "Number", "StringValue": str(redrives)}
    return kept


def _fingerprint(letter: DeadLetter) -> str:
    """What a message asks for, whatever brought it here: a message that comes back has the same."""
    asked: Any = [{name: record[name] for name in record if name != REDRIVES} for record in letter.records]
    if not asked:
        try:
            asked = json.loads(letter.metadata_body or "")
        except ValueError:
            asked = letter.metadata_body
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def native_move(sqs: "SQSClient", dlq_url: str, queue_url: str, rate: float | None) -> str:
    """Starts SQS's own move of a whole dead-letter queue to `queue_url`; returns the task's handle.

    SQS moves at most 500 messages a second, and not from a queue that gets failed asynchronous invokes. The target is
    named: db_writer sends its failure entries to the queue itself, and SQS knows no source of such messages.
    """
    request: Any = {"SourceArn": _arn(sqs, dlq_url), "DestinationArn": _arn(sqs, queue_url)}
    if rate is not None:
        request["MaxNumberOfMessagesPerSecond"] = max(1, round(rate))
    return sqs.start_message_move_task(**request)["TaskHandle"]


def _arn(sqs: "SQSClient", url: str) -> str:
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
