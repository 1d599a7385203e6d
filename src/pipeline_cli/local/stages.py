"""How many images have reached each stage of a deployment, as its resources show it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline_cli.pipeline.dead_letters.queues import Queue, counts
from pipeline_cli.pipeline.thumbnails import stored
from pipeline_contract.failures import Stage

if TYPE_CHECKING:
    from pipeline_cli.aws import Clients
    from pipeline_cli.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Stages:
    """What is where just now: objects uploaded, thumbnails made, items written, failures in both dead-letter queues."""

    uploaded: int = 0
    thumbnails: int = 0
    items: int = 0
    dead_letters: int = 0


def stages(clients: "Clients", deployment: "Deployment") -> Stages:
    """Counts them one by one: for deployments of a size that a demonstration has."""
    objects = clients.s3.get_paginator("list_objects_v2").paginate(Bucket=deployment.upload_bucket)
    items = clients.dynamodb.get_paginator("scan").paginate(TableName=deployment.table, Select="COUNT")
    queues = (
        Queue(Stage.IMAGE_PROCESSOR, deployment.image_dlq_url),
        Queue(Stage.DB_WRITER, deployment.metadata_dlq_url),
    )
    return Stages(
        uploaded=sum(page["KeyCount"] for page in objects),
        thumbnails=sum(1 for _ in stored(clients.s3, deployment.thumbnail_bucket)),
        items=sum(page["Count"] for page in items),
        dead_letters=sum(sum(counts(clients.sqs, queue)) for queue in queues),
    )
