"""get with prefetch: what comes next lies ready, whole and of the right recovery, or is fetched as ever."""

import os
import pathlib
import shutil
import time

import pytest

from support.cluster import make_directory, quoted
from support.disk import MIB, SmallDisk
from support.process import must, owner, start, wait_until

DELIVERED, ABSENT, TROUBLE = 0, 1, 126
HOME = "base/pgsql_tmp"
PREFIX = "pgsql_tmp_pgcairn_get."


@pytest.fixture(scope="module")
def archived(module_workshop):
    """Fourteen segments and more in a repository, and a server that is down."""
    cluster, pgcairn = module_workshop.archiving_server("origin", wal_segsize=1)
    cluster.sql("CREATE TABLE numbers AS SELECT 1 AS round, generate_series(1, 1000) AS n")
    for number in range(2, 16):
        cluster.sql("INSERT INTO numbers SELECT %s, generate_series(1, 1000)", number)
        cluster.switch_wal()
    cluster.archive_all()
    return cluster, pgcairn


def stored(pgcairn, timeline="00000001"):
    return [path for path in pgcairn.objects(f"c/main/w/*/{timeline}/*/*")
            if len(path.name) == 24]


def recovering_directory(cluster, directory):
    """A data directory as far as get looks at one."""
    data = make_directory(directory)
    for below in ("global", "pg_wal", "base"):
        make_directory(data / below)
    for name in ("global/pg_control", "PG_VERSION"):
        shutil.copy(cluster.data / name, data / name)
    for path in [data, *data.rglob("*")]:
        os.chown(path, *owner())
    return data


def get(pgcairn, name, data, *arguments, expect=DELIVERED):
    """The content that is delivered; None for nothing."""
    target = data / "pg_wal/RECOVERYXLOG"
    target.unlink(missing_ok=True)
    pgcairn.get(name, target, *arguments, expect=expect)
    assert target.exists() == (expect == DELIVERED)
    assert not list((data / "pg_wal").glob("*.pgcairn"))
    return target.read_bytes() if target.exists() else None


def spools(home):
    return sorted(home.glob(PREFIX + "*"))


def ready(home, name):
    """The file of the spool that holds a segment, or None."""
    found = [path for spool in spools(home) for path in spool.glob(f"{name}.????????.*")]
    return found[0] if found else None


def wait_ready(home, name):
    wait_until(f"{name} was fetched ahead", lambda: ready(home, name))
    return ready(home, name)


def plain(pgcairn, path, workshop, cluster, cache={}):  # pylint: disable=dangerous-default-value
    """A segment as it is delivered without prefetch."""
    if path.name not in cache:
        data = recovering_directory(cluster, workshop.new_directory() / "plain")
        cache[path.name] = get(pgcairn, path.name, data, "--prefetch", "0")
        assert not (data / HOME).exists(), "nothing was to be fetched ahead"
    return cache[path.name]


def test_the_window_is_fetched_ahead_and_delivered(archived, workshop):
    cluster, pgcairn = archived
    names = [path.name for path in stored(pgcairn)]
    data = recovering_directory(cluster, workshop.directory / "data")
    home = data / HOME
    get(pgcairn, names[0], data, "--prefetch", "3")
    inode = wait_ready(home, names[3]).stat().st_ino
    for path in stored(pgcairn)[1:8]:
        wait_ready(home, path.name)
        assert get(pgcairn, path.name, data, "--prefetch", "3") == plain(pgcairn, path, workshop,
                                                                        cluster)
        if path.name == names[3]:
            assert (data / "pg_wal/RECOVERYXLOG").stat().st_ino == inode, "it was not that file"
    wait_ready(home, names[10])
    assert not ready(home, names[11]), "the window has three segments"
    assert (home.stat().st_mode & 0o077) == 0


def test_what_lies_ready_is_delivered_without_the_libraries_of_codecs_and_digests(archived, workshop):
    cluster, pgcairn = archived
    names = [path.name for path in stored(pgcairn)]
    data = recovering_directory(cluster, workshop.directory / "data")
    get(pgcairn, names[0], data)
    wait_ready(data / HOME, names[1])
    target = data / "pg_wal/RECOVERYXLOG"
    target.unlink()
    text = pgcairn.get(names[1], target, env={"LD_DEBUG": "files"}).stderr
    assert target.exists() and "libc.so" in text
    for library in "libcrypto", "liblz4", "libzstd":
        assert library not in text, "it was verified and unpacked when it was fetched"
    target.unlink()
    assert "libcrypto" in pgcairn.get(names[5], target, env={"LD_DEBUG": "files"}).stderr


