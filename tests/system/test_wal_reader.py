"""The WAL reader against pg_waldump, record by record, on the WAL of real servers."""

import calendar
import glob
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

SEGMENT_SIZE = 1 << 20
RMGRS = (
    "XLOG Transaction Storage CLOG Database Tablespace MultiXact RelMap Standby Heap2 Heap Btree Hash "
    "Gin Gist Sequence SPGist BRIN CommitTs ReplicationOrigin Generic LogicalMessage"
).split()


def pg_bin():
    if os.environ.get("PG_BIN"):
        return Path(os.environ["PG_BIN"])
    found = glob.glob("/usr/lib/postgresql/*/bin/pg_waldump")
    if not found:
        pytest.skip("no PostgreSQL server installed; set PG_BIN")
    return Path(max(found, key=lambda path: int(path.split("/")[4]))).parent


def wal_dump_program():
    build = Path(__file__).parents[2] / os.environ.get("BUILD", "build/release")
    program = Path(os.environ.get("WAL_DUMP", build / "tests/wal-dump"))
    assert program.exists(), f"{program} is missing: make {program}"
    return program


def run(*command, **options):
    """Runs a command and returns its output; as user postgres where the tests run as root."""
    if os.geteuid() == 0:
        command = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command)
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd="/", timeout=120, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Cluster:
    """A throw-away server with segments of 1 MB that keeps all its WAL."""

    def __init__(self, directory):
        self.directory = directory
        self.data = directory / "data"
        self.wal = self.data / "pg_wal"
        self.bin = pg_bin()

    def initdb(self):
        run(self.bin / "initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-N", "--wal-segsize=1")
        settings = (
            f"listen_addresses = ''\nunix_socket_directories = '{self.directory}'\nfsync = off\n"
            "max_prepared_transactions = 10\nwal_keep_size = '2GB'\nwal_level = logical\n"
            "max_wal_size = '200MB'\nshared_buffers = '16MB'\nautovacuum = on\n"
        )
        with open(self.data / "postgresql.conf", "a", encoding="ascii") as conf:
            conf.write(settings)

    def start(self):
        # The server must not inherit the pipe that run() reads to its end.
        log = self.directory / "log"
        run(self.bin / "pg_ctl", "-D", self.data, "-w", "-l", log, "start")

    def stop(self, mode="fast"):
        if (self.data / "postmaster.pid").exists():
            run(self.bin / "pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def sql(self, text):
        return run(
            self.bin / "psql", "-h", self.directory, "-U", "postgres", "-XAtq",
            "-v", "ON_ERROR_STOP=1", "-d", "postgres", input=text,
        ).strip()

    def pgbench(self, *options):
        run(self.bin / "pgbench", "-h", self.directory, "-U", "postgres", *options, "postgres")

    def control(self, name):
        for line in run(self.bin / "pg_controldata", self.data).splitlines():
            if line.startswith(name + ":"):
                return line.split(":", 1)[1].strip()
        raise KeyError(name)

    def first_lsn(self, timeline=1):
        """Where the oldest segment of a timeline that pg_wal still has begins."""
        name = min(path.name for path in self.wal.glob(f"{timeline:08X}" + "?" * 16))
        return f"{int(name[8:16], 16):X}/{int(name[16:], 16) * SEGMENT_SIZE:X}"

    def major(self):
        return int(re.search(r"(\d+)", run(self.bin / "postgres", "--version").split()[2]).group(1))

    def clone(self, directory):
        """A standby of this server that follows it by streaming."""
        other = Cluster(directory)
        run(
            self.bin / "pg_basebackup", "-h", self.directory, "-U", "postgres", "-D", other.data,
            "-R", "-c", "fast", "-X", "stream",
        )
        with open(other.data / "postgresql.conf", "a", encoding="ascii") as conf:
            conf.write(f"unix_socket_directories = '{directory}'\n")
        return other


@pytest.fixture(name="directories")
def make_directories():
    """Gives empty directories that the server's user owns; their servers are stopped afterwards."""
    made = []

    def make():
        path = Path(tempfile.mkdtemp(prefix="pgcairn-wal-"))
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(path, user.pw_uid, user.pw_gid)
        made.append(path)
        return path

    yield make
    for path in made:
        Cluster(path).stop("immediate")
        shutil.rmtree(path)


def unix_us(text):
    """Microseconds of '2024-01-01 12:00:00.123456 UTC'."""
    seconds, fraction = re.fullmatch(r"([^.]*)\.(\d{6}) UTC", text).groups()
    return calendar.timegm(time.strptime(seconds, "%Y-%m-%d %H:%M:%S")) * 1_000_000 + int(fraction)


LINE = re.compile(
    r"rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+), tx:\s*(\d+), lsn: (\S+), prev (\S+), desc: (\S+) ?(.*)"
)


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def relation_of(path):
    """(tablespace, database, relfilenode, fork) of a path as pg_waldump prints it."""
    *parts, name = path.split("/")
    node, _, fork = name.partition("_")
    fork = {"": 0, "fsm": 1, "vm": 2, "init": 3}[fork]
    if parts[0] == "global":
        return f"1664/0/{node}", fork
    if parts[0] == "base":
        return f"1663/{parts[1]}/{node}", fork
    return f"{parts[1]}/{parts[3]}/{node}", fork


def expected_lists(rmgr, kind, text):
    """The lists of a record as wal-dump prints them."""
    items = []
    if rmgr == "Transaction" and kind.startswith(("COMMIT", "ABORT")):
        paths = re.search(r"; rels:((?: [^ ;]+)+)", text)
        xids = re.search(r"; subxacts:((?: \d+)+)", text)
        items += [f"r{relation_of(path)[0]}" for path in (paths.group(1).split() if paths else [])]
        items += [f"s{xid}" for xid in (xids.group(1).split() if xids else [])]
    if rmgr == "Heap" and kind == "TRUNCATE":
        oids = re.search(r"(?<!n)relids:? \[?([\d, ]+)", text).group(1)
        items += [f"o{oid}" for oid in re.findall(r"\d+", oids)]
    if rmgr == "Database" and kind == "DROP":
        items += [f"o{spc}" for spc in re.findall(r"(\d+)/\d+", text)]
    return ",".join(items) or "-"


def expected_blocks(text):
    forks = {None: 0, "main": 0, "fsm": 1, "vm": 2, "init": 3}
    blocks = re.findall(r"blkref #\d+: rel (\d+/\d+/\d+) (?:fork (\w+) )?blk (\d+)", text)
    return ",".join(f"{rel}/{forks[fork or None]}/{block}" for rel, fork, block in blocks) or "-"


def expected_change(rmgr, kind, text):
    """Records that make and remove files."""
    if (rmgr, kind) == ("Storage", "CREATE"):
        return "relation-create {}/{}".format(*relation_of(text.split()[0]))
    if (rmgr, kind) == ("Storage", "TRUNCATE"):
        path, blocks, flags = re.match(r"(\S+) to (\d+) blocks flags (\d+)", text).groups()
        return f"relation-truncate {relation_of(path)[0]} {blocks} {int(flags) & 1} {int(flags) >> 1 & 1}"
    if (rmgr, kind) == ("Database", "CREATE_FILE_COPY"):
        return "database-create " + re.search(r" to (\d+/\d+)", text).group(1)
    if (rmgr, kind) == ("Database", "CREATE_WAL_LOG"):
        return "database-create " + re.search(r"create dir (\d+/\d+)", text).group(1)
    if (rmgr, kind) == ("Database", "DROP"):
        return "database-drop " + re.search(r"/(\d+)", text).group(1)
    if (rmgr, kind) == ("Heap", "TRUNCATE"):
        return "table-truncate *"
    if rmgr == "RelMap":
        return "relmap-update {1}/{0}".format(*re.search(r"database (\d+) tablespace (\d+)", text).groups())
    return "other"


def expected_details(rmgr, kind, xid, text):
    """What wal-dump must print for a record that pg_waldump describes as kind and text."""
    if rmgr not in ("XLOG", "Transaction"):
        return expected_change(rmgr, kind, text)
    stamp = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC", text)
    if kind in ("COMMIT", "ABORT"):
        return f"{kind.lower()} {xid} {unix_us(stamp.group())}"
    if kind in ("COMMIT_PREPARED", "ABORT_PREPARED"):
        prepared = re.match(r"(?:gid .*?)?(\d+): ", text).group(1)
        return f"{kind.split('_')[0].lower()} {prepared} {unix_us(stamp.group())}"
    if kind == "RESTORE_POINT":
        return f"restore-point * {text}"
    if kind in ("CHECKPOINT_ONLINE", "CHECKPOINT_SHUTDOWN"):
        redo, tli, prev = re.search(r"redo (\S+); tli (\d+); prev tli (\d+)", text).groups()
        return f"checkpoint {tli} {prev} {lsn(redo)} {int(kind.endswith('SHUTDOWN'))} *"
    if kind == "END_OF_RECOVERY":
        tli, prev = re.search(r"tli (\d+); prev tli (\d+)", text).groups()
        return f"end-of-recovery {tli} {prev} {unix_us(stamp.group())}"
    if kind == "BACKUP_END":
        return f"backup-end {lsn(text)}"
    if kind == "PARAMETER_CHANGE":
        level = re.search(r"wal_level=(\w+)", text).group(1)
        return "parameter-change {}".format(["minimal", "replica", "logical"].index(level))
    if kind == "OVERWRITE_CONTRECORD":
        return "overwrite {}".format(lsn(re.match(r"lsn (\S+);", text).group(1)))
    return "switch" if kind == "SWITCH" else "other"


def server_view(cluster, timeline, start):
    """(lsn, prev, rmgr, xid, size, details, lists, blocks) of every record by pg_waldump, and its last words."""
    done = subprocess.run(
        [str(cluster.bin / "pg_waldump"), "-p", str(cluster.wal), "-t", str(timeline), "-s", start],
        capture_output=True, text=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C"}, timeout=120,
        errors="surrogateescape",
    )
    records = []
    for line in done.stdout.splitlines():
        match = LINE.match(line)
        if not match:
            continue
        rmgr, size, xid, start_lsn, prev, kind, text = match.groups()
        details = expected_details(rmgr, kind, int(xid), text)
        records.append((lsn(start_lsn), lsn(prev), RMGRS.index(rmgr), int(xid), int(size), details,
                        expected_lists(rmgr, kind, text), expected_blocks(text)))
    assert records, done.stderr
    return records, done.stderr


def our_view(cluster, timeline, start):
    """The same by wal-dump, and its last line."""
    done = subprocess.run(
        [str(wal_dump_program()), str(cluster.wal), str(timeline), start, str(SEGMENT_SIZE),
         str(cluster.major()), cluster.control("Database system identifier")],
        capture_output=True, text=True, check=True, timeout=120, errors="surrogateescape",
    )
    records = []
    *lines, last = done.stdout.splitlines()
    for line in lines:
        start_lsn, _, prev, rmgr, _, xid, size, details = line.split(" ", 7)
        details, lists, blocks = details.rsplit(" ", 2)
        kind, _, rest = details.partition(" ")
        if kind == "restore-point":
            details = "restore-point * " + rest.split(" ", 1)[1]
        elif kind == "checkpoint":
            tli, previous, redo, shutdown, _ = rest.split()
            details = f"checkpoint {tli} {previous} {lsn(redo)} {shutdown} *"
        elif kind == "overwrite":
            details = f"overwrite {lsn(rest)}"
        elif kind == "table-truncate":
            details = "table-truncate *"
        elif kind == "backup-end":
            details = f"backup-end {lsn(rest)}"
        records.append((lsn(start_lsn), lsn(prev), int(rmgr), int(xid), int(size), details, lists, blocks))
    return records, last


def assert_same(ours, theirs):
    for mine, server in zip(ours, theirs):
        assert mine == server
    assert len(ours) == len(theirs)


def kinds(records):
    return {record[5].split(" ")[0] for record in records}


def workload(cluster):
    cluster.pgbench("-i", "-s", "1", "-q")
    cluster.pgbench("-c", "4", "-t", "150", "-n")
    cluster.sql("""
        CREATE TABLE wide (id int PRIMARY KEY, body text);
        ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
        INSERT INTO wide SELECT i, repeat('x', i * 37) FROM generate_series(1, 400) i;
        SELECT pg_create_restore_point('before the release');
        BEGIN; INSERT INTO wide VALUES (1001, ''); SAVEPOINT a; INSERT INTO wide VALUES (1002, '');
        ROLLBACK TO a; SAVEPOINT b; INSERT INTO wide VALUES (1003, ''); RELEASE b; COMMIT;
        BEGIN; DELETE FROM wide WHERE id < 10; ROLLBACK;
        BEGIN; CREATE TABLE t1 (a serial); SAVEPOINT x; CREATE TABLE t2 (a int); DROP TABLE t2;
        PREPARE TRANSACTION 'kept with tables';
        BEGIN; INSERT INTO wide VALUES (2001, ''); SAVEPOINT a; INSERT INTO wide VALUES (2002, '');
        CREATE TABLE t3 (a int); PREPARE TRANSACTION 'given up';
        BEGIN; UPDATE wide SET body = 'y' WHERE id = 20; PREPARE TRANSACTION 'plain';
        CHECKPOINT;
        ROLLBACK PREPARED 'given up';
        COMMIT PREPARED 'plain';
        COMMIT PREPARED 'kept with tables';
        DROP TABLE t1;
        SELECT pg_switch_wal();
        SELECT pg_logical_emit_message(true, 'big', repeat('z', 3500000));
        SELECT pg_create_restore_point(repeat('n', 63));
        SELECT pg_switch_wal();
        VACUUM FULL wide; TRUNCATE wide, pgbench_history; REINDEX DATABASE postgres;
        VACUUM FULL pg_class;
        CREATE TABLE shrinking AS SELECT i, repeat('x', 500) AS body FROM generate_series(1, 3000) i;
        VACUUM shrinking; DELETE FROM shrinking WHERE i > 100; VACUUM shrinking;
        CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY); DROP TABLE unlogged;
    """)
    cluster.sql("DO $$ BEGIN FOR i IN 1..300 LOOP BEGIN CREATE TEMP TABLE x (a int); DROP TABLE x; "
                "EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$")
    for strategy in ("wal_log", "file_copy"):
        cluster.sql(f"CREATE DATABASE other STRATEGY {strategy}")
        cluster.sql("DROP DATABASE other")


def test_every_record_is_read_as_the_server_reads_it(directories):
    """Ordinary work of all kinds, from the first record that initdb left to the end."""
    cluster = Cluster(directories())
    cluster.initdb()
    cluster.start()
    workload(cluster)
    run(cluster.bin / "pg_basebackup", "-h", cluster.directory, "-U", "postgres", "-X", "none",
        "-c", "fast", "-D", directories() / "data")
    cluster.stop()

    theirs, _ = server_view(cluster, 1, cluster.first_lsn())
    ours, last = our_view(cluster, 1, cluster.first_lsn())
    assert_same(ours, theirs)
    assert kinds(ours) >= {
        "commit", "abort", "restore-point", "checkpoint", "backup-end", "switch", "relation-create",
        "relation-truncate", "table-truncate", "database-create", "database-drop", "relmap-update",
    }
    lists = {item[0] for record in ours for item in record[6].split(",")}
    assert lists == {"-", "r", "s", "o"}
    forks = {block.split("/")[3] for record in ours for block in record[7].split(",") if block != "-"}
    assert forks == {"0", "1", "2", "3"}
    assert max(record[4] for record in ours) > 3 * SEGMENT_SIZE
    assert len(ours) > 5000
    assert re.match(r"# end \S+ at \S+: ", last)


def test_seeking_to_any_lsn_finds_the_record_that_pg_waldump_finds(directories):
    cluster = Cluster(directories())
    cluster.initdb()
    cluster.start()
    workload(cluster)
    cluster.stop()

    everything, _ = our_view(cluster, 1, cluster.first_lsn())
    for position in range(lsn(cluster.first_lsn()) + 12345, everything[-1][0], 4_321_987):
        ours, _ = our_view(cluster, 1, f"0/{position:X}")
        assert ours == [record for record in everything if record[0] >= position]


def test_a_promotion_is_followed_onto_the_new_timeline(directories):
    """The first segment of timeline 2 holds pages of timeline 1 up to the fork."""
    primary = Cluster(directories())
    primary.initdb()
    primary.start()
    standby = primary.clone(directories())
    standby.start()
    primary.pgbench("-i", "-s", "1", "-q")
    target = primary.sql("SELECT pg_current_wal_flush_lsn()")
    deadline = time.monotonic() + 60
    while standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{target}'") != "t":
        assert time.monotonic() < deadline, "the standby does not catch up"
    run(standby.bin / "pg_ctl", "-D", standby.data, "-w", "promote")
    standby.sql("CREATE TABLE after_promotion (a int)")
    standby.stop()

    history = (standby.wal / "00000002.history").read_text(encoding="utf-8")
    fork = lsn(history.split("\t")[1])
    start = standby.first_lsn()

    old, _ = server_view(standby, 1, start)
    new, _ = server_view(standby, 2, standby.first_lsn(timeline=2))
    ours, _ = our_view(standby, 2, start)
    assert_same(ours, [r for r in old if r[0] < fork] + [r for r in new if r[0] >= fork])
    assert "end-of-recovery" in kinds(ours)


def test_an_interrupted_record_is_passed_over_as_the_server_does(directories):
    """A crash loses the second half of a record; the server overwrites it and goes on."""
    cluster = Cluster(directories())
    cluster.initdb()
    cluster.start()
    cluster.sql("CHECKPOINT; SELECT pg_switch_wal()")
    begin = cluster.sql("SELECT pg_current_wal_insert_lsn()")
    cluster.sql("SELECT pg_logical_emit_message(false, 'torn', repeat('z', 3500000))")
    cluster.sql("SELECT pg_switch_wal()")
    cluster.stop("immediate")
    kept = f"00000001{0:08X}{lsn(begin) // SEGMENT_SIZE:08X}"
    for path in cluster.wal.glob("0" * 7 + "?" * 17):
        if path.name > kept:
            path.unlink()
    cluster.start()
    cluster.sql("CREATE TABLE life_goes_on (a int)")
    cluster.stop()

    theirs, _ = server_view(cluster, 1, cluster.first_lsn())
    ours, _ = our_view(cluster, 1, cluster.first_lsn())
    assert_same(ours, theirs)
    assert not [record for record in ours if record[4] > SEGMENT_SIZE]
    assert "overwrite" in kinds(ours)
    overwritten = run(cluster.bin / "pg_waldump", "-p", cluster.wal, "-s", cluster.first_lsn(), "-e",
                      f"0/{ours[-1][0]:X}", "-r", "XLOG")
    assert "OVERWRITE_CONTRECORD" in overwritten
