"""When the repository is down: overflow-path, shipping, and segments that are given up."""

import hashlib
import json
import os

import pytest

from support.batch import Batch
from support.cluster import make_directory, other_file_system, remove_tree
from support.pgcairn import DAMAGED, NOT_FOUND, REFUSED
from support.process import owner, run, wait_until
from support.receiver import Receiver

FAILED, ABSENT, TROUBLE = 1, 1, 126


@pytest.fixture(scope="module")
def overflow(module_workshop):
    path = other_file_system(module_workshop.directory)
    assert path is not None, "there is no disk beside that of PGCAIRN_TEST_SCRATCH: set it to a memory file system"
    yield path
    remove_tree(path)


@pytest.fixture(scope="module")
def stopped(module_workshop, overflow):
    batch = Batch(module_workshop, archiving=False, general={"overflow-path": overflow})
    batch.write(8)
    batch.cluster.stop()
    assert len(batch.ready()) > 5
    return batch.keep()


@pytest.fixture
def waiting(stopped, overflow):
    for path in overflow.iterdir():
        remove_tree(path)
    yield stopped.restore()
    stopped.cluster.stop("immediate")


def away(batch):
    return batch.pgcairn.repository.with_name("away")


def take_away(batch):
    batch.pgcairn.repository.rename(away(batch))


def bring_back(batch):
    away(batch).rename(batch.pgcairn.repository)


def overflowed(overflow):
    return sorted(path.name for path in overflow.glob("main-*/*/*") if "." not in path.name)


def command(batch, *words, expect=0):
    result = run(batch.pgcairn.programs.wal, words[0], "--config", batch.pgcairn.config, *words[1:],
                 "-D", batch.cluster.data)
    assert result.returncode == expect, result.stderr
    return result


def status(batch):
    return json.loads(command(batch, "status", "--output=json").stdout)


def push_all(batch, names):
    for name in names:
        assert "NOT OFF THIS HOST" in batch.push(name)
        batch.done(name)


def test_while_the_repository_is_away_segments_wait_and_are_shown(waiting, overflow):
    names = waiting.ready()
    assert status(waiting)["overflow"]["files_not_off_host"] == 0
    take_away(waiting)
    push_all(waiting, names[:3])
    assert overflowed(overflow) == names[:3]
    for name in names[:3]:
        stored, = overflow.glob(f"main-*/*/{name}")
        assert stored.read_bytes() == (waiting.cluster.data / "pg_wal" / name).read_bytes()
        digest, _ = stored.with_name(name + ".sha256").read_text(encoding="ascii").split("  ")
        assert digest == hashlib.sha256(stored.read_bytes()).hexdigest()
    told = status(waiting)
    assert told["overflow"]["files_not_off_host"] == 3
    assert told["overflow"]["bytes_not_off_host"] == 3 << 20
    assert told["overflow"]["first"] == names[0]
    assert told["ready"] == {"files": len(names) - 3, "first": names[3]}
    assert "NOT OFF THIS HOST: 3 files" in command(waiting, "status").stdout
    # The same again is success, other content is not.
    (waiting.status() / f"{names[0]}.ready").touch()
    assert "NOT OFF THIS HOST" in waiting.push(names[0])
    segment = waiting.cluster.data / "pg_wal" / names[0]
    content = bytearray(segment.read_bytes())
    content[300000] ^= 1
    segment.write_bytes(content)
    assert "with other content" in waiting.push(names[0], expect=FAILED)
    bring_back(waiting)


def test_what_waits_is_shipped_in_order_by_the_next_calls(waiting, overflow):
    names = waiting.ready()
    take_away(waiting)
    push_all(waiting, names[:5])
    bring_back(waiting)
    assert "4 files of overflow-path are in the repository" in waiting.push(names[5], "--no-batch")
    assert overflowed(overflow) == names[4:5]
    assert set(names[:4]) <= set(waiting.stored())
    waiting.push(names[6], "--no-batch")
    assert not overflowed(overflow) and not list(overflow.glob("main-*/*/*"))
    assert waiting.stored() == names[:7]


