"""Throw-away PostgreSQL servers: no TCP, no fsync, sockets in the scratch directory."""

import contextlib
import glob
import os
import pathlib
import re
import shutil
import signal
import tempfile

import psycopg2
import pytest

from support.process import WAIT_SECONDS, explain, must, owner, run, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]
PORT = 5432


def pg_bin():
    """PG_BIN, or that of the major version PG, or the newest installed."""
    if os.environ.get("PG_BIN"):
        return pathlib.Path(os.environ["PG_BIN"])
    if os.environ.get("PG"):
        return pathlib.Path(f"/usr/lib/postgresql/{os.environ['PG']}/bin")
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    assert found, "no PostgreSQL server installed; set PG_BIN"
    return pathlib.Path(max(found, key=lambda path: int(path.split("/")[4]))).parent


def pg_major():
    version = must(pg_bin() / "postgres", "--version")
    return int(re.search(r"\d+", version.split("(PostgreSQL)")[1]).group())


def lsn_number(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


class Cluster:
    """One data directory and, between start and stop, its server.

    The directory holds the data directory, the socket and the server's log.
    """

    # checkpoint_timeout keeps checkpoints where tests put them; autovacuum would move digests of
    # statistics and WAL positions under a test's feet.
    SETTINGS = {
        "listen_addresses": "''", "fsync": "off", "autovacuum": "off", "shared_buffers": "'32MB'",
        "max_connections": "20", "checkpoint_timeout": "'1h'", "max_wal_size": "'4GB'",
        "wal_level": "replica", "max_wal_senders": "8", "track_commit_timestamp": "on",
        "log_line_prefix": "'%m [%p] %q%u@%d '", "max_prepared_transactions": "10",
        "wal_compression": "off",
        # A server that is killed leaves POSIX segments in /dev/shm, files in its own directory do no harm.
        "dynamic_shared_memory_type": "mmap",
    }

    def __init__(self, directory, data=None):
        self.directory = pathlib.Path(directory)
        self.data = pathlib.Path(data) if data else self.directory / "data"
        self.log = self.directory / "log"
        self.bin = pg_bin()
        make_directory(self.directory)

    # -- making

    def initdb(self, checksums=True, wal_segsize=16, settings=None, auth="trust"):
        command = [self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", auth, "-N",
                   "--locale=C.UTF-8", "--encoding=UTF8", f"--wal-segsize={wal_segsize}"]
        if checksums:
            command.append("--data-checksums")
        elif pg_major() >= 18:
            command.append("--no-data-checksums")
        must(*command)
        self.configure(**{**self.SETTINGS, **(settings or {})})
        return self

    def configure(self, **settings):
        """Appends to postgresql.conf; values as they stand there, quotes included."""
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def archive_with(self, pgcairn, **settings):
        self.configure(archive_mode="on", archive_command=quoted(pgcairn.archive_command()),
                       **settings)

    # -- running

    def start_result(self, seconds=60):
        """pg_ctl's result, for servers that may refuse to start."""
        return run(self.bin / "pg_ctl", "-D", self.data, "-w", "-t", seconds, "-l", self.log,
                   "-o", f"-k {self.directory} -p {PORT}", "start", timeout=seconds + 30)

    def start(self):
        result = self.start_result()
        if result.returncode != 0:
            pytest.fail(explain([f"start of {self.data}"], result) + self.log_tail())
        return self

    def stop(self, mode="fast"):
        if not self.is_running():
            return
        result = run(self.bin / "pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")
        if result.returncode != 0:
            pytest.fail(explain([f"stop of {self.data}"], result) + self.log_tail())

    def restart(self):
        self.stop()
        self.start()

    def reload(self):
        must(self.bin / "pg_ctl", "-D", self.data, "reload")

    def kill(self):
        """kill -9 of the postmaster; its children see it and end by themselves."""
        pid = self.postmaster_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until("children of the postmaster end", lambda: not self.has_processes())
        # Until its new parent asks how it ended, it counts as running.
        wait_until(f"{pid} is gone", lambda: not os.path.exists(f"/proc/{pid}"))

    def destroy(self):
        """Ends the server in whatever state it is."""
        pid = self.postmaster_pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
        with contextlib.suppress(BaseException):
            wait_until(f"end of {pid}", lambda: not self.is_running(), seconds=10)
        with contextlib.suppress(ProcessLookupError):
            if self.is_running():
                os.kill(pid, signal.SIGKILL)

    def promote(self):
        must(self.bin / "pg_ctl", "-D", self.data, "-w", "promote")
        self.wait_promoted()

    def postmaster_pid(self):
        try:
            return int((self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")[0])
        except (FileNotFoundError, ValueError):
            return None

    def is_running(self):
        pid = self.postmaster_pid()
        if pid is None:
            return False
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state.rsplit(")", 1)[1].split()[0] != "Z"

    def has_processes(self):
        """Whether any process has this data directory as its current one, as servers do."""
        for link in glob.glob("/proc/[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if os.readlink(link) == str(self.data):
                    return True
        return False

    def log_tail(self):
        if not self.log.exists():
            return "\n(no server log)"
        return "\n" + self.log.read_text(encoding="utf-8", errors="replace")[-5000:]

    # -- asking

    def conninfo(self, user="postgres", **more):
        words = {"host": self.directory, "port": PORT, "user": user, "dbname": "postgres", **more}
        return " ".join(f"{name}={value}" for name, value in words.items())

    def connect(self, database="postgres", user="postgres"):
        connection = psycopg2.connect(host=str(self.directory), port=PORT, user=user,
                                      dbname=database)
        connection.autocommit = True
        return connection

    def sql(self, statement, *values, database="postgres", user="postgres"):
        """Rows of a statement, each in a transaction of its own; [] where it gives none."""
        connection = self.connect(database, user)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def value(self, statement, *values, **where):
        return self.sql(statement, *values, **where)[0][0]

    def script(self, text, *options, database="postgres"):
        """psql reads the text; it stops at the first error."""
        return must(self.bin / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *options, "-d",
                    self.conninfo(dbname=database), stdin=text)

    def pgbench(self, *options, database="postgres"):
        return must(self.bin / "pgbench", "-h", self.directory, "-p", PORT, "-U", "postgres",
                    *options, database)

    def make_role(self, role="pgcairn"):
        """The documented least-privilege role."""
        text = (ROOT / "sql/role.sql").read_text(encoding="utf-8")
        self.script(text, "-v", f"role={role}")

    def control(self, name):
        for line in must(self.bin / "pg_controldata", self.data).splitlines():
            if line.startswith(name + ":"):
                return line.split(":", 1)[1].strip()
        raise KeyError(name)

    # -- WAL

    def switch_wal(self):
        """Ends the current segment; its name.

        The position answered may be the end of that segment, which is the next one's since 17, or lie
        behind the next one's page header of 40 bytes, where the record was the last that had room.
        """
        self.sql("SELECT pg_create_restore_point('switch')")
        return self.value("SELECT pg_walfile_name(pg_switch_wal() - 41)")

    @contextlib.contextmanager
    def filled_segment(self, left):
        """So many bytes are left in the current segment, a multiple of 8; nothing else is written meanwhile."""
        writer = self.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'")
        os.kill(writer, signal.SIGSTOP)
        try:
            while self._left_in_segment() > 8192 - 24:
                self._write_record(4096)
            self._write_record(self._left_in_segment() - left)
            assert self._left_in_segment() == left
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(writer, signal.SIGCONT)

    def _left_in_segment(self):
        return self.value("SELECT size - (pg_current_wal_insert_lsn() - '0/0') % size FROM "
                          "(SELECT setting::numeric AS size FROM pg_settings WHERE name = 'wal_segment_size') s")

    def _write_record(self, size):
        """Of so many bytes, page headers not counted; 54 of them are not its content."""
        self.sql("SELECT pg_logical_emit_message(false, '', repeat('x', %s))", size - 54)

    def archive_all(self, seconds=WAIT_SECONDS):
        """Waits until everything written so far is in the archive."""
        name = self.switch_wal()
        wait_until(f"{name} is archived", lambda: self.has_archived(name), seconds)

    def is_all_archived(self):
        """Nothing is ready, so no archive_command runs either."""
        return not any((self.data / "pg_wal/archive_status").glob("*.ready"))

    def has_archived(self, name):
        return (self.data / "pg_wal/archive_status" / f"{name}.done").exists() or not (
            self.data / "pg_wal" / name).exists()

    # -- slots

    def wait_released(self, slot):
        """Whoever streamed has ended; the server sees that a moment later, and drops no slot that is in use."""
        wait_until(f"slot '{slot}' is in use no more", lambda: not self.value(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s AND active", slot))

    def drop_slot(self, slot):
        self.wait_released(slot)
        self.sql("SELECT pg_drop_replication_slot(%s)", slot)

    # -- recovery

    def recovery_state(self):
        """"promoted", "paused" or "not paused"; a server that ended fails the test."""
        if not self.is_running():
            pytest.fail(f"the server of {self.data} ended during recovery{self.log_tail()}")
        try:
            return self.value("SELECT CASE WHEN pg_is_in_recovery() "
                              "THEN pg_get_wal_replay_pause_state() ELSE 'promoted' END")
        except psycopg2.errors.ObjectNotInPrerequisiteState:
            return "promoted"  # between the two functions

    def wait_promoted(self, seconds=120):
        wait_until(f"{self.data} leaves recovery", lambda: self.recovery_state() == "promoted",
                   seconds)

    def wait_paused(self, seconds=120):
        wait_until(f"{self.data} reaches its target", lambda: self.recovery_state() == "paused",
                   seconds)

    def wait_replayed(self, lsn, seconds=120):
        wait_until(f"{self.data} replays {lsn}", lambda: self.value(
            "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn), seconds)

    def start_restored(self):
        """Starts what restore wrote, until it takes writes; a paused recovery is promoted."""
        self.start()
        wait_until(f"{self.data} reaches its target",
                   lambda: self.recovery_state() in ("promoted", "paused"), 120)
        if self.recovery_state() == "paused":
            self.promote()
        return self


def quoted(text):
    """A value for postgresql.conf."""
    return "'" + str(text).replace("'", "''") + "'"


def make_directory(path, mode=0o700):
    """A directory of the server's user."""
    path = pathlib.Path(path)
    if not path.is_dir():
        path.mkdir(parents=True)
    os.chmod(path, mode)
    os.chown(path, *owner())
    return path


def other_file_system(path):
    """A directory on another file system than the path, and not in memory, which is refused."""
    memory = os.stat("/dev/shm").st_dev
    for candidate in ("/var/tmp", "/tmp", "/srv", "/home"):
        if os.path.isdir(candidate) and os.stat(candidate).st_dev not in (os.stat(path).st_dev, memory):
            return make_directory(tempfile.mkdtemp(prefix="pgcairn-overflow-", dir=candidate))
    return None


def remove_tree(path):
    """rm -rf, also where a test took permissions away."""
    def retry(function, name, _):
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            os.chmod(name, 0o700)
            function(name)

    shutil.rmtree(path, onerror=retry)
