"""A short run of the smoke suite for each interpreter; ``python -m tests.smoke`` is the long one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from statefun_ray.local import LocalApplication
from tests.smoke.commands import Generator, Parameters
from tests.smoke.drive import INTERPRETERS, Driver, module_of, service_of
from tests.smoke.services import ours


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_every_counter_is_right_whatever_dies(interpreter: str, tmp_path: Path) -> None:
    egress = (tmp_path / "egress").as_uri()
    functions = ours.functions if interpreter == "embedded" else None
    with service_of(interpreter, tmp_path / "service.log") as service:
        app = LocalApplication(
            functions,
            module=module_of(service, egress),
            storage=tmp_path / "storage",
            log_dir=tmp_path / "log",
            snapshot_interval_s=0.2,
        )
        with app:
            driver = Driver(app, service, egress, seed=11, messages=1_500, instances=32)
            outcome = driver.run(timeout_s=120)
    assert outcome.kills >= 5
    assert outcome.crashes == 1
    assert outcome.repeated_requests > 0
    assert outcome.endpoint_restarts == (0 if service is None else 2)
    assert outcome.increments > 1_500


def test_the_generator_repeats_itself_and_counts_what_it_makes() -> None:
    one, other = (Generator(Random(5), Parameters(instances=16)) for _ in range(2))
    commands = [one.next() for _ in range(300)]
    assert commands == [other.next() for _ in range(300)]

    def counted(commands: list[dict[str, dict[str, object]]]) -> int:
        total = 0
        for command in commands:
            for kind, fields in command.items():
                nested = fields.get("commands", [])
                assert isinstance(nested, list)
                total += 1 if kind == "increment" else counted(nested)
        return total

    assert sum(one.expected) == sum(counted(tree) for _, tree in commands)
    # About 1.46 increments for a command, as the original's own generator.
    assert 1.2 < sum(one.expected) / 300 < 1.8
