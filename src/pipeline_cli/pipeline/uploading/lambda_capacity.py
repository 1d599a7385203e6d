"""Whether Lambda can work off a batch of uploads before it gives events up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

# AWS Lambda, "Configuring error handling settings for asynchronous invocations": the default maximum age.
MAX_EVENT_AGE_HOURS = 6.0
# What a large photograph takes with the default memory; most take less.
SECONDS_PER_IMAGE = 1.0
LARGE_BATCH = 10_000  # less than this is done in time by any account (the smallest quota is ten at once)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long a batch takes with so many executions at once, by a careful guess."""

    images: int
    concurrency: int

    @property
    def hours(self) -> float:
        return self.images * SECONDS_PER_IMAGE / self.concurrency / 3600 if self.concurrency else float("inf")

    @property
    def too_long(self) -> bool:
        return self.hours > MAX_EVENT_AGE_HOURS

    def warning(self) -> str:
        takes = "cannot be processed at all" if not self.concurrency else f"take about {self.hours:.0f} h"
        return (
            f"Warning: {self.images:,} images at about {SECONDS_PER_IMAGE:.0f} s each, {self.concurrency:,} at once, "
            f"{takes}. Lambda gives an event up after {MAX_EVENT_AGE_HOURS:.0f} h; the image then lies in the "
            "dead-letter queue. Upload in smaller batches, or have the account's Lambda concurrency raised."
        )


def forecast(client: "LambdaClient", function: str, images: int) -> Forecast:
    """By the function's reserved concurrency, or what the account has left for functions without."""
    # The stubs take the field for required; AWS leaves it out where nothing is reserved.
    answer: Mapping[str, Any] = client.get_function_concurrency(FunctionName=function)
    reserved = answer.get("ReservedConcurrentExecutions")
    if reserved is not None:
        return Forecast(images, reserved)
    return Forecast(images, client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"])