def test_the_first_segment_and_those_behind_it_are_fetched_side_by_side(archived, workshop):
    cluster, pgcairn = archived
    first, second, *_ = stored(pgcairn)
    hidden = first.with_name("." + first.name)
    for standby in False, True:
        data = recovering_directory(cluster, workshop.directory / f"data{standby:d}")
        if standby:
            (data / "standby.signal").touch()
        target = data / "pg_wal/RECOVERYXLOG"
        first.rename(hidden)
        try:
            process = start(pgcairn.programs.wal, "get", "--config", pgcairn.config, first.name, target)
            if standby:
                time.sleep(0.5)
                assert not ready(data / HOME, second.name), "a standby may ask behind the end of WAL"
            else:
                wait_ready(data / HOME, second.name)
            assert process.poll() is None, "it was not to give up so soon"
        finally:
            hidden.rename(first)
        assert process.wait(timeout=30) == DELIVERED
        assert target.read_bytes() == plain(pgcairn, first, workshop, cluster)
        wait_ready(data / HOME, second.name)
        assert get(pgcairn, second.name, data) == plain(pgcairn, second, workshop, cluster)


def test_the_end_of_wal_is_asked_anew_each_time(archived, workshop):
    cluster, pgcairn = archived
    *_, before, last = stored(pgcairn)
    data = recovering_directory(cluster, workshop.directory / "data")
    hidden = last.with_name("." + last.name)
    last.rename(hidden)
    try:
        get(pgcairn, before.name, data)
        time.sleep(0.3)  # so that the background process has seen the end
        get(pgcairn, last.name, data, expect=ABSENT)
    finally:
        hidden.rename(last)
    get(pgcairn, last.name, data)


def test_another_turn_of_recovery_discards_the_window(archived, workshop):
    cluster, pgcairn = archived
    names = [path.name for path in stored(pgcairn)]
    data = recovering_directory(cluster, workshop.directory / "data")
    get(pgcairn, names[0], data, "--prefetch", "3")
    wait_ready(data / HOME, names[3])
    assert get(pgcairn, names[8], data, "--prefetch", "3") == plain(
        pgcairn, stored(pgcairn)[8], workshop, cluster)
    wait_ready(data / HOME, names[9])
    for name in names[1:4]:
        assert not ready(data / HOME, name)


def flip(path):
    """The file system's clock stands still for some milliseconds: until the inode shows that it was written."""
    before = path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1

    def shows():
        path.write_bytes(content)
        return path.stat().st_mtime_ns != before

    wait_until("its inode shows it", shows)


def flip_what_is_old(path):
    """Bits that rot leave no trace in the inode: what has lain there longer is read again."""
    flip(path)
    old = int(time.time() - 120) * 10 ** 9
    os.utime(path, ns=(old, old))
    segment, crc, _ = path.name.split(".")
    path.rename(path.with_name(f"{segment}.{crc}.{old.to_bytes(8, 'little').hex()}"))


def truncate(path):
    os.truncate(path, 8192)


def replace_by_link(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [flip, flip_what_is_old, truncate, replace_by_link, replace_by_fifo])
def test_a_damaged_file_of_the_spool_is_fetched_again(archived, workshop, damage):
    cluster, pgcairn = archived
    paths = stored(pgcairn)
    data = recovering_directory(cluster, workshop.directory / "data")
    get(pgcairn, paths[0].name, data)
    damage(wait_ready(data / HOME, paths[1].name))
    assert get(pgcairn, paths[1].name, data) == plain(pgcairn, paths[1], workshop, cluster)


def test_a_repository_that_is_down_is_trouble_whatever_lies_ready(archived, workshop):
    cluster, pgcairn = archived
    names = [path.name for path in stored(pgcairn)]
    data = recovering_directory(cluster, workshop.directory / "data")
    get(pgcairn, names[0], data)
    wait_ready(data / HOME, names[3])
    away = pgcairn.repository.with_name("away")
    wait_ready(data / HOME, names[1]).unlink()
    pgcairn.repository.rename(away)
    try:
        get(pgcairn, names[1], data, "--retry-timeout", "0", expect=TROUBLE)
    finally:
        away.rename(pgcairn.repository)
    get(pgcairn, names[1], data)


