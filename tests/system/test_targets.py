"""targets finds the moment before an accident, and the command that it prints brings the table back.

One server lives through accidents of every kind; what each table held just before is on record.
"""

import re
import shlex

import pytest

from support.compare import digest_database
from support.cluster import lsn_number, pg_major
from support.pgcairn import NOT_FOUND, OK, USAGE, last_object
from support.process import explain, must, run

SETUP = """
    CREATE TABLE dropped (n int PRIMARY KEY, body text);
    CREATE TABLE emptied (n int PRIMARY KEY, body text);
    CREATE TABLE updated (n int PRIMARY KEY, body text);
    CREATE TABLE rewritten (n int PRIMARY KEY, body text);
    CREATE TABLE twofold (n int PRIMARY KEY, body text);
    CREATE TABLE "Odd ""name" (n int);
    CREATE SCHEMA other;
    CREATE TABLE other.dropped (n int);
    CREATE TABLE swapped (n int);
    CREATE TABLE calm (n int);
    CREATE TABLE parts (n int, body text) PARTITION BY RANGE (n);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (500);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (500) TO (100000);
    INSERT INTO parts SELECT n, 'row ' || n FROM generate_series(1, 1000) n;
    INSERT INTO "Odd ""name" SELECT generate_series(1, 100);
    INSERT INTO other.dropped SELECT generate_series(1, 10);
    INSERT INTO swapped SELECT generate_series(1, 10);
    INSERT INTO calm SELECT generate_series(1, 10);
"""
FILLED = ("dropped", "emptied", "updated", "rewritten", "twofold")
FILL = "INSERT INTO {} SELECT n, repeat(md5(n::text || '{}'), 3) FROM generate_series(1, 3000) n"


class Past:
    """The server, its repository, and the digest of a table before each accident."""

    def __init__(self, cluster, pgcairn):
        self.cluster = cluster
        self.pgcairn = pgcairn
        self.before = {}
        self.times = {}

    def accident(self, name, statement, table, database="postgres"):
        """Runs it, with other transactions right before and after."""
        cluster = self.cluster
        cluster.sql("INSERT INTO calm VALUES (1)")
        self.before[name] = digest_database(cluster, database)[f"table {table}"]
        self.times[name] = cluster.value("SELECT clock_timestamp()::text")
        if "\n" in statement:
            cluster.script(statement)
        else:
            cluster.sql(statement)
        cluster.sql("INSERT INTO calm VALUES (2)")


def make_past(shop):
    cluster, pgcairn = shop.archiving_server("past", wal_segsize=1)
    cluster.script(SETUP)
    for table in FILLED:
        cluster.sql(FILL.format(table, table))
    cluster.sql("CREATE DATABASE shop")
    cluster.sql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 2000) n", database="shop")
    past = Past(cluster, pgcairn)
    pgcairn.backup()
    cluster.sql("UPDATE dropped SET body = 'newer than the backup' WHERE n % 3 = 0")
    cluster.sql("SELECT pg_create_restore_point('before ''the'' accidents')")

    past.accident("truncate", "TRUNCATE emptied", "public.emptied")
    past.accident("update", "UPDATE updated SET body = 'lost'", "public.updated")
    past.accident("drop", "DROP TABLE dropped", "public.dropped")
    past.accident("rewrite", "ALTER TABLE rewritten ALTER n TYPE bigint", "public.rewritten")
    cluster.sql("VACUUM FULL twofold")
    cluster.sql("TRUNCATE twofold")
    cluster.sql(FILL.format("twofold", "again"))
    past.accident("truncated and dropped", "DROP TABLE twofold", "public.twofold")
    past.accident("quoted", 'DROP TABLE "Odd ""name"', 'public."Odd ""name"')
    past.accident("partitioned", "DROP TABLE parts", "public.parts_high")
    past.accident("swapped", "BEGIN;\nDROP TABLE swapped;\nCREATE TABLE swapped (n int);\nCOMMIT;",
                  "public.swapped")
    cluster.sql("SELECT pg_create_restore_point('twice')")
    past.accident("database", "DROP DATABASE shop", "public.orders", "shop")
    cluster.sql("SELECT pg_create_restore_point('twice')")
    cluster.archive_all()
    return past


@pytest.fixture(scope="module")
def past(module_workshop):
    return make_past(module_workshop)


def ask(past, *question, expect=OK):
    return past.pgcairn.json("targets", *question, expect=expect, cwd=past.pgcairn.directory)


def printed_command(past, *question):
    """The last command that the text shows."""
    text = past.pgcairn.run("targets", *question, cwd=past.pgcairn.directory).stdout
    return re.findall(r"^  (/\S+/pgcairn restore .*)$", text, re.MULTILINE)[-1]


