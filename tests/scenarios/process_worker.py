"""One worker in a process of its own, without Ray: so that a test can kill -9 or freeze it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from statefun_checkpoints.store import open_store
from statefun_ray.io.worker_host import WorkerHost, WorkerHostConfig
from tests.scenarios.stories import functions


async def main(told: dict[str, Any]) -> str:
    config = WorkerHostConfig(**{**told["host"], "coordinator": tuple(told["host"]["coordinator"])})
    return await WorkerHost(config, functions, open_store(told["storage"])).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    sys.exit(1 if asyncio.run(main(json.loads(sys.argv[1]))) else 0)
