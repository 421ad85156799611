"""push as a real archive_command, get as a real restore_command, and every answer that they can give."""

import os
import shutil
import signal
import time

import pytest

from support.cluster import make_directory, quoted
from support.process import catches, must, run, start, wait_until

DELIVERED, ABSENT, TROUBLE, ON_SIGTERM = 0, 1, 126, 143
PUSH_FAILED = 1


@pytest.fixture(scope="module")
def archived(module_workshop):
    """A server with small segments, several of them archived, and one whole copy of the server."""
    cluster, pgcairn = module_workshop.archiving_server("origin", wal_segsize=1)
    copy = module_workshop.cluster("copy")
    must(cluster.bin / "pg_basebackup", "-d", cluster.conninfo(), "-D", copy.data, "-c", "fast",
         "-X", "none")
    cluster.sql("CREATE TABLE numbers AS SELECT 1 AS round, generate_series(1, 1000) AS n")
    for number in range(2, 8):
        cluster.sql("INSERT INTO numbers SELECT %s, generate_series(1, 1000)", number)
        cluster.switch_wal()
    cluster.archive_all()
    return cluster, pgcairn


def stored_segments(pgcairn, timeline="00000001"):
    return [path for path in pgcairn.objects(f"c/main/w/*/{timeline}/*/*")
            if len(path.name) == 24]


def kept_copy(cluster, directory, names):
    """A data directory as far as push looks at one, with some segments in it."""
    data = make_directory(directory)
    for below in ("global", "pg_wal"):
        make_directory(data / below)
    shutil.copy(cluster.data / "global/pg_control", data / "global/pg_control")
    for name, content in names.items():
        (data / "pg_wal" / name).write_bytes(content)
    if os.geteuid() == 0:
        for path in [data, *data.rglob("*")]:
            shutil.chown(path, "postgres", "postgres")
    return data


def fetch(pgcairn, name, directory, *arguments, expect=DELIVERED, **options):
    """The content that get delivers for a data directory; None when it delivers nothing."""
    target = directory / "pg_wal/RECOVERYXLOG"
    target.unlink(missing_ok=True)
    pgcairn.get(name, target, *arguments, expect=expect, **options)
    assert not list((directory / "pg_wal").glob("*.pgcairn")), "a temporary file was left behind"
    assert target.exists() == (expect == DELIVERED)
    return target.read_bytes() if target.exists() else None


def test_the_archiver_stores_every_segment(archived):
    cluster, pgcairn = archived
    assert len(stored_segments(pgcairn)) >= 7
    failed, = cluster.sql("SELECT failed_count FROM pg_stat_archiver")
    assert failed[0] == 0


def test_recovery_replays_what_get_delivers_and_ends_at_the_end(archived, module_workshop):
    cluster, pgcairn = archived
    copy = next(one for one in module_workshop.clusters if one.directory.name == "copy")
    copy.configure(archive_mode="off", restore_command=quoted(
        f"{pgcairn.programs.wal} get --config {pgcairn.config} %f %p"))
    (copy.data / "recovery.signal").touch()
    shutil.chown(copy.data / "recovery.signal", "postgres", "postgres")
    copy.start()
    copy.wait_promoted()
    assert copy.value("SELECT count(*) FROM numbers") == cluster.value(
        "SELECT count(*) FROM numbers") == 7000
    assert "unable to get" not in copy.log.read_text(encoding="utf-8")
    copy.stop()


