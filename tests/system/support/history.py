"""A cluster with a past: a backup in the middle of DDL, and moments whose contents are known.

At each marked moment everything rests but one transaction; what every table held just before and
just after it is on record.
"""

import dataclasses
import os
import re
import threading

from support.compare import digest
from support.process import must

# 131072 blocks fill the first gigabyte file of a relation.
FIRST_FILE_BYTES = 1 << 30
HOLE_AFTER_BYTES = 512 * 8192

BEFORE_BACKUP = """
    CREATE TABLE frozen (n int PRIMARY KEY, body text, touched int DEFAULT 0);
    INSERT INTO frozen SELECT n, md5(n::text) || repeat('x', n % 200) FROM generate_series(1, 20000) n;
    CREATE INDEX frozen_body ON frozen (body);
    CREATE TABLE in_space (n int PRIMARY KEY, body text) TABLESPACE near;
    INSERT INTO in_space SELECT n, md5(n::text) FROM generate_series(1, 5000) n;
    CREATE INDEX in_far_space ON in_space (body) TABLESPACE "ferne Räume";
    CREATE SCHEMA "Größe";
    CREATE TABLE "Größe"."Überblick – 表" AS SELECT n, chr(8364) || n AS "Preis €" FROM generate_series(1, 3000) n;
    CREATE UNLOGGED TABLE scrap (n int PRIMARY KEY);
    INSERT INTO scrap SELECT generate_series(1, 1000);
    CREATE TABLE doomed AS SELECT n FROM generate_series(1, 5000) n;
    CREATE TABLE wide (n int, body text);
    ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
    INSERT INTO wide SELECT n, repeat(md5(n::text), 400) FROM generate_series(1, 50) n;
    CREATE SEQUENCE steps;
    CREATE MATERIALIZED VIEW summary AS SELECT n % 10 AS digit, count(*) FROM frozen GROUP BY 1;
    SELECT lo_from_bytea(1000 + n, repeat('large object ', 500 * n)::bytea) FROM generate_series(1, 5) n;
"""

ROUND = """
    CREATE TABLE round_{n} AS SELECT i, i * {n} AS product FROM generate_series(1, 3000) i;
    CREATE UNIQUE INDEX ON round_{n} (i);
    UPDATE frozen SET touched = {n}, body = body || '{n}' WHERE n % 37 = {n};
    DELETE FROM frozen WHERE n % 101 = {n};
    INSERT INTO frozen SELECT 100000 * {n} + i, 'new in round {n}' FROM generate_series(1, 500) i;
    UPDATE in_space SET body = 'round {n} ' || body WHERE n % 7 = 0;
    INSERT INTO "Größe"."Überblick – 表" SELECT i, 'Runde {n}: ' || i FROM generate_series(1, 200) i;
    TRUNCATE doomed;
    INSERT INTO doomed SELECT i + {n} FROM generate_series(1, 700) i;
    INSERT INTO scrap SELECT 1000 * {n} + i FROM generate_series(1, 100) i;
    CREATE UNLOGGED TABLE scrap_{n} AS SELECT i FROM generate_series(1, 100) i;
    UPDATE wide SET body = repeat(md5(n::text || '{n}'), 500) WHERE n % 10 = {n};
    SELECT nextval('steps') FROM generate_series(1, 40);
    SELECT lo_put(1001, 0, 'round {n}'), lo_from_bytea(2000 + {n}, repeat('{n}', 9000)::bytea);
    SELECT lo_unlink(1001 + {n});
    REFRESH MATERIALIZED VIEW summary;
"""

# Each alone: they refuse to run inside a transaction block, or rewrite what others use.
ROUND_ALONE = (
    "VACUUM FULL frozen",
    "VACUUM doomed",
    "CREATE DATABASE log_{n} STRATEGY wal_log",
    "CREATE DATABASE copy_{n} STRATEGY file_copy",
    "ALTER TABLE round_{n} SET TABLESPACE \"ferne Räume\"",
    "CREATE INDEX CONCURRENTLY ON frozen (touched)",
    "CLUSTER in_space USING in_space_pkey",
    "CHECKPOINT",
)

