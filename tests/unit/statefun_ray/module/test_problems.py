"""What is said about a problem, and where."""

from __future__ import annotations

import pytest

from statefun_ray.module.problems import Place, Problem, Problems, nearest


def test_an_error_says_where_what_expected_and_what_to_do() -> None:
    problem = Problem("error", Place("a.yaml", 7, "spec.id"), "'x'", "a name", "write one")
    assert str(problem) == "a.yaml:7: spec.id: found 'x'; expected a name; write one"


def test_a_warning_says_that_it_is_one() -> None:
    assert str(Problem("warning", Place("a.yaml", 0), "nothing")) == "a.yaml: warning: found nothing"


def test_problems_come_by_file_and_line_and_once() -> None:
    problems = Problems()
    problems.warn(Place("b.yaml", 1), "one", "")
    problems.error(Place("a.yaml", 9), "two")
    problems.error(Place("a.yaml", 2), "three")
    problems.error(Place("a.yaml", 9), "two")
    assert problems.error_count == 3
    assert [p.found for p in problems.in_order(["a.yaml", "b.yaml", "a.yaml"])] == ["three", "two", "one"]


def test_as_json_is_flat() -> None:
    assert Problem("error", Place("a", 1, "k"), "f", "e", "d").as_json() == {
        "severity": "error",
        "file": "a",
        "line": 1,
        "key": "k",
        "found": "f",
        "expected": "e",
        "advice": "d",
    }


@pytest.mark.parametrize(
    ("word", "meant"),
    [("Address", "address"), ("adress", "address"), ("consumergroupid", "consumerGroupId"), ("zzz", None)],
)
def test_the_nearest_word_is_found(word: str, meant: str | None) -> None:
    assert nearest(word, ("address", "consumerGroupId")) == meant
