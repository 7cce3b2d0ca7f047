"""The smoke suite on real Ray, with kill -9: embedded, and with a service of Apache's Python SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.application import ClusterApplication
from tests.smoke.commands import Parameters
from tests.smoke.drive import Driver, module_of, service_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    # That kill -9 costs functions in the workers nothing is shown by test_faults.py and the scenarios too.
    "interpreter",
    [pytest.param("embedded", marks=pytest.mark.long), "official"],
)
def test_every_counter_is_right_after_kill_9(interpreter: str, tmp_path: Path) -> None:
    egress = (tmp_path / "egress").as_uri()
    parameters = Parameters(number_of_function_instances=64, message_count=3_000)
    target = "tests.smoke.services.ours:functions" if interpreter == "embedded" else None
    with (
        service_of(interpreter, tmp_path / "service.log") as service,
        ClusterApplication(target, tmp_path, module=module_of(service, egress), name="smoke") as app,
    ):
        driver = Driver(app, service, egress, parameters, seed=3, kills=5, crashes=0)
        outcome = driver.run(timeout_s=200)
    assert outcome.kills == 5
    assert outcome.repeated_requests > 0