def test_what_waits_for_a_repository_of_another_path_is_shown(waiting, overflow):
    names = waiting.ready()
    take_away(waiting)
    push_all(waiting, names[:2])
    bring_back(waiting)
    key, = overflow.glob("main-*")
    other = key.with_name("main-" + 24 * "7")
    key.rename(other)
    told = status(waiting)["overflow"]
    assert told["files_not_off_host"] == 0 and told["files_in_other_directories"] == 2
    assert told["other_directory"].startswith(other.name + "/")
    assert f"2 files wait in other directories, as '{other.name}/" in command(waiting, "status").stdout
    # One that cannot be looked through hides neither ours nor what waits beside it.
    locked = key.with_name("main-" + 24 * "8")
    locked.mkdir(mode=0)
    told = status(waiting)["overflow"]
    assert told["files_in_other_directories"] == 2 and told["unreadable_directory"] == locked.name
    assert told["trouble"] is None
    assert f"not known what waits in '{locked.name}'" in command(waiting, "status").stdout
    locked.rmdir()
    # Another cluster's are its own to tell of.
    other.rename(key.with_name("stranger-" + 24 * "7"))
    assert status(waiting)["overflow"]["files_in_other_directories"] == 0


def test_status_ships_all_of_it(waiting, overflow):
    names = waiting.ready()
    take_away(waiting)
    push_all(waiting, names)
    assert command(waiting, "status", "--ship", expect=NOT_FOUND).stderr.startswith("ERROR")
    assert overflowed(overflow) == names
    bring_back(waiting)
    command(waiting, "status", "--ship")
    assert waiting.stored() == names and not overflowed(overflow)


def test_a_damaged_file_is_not_shipped_and_stays(waiting, overflow):
    names = waiting.ready()
    take_away(waiting)
    push_all(waiting, names[:2])
    bring_back(waiting)
    stored, = overflow.glob(f"main-*/*/{names[0]}")
    content = bytearray(stored.read_bytes())
    content[99] ^= 1
    stored.write_bytes(content)
    # The answer for the file that is asked for is its own.
    assert "does not agree" in waiting.push(names[2], "--no-batch")
    assert overflowed(overflow) == names[:2]
    assert names[2] in waiting.stored() and names[0] not in waiting.stored()
    assert "does not agree" in command(waiting, "status", "--ship", expect=DAMAGED).stderr


def test_get_finds_what_waits_and_sees_the_hole_before_it(waiting, overflow):
    names = waiting.ready()
    waiting.push(names[0], "--no-batch")
    take_away(waiting)
    push_all(waiting, names[2:4])
    target = waiting.cluster.data / "pg_wal/RECOVERYXLOG"

    def get(name, expect=0):
        target.unlink(missing_ok=True)
        waiting.pgcairn.get(name, target, "--retry-timeout", "0", expect=expect)
        return target.read_bytes() if target.exists() else None

    original = (waiting.cluster.data / "pg_wal" / names[2]).read_bytes()
    assert get(names[2]) == original
    bring_back(waiting)
    assert get(names[2]) == original
    assert get(names[1], expect=TROUBLE) is None
    assert get(f"{names[3][:16]}000000FF", expect=ABSENT) is None
    stored, = overflow.glob(f"main-*/*/{names[2]}")
    stored.write_bytes(original[:-1] + b"x")
    assert get(names[2], expect=TROUBLE) is None
    # Also when nothing waits behind it: it is there, so this is not the end.
    stored, = overflow.glob(f"main-*/*/{names[3]}")
    content = stored.read_bytes()
    stored.write_bytes(content[:-1] + b"x")
    assert get(names[3], expect=TROUBLE) is None
    stored.write_bytes(content)
    digest = stored.with_name(names[3] + ".sha256")
    digest.rename(digest.with_name("aside"))
    assert get(names[3], expect=TROUBLE) is None
    digest.with_name("aside").rename(digest)
    assert get(names[3]) == content


