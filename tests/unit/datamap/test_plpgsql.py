"""What is read out of the sources of trigger functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.datamap.check.plpgsql import Effects, read_effects

WRITES: dict[str, list[tuple[str, ...]]] = {
    "INSERT INTO a VALUES (1)": [("a",)],
    "insert into only_a (x, y) select 1, 2": [("only_a",)],
    'INSERT INTO "B c"."d""e" (f) VALUES (1)': [("B c", 'd"e')],
    "DELETE FROM ONLY crm . a AS x WHERE x.id = OLD.id": [("crm", "a")],
    "UPDATE Only A SET x = 1": [("a",)],
    "INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET n = a.n + 1": [("a",)],
    "INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING": [("a",)],
    "SELECT 1 FROM a FOR UPDATE; SELECT 1 FROM a FOR NO KEY UPDATE": [],
    "WITH w AS (INSERT INTO a VALUES (1) RETURNING *) SELECT 1": [("a",)],
    "-- insert into a\nNULL; /* update a /* delete from b */ set */ x := 'insert into a'": [],
    "x := E'it\\'s insert into a'; y := $q$delete from a$q$; z := $$update a$$; u := 'it''s update b set'": [],
    "IF TG_OP = 'DELETE' THEN NULL; END IF": [],
    "NEW.update := 1; NEW.copy := OLD.call": [],
}


@pytest.mark.parametrize("source", WRITES)
def test_tables_that_are_written_to(source: str) -> None:
    """By their names as written, small letters where nothing is quoted; comments and texts say nothing."""
    assert read_effects(source) == Effects(tuple(WRITES[source]), (), gives_back_nothing=False)


DOUBTS = {
    "EXECUTE format('INSERT INTO %I', x)": "EXECUTE",
    "EXECUTE x USING OLD": "EXECUTE",
    "FOR r IN EXECUTE x LOOP NULL; END LOOP": "EXECUTE",
    "CALL p(OLD)": "CALL",
    "PERFORM pg_notify('x', OLD.id)": "pg_notify()",
    'PERFORM "Crm"."f"(1)': '"Crm"."f"()',
    "x := public.lower(OLD.email)": "public.lower()",
    'x := "lower2" (OLD.email)': '"lower2"()',
    "SELECT f /* here */ (1)": "f()",
    "COPY a TO PROGRAM 'x'": "COPY",
    "NOTIFY gone": "NOTIFY",
    "CREATE TABLE x AS SELECT OLD.*": "CREATE",
    "MERGE INTO a USING b ON TRUE WHEN MATCHED THEN DO NOTHING": "MERGE",
    "INSERT": "INSERT",
    "UPDATE a.b.c SET x = 1": "UPDATE",
    "DO 'x'": "DO",
    "x := 'open": "a text without an end",
    "/* open /* */": "a text without an end",
    'x := "open': "a text without an end",
}


@pytest.mark.parametrize("source", DOUBTS)
def test_what_may_do_anything_is_a_doubt(source: str) -> None:
    """A text that is run, statements that define, functions that nobody knows here."""
    assert DOUBTS[source] in read_effects(source).doubts


CALLS_NOTHING = (
    "x := coalesce(lower(OLD.a), pg_catalog.now()::text); y := (1 + 2)",
    "IF (x) AND (y) OR NOT (z) THEN RAISE EXCEPTION 'no % (%)', OLD.id, (1) USING ERRCODE = ('P0001'); END IF",
    "SELECT count(*) FILTER (WHERE x) OVER (PARTITION BY y) INTO z FROM a WHERE b IN (1) AND EXISTS (SELECT) AND c = ANY (d)",
    "DECLARE x numeric (3, 1); y varchar(9); BEGIN RETURN (OLD); END",
)


@pytest.mark.parametrize("source", CALLS_NOTHING)
def test_what_only_computes_is_no_doubt(source: str) -> None:
    """Words before brackets that call nothing, and PostgreSQL's own functions."""
    assert read_effects(source).doubts == ()


@given(st.text() | st.lists(st.sampled_from([*WRITES, *DOUBTS, "'", '"', "$$", "/*", "$x$", "E'", "."])).map(" ".join))
def test_any_source_is_read(source: str) -> None:
    """Whatever stands there: no error, and what cannot be read is a doubt or nothing that writes."""
    assert read_effects(source) == read_effects(source)


def test_returns_that_keep_a_row() -> None:
    """Before a deletion NULL and NEW, which is NULL there, keep the row; one RETURN of another kind may let it go."""
    assert read_effects("IF x THEN RETURN NULL; END IF; return new;").gives_back_nothing
    assert not read_effects("IF x THEN RETURN NULL; END IF; RETURN OLD;").gives_back_nothing
    assert not read_effects("RAISE EXCEPTION 'no';").gives_back_nothing