def test_recoveries_side_by_side_never_meet(archived, workshop):
    cluster, pgcairn = archived
    names = [path.name for path in stored(pgcairn)]
    spool = workshop.new_directory("spool")
    pgcairn.write_config(general={"spool-path": spool})
    try:
        one, two = (recovering_directory(cluster, workshop.directory / name)
                    for name in ("one", "two"))
        get(pgcairn, names[0], one, "--prefetch", "2")
        get(pgcairn, names[5], two, "--prefetch", "2")
        wait_until("both have a full window", lambda: len(list(spool.glob("*/0*.????????.????????????????"))) == 4)
        assert len(spools(spool)) == 2
        assert not (one / HOME).exists()
        assert get(pgcairn, names[1], one, "--prefetch", "2") == plain(
            pgcairn, stored(pgcairn)[1], workshop, cluster)
        assert get(pgcairn, names[6], two, "--prefetch", "2") == plain(
            pgcairn, stored(pgcairn)[6], workshop, cluster)
        wait_ready(spool, names[3])
        # A history file begins or ends a recovery: its own spool goes, the other stays.
        get(pgcairn, "00000009.history", one, expect=ABSENT)
        assert len(spools(spool)) == 1
        # A restore into the same place is another recovery.
        (two / "PG_VERSION").write_text((two / "PG_VERSION").read_text(encoding="ascii"),
                                        encoding="ascii")
        get(pgcairn, names[7], two, "--prefetch", "2")
        assert len(spools(spool)) == 2
    finally:
        pgcairn.write_config()


def test_what_others_left_behind_goes_when_it_is_old(archived, workshop):
    cluster, pgcairn = archived
    data = recovering_directory(cluster, workshop.directory / "data")
    old, fresh, foreign = (make_directory(data / HOME / name) for name in
                           (PREFIX + "0123456789abcdef", PREFIX + "fedcba9876543210", "pgsql_tmp7"))
    (old / "000000010000000000000001.01234567").touch()
    os.chown(data / HOME, *owner())
    for path in (old, foreign):
        os.utime(path, (time.time() - 7200,) * 2)
    get(pgcairn, "00000009.history", data, expect=ABSENT)
    assert not old.exists()
    assert fresh.exists()
    assert foreign.exists()


def plant_link(home, elsewhere):
    home.symlink_to(elsewhere)


def plant_file(home, _elsewhere):
    home.write_text("in the way", encoding="ascii")


@pytest.mark.parametrize("plant", [plant_link, plant_file])
def test_a_spool_that_is_not_ours_is_not_used(archived, workshop, plant):
    cluster, pgcairn = archived
    data = recovering_directory(cluster, workshop.directory / "data")
    elsewhere = workshop.new_directory("elsewhere")
    plant(data / HOME, elsewhere)
    for path in stored(pgcairn)[:3]:
        assert get(pgcairn, path.name, data) == plain(pgcairn, path, workshop, cluster)
    assert not list(elsewhere.iterdir())


def test_a_full_spool_delays_nothing(archived, workshop):
    cluster, pgcairn = archived
    data = recovering_directory(cluster, workshop.directory / "data")
    disk = SmallDisk(workshop.new_directory("spool"), free_bytes=3 * MIB)
    try:
        disk.fill()
        pgcairn.write_config(general={"spool-path": disk.directory})
        for path in stored(pgcairn)[:3]:
            target = data / "pg_wal/RECOVERYXLOG"
            target.unlink(missing_ok=True)
            result = disk.run(pgcairn.programs.wal, "get", "--config", pgcairn.config, path.name,
                              target)
            assert result.returncode == DELIVERED, result.stderr
            assert target.read_bytes() == plain(pgcairn, path, workshop, cluster)
    finally:
        pgcairn.write_config()
        disk.close()