def restore_as_printed(workshop, command):
    """Pastes it into a shell, starts what it wrote; the cluster and its directory."""
    result = run("sh", "-c", command, cwd=workshop.directory)
    assert result.returncode == OK, explain([command], result)
    to = [word[len("--to="):] for word in shlex.split(command) if word.startswith("--to=")][0]
    restored = workshop.cluster(data=to)
    return restored.start_restored()


def table_of(cluster, table, database="postgres"):
    return digest_database(cluster, database).get(f"table {table}")


def test_a_dropped_table_comes_back_exactly(past, workshop):
    to = workshop.directory / "copy of it's"
    command = printed_command(past, "--before-drop", "public.dropped", "--to", to)
    restored = restore_as_printed(workshop, command)
    assert restored.data == to
    assert table_of(restored, "public.dropped") == past.before["drop"]
    assert table_of(restored, "public.updated") != past.before["update"]


def test_a_truncated_table_comes_back_exactly(past, workshop):
    command = printed_command(past, "--before-truncate", "emptied")
    assert "--target-exclusive" in command
    restored = restore_as_printed(workshop, command)
    assert table_of(restored, "public.emptied") == past.before["truncate"]


def test_a_mass_update_is_found_by_its_time_and_undone(past, workshop):
    found = ask(past, "--around", past.times["update"], "--count", 5)
    most = max(found["moments"], key=lambda moment: moment["records"])
    assert most["records"] > 3000 and most["kind"] == "commit"
    times = [moment["time"] for moment in found["moments"]]
    assert any(time < past.times["update"] for time in times)
    restored = restore_as_printed(workshop, most["restore"])
    assert table_of(restored, "public.updated") == past.before["update"]


def test_what_around_prints_is_just_before_the_first_one_after_the_time(past, workshop):
    restored = restore_as_printed(workshop, printed_command(past, "--around", past.times["update"],
                                                            "--to", workshop.directory / "data"))
    assert table_of(restored, "public.updated") == past.before["update"]


def test_a_table_that_had_other_files_before_it_was_dropped(past, workshop):
    command = printed_command(past, "--before-drop", "twofold")
    restored = restore_as_printed(workshop, command)
    assert table_of(restored, "public.twofold") == past.before["truncated and dropped"]


def test_a_dropped_database_comes_back_and_lets_people_in(past, workshop):
    command = printed_command(past, "--before-drop-database", "shop")
    restored = restore_as_printed(workshop, command)
    assert table_of(restored, "public.orders", "shop") == past.before["database"]
    # Its tables lead to the same moment.
    assert printed_command(past, "--before-drop", "shop.public.orders") == command


def test_a_rewritten_table_and_its_file(past, workshop):
    rewritten = ask(past, "--before-truncate", "rewritten")["moments"][-1]
    by_file = ask(past, "--relfilenode",
                  f"{rewritten['database_oid']}/{rewritten['relfilenode']}")["moments"][-1]
    assert by_file["lsn"] == rewritten["lsn"]
    assert by_file["what"] == "postgres.public.rewritten"
    restored = restore_as_printed(workshop, by_file["restore"])
    assert table_of(restored, "public.rewritten") == past.before["rewrite"]
    assert restored.value("SELECT atttypid::regtype::text FROM pg_attribute"
                          " WHERE attrelid = 'rewritten'::regclass AND attname = 'n'") == "integer"


@pytest.mark.parametrize("table, accident, what", [
    ('"Odd ""name"', "quoted", 'postgres.public.Odd "name'),
    ("PARTS", "partitioned", "postgres.public.parts"),
])
def test_names_are_read_as_in_sql(past, table, accident, what):
    found = ask(past, "--before-drop", table)["moments"]
    assert [moment["what"] for moment in found] == [what]
    assert found[0]["kind"] == "dropped" and found[0]["reachable"]
    assert found[0]["time"] >= past.times[accident]


def test_a_table_that_is_still_there_was_not_dropped(past):
    answer = past.pgcairn.run("targets", "--before-drop", "other.dropped", expect=NOT_FOUND)
    assert "was not dropped" in answer.stderr
    answer = past.pgcairn.run("targets", "--before-drop", "no_such_table", expect=NOT_FOUND)
    assert "no backup on this timeline knows" in answer.stderr
    past.pgcairn.run("targets", "--before-drop", "a.b.c.d", expect=USAGE)
    past.pgcairn.run("targets", "--before-drop", "a", "--around", "2026-01-01 00:00+00",
                     expect=USAGE)


