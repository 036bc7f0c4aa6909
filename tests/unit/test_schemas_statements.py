"""Laws of cutting SQL into statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import StatementError
from schemas.statements import blank_comments, split_statements

# What may stand inside a statement and hold a `;` that ends nothing. Each is whole by itself.
_INNER = st.text(alphabet="ab;'\"`-/*#$ \\\n", max_size=8)
_ATOMS = st.one_of(
    st.sampled_from(["SELECT", "1", "x$y$", "a.b", "(", ")", ",", "=", "-", "/", "*", "$", "1 - 2", "c$"]),
    _INNER.map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"),
    _INNER.map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    _INNER.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'),
    _INNER.map(lambda text: "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"),
    _INNER.map(lambda text: "$tag$" + text.replace("$tag$", "") + "$tag$"),
    _INNER.map(lambda text: "$$" + text.replace("$", "") + "$$"),
    _INNER.map(lambda text: "\u2018" + text + "\u2019"),
)
_COMMENTS = st.one_of(
    _INNER.map(lambda text: "--" + text.replace("\n", "") + "\n"),
    _INNER.map(lambda text: "// " + text.replace("\n", "") + "\n"),
    _INNER.map(lambda text: "# " + text.replace("\n", "") + "\n"),
    _INNER.map(lambda text: "#!" + text.replace("\n", "") + "\n"),
    _INNER.map(lambda text: "/* " + text.replace("/", "").replace("*", "") + " /* ; */ */"),
)


@given(
    st.lists(st.tuples(_ATOMS, st.lists(st.one_of(_ATOMS, _COMMENTS), max_size=5)), min_size=1, max_size=4)
)
def test_statements_joined_by_semicolons_come_apart_as_they_were(
    parts: list[tuple[str, list[str]]],
) -> None:
    """Whatever quotes and comments a statement holds, splitting the joined text gives the statements back."""
    wanted = [" ".join([first, *rest, "END"]) for first, rest in parts]
    text = " ;\n -- between; them\n".join(wanted) + "; /* ; */ ;"
    assert [statement.text for statement in split_statements(text)] == wanted


@given(st.text(alphabet="ab;'\"`-/*#$ \\\n!\u2018\u2019"))
def test_any_text_is_cut_or_refused_and_nothing_is_lost(text: str) -> None:
    """Any text either raises StatementError or yields statements that all stand in it, in order, at their lines."""
    try:
        statements = split_statements(text)
    except StatementError:
        return
    at = 0
    for statement in statements:
        at = text.index(statement.text, at)
        assert statement.text.strip()
        assert statement.line <= text.count("\n") + 1
        at += len(statement.text)


@pytest.mark.parametrize(
    "text", ["SELECT 'a", 'SELECT "a', "SELECT `a", "SELECT 1 /* a /* b */", "SELECT \u2018a"]
)
def test_what_is_never_closed_is_refused_with_its_line(text: str) -> None:
    """An open quote or comment names the line where it was opened."""
    with pytest.raises(StatementError, match=r"core/0001_x: the .* opened at line 2 is never closed"):
        split_statements("SELECT 1;\n" + text, where="core/0001_x")


def test_texts_of_nothing_but_comments_hold_no_statement() -> None:
    """Comments, spaces and lone semicolons are no statements."""
    assert split_statements("-- a;b\n ; /* c; */ ;\n# d\n") == ()


def test_statements_know_where_they_begin() -> None:
    """A statement's line is that of its first word, past the comments before it."""
    found = split_statements("-- one\n\nSELECT 1;\n/* two\n */ SELECT 2")
    assert [(statement.text, statement.line) for statement in found] == [("SELECT 1", 3), ("SELECT 2", 5)]


def test_comments_can_be_blanked_and_strings_stay() -> None:
    """A comment becomes one space; what looks like one inside a string does not."""
    assert blank_comments("SELECT /* x */ '--a' -- b\n") == "SELECT   '--a'  \n"
