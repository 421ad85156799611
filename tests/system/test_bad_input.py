"""Wrong servers, wrong repositories, full disks, missing rights.

Each is refused with a clear message, a remedy and the exit code that is documented; nothing is left
half published, and the next run works without manual repair.
"""

import json
import os
import shutil
import signal

import pytest

from support import damage
from support.cluster import pg_bin, quoted
from support.compare import digest, verify_backup
from support.disk import MIB, SmallDisk
from support.pgcairn import (DAMAGED, FAILED, INTERRUPTED, NO_SPACE, NOT_FOUND, OK, REFUSED, UNREACHABLE,
                             USAGE)
from support.process import must, owner, wait_until


def fill(server, rows=3000):
    server.sql(f"CREATE TABLE t AS SELECT n, md5(n::text) AS body FROM generate_series(1, {rows}) n")


def assert_next_backup_restores(workshop, server, pgcairn):
    """Whatever happened before: a backup now is good, and nothing else claims to be one."""
    expected = digest(server)
    made = pgcairn.backup()
    assert made["state"] == "wal-complete"
    restored = workshop.restore(pgcairn, "--set", made["label"])
    verify_backup(restored.data)
    restored.start_restored()
    assert digest(restored) == expected


def assert_no_backup(pgcairn):
    assert not pgcairn.backups("copied", "wal-complete", "verified", "damaged", "unreadable")


# -- the wrong server

def test_wal_of_another_cluster_is_refused_and_both_are_named(workshop):
    server, pgcairn = workshop.archiving_server("right", wal_segsize=1)
    other = workshop.server("wrong", wal_segsize=1)
    other.switch_wal()
    before = pgcairn.objects()
    segment = min((other.data / "pg_wal").glob("0" * 7 + "1" + "?" * 16))

    result = pgcairn.push(segment, expect=FAILED)

    for cluster in (server, other):
        assert cluster.control("Database system identifier") in result.stderr
    assert pgcairn.objects() == before
    fill(server)
    assert_next_backup_restores(workshop, server, pgcairn)


def test_backup_of_another_cluster_under_the_same_name_is_refused(workshop):
    _, pgcairn = workshop.archiving_server("right", wal_segsize=1)
    other = workshop.server("wrong", wal_segsize=1)
    before = pgcairn.objects()
    confused = workshop.pgcairn(other, name="confused", repository={"path": pgcairn.repository})
    result = confused.run("backup", "--type=full", "--start-fast", expect=REFUSED)
    assert other.control("Database system identifier") in result.stderr
    assert confused.run("init", expect=REFUSED).stderr
    assert pgcairn.objects() == before


# -- the wrong repository

