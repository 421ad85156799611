"""pgcairn_archive as a real archive_library: under load, and through everything that can go wrong with it."""

import collections
import contextlib
import os
import shutil
import signal
import threading
import time

import psycopg2
import pytest

from support.archive_module import ModuleServer
from support.cluster import make_directory, pg_major, quoted
from support.kill_rounds import chance_of, kill_rounds, report
from support.pgcairn import FAILED, OK
from support.process import has_ended, wait_until


@pytest.fixture(scope="module")
def site(module_workshop):
    """A server that tests leave as they found it: archiving."""
    return ModuleServer(module_workshop, "site", timeout="20s")


def check(server, *arguments, expect=OK):
    report = server.pgcairn.json("check", *arguments, expect=expect)
    return {result["name"]: (result["status"], result["text"]) for result in report["results"]}


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Load(threading.Thread):
    """Rows, each committed and counted, until told to end; a server that crashes is waited for.

    A connection for each segment: an idle postmaster looks only once a minute whether its archiver is
    due again, and a load that does not wait for it would fill the disk.
    """

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.ending, self.committed = cluster, threading.Event(), 0

    def run(self):
        while not self.ending.wait(0.05):
            with contextlib.suppress(psycopg2.Error):
                self.cluster.sql("INSERT INTO t SELECT generate_series(1, 2000)")
                self.committed += 2000
                self.cluster.sql("SELECT pg_switch_wal()")

    def end(self):
        self.ending.set()
        self.join(timeout=60)
        assert not self.is_alive()


# -- archiving


def test_a_load_is_archived_by_one_helper_process(site):
    site.write()
    helper = site.helper()
    archived, failed = site.stat()
    load = Load(site.cluster)
    load.start()
    wait_until("twenty segments more", lambda: site.stat()[0] >= archived + 20)
    load.end()
    site.cluster.archive_all()
    assert site.helper() == helper
    assert site.stat()[1] == failed
    assert site.check_no_gap() >= 20
    wait_until("all are counted", lambda: site.stat()[0] == len(site.stored()))
    site.pgcairn.run("verify")


def test_check_is_content_with_the_module(site):
    found = check(site)
    assert found["archive_library"] == ("OK", str(site.library))
    assert found["wal-arrival"][0] == "OK"
    assert "archive_command" not in found


def test_init_print_shows_the_module(site):
    printed = site.pgcairn.run("init", "--print").stdout
    assert "#archive_library = 'pgcairn_archive'" in printed
    assert f"#pgcairn_archive.config = '{site.pgcairn.config}'" in printed


def test_what_is_ready_is_pushed_ahead_where_there_is_a_spool(workshop):
    server = ModuleServer(workshop)
    spool = make_directory(workshop.directory / "spool")
    server.pgcairn.write_config(general={"spool-path": spool, "log-level": "debug"})
    server.cluster.archive_all()

    def some_was_pushed_ahead():
        """The archiver and the process that works ahead of it share a backlog as the machine likes."""
        with server.archiver_held():
            names = server.write(30)
        server.wait_archived(names[-1])
        return "was pushed ahead" in server.log()

    wait_until("a segment was pushed ahead", some_was_pushed_ahead)
    assert server.stat()[1] == 0
    server.check_no_gap()
    server.pgcairn.run("verify")


# -- settings


def test_changed_settings_are_taken_up_by_a_new_helper(site):
    site.write()
    before = site.helper()
    site.reconfigure(cluster="nobody")
    name, = site.write()
    site.wait_log("nobody")
    assert site.is_ready(name)
    found = check(site, "--no-switch", expect=FAILED)
    assert found["archive_library"][0] == "FAILED" and "cluster" in found["archive_library"][1]
    site.reconfigure(cluster="", timeout="21s")
    site.wait_archived(name)
    assert site.helper() != before
    site.reconfigure(timeout="20s")
    site.check_no_gap()


def test_a_changed_configuration_is_read_again_by_the_same_helper(site):
    def largest(names):
        return max(path.stat().st_size for path in site.pgcairn.objects("c/main/w/*/*/*/*")
                   if path.name in names)

    def filled():
        site.cluster.sql("INSERT INTO t SELECT generate_series(1, 8000)")
        name = site.cluster.switch_wal()
        site.wait_archived(name)
        return name

    packed = filled()
    helper = site.helper()
    site.pgcairn.write_config(repository={"compression": "none"})
    plain = filled()
    site.pgcairn.write_config()
    assert largest([plain]) > 1.3 * largest([packed])
    assert site.helper() == helper


@pytest.mark.parametrize("command, said", [
    ("", "pgcairn_archive.command is not set"),
    ("pgcairn-wal", "pgcairn_archive.command is not an absolute path"),
    ("/nowhere/pgcairn-wal", "unable to start '/nowhere/pgcairn-wal': No such file or directory"),
    ("/bin/false", "its helper process ended with exit code 1"),
    ("/bin/echo", "its helper process ended with exit code 0"),
])
def test_a_wrong_program_is_named_and_nothing_is_lost(site, command, said):
    site.write()
    archiver = site.archiver()
    site.reconfigure(command=command)
    name, = site.write()
    site.wait_log(said)
    assert site.is_ready(name)
    assert site.archiver() == archiver, "the archiver must not die of it"
    found = check(site, "--no-switch", expect=None)
    assert command.endswith("/pgcairn-wal") or found["archive_library"][0] == "FAILED"
    site.reconfigure(command=site.pgcairn.programs.wal)
    site.wait_archived(name)
    site.check_no_gap()