def test_a_hole_stops_recovery_instead_of_ending_it(archived, workshop):
    cluster, pgcairn = archived
    copy = workshop.cluster()
    must(cluster.bin / "pg_basebackup", "-d", cluster.conninfo(), "-D", copy.data, "-c", "fast",
         "-X", "none")
    start_segment = cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    for number in range(3):
        cluster.sql("INSERT INTO numbers SELECT %s, 1", 100 + number)
        cluster.switch_wal()
    cluster.archive_all()
    middle = [path for path in stored_segments(pgcairn) if path.name > start_segment][1]
    hidden = middle.with_name("." + middle.name)
    middle.rename(hidden)
    try:
        copy.configure(archive_mode="off", restore_command=quoted(
            f"{pgcairn.programs.wal} get --config {pgcairn.config} --retry-timeout 1 %f %p"))
        (copy.data / "recovery.signal").touch()
        shutil.chown(copy.data / "recovery.signal", "postgres", "postgres")
        assert copy.start_result().returncode != 0
        log = copy.log.read_text(encoding="utf-8")
        assert f"'{middle.name}' is missing from the archive" in log
        assert "a hole in the WAL" in log
        assert "selected new timeline" not in log
    finally:
        hidden.rename(middle)
    copy.start()
    copy.wait_promoted()
    assert copy.value("SELECT count(*) FROM numbers WHERE round >= 100") == 3


def test_every_answer_of_get(archived, workshop):
    cluster, pgcairn = archived
    data = kept_copy(cluster, workshop.directory / "data", {})
    names = [path.name for path in stored_segments(pgcairn)]
    assert len(fetch(pgcairn, names[2], data)) == 1 << 20

    # The end of WAL, a history that never was: proven at once, without retries.
    began = time.monotonic()
    fetch(pgcairn, "0000000100000000000000FF", data, expect=ABSENT)
    fetch(pgcairn, "00000002.history", data, expect=ABSENT)
    assert time.monotonic() - began < 5

    # Wrong options and settings are trouble: 1 would end recovery.
    fetch(pgcairn, names[2], data, "--retry-timeuot", "1", expect=TROUBLE)
    fetch(pgcairn, names[2], data, "--cluster", "nobody", expect=TROUBLE)
    fetch(pgcairn, "pg_control", data, expect=TROUBLE)


def test_a_damaged_object_is_trouble_and_nothing_is_delivered(archived, workshop):
    cluster, pgcairn = archived
    data = kept_copy(cluster, workshop.directory / "data", {})
    path = stored_segments(pgcairn)[1]
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    path.write_bytes(damaged)
    try:
        fetch(pgcairn, path.name, data, "--retry-timeout", "0", expect=TROUBLE)
    finally:
        path.write_bytes(good)
    fetch(pgcairn, path.name, data)


def test_an_unreachable_repository_is_trouble_but_a_blip_for_a_standby(archived, workshop):
    cluster, pgcairn = archived
    data = kept_copy(cluster, workshop.directory / "data", {})
    name = stored_segments(pgcairn)[1].name
    away = pgcairn.repository.with_name("away")
    pgcairn.repository.rename(away)
    try:
        fetch(pgcairn, name, data, "--retry-timeout", "0", expect=TROUBLE)
        # An empty directory where the repository should be mounted is no proof of anything.
        make_directory(pgcairn.repository)
        fetch(pgcairn, name, data, "--retry-timeout", "0", expect=TROUBLE)
        (data / "standby.signal").touch()
        fetch(pgcairn, name, data, "--retry-timeout", "0", expect=ABSENT)
        fetch(pgcairn, "00000002.history", data, "--retry-timeout", "0", expect=TROUBLE)
        pgcairn.repository.rmdir()
    finally:
        away.rename(pgcairn.repository)


def test_a_repository_that_comes_back_is_waited_for(archived, workshop):
    cluster, pgcairn = archived
    data = kept_copy(cluster, workshop.directory / "data", {})
    name = stored_segments(pgcairn)[1].name
    target = data / "pg_wal/RECOVERYXLOG"
    away = pgcairn.repository.with_name("away")
    pgcairn.repository.rename(away)
    try:
        get = start(pgcairn.programs.wal, "get", "--config", pgcairn.config, name, target)
        time.sleep(0.3)
        assert get.poll() is None
    finally:
        away.rename(pgcairn.repository)
    assert get.wait(timeout=20) == DELIVERED
    assert target.stat().st_size == 1 << 20