MARKED = """
    UPDATE frozen SET body = 'marked {name}', touched = -{n} WHERE n % 11 = {n};
    DELETE FROM wide WHERE n = {n};
    DROP TABLE round_{n};
    CREATE TABLE marked_{n} AS SELECT i FROM generate_series(1, 1000) i;
    TRUNCATE doomed;
    SELECT lo_from_bytea(3000 + {n}, 'marked'::bytea);
"""

TIME = "SELECT to_char(({}) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"


@dataclasses.dataclass
class Mark:
    """One transaction, and what every table held on both sides of it."""

    name: str
    before: dict
    after: dict
    xid: str
    commit_time: str
    later_time: str  # after the commit, before anything else happens
    commit_lsn: str  # where its commit record begins
    next_lsn: str    # where the record after it begins

    def target(self, how):
        """Options of restore, and which side they must give."""
        return {
            "time": (["--type=time", "--target", self.commit_time], self.after),
            "time-exclusive": (["--type=time", "--target", self.commit_time, "--target-exclusive"],
                               self.before),
            "later-time": (["--type=time", "--target", self.later_time], self.after),
            "xid": (["--type=xid", "--target", self.xid], self.after),
            "xid-exclusive": (["--type=xid", "--target", self.xid, "--target-exclusive"], self.before),
            "lsn": (["--type=lsn", "--target", self.commit_lsn], self.after),
            "lsn-exclusive": (["--type=lsn", "--target", self.commit_lsn, "--target-exclusive"],
                              self.before),
            "next-lsn-exclusive": (["--type=lsn", "--target", self.next_lsn, "--target-exclusive"],
                                   self.after),
            "name-before": (["--type=name", "--target", f"before {self.name}"], self.before),
            "name-after": (["--type=name", "--target", f"after {self.name}"], self.after),
        }[how]


def commit_record(cluster, xid, begin):
    """Where behind `begin` the commit of a transaction begins: the server may have logged something before it.

    It is flushed. What comes behind it may not be, and is not read.
    """
    timeline = int(cluster.value("SELECT pg_walfile_name(%s::pg_lsn)", begin)[:8], 16)
    told = must(cluster.bin / "pg_waldump", "-p", cluster.data / "pg_wal", "-t", timeline, "-s", begin,
                "-n", 1, "-r", "Transaction", "-x", xid)
    (lsn,) = re.findall(r"lsn: ([0-9A-F/]+), prev [0-9A-F/]+, desc: COMMIT ", told)
    return lsn


def write_mark(cluster, name, n):
    """Runs the marked transaction."""
    before = digest(cluster)
    cluster.sql("SELECT pg_create_restore_point(%s)", f"before {name}")
    connection = cluster.connect()
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()::text")
            (xid,) = cursor.fetchone()
            cursor.execute(MARKED.format(n=n, name=name))
            cursor.execute("SELECT pg_current_wal_insert_lsn()::text")
            (before_commit,) = cursor.fetchone()
        connection.commit()
    finally:
        connection.close()
    next_lsn = cluster.value("SELECT pg_current_wal_insert_lsn()::text")
    commit_lsn = commit_record(cluster, xid, before_commit)
    commit_time = cluster.value(TIME.format("pg_xact_commit_timestamp(%s::xid)"), xid)
    later_time = cluster.value(TIME.format("clock_timestamp()"))
    cluster.sql("SELECT pg_create_restore_point(%s)", f"after {name}")
    return Mark(name, before, digest(cluster), xid, commit_time, later_time, commit_lsn, next_lsn)


def write_round(cluster, n):
    """Ordinary life with much DDL."""
    cluster.sql(ROUND.format(n=n))
    for statement in ROUND_ALONE:
        cluster.sql(statement.format(n=n))
    cluster.sql("CREATE TABLE here AS SELECT i FROM generate_series(1, 500) i", database=f"log_{n}")
    cluster.sql("CREATE TABLE here AS SELECT i FROM generate_series(1, 900) i", database=f"copy_{n}")
    if n > 1:
        cluster.sql(f"DROP DATABASE log_{n - 1}")


