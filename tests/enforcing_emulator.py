"""The emulator with IAM enforced, over HTTPS: `python tests/enforcing_emulator.py PORT FOLDER`.

Requests signed with the key `test` are the account's root; functions sign as their roles, and their policies decide.
The policies that allow TLS alone refuse plain HTTP, so the server needs a certificate: `FOLDER/server.crt`, which the
functions are made to trust. Ends when its parent does.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any


def environment(port: int, folder: Path) -> dict[str, str]:
    """What ministack reads when it is imported."""
    return {
        "AUTH": "true",
        "USE_SSL": "1",
        "MINISTACK_SSL_CERT": str(folder / "server.crt"),
        "MINISTACK_SSL_KEY": str(folder / "server.key"),
        "TMPDIR": str(folder / "tmp"),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUTF8": "1",
        "DOCKER_HOST": "unix:///nonexistent",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
    }


async def serve(port: int, folder: Path) -> None:
    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile = str(folder / "server.crt")
    config.keyfile = str(folder / "server.key")
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    parent = os.getppid()

    async def orphaned() -> None:
        while os.getppid() == parent:
            await asyncio.sleep(0.5)

    serving: Any = app
    await hypercorn_serve(serving, config, shutdown_trigger=orphaned)


def main(port: int, folder: Path) -> None:
    from pipeline_cli.local.adaptations import apply_all

    (folder / "tmp").mkdir(exist_ok=True)
    apply_all()
    asyncio.run(serve(port, folder))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