def test_get_answers_sigterm_as_postgresql_expects(archived, workshop):
    cluster, pgcairn = archived
    data = kept_copy(cluster, workshop.directory / "data", {})
    away = pgcairn.repository.with_name("away")
    pgcairn.repository.rename(away)
    try:
        get = start(pgcairn.programs.wal, "get", "--config", pgcairn.config,
                    "000000010000000000000002", data / "pg_wal/RECOVERYXLOG")
        wait_until("it handles signals", lambda: catches(get.pid, signal.SIGTERM))
        time.sleep(0.3)
        get.send_signal(signal.SIGTERM)
        assert get.wait(timeout=10) == ON_SIGTERM
    finally:
        away.rename(pgcairn.repository)


def test_pushing_again_is_success_and_other_content_is_refused(archived, workshop):
    cluster, pgcairn = archived
    path = max(stored_segments(pgcairn), key=lambda path: path.stat().st_size)
    content = fetch(pgcairn, path.name, kept_copy(cluster, workshop.directory / "data", {}))
    assert len(content.rstrip(b"\0")) > 20000
    data = kept_copy(cluster, workshop.directory / "again", {path.name: content})
    before = path.read_bytes()
    pgcairn.push(data / "pg_wal" / path.name)

    changed = bytearray(content)
    changed[9000] ^= 1
    (data / "pg_wal" / path.name).write_bytes(changed)
    result = pgcairn.push(data / "pg_wal" / path.name, expect=PUSH_FAILED)
    assert "stored with other content" in result.stderr
    assert os.uname().nodename in result.stderr
    assert path.read_bytes() == before


def test_a_server_that_the_repository_does_not_know_is_refused(archived, workshop):
    _, pgcairn = archived
    other = workshop.server(role=False, wal_segsize=1)
    name = other.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
    other.switch_wal()
    result = pgcairn.push(other.data / "pg_wal" / name, expect=PUSH_FAILED)
    assert str(other.value("SELECT system_identifier FROM pg_control_system()")) in result.stderr
    assert "pgcairn init" in result.stderr
    result = pgcairn.get(name, other.data / "pg_wal/RECOVERYXLOG", "--retry-timeout", "0",
                         expect=TROUBLE)
    assert not (other.data / "pg_wal/RECOVERYXLOG").exists()


def test_a_clone_may_not_archive(archived, workshop):
    cluster, pgcairn = archived
    path = stored_segments(pgcairn)[1]
    data = kept_copy(cluster, workshop.directory / "data", {})
    content = fetch(pgcairn, path.name, data)
    (data / "pg_wal" / path.name).write_bytes(content)
    (data / "pgcairn.identity").write_text(
        "role = clone\ncluster =\norigin = main\nbackup = x\nrestored-at = today\n",
        encoding="utf-8")
    result = pgcairn.push(data / "pg_wal" / path.name, expect=PUSH_FAILED)
    assert "pgcairn adopt" in result.stderr


@pytest.mark.parametrize("arguments", [
    ("push",), ("push", "--nonsense", "x"), ("push", "pg_wal/000000010000000000000001"),
    ("push", "--timeout", "0", "x"), ("push", "/nowhere/pg_wal/000000010000000000000001"),
])
def test_no_failure_of_push_kills_the_archiver(archived, arguments):
    _, pgcairn = archived
    name, *rest = arguments
    result = run(pgcairn.programs.wal, name, "--config", pgcairn.config, *rest)
    assert result.returncode == PUSH_FAILED
    assert result.stderr.startswith("ERROR: ")


HANGING_FSYNC = """
#include <unistd.h>
int fsync(int fd) { (void)fd; for (;;) sleep(60); }
"""


