"""Batches of push: what goes along with the file that is asked for, and what is believed of it later."""

import os
import shutil
import time

import pytest

from support.batch import Batch, second_directory
from support.cluster import make_directory
from support.disk import SmallDisk
from support.kill_rounds import chance_of, kill_rounds, report
from support.process import is_root, must, run, wait_until

FAILED = 1
PUSHED_AHEAD = "was pushed ahead"


@pytest.fixture(scope="module")
def stopped(module_workshop):
    """A stopped server with a dozen segments that nobody archived."""
    batch = Batch(module_workshop, archiving=False)
    batch.write(12)
    batch.cluster.stop()
    assert len(batch.ready()) > 8
    return batch.keep()


@pytest.fixture
def waiting(stopped):
    """The same again for each test."""
    yield stopped.restore()
    stopped.cluster.stop("immediate")


def push_first(batch):
    """The call for the first one, and all the others pushed ahead."""
    first, *others = batch.ready()
    batch.push(first)
    wait_until("the others are remembered", lambda: set(others) <= set(batch.records()))
    batch.wait_idle()
    return first, others


def pushed_ahead(batch, name):
    return PUSHED_AHEAD in batch.push(name, "--log-level", "debug")


def test_what_is_ready_goes_along_and_later_calls_find_it(waiting):
    first, others = push_first(waiting)
    assert waiting.stored() == [first, *others]
    before = {name: waiting.object(name).stat().st_mtime_ns for name in others}
    for name in others:
        assert pushed_ahead(waiting, name)
        waiting.done(name)
    assert before == {name: waiting.object(name).stat().st_mtime_ns for name in others}
    assert not waiting.records(".failed")


def test_without_batch_or_spool_each_file_goes_alone(waiting):
    first, second, *_ = waiting.ready()
    waiting.push(first, "--no-batch")
    assert not waiting.spool.exists()
    waiting.pgcairn.write_config()
    waiting.push(second)
    assert waiting.stored() == [first, second]


def session_and_errors(pid):
    """Its session and where its standard error goes; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return int(fields[3]), os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return None


# What push-ahead opens below pg_wal is not opened before HOLD is gone. (push itself opens from its own directory.)
HOLDING_OPEN = """
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
    while (at != AT_FDCWD && strncmp(path, "pg_wal/0", 8) == 0 && access(getenv("HOLD"), F_OK) == 0)
        usleep(10000);
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


@pytest.fixture
def held(waiting, workshop):
    """A push of the first file, and what it starts is there, with all its threads, until the file is removed."""
    library, hold = workshop.directory / "hold.so", workshop.directory / "hold"
    source = library.with_suffix(".c")
    source.write_text(HOLDING_OPEN, encoding="utf-8")
    must("gcc", "-shared", "-fPIC", "-o", library, source, as_root=True)
    hold.touch()

    def start():
        return waiting.pgcairn.start_push(f"pg_wal/{waiting.ready()[0]}", cwd=waiting.cluster.data,
                                          env={"LD_PRELOAD": library, "HOLD": hold})

    yield start, hold
    hold.unlink(missing_ok=True)
    waiting.wait_idle()


def test_the_process_ends_by_itself_and_is_in_nobodys_way(waiting, held):
    start, hold = held
    process = start()
    session, errors = wait_until("it is seen", lambda: next(
        filter(None, map(session_and_errors, waiting.processes("push-ahead"))), None))
    assert session != os.getsid(0) and errors == "/dev/null"
    assert process.wait(timeout=60) == 0, process.communicate()
    hold.unlink()
    process.communicate()
    waiting.wait_idle()
    assert not waiting.cluster.has_processes()


