"""Lambda: a failed invocation says which exception it was, as the Python runtime of AWS does.

ministack says `Runtime.HandlerError` of every one.
https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html
"""

import threading
from typing import Any

from pipeline_cli.local.adaptations.original import AdaptationError, original

# In the script of ministack's Python workers, what is said of an exception of the handler.
_SAID = '"error": str(e), "trace": traceback.format_exc()'
_SAID_HERE = (
    '"error": str(e), "errorType": type(e).__name__, '
    '"stackTrace": traceback.format_tb(e.__traceback__)[1:], "trace": traceback.format_exc()'
)

_last = threading.local()


def apply() -> None:
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    execute = original("services.lambda_svc", "_execute_function_warm", "62b9218bef5b")
    invoke = lambda_runtime.Worker.invoke
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_SAID) != 1:
        raise AdaptationError("ministack's Python worker reports an exception in another way")

    def invoke_and_keep(self: Any, *args: Any, **kwargs: Any) -> Any:
        _last.answer = invoke(self, *args, **kwargs)
        return _last.answer

    def execute_with_type(func: Any, event: Any, request_id: str) -> Any:
        _last.answer = None
        result = execute(func, event, request_id)
        answer = _last.answer or {}
        if result.get("error") and "errorType" in answer:
            result["body"] |= {
                "errorType": answer["errorType"],
                "requestId": request_id,
                "stackTrace": answer["stackTrace"],
            }
        return result

    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_SAID, _SAID_HERE)
    lambda_runtime.Worker.invoke = invoke_and_keep
    lambda_svc._execute_function_warm = execute_with_type
