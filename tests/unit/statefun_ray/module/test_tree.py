"""YAML text as nodes with lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ray.module.tree import Listing, Mapping, Scalar, parse


def the_mapping(text: str) -> Mapping:
    """Return the only document of a text."""
    (node,), fault = parse(text)
    assert fault is None
    assert isinstance(node, Mapping)
    return node


def test_scalars_stay_text_and_know_their_line() -> None:
    node = the_mapping("a: on\nb:\n  - 1e3\n  - 'null'\n  - ~\n")
    a, b = node.entries["a"].value, node.entries["b"]
    assert isinstance(a, Scalar)
    assert (a.text, a.line, a.is_plain, a.is_null) == ("on", 1, True, False)
    assert isinstance(b.value, Listing)
    assert (b.line, b.value.line) == (2, 3)
    assert [(item.text, item.line, item.is_null) for item in b.value.items if isinstance(item, Scalar)] == [
        ("1e3", 3, False),
        ("null", 4, False),
        ("~", 5, True),
    ]


def test_escapes_for_the_halves_of_a_character_make_one() -> None:
    value = the_mapping('a: "\\ud83d\\ude00 \\u00e9"\n').entries["a"].value
    assert isinstance(value, Scalar)
    assert value.text == "\N{GRINNING FACE} é"


def test_the_last_of_two_equal_keys_counts_and_both_are_known() -> None:
    node = the_mapping("a: 1\nb: 2\na: 3\n")
    value = node.entries["a"].value
    assert isinstance(value, Scalar)
    assert value.text == "3"
    assert node.repeated == (("a", 3),)


def test_an_anchor_is_one_node_however_often_it_is_used() -> None:
    node = the_mapping("a: &x [1]\nb: *x\n")
    assert node.entries["a"].value is node.entries["b"].value


def test_a_tag_makes_nothing_happen() -> None:
    value = the_mapping("a: !!python/object/apply:os.system ['true']\n").entries["a"].value
    assert isinstance(value, Listing)


def test_aliases_of_aliases_take_no_room() -> None:
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    assert len(the_mapping("a0: &a0 x\n" + layers).entries) == 40


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "flow sequence"),
        ("a: 1\n\tb: 2\n", 2, "a tab before a key"),
        ("a: `b`\n", 1, "character '`'"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\nb: \x07\n", 2, "U+0007"),
        ("a: &x\n  b: *x\n", 1, "contains it"),
        ("? [1, 2]\n: x\n", 1, "a key that is a list"),
        ("[" * 5000, 1, "without end"),
        ('a: 1\nb: "\\ud83d"\n', 2, "half a character"),
        ('"\\ude00\\ud83d": 1\n', 1, "half a character"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
    ],
)
def test_what_is_not_yaml_has_a_line_and_a_reason(text: str, line: int, words: str) -> None:
    _, fault = parse(text)
    assert fault is not None
    assert fault.line == line
    assert words in fault.reason
    assert not fault.reason.startswith("found"), "whoever says it puts that in front"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("a: 1\n\tb: 2\n", "put blanks there"),
        ("a: &k 1\n---\nb: *k\n", "in the same document; write the value out"),
        ("a\0: 1\0", "save the file as UTF-8"),
        ("a: &k 1\nb: &k 2\n", ""),
    ],
)
def test_a_common_fault_has_advice(text: str, advice: str) -> None:
    _, fault = parse(text)
    assert fault is not None
    assert advice in fault.advice
    assert not fault.reason.startswith("found")


def test_documents_before_a_fault_are_there() -> None:
    nodes, fault = parse("a: 1\n---\nb: 2\n---\nc: [\n")
    assert len(nodes) == 2
    assert fault is not None


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#? \n\t%@`~0.,"), max_size=60))
def test_any_text_is_nodes_or_a_fault(text: str) -> None:
    nodes, fault = parse(text)
    assert fault is None or 1 <= fault.line <= text.count("\n") + 2
    assert all(isinstance(node, Scalar | Listing | Mapping) for node in nodes)