def test_a_record_is_believed_only_of_the_very_same_file(waiting):
    _, others = push_first(waiting)
    segment = waiting.cluster.data / "pg_wal" / others[0]
    status = segment.stat()
    content = segment.read_bytes()

    # The same bytes in another file: pushed anew, which finds them stored.
    copy = segment.with_name("copy")
    shutil.copy2(segment, copy)
    os.chown(copy, status.st_uid, status.st_gid)
    copy.rename(segment)
    assert not pushed_ahead(waiting, others[0])

    # Other bytes, and the times put back as far as anybody can: never believed, and refused.
    segment = waiting.cluster.data / "pg_wal" / others[1]
    status = segment.stat()
    changed = bytearray(segment.read_bytes())
    changed[500000] ^= 1
    with open(segment, "r+b") as file:
        file.write(changed)
    os.utime(segment, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert segment.stat().st_mtime_ns == status.st_mtime_ns
    assert "stored with other content" in waiting.push(others[1], expect=FAILED)
    assert content == (waiting.cluster.data / "pg_wal" / others[0]).read_bytes()


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "of another", "a directory", "of another boot"])
def test_a_damaged_record_means_pushing_anew(waiting, damage):
    _, others = push_first(waiting)
    record = waiting.record(others[0])
    text = record.read_bytes()
    if damage == "cut":
        record.write_bytes(text[:-2])
    elif damage == "garbage":
        record.write_bytes(os.urandom(300))
    elif damage == "empty":
        record.write_bytes(b"")
    elif damage == "of another":
        record.write_bytes(waiting.record(others[1]).read_bytes())
    elif damage == "a directory":
        record.unlink()
        make_directory(record)
    else:
        boot = open("/proc/sys/kernel/random/boot_id", "rb").read().strip()
        assert boot in text
        record.write_bytes(text.replace(boot, b"0" * len(boot)))
    assert not pushed_ahead(waiting, others[0])
    assert pushed_ahead(waiting, others[1])
    assert others[0] in waiting.stored()


def test_a_record_is_not_believed_of_another_repository_or_without_the_object(waiting):
    _, others = push_first(waiting)
    path = waiting.object(others[0])
    path.unlink()
    assert not pushed_ahead(waiting, others[0])
    assert others[0] in waiting.stored()

    # Another repository in the same place, which the cluster does not know of.
    waiting.pgcairn.repository.rename(waiting.pgcairn.repository.with_name("old"))
    waiting.cluster.start()
    waiting.pgcairn.init()
    waiting.cluster.stop("immediate")
    assert not waiting.stored()
    assert not pushed_ahead(waiting, others[1])
    assert others[1] in waiting.stored()


def test_a_record_is_believed_without_opening_the_repository_while_its_descriptor_is_untouched(waiting):
    _, others = push_first(waiting)

    def libraries(name):
        result = run(waiting.pgcairn.programs.wal, "push", "--config", waiting.pgcairn.config,
                     "--log-level", "debug", f"pg_wal/{name}", cwd=waiting.cluster.data,
                     env={"LD_DEBUG": "files"})
        assert result.returncode == 0, result.stderr
        return result.stderr

    text = libraries(others[0])
    assert PUSHED_AHEAD in text and "libc.so" in text
    assert "libcrypto" not in text, "what answers from memory needs no digest"
    os.utime(waiting.pgcairn.repository / "pgcairn.repo")
    text = libraries(others[1])
    assert PUSHED_AHEAD not in text and "libcrypto" in text


def test_two_data_directories_do_not_share_a_spool(waiting):
    _, others = push_first(waiting)
    data = second_directory(waiting.cluster, waiting.workshop.directory / "second")
    result = run(waiting.pgcairn.programs.wal, "push", "--config", waiting.pgcairn.config,
                 "--log-level", "debug", f"pg_wal/{others[0]}", cwd=data)
    assert result.returncode == 0 and PUSHED_AHEAD not in result.stderr
    waiting.wait_idle()
    assert len(list(waiting.spool.iterdir())) == 2


@pytest.mark.skipif(not is_root(), reason="giving a directory to another user needs root")
def test_a_spool_that_is_not_ours_is_not_used(waiting):
    _, others = push_first(waiting)
    directory, = waiting.spool.iterdir()
    os.chown(directory, 1, 1)
    os.chmod(directory, 0o777)
    text = waiting.push(others[0], "--log-level", "debug")
    assert PUSHED_AHEAD not in text and "nothing is pushed ahead" in text


def test_a_full_spool_costs_the_batch_and_no_segment(waiting):
    disk = SmallDisk(make_directory(waiting.spool), free_bytes=0)
    try:
        for name in waiting.ready():
            result = disk.run(waiting.pgcairn.programs.wal, "push", "--config",
                              waiting.pgcairn.config, waiting.cluster.data / "pg_wal" / name)
            assert result.returncode == 0, result.stderr
        waiting.wait_idle()
    finally:
        waiting.kill(waiting.processes())
        disk.close()
    assert waiting.stored() == waiting.ready()


