"""What `reconcile` and `reprocess` share: where the images are, the plan in words, a line of progress."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline_cli.context import Context
from pipeline_cli.moments import age

if TYPE_CHECKING:
    from pipeline_cli.pipeline.reconciling.listings import Stores
    from pipeline_cli.pipeline.reconciling.repair import Estimate


def stores_of(context: Context) -> "Stores":
    from pipeline_cli.pipeline.reconciling.listings import Stores

    deployment, clients = context.deployment, context.clients
    return Stores(clients.s3, clients.dynamodb, deployment.upload_bucket, deployment.thumbnail_bucket, deployment.table)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_words(plan: "Estimate") -> str:
    """`3 invocations, about 1s and $0.01`."""
    parts = []
    if plan.invocations or not plan.thumbnails_deleted:
        parts.append(count(plan.invocations, "invocation"))
    if plan.thumbnails_deleted:
        parts.append(count(plan.thumbnails_deleted, "orphan") + " deleted")
    parts.append(f"about {age(math.ceil(plan.seconds))}")
    parts.append(f"${plan.usd:,.2f}" if plan.usd >= 0.01 else "less than a cent")
    return ", ".join(parts)


@contextmanager
def status(context: Context) -> Iterator[Callable[[str], None]]:
    """A line that changes, on a terminal; elsewhere nothing."""
    with context.console.status("") as line:
        yield line.update
