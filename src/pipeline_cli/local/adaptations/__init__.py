"""What ministack is adapted in, one module each, so that the pipeline meets locally what it meets on AWS.

Each module has `apply()`, and names what it replaces with the fingerprint of the code that it was written against:
a ministack that has changed there is refused at start, instead of being adapted wrongly.
"""

from pipeline_cli.local.adaptations import (
    alarm_fields,
    alarms,
    async_invoke,
    batch_failures,
    busy_workers,
    error_type,
    event_source,
    log_end,
    log_filter,
    message_move,
    queue_lock,
    queue_metrics,
    quick_copies,
    state,
    version_keys,
)
from pipeline_cli.local.adaptations.original import AdaptationError, require_version

__all__ = ["AdaptationError", "apply_all"]

ADAPTATIONS = (
    queue_lock,
    async_invoke,
    batch_failures,
    event_source,
    error_type,
    log_end,
    busy_workers,
    message_move,
    queue_metrics,
    alarms,
    alarm_fields,
    log_filter,
    quick_copies,
    state,
    version_keys,
)
BACKGROUND = (queue_metrics.background, state.background)  # what runs beside the server


def apply_all() -> None:
    """Adapt the ministack of this process; AdaptationError when it is not the one that these modules know."""
    require_version()
    for adaptation in ADAPTATIONS:
        adaptation.apply()