def test_a_program_that_talks_nonsense_is_ended(site, workshop):
    script = workshop.directory / "pgcairn-wal"
    script.write_text("#!/bin/sh\necho 'pgcairn-wal serve 999'\nexec sleep 600\n")
    script.chmod(0o755)
    site.reconfigure(command=script)
    name, = site.write()
    site.wait_log("its helper process does not speak as one")
    assert site.is_ready(name)
    site.reconfigure(command=site.pgcairn.programs.wal)
    site.wait_archived(name)


def test_both_ways_of_archiving_at_once(workshop):
    server = ModuleServer(workshop)
    server.write()
    server.cluster.configure(archive_command=quoted(server.pgcairn.archive_command()))
    server.cluster.reload()
    name, = server.write()
    if pg_major() == 15:
        server.wait_archived(name)
        found = check(server)
        assert found["archive_library"][0] == "WARNING"
        assert "PostgreSQL 15 ignores it" in found["archive_library"][1]
    else:
        server.wait_log("both")
        found = check(server, "--no-switch", expect=FAILED)
        assert found["archive_library"][0] == "FAILED"
        assert "refuses both" in found["archive_library"][1]
        assert server.is_ready(name)
        server.cluster.configure(archive_command="''")
        server.cluster.reload()
        server.wait_archived(name)
    server.check_no_gap()


# -- the repository


def test_an_unreachable_repository_is_waited_for_and_never_written_to_where_it_went(site):
    site.write()
    site.cluster.archive_all()
    helper = site.helper()
    stored = len(site.stored())
    _, failed = site.stat()
    away = site.pgcairn.repository.with_name("away")
    site.pgcairn.repository.rename(away)
    try:
        names = site.write(3)
        wait_until("failures are counted", lambda: site.stat()[1] > failed)
        # The helper still holds the directory open.
        assert len([path for path in away.glob("c/main/w/*/*/*/*")
                    if len(path.name) == 24]) == stored
        assert all(site.is_ready(name) for name in names)
        assert "is the path right" in site.log()
    finally:
        away.rename(site.pgcairn.repository)
    site.wait_archived(names[-1])
    assert site.helper() == helper
    assert site.check_no_gap() == stored + 3


def test_another_server_is_refused(site, workshop):
    stranger = ModuleServer(workshop, init=False)
    shutil.copy(site.pgcairn.config, stranger.pgcairn.config)
    stored = site.stored()
    name, = stranger.write()
    stranger.wait_log("this WAL belongs to system")
    assert "pgcairn init" in stranger.log()
    assert stranger.is_ready(name)
    assert site.stored() == stored


def test_a_clone_is_refused_from_the_moment_it_is_marked(site):
    site.write()
    site.cluster.archive_all()
    identity = site.cluster.data / "pgcairn.identity"
    identity.write_text("role = clone\ncluster =\norigin = main\nbackup = x\nrestored-at = today\n")
    name, = site.write()
    site.wait_log("pgcairn adopt")
    assert site.is_ready(name)
    identity.unlink()
    site.wait_archived(name)


def test_other_content_under_the_name_is_refused(workshop):
    server = ModuleServer(workshop)
    server.cluster.archive_all()
    server.reconfigure(command="")
    name, = server.write()
    wait_until(f"{name} is ready", lambda: server.is_ready(name))
    forged = make_directory(workshop.directory / "forged")
    for below in ("global", "pg_wal"):
        make_directory(forged / below)
    shutil.copy(server.cluster.data / "global/pg_control", forged / "global/pg_control")
    content = bytearray((server.cluster.data / "pg_wal" / name).read_bytes())
    content[100] ^= 1
    (forged / "pg_wal" / name).write_bytes(content)
    if os.geteuid() == 0:
        for path in forged.rglob("*"):
            shutil.chown(path, "postgres", "postgres")
    server.pgcairn.push(forged / "pg_wal" / name)

    server.reconfigure(command=server.pgcairn.programs.wal)
    server.wait_log("stored with other content")
    assert server.is_ready(name)
    wait_until("it is counted", lambda: server.stat()[1] > 0)


# -- the helper's end, and the server's


def test_a_helper_killed_between_two_files_costs_no_failure(site):
    site.write()
    site.cluster.archive_all()
    helper = site.helper()
    _, failed = site.stat()
    os.kill(helper, signal.SIGKILL)
    wait_until("it has ended", lambda: has_ended(helper))
    name, = site.write()
    site.wait_archived(name)
    assert site.helper() != helper
    assert site.stat()[1] == failed
    site.wait_log(f"the helper process {helper} has ended")


