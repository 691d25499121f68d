import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.store.sqltext import blank_literals, is_complete, without_semicolon


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "SELECT 1; -- it's done",
        "SELECT ';' ; /* ' */",
        "SELECT 'it''s';",
        'SELECT "a;b";',
        "SELECT $$ ' $$;",
        "SELECT $q$ ; $$ $q$;",
        "SELECT 1;\n\n",
        "SELECT $a;",
        r"SELECT E'it\'s';",
        r"SELECT e'\\';",
        r"SELECT '\';",
        "SELECT /* /* ' */ ; */ 1;",
        "SELECT `a;b`;",
        "SELECT\u00a0$$;$$;",
    ],
)
def test_a_statement_with_its_semicolon_is_complete(sql: str) -> None:
    assert is_complete(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT 1 -- ;",
        "SELECT ';",
        "SELECT ';'",
        "SELECT /* ;",
        "SELECT /* */ 1 /* ;",
        'SELECT "a;',
        "SELECT $$ ;",
        "SELECT $q$ ; $$;",
        r"SELECT E'it\';",
        "SELECT /* /* */ ;",
        "SELECT 1; /* open",
        "",
    ],
)
def test_an_open_text_or_comment_hides_its_semicolon(sql: str) -> None:
    assert not is_complete(sql)


def test_blanked_text_has_the_same_places() -> None:
    sql = "SELECT 'a;b' /* ;\n */, c"
    assert blank_literals(sql) == "SELECT " + " " * 5 + " " + " " * 4 + "\n" + " " * 3 + ", c"


PIECES = [*"'\"`\\; \na1é😀\u00a0\ufeff\0", "E'", "--", "/*", "*/", "$$", "$q$"]


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_blanked_text_is_the_text_with_spaces(sql: str) -> None:
    blanked = blank_literals(sql)
    assert len(blanked) == len(sql)
    assert all(new == old or (new == " " and old != "\n") for new, old in zip(blanked, sql, strict=True))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT 1; -- end", "SELECT 1"),
        ("SELECT ';' -- ;", "SELECT ';' -- ;"),
        ("SELECT ';';  ", "SELECT ';'"),
        ("SELECT 1;; /* ; */ ;", "SELECT 1"),
        (r"SELECT E'it\'s; ok' ; -- it's", r"SELECT E'it\'s; ok' "),
        ("SELECT /* /* */ ; */ 1;", "SELECT /* /* */ ; */ 1"),
        ("SELECT 'é; 😀', `;` AS \";\";", "SELECT 'é; 😀', `;` AS \";\""),
    ],
)
def test_a_statement_loses_its_semicolon_and_what_follows(statement: str, expected: str) -> None:
    assert without_semicolon(statement) == expected
