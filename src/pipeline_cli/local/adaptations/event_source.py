"""Lambda and SQS: an event source mapping runs a batch at once for every three that write into its queue.

ministack starts a process for each, up to the mapping's maximum concurrency, for a message or two apiece. While fewer
run, messages gather into full batches, as they do on AWS within the batching window.
"""

from typing import Any

from pipeline_cli.local.adaptations.async_invoke import workers
from pipeline_cli.local.adaptations.original import original


def apply() -> None:
    from ministack.services import lambda_svc

    allowed = original("services.lambda_svc", "_sqs_esm_concurrency", "d3e9d1e865aa")

    def concurrency(*args: Any, **kwargs: Any) -> int:
        return min(int(allowed(*args, **kwargs)), max(1, workers() // 3))

    lambda_svc._sqs_esm_concurrency = concurrency