def make_big_relation(cluster):
    """A relation of more than one file with a hole of unwritten pages, as a crash during extension leaves it.

    The server is restarted.
    """
    cluster.sql("CREATE TABLE big (n int, body text); ALTER TABLE big ALTER body SET STORAGE PLAIN")
    fill = "INSERT INTO big SELECT n, repeat(md5(n::text), 120) FROM generate_series(%s, %s) n"
    cluster.sql(fill, 1, 15000)
    path = cluster.data / cluster.value("SELECT pg_relation_filepath('big')")
    cluster.stop()
    assert path.stat().st_size > HOLE_AFTER_BYTES
    os.truncate(path, FIRST_FILE_BYTES)
    second = path.with_name(path.name + ".1")
    second.touch(mode=0o600)
    os.chown(second, path.stat().st_uid, path.stat().st_gid)
    os.truncate(second, HOLE_AFTER_BYTES)
    cluster.start()
    cluster.sql(fill, 100001, 103000)
    assert cluster.value("SELECT pg_relation_size('big')") > FIRST_FILE_BYTES + HOLE_AFTER_BYTES


def add_to_big_relation(cluster, n):
    """Rows into the hole, whose pages the free space map has learned of, and beyond the end."""
    if n == 1:
        cluster.sql("VACUUM big")
    cluster.sql("INSERT INTO big SELECT %s * 1000000 + i, repeat(md5(i::text), 120) "
                "FROM generate_series(1, 2000) i", n)
    cluster.sql("UPDATE big SET body = 'changed' WHERE n %% 1009 = %s", n)


class History:
    """The cluster, its repository, and the marks by name."""

    def __init__(self, shop, name, big=False, **initdb):
        self.big = big
        self.cluster, self.pgcairn = shop.archiving_server(name, **initdb)
        for space in ("near", "ferne Räume"):
            place = shop.new_directory(f"{name}-{space}")
            self.cluster.sql(f"CREATE TABLESPACE \"{space}\" LOCATION '{place}'")
        self.marks = {}
        self.round = 0
        self.before_backup()
        self.backup = self.back_up_under_load()

    def spaces(self):
        return [oid for (oid,) in self.cluster.sql(
            "SELECT oid FROM pg_tablespace WHERE oid >= 16384 ORDER BY 1")]

    def before_backup(self):
        """Frozen and checkpointed: replay's page images would hide what a backup loses."""
        self.cluster.sql(BEFORE_BACKUP)
        if self.big:
            make_big_relation(self.cluster)
        self.cluster.pgbench("-i", "-q", "-s", "1")
        self.cluster.sql("VACUUM FREEZE")
        self.cluster.sql("CHECKPOINT")
        self.oids = self.spaces()

    def back_up_under_load(self):
        """A full backup while rows, tables and databases change."""
        stop = threading.Event()
        rounds = []

        def churn():
            while not stop.is_set() or not rounds:
                self.cluster.pgbench("-n", "-t", "100")
                self.cluster.sql("CREATE TABLE churn AS SELECT * FROM doomed; DROP TABLE churn")
                rounds.append(1)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            return self.pgcairn.backup("--label", "during churn")
        finally:
            stop.set()
            thread.join()

    def go_on(self, name):
        """A round of ordinary life, then a marked transaction."""
        self.round += 1
        write_round(self.cluster, self.round)
        if self.big:
            add_to_big_relation(self.cluster, self.round)
        self.marks[name] = write_mark(self.cluster, name, self.round)

    def end(self):
        """Something after the last mark, all of it archived; the server is stopped."""
        self.cluster.sql("CREATE TABLE after_the_last_mark AS SELECT 1 AS n")
        self.cluster.archive_all()
        self.cluster.stop()

    def restore(self, shop, *arguments, expect=0):
        """Restores beside the original, each tablespace into a place of its own."""
        maps = []
        for oid in self.oids:
            maps += ["--tablespace-map", f"{oid}={shop.new_directory()}"]
        return shop.restore(self.pgcairn, *arguments, *maps, expect=expect)
