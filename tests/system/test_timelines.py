"""Clusters that were on another timeline before they met this repository."""

import pytest

from support.compare import digest
from support.pgcairn import OK


def promoted_server(workshop, forget=()):
    """A server on timeline 2 whose promotion was never archived here.

    forget: patterns of files in pg_wal that it has lost since.
    """
    server = workshop.cluster("promoted").initdb(wal_segsize=1)
    server.start()
    server.stop()
    (server.data / "standby.signal").touch()
    server.start()
    server.promote()
    server.sql("SELECT pg_switch_wal()")
    server.sql("CHECKPOINT")
    server.stop()
    for pattern in forget:
        for path in (server.data / "pg_wal").glob(pattern):
            path.unlink()
    pgcairn = workshop.pgcairn(server)
    server.archive_with(pgcairn)
    server.start()
    server.make_role()
    pgcairn.init()
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    return server, pgcairn


@pytest.mark.parametrize("target", ["--type=default", "--type=immediate"])
def test_a_cluster_promoted_before_it_archived_here_is_backed_up_and_restored(workshop, target):
    server, pgcairn = promoted_server(workshop)
    expected = digest(server)

    made = pgcairn.backup("--wal-timeout", "20")

    assert made["state"] == "wal-complete"
    assert made["timeline"] == 2
    assert pgcairn.objects("**/00000002/history")
    restored = workshop.restore(pgcairn, target)
    restored.start_restored()
    assert digest(restored) == expected


def test_where_the_server_lost_its_history_too_backup_says_so_and_restore_works(workshop):
    # Timeline 1 in the archive would make 2 a timeline whose parent is not known.
    server, pgcairn = promoted_server(workshop, forget=["*.history", "00000001*"])
    expected = digest(server)

    made = pgcairn.backup("--wal-timeout", "20")

    assert made["state"] == "wal-complete"
    text = pgcairn.run("info", "--set", "latest", expect=OK).stdout
    assert "00000002.history is not in the repository" in text
    restored = workshop.restore(pgcairn)
    restored.start_restored()
    assert digest(restored) == expected
