"""SQS and Lambda as a redrive meets them: receives are samples, receipts expire, sends and deletes fail in part."""

import random
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError


@dataclass
class Message:
    message_id: str
    body: str
    attributes: dict[str, Any] = field(default_factory=dict)
    hidden_until: float = 0
    receipt: str = ""
    receives: int = 0


class QueueService:
    """A few queues. Faults come by chance, with the given rates; `stolen` messages are taken by somebody else."""

    def __init__(self, queues: dict[str, list[Message]], *, seed: int = 0, faults: float = 0.0) -> None:
        self.queues = queues
        self.chance = random.Random(seed)
        self.faults = faults
        self.time = 0.0
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.invoked: list[bytes] = []
        self.unexpected_deletes: list[str] = []

    def _fault(self) -> bool:
        return self.chance.random() < self.faults

    def visible(self, url: str) -> list[Message]:
        return [message for message in self.queues[url] if message.hidden_until <= self.time]

    def receive_message(self, **request: Any) -> dict[str, Any]:
        self.time += request.get("WaitTimeSeconds", 0) + 0.01
        visible = self.visible(request["QueueUrl"])
        # A short poll asks some of the servers; a long one all.
        sampled = visible if request.get("WaitTimeSeconds") else [m for m in visible if self.chance.random() < 0.6]
        self.chance.shuffle(sampled)
        answers = []
        for message in sampled[: request["MaxNumberOfMessages"]]:
            message.receives += 1
            message.hidden_until = self.time + request["VisibilityTimeout"]
            message.receipt = f"{message.message_id}/{message.receives}"
            answers.append(
                {
                    "MessageId": message.message_id,
                    "ReceiptHandle": message.receipt,
                    "Body": message.body,
                    "Attributes": {"ApproximateReceiveCount": str(message.receives), "SentTimestamp": "1790000000000"},
                    "MessageAttributes": message.attributes,
                }
            )
        return {"Messages": answers} if answers else {}

    def _by_receipt(self, url: str, receipt: str) -> Message | None:
        found = next((message for message in self.queues[url] if message.receipt == receipt), None)
        return found if found is not None and found.hidden_until > self.time else None

    def delete_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        done, failed = [], []
        for entry in Entries:
            message = self._by_receipt(QueueUrl, entry["ReceiptHandle"])
            if message is None or self._fault():
                failed.append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
                continue
            self.queues[QueueUrl].remove(message)
            done.append({"Id": entry["Id"]})
        return {"Successful": done, "Failed": failed}

    def change_message_visibility_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        failed = []
        for entry in Entries:
            message = self._by_receipt(QueueUrl, entry["ReceiptHandle"])
            if message is None:
                failed.append({"Id": entry["Id"], "Code": "MessageNotInflight", "SenderFault": True})
            else:
                message.hidden_until = self.time + entry["VisibilityTimeout"]
        return {"Failed": failed}

    def get_queue_attributes(self, QueueUrl: str, AttributeNames: list[str]) -> dict[str, Any]:  # noqa: N803
        visible = len(self.visible(QueueUrl))
        return {
            "Attributes": {
                "ApproximateNumberOfMessages": str(visible),
                "ApproximateNumberOfMessagesNotVisible": str(len(self.queues[QueueUrl]) - visible),
            }
        }

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        if self._fault():
            raise ClientError({"Error": {"Code": "ServiceUnavailable", "Message": "later"}}, "SendMessageBatch")
        assert len(Entries) <= 10
        assert sum(len(entry["MessageBody"].encode()) for entry in Entries) <= 256 * 1024
        done, failed = [], []
        for entry in Entries:
            if self._fault():
                failed.append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
                continue
            self.sent.append((QueueUrl, entry))
            done.append({"Id": entry["Id"]})
        return {"Successful": done, "Failed": failed}

    def invoke(self, **request: Any) -> dict[str, Any]:
        if self._fault():
            raise ClientError({"Error": {"Code": "TooManyRequestsException", "Message": "slow down"}}, "Invoke")
        if self._fault():
            return {"StatusCode": 500}
        self.invoked.append(request["Payload"])
        return {"StatusCode": 202}
