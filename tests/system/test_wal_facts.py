"""The facts of a segment against what pg_waldump and, from 17 on, the server's own summaries say."""

import subprocess

import pytest

from test_wal_reader import (  # noqa: F401 (make_directories is a fixture)
    SEGMENT_SIZE, Cluster, lsn, make_directories, our_view, server_view, wal_dump_program, workload,
)

# WalEventKind
RESTORE_POINT, CHECKPOINT, SWITCH, PARAMETERS, BACKUP_END = 1, 2, 4, 5, 6
DROPPED, REWRITTEN, TRUNCATED, TABLE_TRUNCATED, DATABASE_DROPPED, DATABASE_CREATED, RELMAP = range(32, 39)
CREATED = 64
LOST = 0b0011_1110  # WAL_FACTS_..._LOST


class Facts:
    """What wal-dump --facts prints of one segment."""

    def __init__(self, line):
        words = line.split()
        self.start, self.flags, self.records = lsn(words[1]), int(words[3]), int(words[5])
        self.first, self.last, self.end = lsn(words[7]), lsn(words[9]), lsn(words[11])
        self.joined = words[13] == "1"
        self.spans, self.events, self.forks = {}, [], {}

    def take(self, line):
        what, *words = line.split(" ")
        if what == "event":
            self.events.append((lsn(words[0]), *(int(word) for word in words[1:4]), *words[4:]))
        elif what == "fork":
            blocks = set() if words[5] == "-" else {int(block) for block in words[5].split(",")}
            self.forks[words[0]] = (int(words[2]), words[4] == "1", blocks)
        else:
            self.spans[what] = [int(word) for word in words]


def facts_of(cluster, timeline, start, end):
    done = subprocess.run(
        [str(wal_dump_program()), "--facts", str(cluster.wal), str(timeline), start, end, str(SEGMENT_SIZE),
         str(cluster.major()), cluster.control("Database system identifier")],
        capture_output=True, text=True, check=True, timeout=300, errors="surrogateescape",
    )
    segments = []
    for line in done.stdout.splitlines():
        if line.startswith("segment "):
            segments.append(Facts(line))
        else:
            segments[-1].take(line)
    return segments


def in_segment(records, start):
    return [record for record in records if start <= record[0] < start + SEGMENT_SIZE]


def expected_span(records, kind):
    ends = [record[5].split() for record in records if record[5].startswith(kind + " ")]
    xids, times = [int(end[1]) for end in ends], [int(end[2]) for end in ends]
    return [len(ends), min(times), max(times), min(xids), max(xids)] if ends else [0, 0, 0, 0, 0]


def expected_events(records):
    """(lsn, kind) of what no limit cuts off."""
    kinds = {
        "restore-point": RESTORE_POINT, "checkpoint": CHECKPOINT, "switch": SWITCH,
        "parameter-change": PARAMETERS, "backup-end": BACKUP_END, "relmap-update": RELMAP,
        "database-create": DATABASE_CREATED,
    }
    for start, _, _, _, _, details, lists, _ in records:
        kind = details.split(" ")[0]
        if kind in kinds:
            yield start, kinds[kind]
        elif kind == "relation-truncate" and details.split()[3] == "1":
            yield start, TRUNCATED
        elif kind == "relation-create" and details.endswith("/0"):
            yield start, CREATED
        elif kind in ("table-truncate", "database-drop"):
            for _ in lists.split(","):
                yield start, TABLE_TRUNCATED if kind == "table-truncate" else DATABASE_DROPPED
        elif kind == "commit":
            for item in lists.split(","):
                if item.startswith("r"):
                    yield start, DROPPED


