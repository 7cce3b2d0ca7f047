"""Things that must not be in the repository."""

from __future__ import annotations

import re

from tests.architecture.source_tree import ROOT, project, tracked_files, tracked_text_files

# Put together at run time, so that this file does not contain what it looks for.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("index", "crates", "io"),
    )
)
INDEX_OPTIONS = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links")


def where(pattern: str) -> list[str]:
    """``path:line`` of every match in the tracked text files."""
    expression = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in tracked_text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if expression.search(line)
    ]


def test_no_file_names_a_package_registry() -> None:
    assert where("|".join(re.escape(host) for host in REGISTRIES)) == []


def test_the_lock_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert [option for option in INDEX_OPTIONS if option in text] == []
    assert "://" not in text


def test_every_locked_package_is_hashed() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=\S)", text)
    unhashed = [entry.split()[0] for entry in entries if "==" in entry and "--hash=sha256:" not in entry]
    assert unhashed == []


def test_every_direct_dependency_is_locked() -> None:
    names = {
        line.split("==")[0].lower()
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if re.match(r"[A-Za-z0-9]", line)
    }
    metadata = project()["project"]
    wanted = list(metadata["dependencies"])
    for extra in metadata["optional-dependencies"].values():
        wanted += extra
    direct = {re.split(r"[\[<>=~!; ]", requirement)[0].lower() for requirement in wanted}
    assert direct - {name.partition("[")[0] for name in names} == set()


def test_no_unfinished_work_is_marked_in_the_code() -> None:
    assert where(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b") == []


def test_no_path_of_a_workplace_is_named() -> None:
    assert where("/wo" + r"rk/(main|shared)|/tmp/con" + "tract") == []


def test_no_file_is_empty_but_markers_of_typing_and_packages() -> None:
    allowed = {"py.typed", "__init__.py", ".gitkeep"}
    empty = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.stat().st_size == 0 and path.name not in allowed
    ]
    assert empty == []


def test_no_file_is_large() -> None:
    large = [str(path.relative_to(ROOT)) for path in tracked_files() if path.stat().st_size > 1_000_000]
    assert large == []