def test_a_spool_on_another_file_system_is_copied_from(archived, workshop):
    cluster, pgcairn = archived
    data = recovering_directory(cluster, workshop.directory / "data")
    disk = SmallDisk(workshop.new_directory("spool"), free_bytes=200 * MIB)

    def fetch(name):
        target = data / "pg_wal/RECOVERYXLOG"
        target.unlink(missing_ok=True)
        result = disk.run(pgcairn.programs.wal, "get", "--config", pgcairn.config, name, target)
        assert result.returncode == DELIVERED, result.stderr
        return target.read_bytes()

    try:
        pgcairn.write_config(general={"spool-path": disk.directory})
        first, second, third, *_ = stored(pgcairn)
        fetch(first.name)
        wait_ready(disk.path, third.name)
        assert fetch(second.name) == plain(pgcairn, second, workshop, cluster)
        flip(wait_ready(disk.path, third.name))
        assert fetch(third.name) == plain(pgcairn, third, workshop, cluster)
        assert not list((data / "pg_wal").glob("*.pgcairn"))
    finally:
        pgcairn.write_config()
        disk.close()


def background(data):
    """Processes that fetch ahead for a data directory."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"pgcairn-wal\0get" in (entry / "cmdline").read_bytes() and \
                    any(str(data) in os.readlink(fd) for fd in (entry / "fd").iterdir()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_real_recovery_uses_it_and_leaves_nothing(archived, workshop):
    cluster, pgcairn = archived
    copy = workshop.cluster()
    must(cluster.bin / "pg_basebackup", "-d", cluster.conninfo(), "-D", copy.data, "-c", "fast",
         "-X", "none")
    for number in range(20):
        cluster.sql("INSERT INTO numbers SELECT %s, generate_series(1, 1000)", 100 + number)
        cluster.switch_wal()
    cluster.archive_all()
    # PostgreSQL itself empties this place when it starts.
    stale = make_directory(copy.data / HOME / (PREFIX + "0123456789abcdef"))
    (stale / "want.000000010000000000000001").touch()
    for path in (copy.data / HOME, stale, *stale.iterdir()):
        os.chown(path, *owner())
    copy.configure(archive_mode="off", restore_command=quoted(
        f"{pgcairn.programs.wal} get --config {pgcairn.config} %f %p"))
    (copy.data / "recovery.signal").touch()
    os.chown(copy.data / "recovery.signal", *owner())
    copy.start()
    copy.wait_promoted()
    assert copy.value("SELECT count(*) FROM numbers WHERE round >= 100") == 20000
    assert not stale.exists()
    wait_until("nothing is left of it", lambda: not spools(copy.data / HOME))
    wait_until("no process is left of it", lambda: not background(copy.data))
    assert "unexpected file" not in copy.log.read_text(encoding="utf-8")
    copy.stop()


def test_it_goes_with_its_server(archived, workshop):
    cluster, pgcairn = archived
    standby = workshop.cluster()
    must(cluster.bin / "pg_basebackup", "-d", cluster.conninfo(), "-D", standby.data, "-c", "fast",
         "-X", "none")
    for number in range(12):
        cluster.sql("INSERT INTO numbers SELECT %s, 1", 200 + number)
        cluster.switch_wal()
    cluster.archive_all()
    standby.configure(archive_mode="off", hot_standby="on", restore_command=quoted(
        f"{pgcairn.programs.wal} get --config {pgcairn.config} %f %p"))
    (standby.data / "standby.signal").touch()
    os.chown(standby.data / "standby.signal", *owner())
    standby.start()
    wait_until("the standby has it all", lambda: standby.value(
        "SELECT count(*) FROM numbers WHERE round >= 200") == 12)
    standby.kill()
    wait_until("no process outlives the server for long", lambda: not background(standby.data), 30)


def test_it_stops_before_a_fork(archived, workshop):
    cluster, pgcairn = archived
    names = [path.name for path in stored(pgcairn)]
    fork = names[6]
    lsn = f"0/{int(fork[16:], 16) * MIB + 4096:X}"
    history = workshop.directory / "00000002.history"
    data = recovering_directory(cluster, workshop.directory / "data")
    target = data / "pg_wal" / history.name
    target.write_text(f"1\t{lsn}\tno recovery target specified\n", encoding="ascii")
    os.chown(target, *owner())
    pgcairn.push(target)
    get(pgcairn, names[2], data)
    wait_ready(data / HOME, names[5])
    time.sleep(0.3)  # so that it would have gone on
    assert not ready(data / HOME, fork)
    # Recovery goes on along this timeline: then so does what is fetched ahead.
    for name in names[3:8]:
        get(pgcairn, name, data)
    wait_ready(data / HOME, names[9])
