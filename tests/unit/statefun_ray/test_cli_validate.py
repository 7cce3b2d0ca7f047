"""``statefun-ray validate``: what it prints, how it exits, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import statefun_ray.io
from statefun_ray.cli import main
from statefun_ray.cluster.errors import BadModule
from statefun_ray.cluster.planning import load_module

SOUND = "kind: io.statefun.playground.v1/ingress\nspec:\n  prot: 8090\n"
WRONG = "kind: io.statefun.endpoints.v2/http\nspec:\n  functions: shop\n  urlPathTemplate: x\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a file that is sound and one that is not."""
    (tmp_path / "sound.yaml").write_text(SOUND, encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(WRONG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("files")
def test_warnings_alone_exit_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "sound.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sound.yaml:3: spec.prot: warning: found the unknown key 'prot'; it is ignored; did you mean 'port'?",
        "0 errors, 1 warning; no endpoint and no Python functions: 'run' needs a TARGET besides",
    ]


@pytest.mark.usefixtures("files")
def test_any_error_exits_with_2_and_all_problems_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "wrong.yaml", "sound.yaml", "sound.yaml", "none.yaml"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "sound.yaml",
        "none.yaml",
        "wrong.yaml:3",
        "wrong.yaml:4",
        "sound.yaml:3",
        "4 errors, 1 warning",
    ]


@pytest.mark.usefixtures("files")
def test_json_is_a_line_for_each_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--json", "wrong.yaml"]) == 2
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == {
        "severity": "error",
        "file": "wrong.yaml",
        "line": 3,
        "key": "spec.functions",
        "found": "'shop'",
        "expected": "namespace/name for one function type, or namespace/* for a namespace",
        "advice": "",
    }
    assert second["key"] == "spec.urlPathTemplate"


KAFKA = """kind: io.statefun.kafka.v1/ingress
spec:
  id: shop/in
  address: kafka:9092
  consumerGroupId: shop
  topics: [{topic: orders, valueType: shop/Order, targets: [shop/cart]}]
  properties:
    - fech.max.bytes: 1
    - fetch.max.wait.ms: soon
    - ssl.truststore.location: /x.jks
    - ssl.endpoint.identification.algorithm: ""
---
kind: io.statefun.kafka.v1/egress
spec:
  id: shop/out
  address: kafka:9092
  properties:
    - max.block.ms: 1000
    - partitioner.class: org.acme.Mine
"""


@pytest.mark.slow
def test_properties_are_checked_as_run_does(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "kafka.yaml").write_text(KAFKA, encoding="utf-8")
    assert main(["validate", "kafka.yaml"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines[:-1]] == [
        ["kafka.yaml:8", "spec.properties[0].fech.max.bytes"],
        ["kafka.yaml:9", "spec.properties[1].fetch.max.wait.ms"],
        ["kafka.yaml:10", "spec.properties[2].ssl.truststore.location"],
        ["kafka.yaml:19", "spec.properties[1].partitioner.class"],
    ]
    assert lines[0].endswith(
        "warning: found the property fech.max.bytes, which its client does not know; it is left out; "
        "did you mean fetch.max.bytes?"
    )
    assert 'Invalid value for configuration property "fetch.wait.max.ms"' in lines[1]
    assert lines[-1] == "2 errors, 2 warnings"
    with pytest.raises(BadModule, match=r"kafka\.yaml:9: .*\n.*kafka\.yaml:10: "):
        load_module(["kafka.yaml"])


@pytest.mark.usefixtures("files")
def test_without_the_client_properties_are_not_checked_and_that_is_said(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As well as in `sys.modules`, or the package that is imported meanwhile stays there for later tests.
    monkeypatch.delattr(statefun_ray.io, "kafka", raising=False)
    for name in [name for name in sys.modules if name.startswith("statefun_ray.io.kafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    (files / "kafka.yaml").write_text(KAFKA, encoding="utf-8")
    assert main(["validate", "kafka.yaml"]) == 0
    assert "confluent-kafka is not installed; properties were not checked" in capsys.readouterr().out


def test_it_wants_a_file() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["validate"])
    assert ended.value.code == 2


@pytest.mark.slow
def test_nothing_of_the_runtime_is_loaded(files: Path) -> None:
    program = (
        "import sys; from statefun_ray.cli import main\n"
        "code = main(['validate', 'sound.yaml'])\n"
        "print(code, *(name for name in ('ray', 'pyarrow', 'aiohttp', 'asyncio') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=files
    )
    assert done.stdout.splitlines()[-1] == "0"
