"""CloudWatch: what SQS says of its queues, so that an alarm on a dead-letter queue has something to look at.

ministack publishes nothing for SQS and evaluates alarms only when somebody puts metric data. Here every queue is looked
at each second (AWS: each minute) and its figures are published when they have changed, or each minute.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
"""

import asyncio
import logging
import time
from typing import Any

from pipeline_cli.local.adaptations.original import original
from pipeline_cli.local.adaptations.queue_lock import lock

LOOK_SECONDS = 1.0
REPEAT_SECONDS = 60.0

log = logging.getLogger("imgpipe.queue_metrics")


def apply() -> None:
    original("services.sqs", "_refresh_counts", "5d0fb7b342d2")
    original("services.cloudwatch", "record_metric", "7f777bfbe523")
    original("services.cloudwatch", "_evaluate_all_alarms", "f83f88e57f1c")


async def background() -> None:
    """Publish and evaluate until the emulator stops."""
    published: dict[tuple[str, str, str, str], tuple[float, float]] = {}
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            publish(published, time.time())
            evaluate()
        except Exception:
            log.exception("Queue metrics were not published")


def figures(queue: dict[str, Any], now: float) -> dict[str, float]:
    """The metrics of one queue, by their CloudWatch names."""
    from ministack.services import sqs

    with lock:
        sqs._refresh_counts(queue)
        counts = queue["attributes"]
        sent = [message["sent_at"] for message in queue["messages"]]
    return {
        "ApproximateNumberOfMessagesVisible": float(counts.get("ApproximateNumberOfMessages", 0)),
        "ApproximateNumberOfMessagesNotVisible": float(counts.get("ApproximateNumberOfMessagesNotVisible", 0)),
        "ApproximateNumberOfMessagesDelayed": float(counts.get("ApproximateNumberOfMessagesDelayed", 0)),
        "ApproximateAgeOfOldestMessage": float(int(now - min(sent))) if sent else 0.0,
    }


def publish(published: dict[tuple[str, str, str, str], tuple[float, float]], now: float) -> None:
    """Record what has changed since it was `published`, or was recorded a minute ago."""
    from ministack.core.responses import _request_account_id, _request_region
    from ministack.services import cloudwatch, sqs

    for (account, region, _), queue in list(sqs._queues.all_items()):
        _request_account_id.set(account)
        _request_region.set(region)
        for metric, value in figures(queue, now).items():
            key = (account, region, queue["name"], metric)
            before, when = published.get(key, (None, 0.0))
            if value != before or now - when >= REPEAT_SECONDS:
                published[key] = (value, now)
                unit = "Seconds" if metric.endswith("Message") else "Count"
                cloudwatch.record_metric("AWS/SQS", metric, value, unit, {"QueueName": queue["name"]})


def evaluate() -> None:
    """Evaluate the alarms of every account and region."""
    from ministack.core.responses import _request_account_id, _request_region
    from ministack.services import cloudwatch

    for account, region in {key[:2] for key in list(cloudwatch._alarms._data)}:
        _request_account_id.set(account)
        _request_region.set(region)
        cloudwatch._evaluate_all_alarms()