def test_a_helper_killed_in_the_middle_is_reported_and_replaced(site):
    site.write()
    site.cluster.archive_all()
    helper = site.helper()
    _, failed = site.stat()
    with stopped(helper):
        name, = site.write()
        wait_until("it has the request", site.waits_for_helper)
        os.kill(helper, signal.SIGKILL)
        site.wait_log("its helper process was ended by signal 9")
    site.wait_archived(name)
    assert site.stat()[1] > failed
    assert site.helper() != helper
    site.check_no_gap()


def test_a_helper_that_hangs_is_killed_at_the_timeout(site):
    site.reconfigure(timeout="3s")
    site.write()
    site.cluster.archive_all()
    helper = site.helper()
    with stopped(helper):
        name, = site.write()
        site.wait_log("no answer within 3 s; the helper process was killed")
        wait_until("it is gone", lambda: helper not in site.helpers())
    site.wait_archived(name)
    site.reconfigure(timeout="20s")
    site.check_no_gap()


HANGING_FSYNC = """
#include <unistd.h>
int fsync(int fd) { (void)fd; for (;;) sleep(60); }
"""


def test_a_repository_that_hangs_blocks_no_longer_than_the_timeout(workshop):
    source = workshop.directory / "hang.c"
    source.write_text(HANGING_FSYNC, encoding="utf-8")
    library = workshop.directory / "hang.so"
    assert os.system(f"gcc -shared -fPIC -o {library} {source}") == 0
    server = ModuleServer(workshop, timeout="3s")
    script = workshop.directory / "pgcairn-wal"
    script.write_text(f"#!/bin/sh\nLD_PRELOAD={library} exec {server.pgcairn.programs.wal} \"$@\"\n")
    script.chmod(0o755)
    server.reconfigure(command=script)
    name, = server.write()
    # Whichever of the two sees it first: both have the same limit.
    server.wait_log(f"could not archive \"{name}\"")
    said = [line for line in server.log().splitlines() if "could not archive" in line]
    assert all("no answer within 3 s" in line or "ended with exit code 1" in line
               for line in said), said
    assert server.is_ready(name)
    server.reconfigure(command=server.pgcairn.programs.wal)
    server.wait_archived(name)


@pytest.mark.parametrize("mode", ["fast", "smart", "immediate"])
def test_the_server_stops_while_a_file_is_in_flight(workshop, mode):
    server = ModuleServer(workshop, timeout="4s")
    server.cluster.archive_all()
    helper = server.helper()
    with stopped(helper):
        name, = server.write()
        wait_until("it has the request", server.waits_for_helper)
        began = time.monotonic()
        server.cluster.stop(mode)
        # Three tries of 4 s each would be the server's own patience; ours is one, and room for a slow machine.
        assert time.monotonic() - began < 60
    wait_until("no helper is left", lambda: not server.helpers())
    server.cluster.start()
    server.wait_archived(name)
    server.cluster.archive_all()
    server.check_no_gap()


def test_the_helper_ends_with_the_server(workshop):
    server = ModuleServer(workshop)
    server.cluster.archive_all()
    for mode in "fast", "immediate":
        server.helper()
        server.cluster.stop(mode)
        wait_until("no helper is left", lambda: not server.helpers())
        server.cluster.start()
        server.cluster.archive_all()
    server.helper()
    server.cluster.kill()
    wait_until("no helper is left", lambda: not server.helpers())


def test_helper_archiver_and_postmaster_killed_at_random_lose_nothing(workshop):
    """No acknowledged segment is missing, and the archive has no gap, whatever dies under load."""
    chance = chance_of("module")
    rounds = kill_rounds(12)
    killed = collections.Counter()
    server = ModuleServer(workshop, timeout="30s")
    server.cluster.archive_all()
    load = Load(server.cluster)
    load.start()
    try:
        for number in range(rounds):
            victim = ("helper", "archiver", "helper", "postmaster")[number % 4]
            wait_until("there is something to kill", server.helpers, 120)
            time.sleep(chance.uniform(0, 0.3))
            if victim == "postmaster":
                server.cluster.kill()
                killed[victim] += 1
                server.cluster.start()
            else:
                pids = server.helpers() if victim == "helper" else [archiver_of(server)]
                for pid in filter(None, pids):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed[victim] += 1
    finally:
        load.end()
    wait_until("the server takes connections", lambda: accepts(server), 120)
    committed = load.committed
    server.wait_archived(server.cluster.switch_wal(), 300)
    stored = server.check_no_gap()
    assert stored > rounds
    # What the server no longer offers was acknowledged.
    missing = {path.name.removesuffix(".done")
               for path in (server.cluster.data / "pg_wal/archive_status").glob("*.done")
               if len(path.name) == 29} - set(server.stored())
    assert not missing
    server.pgcairn.run("verify")
    assert server.cluster.value("SELECT count(*) FROM t") >= committed
    report("module", rounds=rounds, **{f"kills_of_{name}": number for name, number in killed.items()},
           segments=stored, missing=0, gaps=0)


def archiver_of(server):
    with contextlib.suppress(psycopg2.Error):
        return server.archiver()
    return None


def accepts(server):
    with contextlib.suppress(psycopg2.Error):
        return server.cluster.value("SELECT true")
    return False