def test_get_does_not_take_a_damaged_history_for_none(waiting, overflow):
    history = waiting.cluster.data / "pg_wal/00000002.history"
    history.write_text("1\t0/9000000\tno recovery target specified\n", encoding="ascii")
    os.chown(history, *owner())
    target = waiting.cluster.data / "pg_wal/RECOVERYHISTORY"
    take_away(waiting)
    assert "NOT OFF THIS HOST" in waiting.push(history.name)
    bring_back(waiting)
    waiting.pgcairn.get(history.name, target, "--retry-timeout", "0")
    assert target.read_bytes() == history.read_bytes()
    waiting.pgcairn.get("00000003.history", target, "--retry-timeout", "0", expect=ABSENT)
    stored, = overflow.glob("main-*/*/00000002.history")
    stored.write_bytes(b"x")
    waiting.pgcairn.get(history.name, target, "--retry-timeout", "0", expect=TROUBLE)


def test_get_does_not_pad_a_segment_that_waits_whole(workshop, overflow):
    """What a receiver has of it would end recovery too early."""
    for path in overflow.iterdir():
        remove_tree(path)
    batch = Batch(workshop, archiving=False, general={"overflow-path": overflow})
    receiver = Receiver(batch.pgcairn, workshop.directory / "received").start().says("receiving from")
    try:
        batch.cluster.sql("INSERT INTO load VALUES (0, 0, 'the tail')")
        name = batch.cluster.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        wait_until("a piece is stored", lambda: [
            path for path in batch.pgcairn.objects("c/main/w/*/*/*/*.tail.*") if path.name.startswith(name)])
    finally:
        receiver.kill()
    batch.cluster.sql("INSERT INTO load VALUES (0, 1, 'behind the piece')")
    batch.cluster.kill()
    target = batch.cluster.data / "pg_wal/RECOVERYXLOG"

    def get(expect=0):
        target.unlink(missing_ok=True)
        batch.pgcairn.get(name, target, "--retry-timeout", "0", expect=expect)
        return target.read_bytes() if target.exists() else None

    whole = (batch.cluster.data / "pg_wal" / name).read_bytes()
    padded = get()
    assert padded is not None and padded != whole
    take_away(batch)
    assert "NOT OFF THIS HOST" in batch.push(name)
    bring_back(batch)
    assert get() == whole
    stored, = overflow.glob(f"main-*/*/{name}")
    stored.write_bytes(whole[:-1] + b"x")
    assert get(expect=TROUBLE) is None


def test_an_overflow_path_that_is_not_there_is_not_an_empty_one(waiting, overflow):
    names = waiting.ready()
    unmounted = overflow.with_name(overflow.name + "-unmounted")
    target = waiting.cluster.data / "pg_wal/RECOVERYXLOG"
    waiting.push(names[0], "--no-batch")
    overflow.rename(unmounted)
    try:
        result = waiting.pgcairn.get(names[1], target, "--retry-timeout", "0", expect=TROUBLE)
        assert "does not exist" in result.stderr
        waiting.pgcairn.get(names[0], target, "--retry-timeout", "0")
        assert "does not exist" in command(waiting, "status").stdout
        take_away(waiting)
        assert "does not exist" in waiting.push(names[1], expect=FAILED)
        assert not overflow.exists()
        bring_back(waiting)
    finally:
        unmounted.rename(overflow)
    waiting.pgcairn.get(names[1], target, "--retry-timeout", "0", expect=ABSENT)


def test_a_file_without_its_digest_stops_shipping_and_is_said(waiting, overflow):
    names = waiting.ready()
    take_away(waiting)
    push_all(waiting, names[:2])
    bring_back(waiting)
    digest, = overflow.glob(f"main-*/*/{names[0]}.sha256")
    digest.unlink()
    assert "has no" in waiting.push(names[2], "--no-batch")
    assert overflowed(overflow) == names[:2]
    assert "has no" in command(waiting, "status", "--ship", expect=DAMAGED).stderr


def hanging(batch, overflow):
    """The environment in which overflow-path does not answer, as a hard mount of a dead server."""
    library = batch.workshop.directory / "hang.so"
    source = library.with_suffix(".c")
    source.write_text(HANGING_OPEN, encoding="utf-8")
    assert run("gcc", "-shared", "-fPIC", "-o", library, source, as_root=True).returncode == 0
    return {"LD_PRELOAD": library, "HANG": overflow}