def test_push_ends_within_its_time_when_a_file_system_hangs(archived, workshop):
    cluster, pgcairn = archived
    path = stored_segments(pgcairn)[1]
    data = kept_copy(cluster, workshop.directory / "data", {})
    (data / "pg_wal" / path.name).write_bytes(fetch(pgcairn, path.name, data))
    source = workshop.directory / "hang.c"
    source.write_text(HANGING_FSYNC, encoding="utf-8")
    library = workshop.directory / "hang.so"
    must("gcc", "-shared", "-fPIC", "-o", library, source, as_root=True)
    began = time.monotonic()
    result = run(pgcairn.programs.wal, "push", "--config", pgcairn.config, "--timeout", "1",
                 data / "pg_wal" / path.name, env={"LD_PRELOAD": library})
    assert result.returncode == PUSH_FAILED
    assert time.monotonic() - began < 15
    assert "gave up" in result.stderr


def test_the_aliases_of_other_tools_work(archived, workshop):
    cluster, pgcairn = archived
    path = stored_segments(pgcairn)[1]
    data = kept_copy(cluster, workshop.directory / "data", {})
    result = run(pgcairn.programs.wal, "archive-get", "--stanza=main", path.name,
                 "pg_wal/RECOVERYXLOG", cwd=data, env={"PGCAIRN_CONFIG": pgcairn.config})
    assert result.returncode == DELIVERED, result.stderr
    (data / "pg_wal/RECOVERYXLOG").rename(data / "pg_wal" / path.name)
    result = run(pgcairn.programs.wal, "archive-push", f"pg_wal/{path.name}", cwd=data,
                 env={"PGCAIRN_CONFIG": pgcairn.config})
    assert result.returncode == DELIVERED, result.stderr
    # As pgBackRest's manual writes it, one word replaced: by either program, options in front.
    for program in pgcairn.programs.wal, pgcairn.programs.pgcairn:
        result = run(program, "--stanza=main", "archive-push", f"pg_wal/{path.name}", cwd=data,
                     env={"PGCAIRN_CONFIG": pgcairn.config})
        assert result.returncode == DELIVERED, result.stderr
        result = run(program, "--stanza=main", "archive-get", path.name, "pg_wal/RECOVERYXLOG",
                     cwd=data, env={"PGCAIRN_CONFIG": "/nowhere"})
        assert result.returncode == TROUBLE, result.stderr
    assert "pgcairn-wal" in must(pgcairn.programs.wal, "--help")
    assert "archive_command" in must(pgcairn.programs.wal, "push", "--help")
    assert "restore_command" in must(pgcairn.programs.wal, "get", "--help")


def test_an_immediate_stop_loses_no_segment(workshop):
    """The server may offer the same segment again after a crash; both times it is success."""
    cluster, pgcairn = workshop.archiving_server(wal_segsize=1)
    cluster.sql("CREATE TABLE t (n int)")
    for number in range(3):
        cluster.sql("INSERT INTO t VALUES (%s)", number)
        cluster.switch_wal()
        cluster.stop("immediate")
        cluster.start()
    cluster.archive_all()
    names = [path.name for path in stored_segments(pgcairn)]
    numbers = [int(name[16:], 16) for name in names]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_promotion_archives_history_and_partial(workshop):
    primary, pgcairn = workshop.archiving_server(wal_segsize=1)
    standby = workshop.standby(primary)
    primary.sql("CREATE TABLE t (n int)")
    primary.archive_all()
    primary.sql("INSERT INTO t VALUES (0)")  # into a segment that the primary will not finish
    standby.wait_replayed(primary.value("SELECT pg_current_wal_flush_lsn()"))
    primary.stop("immediate")
    standby.promote()
    standby.sql("INSERT INTO t VALUES (1)")
    standby.archive_all()
    wait_until("history is archived", lambda: pgcairn.objects("c/main/w/*/00000002/history"))
    wait_until("the partial segment is archived",
               lambda: pgcairn.objects("c/main/w/*/00000001/*/*.partial.*"))
    assert stored_segments(pgcairn, "00000002")
