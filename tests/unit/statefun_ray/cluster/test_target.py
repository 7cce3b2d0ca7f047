from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statefun_ray.cluster.errors import BadTarget
from statefun_ray.cluster.target import (
    AppSource,
    load_functions,
    source_of_functions,
    source_of_targets,
)
from statefun_sdk import StatefulFunctions

MODULE = """
from statefun_sdk import StatefulFunctions
functions = StatefulFunctions()
@functions.bind("example/greeter")
def greet(context, message): ...
class Held:
    inner = functions
nothing = StatefulFunctions()
other = 7
"""

functions = StatefulFunctions()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules, as the working directory."""
    (tmp_path / "app_under_test.py").write_text(MODULE)
    (tmp_path / "app_broken.py").write_text("1 / 0\n")
    (tmp_path / "app_empty.py").write_text("other = 7\n")
    (tmp_path / "app_exits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "app_needs.py").write_text("import no_such_package\n")
    (tmp_path / "app_starts.py").write_text(
        "import statefun_ray\n" + MODULE + "statefun_ray.run(functions)\n"
    )
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("app_"):
            del sys.modules[name]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("name", ["functions", "Held.inner"])
def test_module_and_name_lead_to_the_functions(name: str) -> None:
    loaded = load_functions(source_of_targets(f"app_under_test:{name}"))
    assert list(loaded.functions) == ["example/greeter"]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app_under_test", "write module:name"),
        ("app_under_test.py:functions", "say app_under_test:functions"),
        ("examples/app.py:functions", "say examples.app:functions"),
        ("app_nowhere:functions", "there is no module 'app_nowhere' \\(looked in "),
        ("app_under_test:function", "has no 'function'; say app_under_test:functions"),
        ("app_under_test:other", "is of type int, not StatefulFunctions; say app_under_test:functions"),
        ("app_under_test:nothing", "no function is bound"),
        ("app_empty:functions", "there are no StatefulFunctions in app_empty; write module:name"),
        ("app_exits:functions", "(?s)importing app_exits failed.*SystemExit: 3"),
        ("app_needs:functions", "No module named 'no_such_package'"),
        ("app_starts:functions", "if __name__ == '__main__'"),
    ],
)
def test_a_wrong_target_says_what_to_do(target: str, said: str) -> None:
    with pytest.raises(BadTarget, match=said):
        load_functions(source_of_targets(target))


@pytest.mark.usefixtures("app")
def test_an_import_that_fails_shows_the_traceback_of_the_user_s_code_alone() -> None:
    with pytest.raises(BadTarget) as raised:
        load_functions(source_of_targets("app_broken:functions"))
    text = str(raised.value)
    assert text.endswith("ZeroDivisionError: division by zero")
    assert re.findall(r'File ".*?(\w+\.py)", line (\d+)', text) == [("app_broken.py", "1")]


def test_functions_of_an_imported_module_are_found_by_their_variable() -> None:
    source = source_of_functions(functions)
    assert source.module.endswith("test_target")
    assert source.targets[0].endswith(":functions")


def test_functions_in_no_module_cannot_be_found() -> None:
    with pytest.raises(BadTarget, match="assign them to a variable at the top level"):
        source_of_functions(StatefulFunctions())


def test_a_relative_folder_is_read_from_the_working_directory(app: Path) -> None:
    (app / "inner").mkdir()
    (app / "inner" / "app_inside.py").write_text(MODULE)
    loaded = load_functions(AppSource(("app_inside:functions",), ("inner", "/nonexistent")))
    assert "example/greeter" in loaded.functions