def test_an_overflow_path_that_hangs_keeps_nothing_from_being_archived(waiting, overflow):
    names = waiting.ready()
    result = run(waiting.pgcairn.programs.wal, "push", "--no-batch", "--timeout", "4", "--config",
                 waiting.pgcairn.config, f"pg_wal/{names[0]}", cwd=waiting.cluster.data,
                 env=hanging(waiting, overflow))
    assert result.returncode == 0, result.stderr
    assert "overflow-path does not answer" in result.stderr
    assert waiting.stored() == names[:1]
    # Where the repository hangs the answer is no.
    result = run(waiting.pgcairn.programs.wal, "push", "--no-batch", "--timeout", "4", "--config",
                 waiting.pgcairn.config, f"pg_wal/{names[1]}", cwd=waiting.cluster.data,
                 env=hanging(waiting, waiting.pgcairn.repository))
    assert result.returncode == FAILED
    assert "does not answer" in result.stderr and waiting.stored() == names[:1]


def serve(batch, name, env=None):
    """The answer to one request, and what the helper does after it."""
    requests = batch.workshop.directory / "requests"
    requests.write_text(f"1 pg_wal/{name}\n", encoding="ascii")
    result = run("/bin/sh", "-c", 'exec "$0" serve --timeout 4 --config "$1" <"$2"', batch.pgcairn.programs.wal,
                 batch.pgcairn.config, requests, cwd=batch.cluster.data, env=env)
    assert "1 done" in result.stdout, result.stderr
    assert name in batch.stored()
    return result


def test_the_archive_modules_helper_answers_before_it_ships(waiting, overflow):
    names = waiting.ready()
    take_away(waiting)
    push_all(waiting, names[:2])
    bring_back(waiting)
    hung = serve(waiting, names[2], env=hanging(waiting, overflow))
    assert hung.returncode != 0, "it hung after its answer"
    assert overflowed(overflow) == names[:2]
    shipped = serve(waiting, names[3])
    assert shipped.returncode == 0
    assert "2 files of overflow-path are in the repository" in shipped.stderr
    assert set(names[:4]) <= set(waiting.stored()) and not overflowed(overflow)


def test_the_same_file_system_is_refused(waiting, overflow):
    names = waiting.ready()
    same = waiting.workshop.directory / "same"
    if not same.exists():
        make_directory(same)
    waiting.pgcairn.write_config(general={**waiting.general, "overflow-path": same})
    take_away(waiting)
    assert "same file system" in waiting.push(names[0], expect=FAILED)
    waiting.pgcairn.write_config(general={"spool-path": waiting.spool})
    waiting.push(names[0], expect=FAILED)
    assert not overflowed(overflow)
    bring_back(waiting)


def test_a_segment_that_is_wrong_does_not_go_there(waiting, overflow):
    names = waiting.ready()
    content = (waiting.cluster.data / "pg_wal" / names[0]).read_bytes()
    waiting.poison(names[1], content)
    take_away(waiting)
    assert "its name says" in waiting.push(names[1], expect=FAILED)
    assert not overflowed(overflow)
    bring_back(waiting)


def test_a_server_goes_on_while_the_repository_is_away_and_all_of_it_arrives(workshop, overflow):
    for path in overflow.iterdir():
        remove_tree(path)
    batch = Batch(workshop, general={"overflow-path": overflow})
    batch.write(5)
    batch.cluster.archive_all()
    take_away(batch)
    batch.write(10)
    batch.cluster.archive_all()
    assert len(overflowed(overflow)) > 5
    assert batch.cluster.value("SELECT failed_count FROM pg_stat_archiver") == 0
    unmounted = overflow.with_name(overflow.name + "-unmounted")
    overflow.rename(unmounted)
    assert "overflow: FAILED" in batch.pgcairn.run("check", "--no-switch", expect=None).stdout
    unmounted.rename(overflow)
    bring_back(batch)
    results = {result["name"]: result for result in
               batch.pgcairn.json("check", "--no-switch", expect=1)["results"]}
    assert results["overflow"]["status"] == "FAILED"
    assert "not off this host" in results["overflow"]["text"]
    assert batch.pgcairn.info()["overflow"]["files_not_off_host"] == len(overflowed(overflow))
    assert "are not off this host, since" in batch.pgcairn.run("info").stdout
    for _ in range(6):
        batch.write(2)
        batch.cluster.archive_all()
    wait_until("all is shipped", lambda: not overflowed(overflow))
    assert "overflow: OK (empty)" in batch.pgcairn.run("check", "--no-switch", expect=None).stdout
    assert set(batch.acknowledged()) <= set(batch.stored())


