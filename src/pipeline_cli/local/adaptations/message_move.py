"""SQS: moving the messages of a dead-letter queue back (StartMessageMoveTask and its kin), which ministack lacks.

A task is done as soon as it was started; the rate that was asked for is noted and not kept.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
"""

import base64
import json
import time
import uuid
from typing import Any

from pipeline_cli.local.adaptations.original import AdaptationError, original
from pipeline_cli.local.adaptations.queue_lock import lock

_tasks: dict[str, list[dict[str, Any]]] = {}  # by the ARN of the dead-letter queue, newest first


def apply() -> None:
    from ministack.services import sqs

    original("services.sqs", "_queue_by_arn", "b4981875c818")
    original("services.sqs", "_dispatch", "6a429fdb61eb")
    ours = {
        "StartMessageMoveTask": start_task,
        "ListMessageMoveTasks": list_tasks,
        "CancelMessageMoveTask": cancel_task,
        "ListDeadLetterSourceQueues": list_sources,
    }
    if known := set(ours) & set(sqs._HANDLERS):
        raise AdaptationError(f"ministack has {', '.join(sorted(known))} of its own now")
    sqs._HANDLERS.update(ours)


def start_task(request: dict[str, Any], _url: str) -> dict[str, Any]:
    """Move every visible message to `DestinationArn`, or to the queue that it came from."""
    from ministack.services import sqs

    arn, destination = request.get("SourceArn", ""), request.get("DestinationArn")
    with lock:
        source = sqs._queue_by_arn(arn)
        if source is None:
            raise sqs._Err("ResourceNotFoundException", "The resource that you specified for SourceArn doesn't exist.")
        origins = _sources(source)
        if not origins:
            message = "Source queue must be configured as a Dead Letter Queue."
            raise sqs._Err("InvalidParameterValue", message)
        now = time.time()
        waiting = [message for message in source["messages"] if message["visible_at"] <= now]
        moved = 0
        for message in waiting:
            came_from = message["sys"].get("DeadLetterQueueSourceArn")
            if destination is None and came_from is None:
                break  # as AWS: of a message that was sent to the queue itself nobody knows where it belongs
            target = sqs._queue_by_arn(destination or came_from)
            if target is None:
                raise sqs._Err("ResourceNotFoundException", "The destination queue doesn't exist.")
            sent = {"MessageBody": message["body"], "MessageAttributes": message["message_attributes"]}
            sqs._act_send_message(sent, sqs._queue_url(target["name"]))
            source["messages"].remove(message)
            moved += 1
    task = {
        "TaskHandle": base64.b64encode(json.dumps({"taskId": str(uuid.uuid4()), "sourceArn": arn}).encode()).decode(),
        "Status": "COMPLETED" if moved == len(waiting) else "FAILED",
        **({} if moved == len(waiting) else {"FailureReason": "CouldNotDetermineMessageSource"}),
        "SourceArn": arn,
        **({"DestinationArn": destination} if destination else {}),
        "ApproximateNumberOfMessagesMoved": moved,
        "ApproximateNumberOfMessagesToMove": len(waiting),
        "StartedTimestamp": int(now * 1000),
    }
    if rate := request.get("MaxNumberOfMessagesPerSecond"):
        task["MaxNumberOfMessagesPerSecond"] = rate
    _tasks[arn] = [task, *_tasks.get(arn, [])][:10]
    return {"TaskHandle": task["TaskHandle"]}


def list_tasks(request: dict[str, Any], _url: str) -> dict[str, Any]:
    """The newest tasks of a dead-letter queue; a finished one has no handle."""
    tasks = _tasks.get(request.get("SourceArn", ""), [])[: int(request.get("MaxResults") or 1)]
    return {"Results": [{name: value for name, value in task.items() if name != "TaskHandle"} for task in tasks]}


def cancel_task(request: dict[str, Any], _url: str) -> dict[str, Any]:
    """Refused: a task here is done before anybody can cancel it."""
    from ministack.services import sqs

    raise sqs._Err("ResourceNotFoundException", f"No task {request.get('TaskHandle')} is running.")


def list_sources(request: dict[str, Any], url: str) -> dict[str, Any]:
    """The URLs of the queues whose redrive policy names this one."""
    from ministack.services import sqs

    queue = sqs._get_q(request.get("QueueUrl") or url)
    return {"queueUrls": [sqs._externalize_url(sqs._queue_url(one["name"])) for one in _sources(queue)]}


def _sources(dead_letter_queue: dict[str, Any]) -> list[dict[str, Any]]:
    from ministack.services import sqs

    arn = dead_letter_queue["attributes"]["QueueArn"]
    found = []
    for queue in sqs._queues.values():
        policy = queue["attributes"].get("RedrivePolicy")
        if policy and json.loads(policy).get("deadLetterTargetArn") == arn:
            found.append(queue)
    return found
