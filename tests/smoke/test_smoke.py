"""A short run of the smoke suite for each interpreter; ``python -m tests.smoke`` is the long one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from statefun_ray.local import LocalApplication
from tests.smoke import __main__ as long_run
from tests.smoke.commands import Generator, Parameters
from tests.smoke.drive import INTERPRETERS, Driver, module_of, service_of
from tests.smoke.services import ours


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_every_counter_is_right_whatever_dies(interpreter: str, tmp_path: Path) -> None:
    egress = (tmp_path / "egress").as_uri()
    parameters = Parameters(number_of_function_instances=32, message_count=1_500)
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
            driver = Driver(app, service, egress, parameters, seed=11)
            outcome = driver.run(timeout_s=120)
    assert outcome.kills >= 5
    assert outcome.crashes == 1
    assert outcome.repeated_requests > 0
    assert outcome.endpoint_restarts == (0 if service is None else 2)
    assert outcome.increments > 1_500


def test_the_generator_repeats_itself_and_counts_what_it_makes() -> None:
    one, other = (Generator(Random(5), Parameters(number_of_function_instances=16)) for _ in range(2))
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


def test_operations_fail_or_not_and_their_commands_are_done_all_the_same() -> None:
    generator = Generator(Random(7), Parameters(number_of_function_instances=4))
    outcomes: set[object] = set()

    def look(commands: list[dict[str, dict[str, object]]]) -> None:
        for command in commands:
            for kind, fields in command.items():
                if kind == "async_operation":
                    outcomes.add(fields["failure"])
                nested = fields.get("commands", [])
                assert isinstance(nested, list)
                look(nested)

    for _ in range(300):
        look(generator.next()[1])
    assert outcomes == {False, True}


def test_a_kind_of_command_that_is_not_supported_is_never_made() -> None:
    parameters = Parameters(
        number_of_function_instances=4, async_op_supported=False, delay_cancellation_op_supported=False
    )
    generator = Generator(Random(7), parameters)
    said = str([generator.next() for _ in range(300)])

    assert "send_after" in said
    assert "async_operation" not in said
    assert "cancel_send_after" not in said


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--kills", "4"], "at least 5 times"),
        (["--messageCount", "0"], "message_count is 0; it must be 1 or more"),
        (["--sendPr", "-1"], "send_pr is -1.0; a weight is 0 or more"),
        (["--asyncOpSupported", "maybe"], "'maybe' is neither true nor false"),
        (["--interpreter", "cobol"], "invalid choice"),
    ],
)
def test_the_long_run_refuses_what_shows_nothing(
    capsys: pytest.CaptureFixture[str], argv: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        long_run.main(argv)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_the_long_run_takes_the_parameters_by_their_names_and_kills_even_in_a_short_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--numberOfFunctionInstances", "5", "--commandDepth", "3", "--messageCount", "40"]
    given += ["--maxCommandsPerDepth", "2", "--sendPr", "0.5", "--randomGeneratorSeed", "9"]

    long_run.main(["--interpreter", "embedded", "--kills", "5", "--crashes", "0", *given])

    said = capsys.readouterr().out
    assert "seed 9" in said
    assert "number_of_function_instances=5, command_depth=3, message_count=40" in said
    assert "embedded: 40 commands" in said
    assert "5 workers killed, 0 crashes of everything" in said