def test_only_a_segment_that_was_given_up_is_answered_with_success(waiting):
    names = waiting.ready()
    bad = names[1]
    original = (waiting.cluster.data / "pg_wal" / bad).read_bytes()
    waiting.push(names[0], "--no-batch")
    waiting.poison(bad, original[:-1])
    waiting.push(bad, "--no-batch", expect=FAILED)

    # A segment of the future, by a slip of the finger: it would be dropped when it comes.
    ahead = f"{bad[:16]}000000FF"
    assert "does not wait" in command(waiting, "skip", "--confirm", ahead, expect=REFUSED).stderr
    assert not waiting.pgcairn.objects("c/main/w/*/00000001/*/ack.*")
    assert "--confirm" in command(waiting, "skip", bad, expect=REFUSED).stderr
    waiting.push(bad, "--no-batch", expect=FAILED)
    assert names[0] in command(waiting, "skip", "--confirm", names[0], expect=REFUSED).stderr
    take_away(waiting)
    assert command(waiting, "skip", "--confirm", bad, expect=NOT_FOUND).stderr.startswith("ERROR")
    bring_back(waiting)

    assert "take a backup" in command(waiting, "skip", "--confirm", "--reason", "a bad disk", bad).stderr
    record, = waiting.pgcairn.objects("c/main/w/*/00000001/*/ack.*")
    assert b"a bad disk" in record.read_bytes()
    assert "was given up" in waiting.push(bad, "--no-batch")
    (waiting.cluster.data / "pg_wal" / bad).unlink()
    assert "was given up" in waiting.push(bad, "--no-batch")
    assert bad not in waiting.stored()

    # Another one that fails still fails, and a damaged record gives nothing up.
    waiting.poison(names[2], original[:-1])
    waiting.push(names[2], "--no-batch", expect=FAILED)
    content = record.read_bytes()
    record.chmod(0o600)
    record.write_bytes(content[:-1])
    waiting.push(bad, "--no-batch", expect=FAILED)
    record.write_bytes(content)

    # When it can be stored after all, it is.
    waiting.poison(bad, original)
    waiting.push(bad, "--no-batch")
    assert bad in waiting.stored()


def test_a_full_repository_is_down_too(waiting, overflow):
    names = waiting.ready()
    library = waiting.workshop.directory / "full.so"
    source = waiting.workshop.directory / "full.c"
    source.write_text(FULL_LINK, encoding="utf-8")
    assert run("gcc", "-shared", "-fPIC", "-o", library, source, as_root=True).returncode == 0
    result = run(waiting.pgcairn.programs.wal, "push", "--no-batch", "--config",
                 waiting.pgcairn.config, f"pg_wal/{names[0]}", cwd=waiting.cluster.data,
                 env={"LD_PRELOAD": library, "FULL": waiting.pgcairn.repository})
    assert result.returncode == 0 and "NOT OFF THIS HOST" in result.stderr
    assert "o space left" in result.stderr
    assert overflowed(overflow) == names[:1] and not waiting.stored()


# Everything that is linked below FULL finds the disk full.
FULL_LINK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
linkat(int from, const char *old, int to, const char *new, int flags)
{
    char link[64], path[PATH_MAX] = "";
    int (*real)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");

    snprintf(link, sizeof link, "/proc/self/fd/%d", to);
    if (readlink(link, path, sizeof path - 1) > 0 && strstr(path, getenv("FULL")) == path) {
        errno = ENOSPC;
        return -1;
    }
    return real(from, old, to, new, flags);
}
"""


# What opens HANG itself never comes back, whatever signal comes.
HANGING_OPEN = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
openat(int at, const char *path, int flags, ...)
{
    int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
    va_list args;

    va_start(args, flags);
    const mode_t mode = va_arg(args, mode_t);
    va_end(args);
    while (strcmp(path, getenv("HANG")) == 0)
        pause();
    return real(at, path, flags, mode);
}

int
openat64(int at, const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    const mode_t mode = va_arg(args, mode_t);
    va_end(args);
    return openat(at, path, flags, mode);
}
"""
