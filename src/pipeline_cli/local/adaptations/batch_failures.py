"""Lambda and SQS: what a partial batch response means, as AWS reads it.

ministack deletes a whole batch when the response names a message that was not in it, or cannot be read. AWS takes such
a response for a failure of the whole batch, and so every message comes back.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html ("Success and failure conditions")
"""

import json
import logging
import time
from collections.abc import Collection
from typing import Any

from pipeline_cli.local.adaptations.original import original

log = logging.getLogger("imgpipe.batch_failures")


def apply() -> None:
    from ministack.services import lambda_svc

    original("services.lambda_svc", "_run_sqs_batch", "f9bf630aabf3")
    original("services.sqs", "_delete_messages_for_esm", "c1686f29b48b")
    lambda_svc._run_sqs_batch = run_batch


def failed_messages(response: Any, batch: Collection[str]) -> set[str] | None:
    """The ids of the messages that are to come back; None when the response is invalid and so the whole batch is."""
    if isinstance(response, str):
        try:
            response = json.loads(response) if response else {}
        except ValueError:
            return None
    if response is None:
        return set()
    failures = response.get("batchItemFailures") if isinstance(response, dict) else None
    if not failures:
        return set() if isinstance(response, dict) else None
    if not isinstance(failures, list):
        return None
    ids: set[Any] = {failure.get("itemIdentifier") if isinstance(failure, dict) else None for failure in failures}
    return ids if ids <= set(batch) else None


def run_batch(esm: Any, func: Any, event: Any, batch: Any, queue_url: str, queue_name: str) -> None:
    """Stands in for ministack's `_run_sqs_batch`: one batch of an event source mapping."""
    from ministack.services import lambda_svc, sqs

    started = time.monotonic()
    result = lambda_svc._execute_function(func, event)
    throttled, failed = bool(result.get("throttle")), bool(result.get("error"))
    milliseconds = (time.monotonic() - started) * 1000
    lambda_svc._emit_lambda_metrics(esm["FunctionName"], milliseconds, failed and not throttled, throttled)
    esm_id = esm["UUID"]
    if failed:
        esm["LastProcessingResult"] = "FAILED"
        log.warning("Lambda %s failed on a batch of %s: %s", esm["FunctionName"], queue_name, result.get("body"))
        lambda_svc._esm_backoff_until[esm_id] = time.time() + lambda_svc._ESM_BACKOFF_SECONDS
        return
    lambda_svc._esm_backoff_until.pop(esm_id, None)
    back: set[str] | None = set()
    if "ReportBatchItemFailures" in esm.get("FunctionResponseTypes", []):
        back = failed_messages(result.get("body"), [message["id"] for message in batch])
    if back is None:
        log.warning("Lambda %s answered no valid partial batch response: %s", esm["FunctionName"], result.get("body"))
        back = {message["id"] for message in batch}
    sqs._delete_messages_for_esm(
        queue_url, {message["receipt_handle"] for message in batch if message["id"] not in back}
    )
    esm["LastProcessingResult"] = f"OK - {len(batch) - len(back)} records, {len(back)} partial failures"