def expected_forks(records):
    """Changed blocks of each fork, with the cuts taken in order."""
    forks = {}

    def cut(relation, fork, limit):
        name = f"{relation}/{fork}"
        forks[name] = {block for block in forks.get(name, ()) if block < limit}
        if fork == 0 and limit == 0:
            for other in (2, 3):
                if f"{relation}/{other}" in forks:
                    forks[f"{relation}/{other}"] = set()

    for _, _, _, _, _, details, lists, blocks in records:
        words = details.split()
        for block in blocks.split(",") if blocks != "-" else ():
            name, _, number = block.rpartition("/")
            if not name.endswith("/1"):
                forks.setdefault(name, set()).add(int(number))
        if words[0] == "relation-create" and not words[1].endswith("/1"):
            relation, _, fork = words[1].rpartition("/")
            cut(relation, int(fork), 0)
        elif words[0] == "relation-truncate" and words[3] == "1":
            cut(words[1], 0, int(words[2]))
        elif words[0] in ("commit", "abort"):
            for item in lists.split(","):
                if item.startswith("r"):
                    cut(item[1:], 0, 0)
        elif words[0] == "database-create":
            cut(words[1] + "/0", 0, 0)
        elif words[0] == "database-drop":
            for item in lists.split(","):
                cut(f"{item[1:]}/{words[1]}/0", 0, 0)
    return forks


def last_record(records):
    return f"0/{records[-1][0]:X}"


def test_facts_say_what_pg_waldump_says(directories):
    """Each segment of an ordinary life, joined with the next one where a record crosses."""
    cluster = Cluster(directories())
    cluster.initdb()
    cluster.start()
    workload(cluster)
    cluster.stop()

    records, _ = server_view(cluster, 1, cluster.first_lsn())
    segments = facts_of(cluster, 1, cluster.first_lsn(), last_record(records))
    crossing = 0
    for facts in segments[:-1]:
        expected = in_segment(records, facts.start)
        assert facts.joined
        crossing += bool(expected) and facts.end > facts.start + SEGMENT_SIZE
        assert facts.records == len(expected)
        assert (facts.first, facts.last) == ((expected[0][0], expected[-1][0]) if expected else (0, 0))
        assert facts.flags & LOST == 0
        assert facts.spans["commits"] == expected_span(expected, "commit")
        assert facts.spans["aborts"] == expected_span(expected, "abort")
        ours = [(event[0], DROPPED if event[1] == REWRITTEN else event[1]) for event in facts.events]
        assert ours == list(expected_events(expected))
        # How a visibility map is cut is not told in numbers.
        ours = {name: blocks for name, (_, _, blocks) in facts.forks.items() if not name.endswith("/2")}
        theirs = {name: blocks for name, blocks in expected_forks(expected).items() if not name.endswith("/2")}
        assert ours == theirs
    assert crossing > 3
    assert any(record[4] > 3 * SEGMENT_SIZE for record in records)


def filenode(cluster, table):
    return int(cluster.sql(f"SELECT pg_relation_filenode('{table}')"))


def events_of(cluster, begin, *kinds):
    records, _ = our_view(cluster, 1, begin)
    segments = facts_of(cluster, 1, begin, last_record(records))
    return [event for facts in segments for event in facts.events
            if event[0] >= lsn(begin) and event[1] in kinds]


