"""The fixtures themselves: a test that can't fail proves nothing."""

import pytest

from support.compare import after_restore, check_checksums, check_tables, digest
from support.pgcairn import last_object


def test_digest_sees_one_changed_row_and_not_their_order(workshop):
    server = workshop.server(wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT n, n * n AS square FROM generate_series(1, 1000) n")
    before = digest(server)
    server.sql("CREATE TABLE other AS SELECT * FROM t ORDER BY square DESC; DROP TABLE t;"
               "ALTER TABLE other RENAME TO t")
    assert digest(server) == before
    server.sql("UPDATE t SET square = 0 WHERE n = 500")
    assert digest(server) != before


def test_digest_sees_large_objects_and_empties_unlogged_tables(workshop):
    server = workshop.server(wal_segsize=1)
    server.sql("CREATE UNLOGGED TABLE u AS SELECT 1 AS n")
    before = digest(server)
    server.sql("SELECT lo_from_bytea(4711, 'something')")
    after = digest(server)
    assert before != after
    assert after_restore(after)["postgres"]["unlogged public.u"] == (0, "0")
    assert after["postgres"]["large objects"][0] == 1


def test_checkers_see_a_flipped_byte(workshop):
    server = workshop.server(wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n")
    path = server.data / server.value("SELECT pg_relation_filepath('t')")
    check_tables(server)
    server.stop()
    check_checksums(server.data)
    with open(path, "r+b") as file:
        file.seek(8000)
        byte = file.read(1)
        file.seek(8000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(pytest.fail.Exception):
        check_checksums(server.data)


def test_last_object_is_found_behind_other_lines():
    assert last_object('copying\n{"a": 1}\n{\n "label": {"b": 2}\n}\n') == {"label": {"b": 2}}