def test_what_cannot_be_told_apart_is_said(past):
    """A transaction that drops a table and makes another looks like one that rewrote it."""
    found = ask(past, "--before-drop", "swapped")
    assert [moment["kind"] for moment in found["moments"]] == ["rewritten"]
    assert "no DROP of it alone" in found["note"]
    assert found["moments"][0]["time"] >= past.times["swapped"]


def test_restore_points_are_listed_with_commands(past, workshop):
    points = ask(past, "--restore-points")["moments"]
    names = [point["what"] for point in points]
    assert names[0] == "before 'the' accidents" and names.count("twice") == 2
    assert names[-1] == "switch"
    by_name = {point["what"]: point["restore"] for point in points}
    assert "--name=" in by_name["before 'the' accidents"]
    assert "--lsn=" in by_name["twice"]  # two of that name: restore would refuse it
    restored = restore_as_printed(workshop, by_name["before 'the' accidents"])
    assert table_of(restored, "public.emptied") == past.before["truncate"]
    assert len(ask(past, "--restore-points", "--count=1")["moments"]) == 1


def test_the_tree_of_windows(past, workshop):
    tree = ask(past)
    (timeline,) = tree["timelines"]
    (window,) = timeline["windows"]
    backup = past.pgcairn.backups()[0]
    assert window["from_lsn"] == backup["stop_lsn"] and window["backup"] == backup["label"]
    assert lsn_number(window["to_lsn"]) > lsn_number(window["from_lsn"])
    assert timeline["holes"] == []
    restored = restore_as_printed(workshop, printed_command(past))
    assert table_of(restored, "public.emptied") == (0, "0")


def test_a_hole_is_a_hole_and_a_fork_a_branch(workshop):
    cluster, pgcairn = workshop.archiving_server("forked", wal_segsize=1)
    first = pgcairn.backup()
    names = [cluster.switch_wal() for _ in range(4)]
    cluster.archive_all()
    pgcairn.backup()
    cluster.archive_all()
    stop_lsn = cluster.value("SELECT pg_current_wal_lsn()::text")
    cluster.archive_all()
    cluster.stop()
    restored = workshop.restore(pgcairn, "--as=original", f"--lsn={stop_lsn}",
                                "--target-action=promote")
    restored.start_restored()
    restored.archive_all()
    restored.stop()
    (gone,) = pgcairn.objects(f"**/{names[2]}*")
    gone.unlink()

    one, two = pgcairn.json("targets")["timelines"]
    assert [hole["first_segment"] for hole in one["holes"]] == [names[2]]
    assert not one["holes"][0]["acknowledged"]
    assert [window["backup"] for window in one["windows"]][0] == first["label"]
    assert len(one["windows"]) == 2
    assert lsn_number(one["windows"][0]["to_lsn"]) <= lsn_number(one["holes"][0]["start_lsn"])
    assert two["parent"] == 1 and two["windows"][0]["inherited"]
    text = pgcairn.run("targets").stdout
    assert f"HOLE {one['holes'][0]['start_lsn']}" in text
    assert re.search(r"^  timeline 2, left 1 at ", text, re.MULTILINE)
    assert "--target-timeline=2" in text


def test_names_of_databases_that_may_not_be_entered_are_said(workshop):
    cluster, pgcairn = workshop.archiving_server("barred")
    cluster.sql("CREATE DATABASE barred")
    cluster.sql("REVOKE CONNECT ON DATABASE barred FROM PUBLIC")
    cluster.sql("CREATE TABLE here (n int)")
    backup = pgcairn.backup()
    details = pgcairn.json("info", "--set", backup["label"])
    assert [text for text in details["warnings"] if "'barred'" in text]
    cluster.sql("DROP TABLE here")
    cluster.archive_all()
    assert len(pgcairn.json("targets", "--before-drop", "here")["moments"]) == 1


def fill(cluster, table, rows):
    cluster.sql(f"INSERT INTO {table} SELECT generate_series(1, {rows})")