def test_the_one_that_fails_fails_although_later_ones_worked(waiting):
    ready = waiting.ready()
    bad = ready[2]
    good = (waiting.cluster.data / "pg_wal" / bad).read_bytes()
    waiting.poison(bad, good[:-5000])
    waiting.push(ready[0])
    others = ready[1:2] + ready[3:]
    wait_until("the others are safe", lambda: set(others) <= set(waiting.records()))
    waiting.wait_idle()
    assert waiting.records(".failed") == [bad]
    assert pushed_ahead(waiting, ready[1])
    text = waiting.push(bad, "--no-batch", expect=FAILED)
    assert text.count("a segment has 1048576") == 1
    text = waiting.push(bad, expect=FAILED)
    assert "ahead failed" in text and text.count("a segment has 1048576") == 2
    waiting.wait_idle()
    assert bad not in waiting.stored()
    waiting.poison(bad, good)
    waiting.push(bad)
    assert waiting.stored() == ready


def test_nothing_goes_before_a_history_file_that_fails(waiting):
    ready = waiting.ready()
    waiting.poison("00000002.history", b"no history\n")
    waiting.push(ready[0])
    wait_until("the failure is noted", lambda: waiting.records(".failed") == ["00000002.history"])
    waiting.wait_idle()
    assert set(waiting.records()) <= set(ready[:1]) and waiting.stored() == ready[:1]
    assert "ahead failed" in waiting.push("00000002.history", expect=FAILED)


def test_a_copy_that_may_not_archive_has_no_records_either(waiting):
    _, others = push_first(waiting)
    identity = waiting.cluster.data / "pgcairn.identity"
    identity.write_text("role = clone\ncluster =\norigin = main\nbackup = x\nrestored-at = today\n",
                        encoding="utf-8")
    assert "pgcairn adopt" in waiting.push(others[0], expect=FAILED)


def test_jobs_of_the_configuration_are_threads(waiting, held):
    """Without the key there are two, and one that watches the time."""
    waiting.pgcairn.write_config(general={**waiting.general, "jobs": 6})
    start, _ = held
    process = start()
    wait_until("six threads push ahead", lambda: any(
        threads(number) >= 6 for number in waiting.processes("push-ahead")))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def threads(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def test_the_archiver_pushes_in_batches_under_load(workshop):
    batch = Batch(workshop)
    with batch.held_back():
        for _ in range(4):
            batch.write(25)
    batch.cluster.archive_all(300)
    failed = batch.cluster.value("SELECT failed_count FROM pg_stat_archiver")
    assert failed == 0, batch.cluster.log_tail()
    assert set(batch.acknowledged()) <= set(batch.stored())
    ahead = batch.cluster.log.read_text(encoding="utf-8").count(PUSHED_AHEAD)
    assert ahead > len(batch.acknowledged()) * 3 / 4
    # It keeps no server from stopping, and itself no longer than it has work.
    batch.write(10)
    began = time.monotonic()
    batch.cluster.stop()
    assert time.monotonic() - began < 60
    batch.wait_idle()
    batch.cluster.start()
    batch.cluster.archive_all()
    assert set(batch.acknowledged()) <= set(batch.stored())


def test_killed_at_random_no_acknowledged_segment_is_missing(workshop):
    batch = Batch(workshop)
    chance = chance_of("push")
    rounds = kill_rounds(15)
    killed = {"push": 0, "push-ahead": 0}
    for number in range(rounds):
        with batch.held_back() as archiver:
            batch.write(8)
        which = ("push", "push-ahead")[number % 2]
        # After pushes that were killed the archiver rests for a second.
        wait_until("it works on what waits", lambda what=which: batch.processes(what) or not batch.ready())
        until = time.monotonic() + 0.05 + chance.random() / 2
        while time.monotonic() < until:
            victims = batch.pushing(archiver) if which == "push" else batch.processes(which)
            if victims and chance.random() < 0.5:
                batch.kill(victims)
                killed[which] += len(victims)
        assert set(batch.acknowledged()) <= set(batch.stored())
    batch.cluster.archive_all(300)
    assert set(batch.acknowledged()) <= set(batch.stored())
    assert len(batch.acknowledged()) > 5 * rounds
    assert killed["push"] > 0 and killed["push-ahead"] > 0, killed
    assert batch.cluster.value("SELECT count(*) FROM load") == rounds * 80000
    report("push", rounds=rounds, **{f"kills_of_{name}": number for name, number in killed.items()},
           acknowledged_segments=len(batch.acknowledged()), missing=0)