def test_accidents_are_found_with_time_and_transaction(directories):
    """What was dropped, truncated and rewritten, by whom and when; what was rolled back is none."""
    cluster = Cluster(directories())
    cluster.initdb()
    cluster.start()
    cluster.sql("CREATE TABLE a (i int); CREATE TABLE b (i int); CREATE TABLE c (i int); CREATE DATABASE d;"
                "INSERT INTO a SELECT generate_series(1, 5000); CHECKPOINT; SELECT pg_switch_wal()")
    nodes = {table: filenode(cluster, table) for table in "abc"}
    database = int(cluster.sql("SELECT oid FROM pg_database WHERE datname = 'd'"))
    begin = cluster.sql("SELECT pg_current_wal_lsn()")
    cluster.sql("BEGIN; DROP TABLE b; ROLLBACK")
    dropper = int(cluster.sql("BEGIN; SELECT pg_current_xact_id(); SAVEPOINT s; DROP TABLE b; COMMIT").split()[0])
    truncater = int(cluster.sql("BEGIN; SAVEPOINT s; TRUNCATE c; RELEASE s; SELECT pg_current_xact_id(); COMMIT")
                    .split()[0])
    new_node = filenode(cluster, "c")
    cluster.sql("DELETE FROM a WHERE i > 100")
    cluster.sql("VACUUM a")
    cluster.sql("DROP DATABASE d")
    cluster.sql("SELECT pg_switch_wal()")
    cluster.stop()

    records, _ = server_view(cluster, 1, begin)
    ends = [(record[0], *record[5].split()) for record in records]
    commits = {int(end[2]): (end[0], int(end[3])) for end in ends if end[1] == "commit"}

    destroyed = events_of(cluster, begin, DROPPED, REWRITTEN, TRUNCATED, DATABASE_DROPPED)
    drop, rewrite, cut, database_drop = destroyed
    assert drop[:5] == (commits[dropper][0], DROPPED, dropper, commits[dropper][1], "committed")
    assert drop[5].endswith(f"/{nodes['b']}")
    assert rewrite[:5] == (commits[truncater][0], REWRITTEN, truncater, commits[truncater][1], "committed")
    assert rewrite[5].endswith(f"/{nodes['c']}") and int(rewrite[8]) == new_node
    assert cut[1] == TRUNCATED and cut[5].endswith(f"/{nodes['a']}") and cut[4] == "committed"
    assert int(cut[7]) < 5
    assert database_drop[1] == DATABASE_DROPPED and database_drop[5] == f"1663/{database}/0"
    # Its files go before it commits: the moment to return to is before the record, not the commit.
    assert database_drop[4] == "committed" and database_drop[0] < commits[database_drop[2]][0]
    assert database_drop[3] == commits[database_drop[2]][1]
    logged = events_of(cluster, begin, TABLE_TRUNCATED)
    assert [(event[2], event[3]) for event in logged] == [(truncater, commits[truncater][1])]


def test_changed_blocks_are_in_the_servers_summaries(directories):
    """From 17 on the server summarises its WAL itself: it must list whatever we list."""
    cluster = Cluster(directories())
    cluster.initdb()
    if cluster.major() < 17:
        pytest.skip("the server has no WAL summaries before 17")
    with open(cluster.data / "postgresql.conf", "a", encoding="ascii") as conf:
        conf.write("summarize_wal = on\nautovacuum = off\n")
    cluster.start()
    workload(cluster)
    cluster.sql("CHECKPOINT")
    cluster.sql("CREATE TABLE after_all (i int); CHECKPOINT")
    cluster.sql("""DO $$ BEGIN FOR i IN 1..600 LOOP
        EXIT WHEN (SELECT summarized_lsn FROM pg_get_wal_summarizer_state()) >=
                  (SELECT redo_lsn FROM pg_control_checkpoint());
        PERFORM pg_sleep(0.1); END LOOP; END $$""")
    ranges = [line.split("|") for line in cluster.sql(
        "SELECT tli, start_lsn, end_lsn FROM pg_available_wal_summaries() ORDER BY start_lsn").splitlines()]
    theirs = set(cluster.sql(
        "SELECT format('%s/%s/%s/%s/%s', reltablespace, reldatabase, relfilenode, relforknumber, relblocknumber)"
        " FROM pg_available_wal_summaries() s, pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn)"
        " WHERE NOT is_limit_block").splitlines())
    cluster.stop()

    low, high = lsn(ranges[0][1]), lsn(ranges[-1][2])
    first, last = -(-low // SEGMENT_SIZE) * SEGMENT_SIZE, high // SEGMENT_SIZE * SEGMENT_SIZE
    # A cut in a later segment takes blocks of an earlier one along, as it does within a summary.
    ours = {}
    for facts in facts_of(cluster, 1, f"0/{first:X}", f"0/{last - 1:X}")[:-1]:
        for name, (limit, all_blocks, blocks) in facts.forks.items():
            assert not all_blocks
            kept = {block for block in ours.get(name, ()) if limit < 0 or block < limit}
            ours[name] = kept | blocks
            if limit == 0 and name.endswith("/0"):
                ours.pop(name[:-1] + "3", None)
    count = 0
    for name, blocks in ours.items():
        if name.endswith("/2"):
            continue  # the last block of a visibility map that was cut is in no summary
        missing = {f"{name}/{block}" for block in blocks} - theirs
        assert not missing
        count += len(blocks)
    assert count > 1000