def test_the_newest_names_before_the_event_tell_the_file(workshop):
    """One name, three tables: dropped and made anew between backups, and after the newest one."""
    cluster, pgcairn = workshop.archiving_server("names")
    place = workshop.new_directory("place")
    cluster.sql(f"CREATE TABLESPACE place LOCATION '{place}'")
    cluster.sql("CREATE TABLE t (n int) TABLESPACE place")
    fill(cluster, "t", 100)
    pgcairn.backup()
    expected = table_of(cluster, "public.t")
    cluster.sql("DROP TABLE t")
    cluster.sql("CREATE TABLE t (n int)")
    fill(cluster, "t", 200)
    pgcairn.json("backup", "--type=incr", "--start-fast")
    cluster.sql("CREATE TABLE young (n int)")
    fill(cluster, "young", 300)
    young = table_of(cluster, "public.young")
    cluster.sql("TRUNCATE young")
    cluster.archive_all()

    (dropped,) = pgcairn.json("targets", "--before-drop", "t", "--to",
                              workshop.directory / "back")["moments"]
    assert dropped["backup"] == pgcairn.backups()[0]["label"]
    restored = restore_as_printed(workshop, dropped["restore"])
    assert table_of(restored, "public.t") == expected
    workshop.discard(restored)

    # No backup knows it; the running server does.
    pgcairn.run("targets", "--before-truncate", "young", "--no-server", expect=NOT_FOUND)
    (emptied,) = pgcairn.json("targets", "--before-truncate", "young", "--to",
                              workshop.directory / "again")["moments"]
    restored = restore_as_printed(workshop, emptied["restore"])
    assert table_of(restored, "public.young") == young


def test_each_timeline_has_its_own_accidents(workshop):
    cluster, pgcairn = workshop.archiving_server("lines")
    cluster.sql("CREATE TABLE t (n int)")
    fill(cluster, "t", 10)
    pgcairn.backup()
    cluster.archive_all()
    fork = cluster.value("SELECT pg_current_wal_lsn()::text")
    fill(cluster, "t", 20)
    expected = table_of(cluster, "public.t")
    cluster.sql("DROP TABLE t")
    cluster.archive_all()
    cluster.stop()
    second = workshop.restore(pgcairn, "--as=original", f"--lsn={fork}", "--target-action=promote")
    second.start_restored()
    fill(second, "t", 5)
    second.archive_all()
    second.stop()

    answer = pgcairn.run("targets", "--before-drop", "t", expect=NOT_FOUND)
    assert "was not dropped" in answer.stderr
    (dropped,) = pgcairn.json("targets", "--before-drop", "t", "--target-timeline=1", "--to",
                              workshop.directory / "back")["moments"]
    assert "--target-timeline=1" in dropped["restore"]
    assert table_of(restore_as_printed(workshop, dropped["restore"]), "public.t") == expected


@pytest.fixture(scope="module")
def indexed(module_workshop):
    """WAL that passes from one log file into the next, with a drop in the first, indexed."""
    cluster = module_workshop.cluster("indexed").initdb(wal_segsize=1)
    must(cluster.bin / "pg_resetwal", "-l", "000000010000000000000FF8", "-D", cluster.data)
    pgcairn = module_workshop.pgcairn(cluster, name="indexed-repo")
    cluster.archive_with(pgcairn)
    cluster.start()
    cluster.make_role()
    pgcairn.init()
    cluster.sql("CREATE TABLE gone AS SELECT n FROM generate_series(1, 1000) n")
    pgcairn.backup()
    cluster.sql("DROP TABLE gone")
    while not cluster.switch_wal().startswith("0000000100000001"):
        pass
    cluster.archive_all()
    return cluster, pgcairn


def index_objects(pgcairn):
    return pgcairn.objects("c/main/cat/**/*")


def test_the_recovery_index_is_used_and_never_needed(indexed):
    _, pgcairn = indexed
    plain = pgcairn.json("targets", "--before-drop", "gone")
    assert plain["segments"]["indexed"] == 0 and index_objects(pgcairn) == []
    report = pgcairn.json("verify", "--reindex")
    assert (report["logs"], report["written"]) == (1, 1)
    (made,) = index_objects(pgcairn)
    told = pgcairn.json("targets", "--before-drop", "gone")
    assert told["moments"] == plain["moments"]
    assert told["segments"]["indexed"] > 0 and told["segments"]["decoded"] == 0

    assert pgcairn.json("verify", "--reindex")["written"] == 0  # what is right stays
    content = bytearray(made.read_bytes())
    content[len(content) // 2] ^= 1
    made.chmod(0o640)
    made.write_bytes(content)
    done = pgcairn.run("targets", "--before-drop", "gone", "--output=json")
    assert "recovery index" in done.stderr and "--reindex" in done.stderr
    assert last_object(done.stdout)["moments"] == plain["moments"]
    assert pgcairn.json("verify", "--reindex")["written"] == 1
    (anew,) = index_objects(pgcairn)
    assert anew.name == made.name.replace(".1", ".2")
    assert pgcairn.json("targets", "--before-drop", "gone")["segments"]["indexed"] > 0
    pgcairn.run("verify")
    pgcairn.run("collect")


def test_versions_agree(past):
    assert ask(past)["major"] == pg_major()
