"""A Ray head in a process of its own: prints its addresses, ends when its input is closed.

Not in the process of the tests, where the warnings of Ray's own start are errors.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass

START_S = 60


@dataclass(frozen=True)
class Head:
    """Where the head is."""

    address: str
    dashboard: str


def main() -> None:
    """Start the head, say where it is, and wait."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=100 * 1024 * 1024,
        include_dashboard=True,
        dashboard_port=0,
        logging_level=logging.WARNING,
    )
    said = {"address": ray.get_runtime_context().gcs_address, "dashboard": f"http://{context.dashboard_url}"}
    print(json.dumps(said), flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