@pytest.fixture
def two_repositories(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    fill(server)
    pgcairn.backup()
    server.archive_all()  # its history file too: from here on nothing arrives by itself
    other = workshop.pgcairn(server, name="other")
    other.init()
    return server, pgcairn, other


def test_repository_with_the_descriptor_of_another_is_never_trusted(workshop, two_repositories):
    server, pgcairn, other = two_repositories
    descriptor = pgcairn.repository / "pgcairn.repo"
    original = descriptor.read_bytes()
    before = pgcairn.objects()
    damage.rewrite(descriptor, (other.repository / "pgcairn.repo").read_bytes())

    for command in (["restore", "--to", workshop.new_directory() / "data"],
                    ["backup", "--type=full", "--start-fast"]):
        result = pgcairn.run(*command, expect=None)
        assert result.returncode in (REFUSED, DAMAGED), result.stderr
        assert "another repository" in result.stderr
    server.sql("SELECT pg_create_restore_point('x'), pg_switch_wal()")
    wait_until("push fails", lambda: server.value("SELECT failed_count > 0 FROM pg_stat_archiver"))
    assert [path for path in pgcairn.objects() if "/w/" in str(path)] == [
        path for path in before if "/w/" in str(path)]
    pgcairn.run("verify", expect=DAMAGED)

    damage.rewrite(descriptor, original)
    assert_next_backup_restores(workshop, server, pgcairn)


def with_newer_format(content):
    """The same object as a future version would write it: whole, but not ours to understand."""
    content = bytearray(content)
    at = damage.VERSION_AT
    content[at:at + 2] = (2).to_bytes(2, "little")
    return damage.reseal(content)


def test_newer_repository_format_is_refused_by_every_command(workshop, two_repositories):
    server, pgcairn, _ = two_repositories
    descriptor = pgcairn.repository / "pgcairn.repo"
    original = descriptor.read_bytes()
    damage.rewrite(descriptor, with_newer_format(original))
    before = pgcairn.objects()

    for command in (["info"], ["verify"], ["backup", "--type=full", "--start-fast"],
                    ["restore", "--to", workshop.new_directory() / "data"]):
        result = pgcairn.run(*command, expect=REFUSED)
        assert "version" in result.stderr or "newer" in result.stderr, result.stderr
    segment = next((server.data / "pg_wal").glob("0" * 7 + "1" + "?" * 16))
    pgcairn.push(segment, expect=FAILED)
    pgcairn.get(segment.name, workshop.new_directory() / "segment", "--retry-timeout=0",
                "--pgdata", server.data, expect=126)
    assert pgcairn.objects() == before

    damage.rewrite(descriptor, original)
    assert_next_backup_restores(workshop, server, pgcairn)


def test_fate_of_a_newer_format_is_shown_as_unreadable_and_not_overwritten(workshop, two_repositories):
    server, pgcairn, _ = two_repositories
    (fate,) = pgcairn.objects("c/main/b/*/fate")
    newer = with_newer_format(fate.read_bytes())
    damage.rewrite(fate, newer)
    assert [backup["state"] for backup in pgcairn.backups()] == ["unreadable"]
    assert_next_backup_restores(workshop, server, pgcairn)
    assert fate.read_bytes() == newer


# -- the wrong rights

@pytest.mark.parametrize("mode", [0o500, 0o000], ids=["read-only", "unreadable"])
def test_repository_without_permission_is_told_and_works_again_with_it(workshop, mode):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    fill(server)
    directories = [path for path in pgcairn.repository.glob("**/") if path.is_dir()]
    modes = {path: path.stat().st_mode & 0o777 for path in directories}
    for path in reversed(directories):
        os.chmod(path, mode)
    try:
        result = pgcairn.run("backup", "--type=full", "--start-fast", expect=FAILED)
        assert "ermission" in result.stderr
        assert "HINT" in result.stderr
        segment = next((server.data / "pg_wal").glob("0" * 7 + "1" + "?" * 16))
        pgcairn.push(segment, expect=FAILED)
        check = pgcairn.run("check", "--no-switch", expect=None)
        assert check.returncode != OK
        if mode == 0o500:
            assert pgcairn.backups("copied", "wal-complete") == []
    finally:
        for path in directories:
            os.chmod(path, modes[path])
    assert_next_backup_restores(workshop, server, pgcairn)


def test_wrong_password_is_told_and_the_right_one_works(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    fill(server)
    server.sql("ALTER ROLE pgcairn PASSWORD 'the right one'")
    hba = server.data / "pg_hba.conf"
    hba.write_text("local all,replication pgcairn scram-sha-256\nlocal replication pgcairn scram-sha-256\n"
                   + hba.read_text(encoding="utf-8"), encoding="utf-8")
    server.reload()
    passfile = workshop.new_directory() / "passfile"

    def write_password(password):
        passfile.write_text(f"*:*:*:pgcairn:{password}\n", encoding="utf-8")
        os.chmod(passfile, 0o600)
        shutil.chown(passfile, *owner())

    write_password("a wrong one")
    result = pgcairn.run("backup", "--type=full", "--start-fast", env={"PGPASSFILE": passfile}, expect=FAILED)
    assert "password" in result.stderr
    assert "wrong one" not in result.stderr + result.stdout
    assert_no_backup(pgcairn)
    result = pgcairn.run("backup", "--type=full", "--start-fast", expect=FAILED)
    assert "password" in result.stderr

    write_password("the right one")
    pgcairn.run("backup", "--type=full", "--start-fast", env={"PGPASSFILE": passfile})
    assert pgcairn.backups("wal-complete")


def test_role_without_replication_is_refused_with_the_remedy(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    server.sql("ALTER ROLE pgcairn NOREPLICATION")
    result = pgcairn.run("backup", "--type=full", "--start-fast", expect=FAILED)
    assert "REPLICATION" in result.stderr.upper()
    assert "HINT" in result.stderr
    assert_no_backup(pgcairn)
    check = pgcairn.run("check", "--no-switch", expect=None)
    assert check.returncode != OK
    assert "FAILED" in check.stdout

    server.sql("ALTER ROLE pgcairn REPLICATION")
    assert_next_backup_restores(workshop, server, pgcairn)


def test_check_tells_what_a_bare_role_lacks(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    server.sql("CREATE ROLE bare LOGIN")
    bare = workshop.pgcairn(server, name="bare", role="bare", repository={"path": pgcairn.repository})
    check = bare.run("check", expect=None)
    assert check.returncode != OK
    assert "FAILED" in check.stdout
    assert "role.sql" in check.stdout or "GRANT" in check.stdout or "init --print" in check.stdout


# -- what was typed

@pytest.mark.parametrize("arguments, code", [
    (["backup", "--no-such-option"], USAGE),
    (["backup", "--type=sometimes"], USAGE),
    (["restore"], USAGE),
    (["restore", "--to", "TARGET", "--type=time", "--target", "2026-01-01 12:00:00"], USAGE),
    (["restore", "--to", "TARGET", "--type=lsn", "--target", "elsewhere"], USAGE),
    (["restore", "--to", "TARGET", "--set", "20010101-000000F"], NOT_FOUND),
    (["restore", "--to", "TARGET", "--type=name", "--target", "never made"], NOT_FOUND),
    (["restore", "--to", "TARGET", "--type=time", "--target", "2001-01-01 00:00:00+00"], REFUSED),
    (["restore", "--to", "TARGET", "--type=time", "--target", "2101-01-01 00:00:00+00"], REFUSED),
    (["restore", "--to", "TARGET", "--type=lsn", "--target", "0/28"], REFUSED),
    (["restore", "--to", "TARGET", "--type=lsn", "--target", "FF/28"], REFUSED),
    (["restore", "--to", "TARGET", "--target-timeline=7"], NOT_FOUND),
    (["info", "--cluster", "unheard-of"], NOT_FOUND),
    (["info", "--config", "/nonexistent/pgcairn.conf"], USAGE),
], ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else str(value))
def test_exit_code_tells_what_was_wrong_with_the_command(stopped_server, workshop, arguments, code):
    target = workshop.new_directory() / "data"
    arguments = [target if word == "TARGET" else word for word in arguments]
    result = stopped_server.run(*arguments, expect=code)
    assert result.stderr
    assert not target.exists() or not list(target.iterdir())


@pytest.fixture(scope="module")
def stopped_server(module_workshop):
    """The configuration of a server that is down; one backup is there."""
    server, pgcairn = module_workshop.archiving_server("stopped", wal_segsize=1)
    fill(server)
    pgcairn.backup()
    server.archive_all()
    server.stop()
    return pgcairn


def test_server_that_is_down_is_unreachable(stopped_server):
    stopped_server.run("backup", "--type=full", "--start-fast", expect=UNREACHABLE)


@pytest.mark.parametrize("content", ["a file of somebody", "PG_VERSION"])
def test_restore_never_touches_a_directory_that_is_not_ours(stopped_server, workshop, content):
    target = workshop.new_directory() / "data"
    target.mkdir()
    (target / content).write_text("precious", encoding="utf-8")
    shutil.chown(target, *owner())
    stopped_server.run("restore", "--to", target, expect=REFUSED)
    assert [path.name for path in target.iterdir()] == [content]
    assert (target / content).read_text(encoding="utf-8") == "precious"


# -- full disks

@pytest.fixture
def small_disk(workshop):
    disks = []

    def make(directory, free_bytes):
        disk = SmallDisk(directory, free_bytes)
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        disk.close()


def verify_inside(disk, data):
    result = disk.run(pg_bin() / "pg_verifybackup", data)
    assert result.returncode == OK, result.stderr


def archive_by_hand(server, pgcairn, disk):
    """Pushes every finished segment; the server's own archiver does not see the small disk."""
    current = server.switch_wal()
    for segment in sorted((server.data / "pg_wal").glob("0" * 7 + "?" * 17)):
        if len(segment.name) == 24 and segment.name <= current:
            command = [pgcairn.programs.wal, "push", "--config", pgcairn.config, segment]
            result = disk.run(*command)
            assert result.returncode == OK, result.stderr


@pytest.fixture
def server_with_small_repository(workshop, small_disk):
    server = workshop.server("server", wal_segsize=1)
    server.configure(archive_mode="on", archive_command="'false'")
    server.restart()
    fill(server)
    pgcairn = workshop.pgcairn(server)
    directory = workshop.new_directory("small")
    pgcairn.repository = directory / "repository"
    pgcairn.write_config()
    disk = small_disk(directory, 3 * MIB)

    def inside(*arguments, expect=OK):
        result = disk.run(*pgcairn.command(*arguments))
        assert result.returncode == expect, result.stderr + result.stdout
        return result

    inside("init")
    return server, pgcairn, disk, inside


def stored_objects(disk):
    return sorted(path.relative_to(disk.path) for path in disk.path.glob("repository/**/*")
                  if path.is_file())


def states(inside):
    clusters = json.loads(inside("info", "--output=json").stdout)["clusters"]
    return [backup["state"] for backup in clusters[0]["backups"]]


def test_backup_on_a_full_disk_exits_with_7_gives_its_space_back_and_works_with_more(
        workshop, server_with_small_repository):
    server, pgcairn, disk, inside = server_with_small_repository
    used = disk.used_bytes()

    result = inside("backup", "--type=full", "--start-fast", "--wal-timeout=0", expect=NO_SPACE)

    assert "No space left" in result.stderr
    assert not set(states(inside)) - {"unfinished", "revoked"}
    assert disk.used_bytes() <= used + 65536
    assert not [name for name in stored_objects(disk) if name.name.endswith(".tmp")]

    disk.grow()
    archive_by_hand(server, pgcairn, disk)
    result = disk.run(*pgcairn.command("backup", "--type=full", "--start-fast", "--wal-timeout=0"))
    archive_by_hand(server, pgcairn, disk)
    assert "wal-complete" in states(inside)
    target = workshop.new_directory() / "data"
    inside("restore", "--to", target)
    verify_inside(disk, target)


def test_push_on_a_full_disk_publishes_nothing_and_works_with_space(server_with_small_repository, workshop):
    server, pgcairn, disk, _ = server_with_small_repository
    # Well filled, and in one segment: what spilled over into the next could fit into the last kilobytes.
    server.sql("SELECT pg_switch_wal()")
    server.sql("CREATE TABLE wide AS SELECT md5(n::text) || md5((-n)::text) FROM generate_series(1, 4000) n")
    name = server.value("SELECT pg_walfile_name(pg_switch_wal())")
    disk.fill()
    before = stored_objects(disk)
    push = [pgcairn.programs.wal, "push", "--config", pgcairn.config, server.data / "pg_wal" / name]

    result = disk.run(*push)

    assert result.returncode == FAILED
    assert "No space left" in result.stderr
    assert stored_objects(disk) == before
    disk.free()
    assert disk.run(*push).returncode == OK
    copy = workshop.new_directory() / "segment"
    get = [pgcairn.programs.wal, "get", "--config", pgcairn.config, "--pgdata", server.data, name, copy]
    assert disk.run(*get).returncode == OK
    assert copy.read_bytes() == (server.data / "pg_wal" / name).read_bytes()


def test_restore_on_a_full_disk_exits_with_7_and_works_with_more(stopped_server, workshop, small_disk):
    directory = workshop.new_directory("small")
    disk = small_disk(directory, 8 * MIB)
    target = directory / "data"
    restore = stopped_server.command("restore", "--to", target)

    result = disk.run(*restore)

    assert result.returncode == NO_SPACE, result.stderr
    assert "HINT" in result.stderr
    assert not (disk.path / "data/global/pg_control").exists()
    disk.grow()
    result = disk.run(*restore)
    assert result.returncode == OK, result.stderr
    verify_inside(disk, target)


def test_restore_whose_space_is_taken_meanwhile_exits_with_7(stopped_server, workshop, small_disk):
    """Free space is checked first; here something else takes it while restore runs."""
    directory = workshop.new_directory("small")
    disk = small_disk(directory, 64 * MIB)
    target = directory / "data"
    stop = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64,write,pwritev,copy_file_range",
            "-e", "inject=pwrite64,write,pwritev:error=ENOSPC:when=200+"]
    result = disk.run(*stop, *stopped_server.command("restore", "--to", target))
    assert result.returncode == NO_SPACE, result.stderr
    assert not (disk.path / "data/global/pg_control").exists()
    assert disk.run(*stopped_server.command("restore", "--to", target)).returncode == OK
    verify_inside(disk, target)


# -- the server dies, the backup is interrupted

def start_slow_backup(server, pgcairn):
    """A backup in the middle of its copy."""
    server.sql("CREATE TABLE slow AS SELECT repeat(md5(n::text), 60) FROM generate_series(1, 6000) n")
    backup = pgcairn.start("backup", "--type=full", "--start-fast", "--max-rate=2MB", stderr=-1, text=True)
    wait_until("the backup streams", lambda: server.value(
        "SELECT count(*) FROM pg_stat_progress_basebackup WHERE backup_streamed > 1000000"))
    return backup


def test_server_killed_during_a_backup_leaves_no_backup_and_the_next_one_works(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    backup = start_slow_backup(server, pgcairn)

    server.kill()

    _, errors = backup.communicate(timeout=60)
    assert backup.returncode == UNREACHABLE, errors
    assert "ERROR" in errors
    assert_no_backup(pgcairn)
    server.start()
    assert_next_backup_restores(workshop, server, pgcairn)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_backup_exits_with_130_and_the_server_ends_its_own(workshop, how):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    backup = start_slow_backup(server, pgcairn)
    backup.send_signal(how)
    _, errors = backup.communicate(timeout=30)
    assert backup.returncode == INTERRUPTED, errors
    assert_no_backup(pgcairn)
    wait_until("the server ends its backup",
               lambda: server.value("SELECT count(*) = 0 FROM pg_stat_progress_basebackup"))
    assert_next_backup_restores(workshop, server, pgcairn)


def test_server_error_in_the_middle_of_a_backup_is_told(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    backup = start_slow_backup(server, pgcairn)
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_basebackup")
    _, errors = backup.communicate(timeout=60)
    assert backup.returncode in (FAILED, UNREACHABLE), errors
    assert "terminat" in errors
    assert_no_backup(pgcairn)
    assert_next_backup_restores(workshop, server, pgcairn)


def test_archive_that_is_down_fails_check_with_the_reason(workshop):
    server, pgcairn = workshop.archiving_server("server", wal_segsize=1)
    server.configure(archive_command="'false'")
    server.reload()
    check = pgcairn.run("check", "--timeout=2", expect=None)
    assert check.returncode != OK
    assert [line for line in check.stdout.splitlines() if line.startswith("wal-arrival: FAILED")]
    server.configure(archive_command=quoted(pgcairn.archive_command()))
    server.reload()
    assert_next_backup_restores(workshop, server, pgcairn)
