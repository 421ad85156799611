"""`pgcairn wal receive`: WAL byte by byte, alone and beside archive_command, through every trouble."""

import os
import re
import signal
import time

import pytest

from support.cluster import lsn_number
from support.compare import digest
from support.network import Network
from support.pgcairn import FAILED, NOT_FOUND, OK, REFUSED
from support.process import wait_until
from support.receiver import (LOAD_TABLE, fill, flush_lsn, is_gapless, pieces, pieces_reach, segments, server_with_receiver,
                              wait_flushed, wait_gone, wait_stored)


# -- alone and beside push


def test_receive_alone_feeds_backup_and_restore(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    cluster.sql(LOAD_TABLE)
    made = pgcairn.backup("--wal-timeout=60")
    assert made["state"] == "wal-complete"
    results = {result["name"]: result for result in pgcairn.json("check")["results"]}
    assert results["archive_mode"]["status"] == "OK" and "wal receive" in results["archive_mode"]["text"]
    assert results["wal-arrival"]["status"] == "OK"
    fill(cluster)
    wait_stored(pgcairn, cluster.switch_wal())
    expected = digest(cluster)
    receiver.stop()
    wait_gone(cluster)
    assert "no receiver streams" in pgcairn.run("check", "--no-switch", expect=FAILED).stdout

    assert is_gapless(segments(pgcairn))
    assert digest(workshop.restore(pgcairn).start_restored()) == expected


def test_receive_and_archive_command_make_one_coherent_set(workshop, receivers):
    cluster, pgcairn = workshop.archiving_server(wal_segsize=1)
    receiver = receivers(pgcairn).start().says("receiving from")
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    for _ in range(6):
        fill(cluster, 2000)
        cluster.switch_wal()
    cluster.archive_all()
    wait_flushed(cluster)
    expected = digest(cluster)
    last = cluster.switch_wal()
    wait_stored(pgcairn, last)
    wait_until("the spool is empty", lambda: not [
        path for path in receiver.spool.glob("receive/*/*/*") if len(path.name) == 24])
    receiver.stop()

    assert cluster.value("SELECT failed_count FROM pg_stat_archiver") == 0
    assert is_gapless(segments(pgcairn))
    pgcairn.run("verify")
    assert digest(workshop.restore(pgcairn).start_restored()) == expected


# -- the tail


def test_without_synchronous_the_last_seconds_are_restored(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    fill(cluster, 500)
    expected = digest(cluster)
    lsn = wait_flushed(cluster)
    wait_until("the tail is stored", pieces_reach(pgcairn, receiver, lsn))
    cluster.kill()
    receiver.kill()

    text = pgcairn.run("info").stdout
    assert "no gaps" in text
    pgcairn.run("verify")
    restored = workshop.restore(pgcairn)
    assert digest(restored.start_restored()) == expected


def test_a_target_in_the_tail_is_reached(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    fill(cluster, 50)
    cluster.sql("SELECT pg_create_restore_point('here')")
    fill(cluster, 50)
    lsn = wait_flushed(cluster)
    wait_until("the tail is stored", pieces_reach(pgcairn, receiver, lsn))
    receiver.kill()

    restored = workshop.restore(pgcairn, "--type=name", "--target=here").start_restored()
    assert restored.value("SELECT count(*) FROM load") == 50


def test_the_original_reaches_a_target_in_the_tail(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(
        workshop, receivers, settings={"archive_mode": "always", "archive_command": "'/bin/false'"})
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    fill(cluster, 50)
    cluster.sql("SELECT pg_create_restore_point('here')")
    fill(cluster, 50)
    lsn = wait_flushed(cluster)
    wait_until("the tail is stored", pieces_reach(pgcairn, receiver, lsn))
    cluster.kill()
    receiver.kill()

    pgcairn.run("restore", "--to", cluster.data, "--as=original", "--force", "--type=name",
                "--target=here", "--target-action=promote")
    assert pgcairn.objects("c/main/w/*/*/*/*.partial.*")  # its pg_wal was rescued, pieces are there
    assert pieces(pgcairn)
    cluster.start_restored()
    assert cluster.value("SELECT count(*) FROM load") == 50
    # It was given a segment that was never finished: `always` would have stored it as if it was.
    assert cluster.value("SHOW archive_mode") == "on"


def newest_pieces(pgcairn, behind=""):
    """Those of the newest segment, by offset."""
    names = [name for name in pieces(pgcairn) if name[:24] > behind]
    newest = max((name[:24] for name in names), default="")
    return sorted((name for name in names if name.startswith(newest)),
                  key=lambda name: name.rsplit(".", 1)[1])


def test_damage_in_the_tail_is_no_end_of_wal(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    fill(cluster, 50)  # a piece may end in the middle of a transaction: these come back in any case
    name = cluster.switch_wal()
    rows = 50
    # Pieces of that segment itself would not do: it is whole.
    while len(newest_pieces(pgcairn, behind=name)) < 3:
        fill(cluster, 50)
        rows += 50
        wait_until("the tail is stored", pieces_reach(pgcairn, receiver, wait_flushed(cluster)))
    receiver.kill()
    (middle,) = pgcairn.objects(f"c/main/w/*/*/*/{newest_pieces(pgcairn)[1]}")
    whole = middle.read_bytes()
    middle.chmod(0o600)
    middle.write_bytes(whole[:9] + bytes([whole[9] ^ 0x40]) + whole[10:])

    refused = pgcairn.run("restore", "--to", workshop.directory / "refused", expect=None)
    assert refused.returncode != OK
    assert "is damaged" in refused.stderr
    lsn = re.search(r"--lsn=([0-9A-F]+/[0-9A-F]+)", refused.stderr).group(1)
    restored = workshop.restore(pgcairn, f"--lsn={lsn}").start_restored()
    assert 50 <= restored.value("SELECT count(*) FROM load") < rows


def test_pieces_go_when_their_segment_is_whole(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    cluster.sql(LOAD_TABLE)
    wait_until("a piece is stored", lambda: pieces(pgcairn))
    name = cluster.switch_wal()
    wait_stored(pgcairn, name)
    wait_until("its pieces are gone",
               lambda: not [piece for piece in pieces(pgcairn) if piece.startswith(name)])
    receiver.stop()


# -- trouble


def test_the_repository_away_and_back(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers, "--spool-limit=4MiB")
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    os.chmod(pgcairn.repository, 0)
    cluster.switch_wal()
    receiver.says("the repository is out of reach")
    for _ in range(6):
        fill(cluster, 3000)
    receiver.says("is full")
    assert flush_lsn(cluster) < lsn_number(cluster.value("SELECT pg_current_wal_flush_lsn()"))
    os.chmod(pgcairn.repository, 0o750)
    receiver.says("the repository is back").says("room again")
    wait_flushed(cluster)
    expected = digest(cluster)
    wait_stored(pgcairn, cluster.switch_wal())
    receiver.stop()

    assert is_gapless(segments(pgcairn))
    assert digest(workshop.restore(pgcairn).start_restored()) == expected


def test_it_connects_again_after_the_server_went(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    cluster.sql(LOAD_TABLE)
    cluster.kill()
    receiver.says("trying again")
    cluster.start()
    fill(cluster)
    wait_flushed(cluster)
    wait_stored(pgcairn, cluster.switch_wal())
    receiver.stop()
    assert is_gapless(segments(pgcairn))


def test_a_promotion_is_followed(workshop, receivers):
    primary = workshop.server("primary", wal_segsize=1)
    standby = workshop.standby(primary, "standby")
    pgcairn = workshop.pgcairn(standby)
    pgcairn.init()
    receiver = receivers(pgcairn).start().says("receiving from")
    primary.sql(LOAD_TABLE)
    fill(primary)
    standby.wait_replayed(primary.value("SELECT pg_current_wal_flush_lsn()"))
    primary.stop()
    standby.promote()
    receiver.says("following timeline 2")
    pgcairn.backup("--wal-timeout=60")
    fill(standby)
    wait_flushed(standby)
    expected = digest(standby)
    wait_stored_on(pgcairn, standby.switch_wal(), 2)
    receiver.stop()

    assert pgcairn.objects("**/00000002/history")
    pgcairn.run("verify")
    assert digest(workshop.restore(pgcairn).start_restored()) == expected


def wait_stored_on(pgcairn, name, timeline):
    wait_until(f"{name} is stored", lambda: name in segments(pgcairn, timeline))


def test_removed_wal_is_a_gap_that_must_be_accepted(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(
        workshop, receivers, settings={"max_wal_size": "'2MB'", "min_wal_size": "'2MB'"})
    cluster.sql(LOAD_TABLE)
    wait_flushed(cluster)
    wait_stored(pgcairn, cluster.switch_wal())
    receiver.stop()
    cluster.wait_released("receive")
    pgcairn.run("wal", "receive", "--slot=receive", "--drop-slot")
    for _ in range(8):
        fill(cluster, 3000)
        cluster.switch_wal()
        cluster.sql("CHECKPOINT")

    receiver.start()
    assert receiver.ends() == REFUSED
    assert "is missing" in receiver.output() and "--accept-gap" in receiver.output()

    receiver.start("--accept-gap").says("is lost (--accept-gap)")
    wait_stored(pgcairn, cluster.switch_wal())
    receiver.stop()
    assert not is_gapless(segments(pgcairn))


def test_a_lost_slot_is_named(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    wait_flushed(cluster)
    receiver.stop()
    cluster.wait_released("receive")
    pgcairn.run("wal", "receive", "--slot=receive", "--drop-slot")
    result = pgcairn.run("wal", "receive", "--slot=receive", "--spool-path", receiver.spool,
                         expect=NOT_FOUND)
    assert "no replication slot 'receive'" in result.stderr and "HINT" in result.stderr


def test_another_system_is_refused(workshop, receivers):
    _, pgcairn, receiver = server_with_receiver(workshop, receivers)
    receiver.stop()
    other = workshop.server("other", wal_segsize=1)
    pgcairn.conninfo = other.conninfo(user="pgcairn")
    pgcairn.write_config()
    result = pgcairn.run("wal", "receive", "--slot=receive", "--create-slot", "--spool-path",
                         receiver.spool, expect=None)
    assert result.returncode not in (OK, None)
    assert "the repository does not know" in result.stderr


def test_a_part_of_a_run_without_slot_is_not_gone_on_with(workshop, receivers):
    cluster = workshop.server(wal_segsize=1, settings={"wal_keep_size": "'256MB'"})
    pgcairn = workshop.pgcairn(cluster)
    pgcairn.init()
    cluster.sql(LOAD_TABLE)
    cluster.sql("CHECKPOINT")
    fill(cluster, 9000)
    cluster.switch_wal()  # so that what comes now does not fill a segment
    receiver = receivers(pgcairn, slot=None).start().says("receiving from")
    fill(cluster, 50)
    wait_flushed(cluster)
    receiver.stop()
    (part,) = receiver.spool.glob("receive/*/*/*.part")
    assert part.stat().st_size > 0
    assert not segments(pgcairn)

    # The slot holds WAL from the checkpoint on, segments before the part.
    receiver.start("--slot=receive", "--create-slot")
    wait_stored(pgcairn, cluster.switch_wal())
    receiver.stop()
    names = sorted(segments(pgcairn))
    assert is_gapless(names) and names[0] < part.stem <= names[-1]
    for name in names:
        copy = workshop.directory / f"copy-{name}"
        pgcairn.get(name, copy, "--pgdata", cluster.data)
        assert copy.read_bytes() == (cluster.data / "pg_wal" / name).read_bytes(), name


def test_a_part_that_goes_beyond_a_failover_is_left(workshop, receivers):
    primary = workshop.server("primary", wal_segsize=1)
    standby = workshop.standby(primary, "standby")
    pgcairn = workshop.pgcairn(primary)
    pgcairn.init()
    primary.sql(LOAD_TABLE)
    standby.wait_replayed(primary.value("SELECT pg_current_wal_flush_lsn()"))
    receiver = receivers(pgcairn).start().says("receiving from")
    standby.stop()
    fill(primary, 200)  # the standby never gets this
    wait_flushed(primary)
    receiver.kill()
    primary.kill()
    pgcairn.conninfo = standby.conninfo(user="pgcairn")
    pgcairn.write_config()
    standby.start()

    # Behind what was received it is waited for, promoted it is followed.
    receiver.start().says("behind what was received")
    standby.promote()
    receiver.says("on timeline 2")
    pgcairn.backup("--wal-timeout=60")
    fill(standby)
    wait_flushed(standby)
    expected = digest(standby)
    wait_stored_on(pgcairn, standby.switch_wal(), 2)
    receiver.stop()
    assert digest(workshop.restore(pgcairn).start_restored()) == expected


def test_a_hole_before_a_promotion_is_filled_from_the_slot(workshop, receivers):
    primary = workshop.server("primary", wal_segsize=1)
    standby = workshop.standby(primary, "standby")
    pgcairn = workshop.pgcairn(standby)
    pgcairn.init()
    receiver = receivers(pgcairn).start().says("receiving from")
    primary.sql(LOAD_TABLE)
    wait_stored(pgcairn, primary.switch_wal())
    receiver.stop()
    fill(primary, 9000)
    standby.wait_replayed(primary.value("SELECT pg_current_wal_flush_lsn()"))
    primary.stop()
    standby.promote()
    # Another way brings what is new, nobody what was before.
    pgcairn.push(standby.data / "pg_wal" / standby.switch_wal())
    assert segments(pgcairn, 2)

    receiver.start().says("on timeline 1").says("following timeline 2")
    fill(standby, 50)
    wait_stored_on(pgcairn, standby.switch_wal(), 2)
    receiver.stop()
    assert is_gapless(segments(pgcairn, 1) + segments(pgcairn, 2))
    assert len(segments(pgcairn, 1)) > 3


# -- synchronous


def test_a_spool_on_the_servers_host_is_no_synchronous_one(workshop, receivers):
    cluster = workshop.server(wal_segsize=1)
    pgcairn = workshop.pgcairn(cluster).init()
    receiver = receivers(pgcairn, "--synchronous-spool").start()
    assert receiver.ends() == REFUSED
    assert "own host" in receiver.output()


def test_what_only_waits_in_the_spool_is_not_acknowledged(workshop, receivers):
    cluster, pgcairn, receiver = server_with_receiver(
        workshop, receivers, "--synchronous", "--application-name=pgcairn_sync")
    cluster.sql(LOAD_TABLE)
    wait_flushed(cluster)
    os.chmod(pgcairn.repository, 0)
    before = lsn_number(cluster.value("SELECT pg_current_wal_flush_lsn()"))
    fill(cluster, 10000)  # more than a segment
    receiver.says("the repository is out of reach")
    wait_until("whole segments wait", lambda: [
        path for path in receiver.spool.glob("receive/*/*/*") if len(path.name) == 24])
    written = lsn_number(cluster.value("SELECT pg_current_wal_flush_lsn()"))

    # Neither at once, nor after a new connection.
    for again in range(3):
        wait_until("all is written", lambda: any(
            lsn_number(lsn) >= written for (lsn,) in cluster.sql(
                "SELECT write_lsn FROM pg_stat_replication WHERE write_lsn IS NOT NULL")))
        assert flush_lsn(cluster) <= before
        if again < 2:
            cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
            wait_until("the connection ends and comes back",
                       lambda count=again + 2: receiver.output().count("receiving from") >= count)
    os.chmod(pgcairn.repository, 0o750)
    wait_flushed(cluster)
    receiver.stop()
    assert is_gapless(segments(pgcairn))


# -- slots and networks that go


def test_a_network_that_swallows_everything_is_left(workshop, receivers):
    # The server, too, must see that the old connection is dead before it gives the slot to a new one.
    cluster = workshop.server(wal_segsize=1, settings={"wal_sender_timeout": "'3s'"})
    pgcairn = workshop.pgcairn(cluster)
    network = Network(workshop.directory, cluster)
    try:
        pgcairn.conninfo = network.conninfo() + " connect_timeout=6"
        pgcairn.write_config(general={"server-timeout": 4})
        pgcairn.init()
        receiver = receivers(pgcairn).start().says("receiving from")
        cluster.sql(LOAD_TABLE)
        wait_flushed(cluster)
        # Quiet for longer than the limit: the server answers when it is asked.
        time.sleep(6)
        assert "said nothing" not in receiver.output()
        before = receiver.output().count("receiving from")
        network.freeze()
        receiver.says("the server said nothing for")
        wait_until("it receives again", lambda: receiver.output().count("receiving from") > before)
        fill(cluster)
        wait_flushed(cluster)
        wait_stored(pgcairn, cluster.switch_wal())
        receiver.stop()
        assert is_gapless(segments(pgcairn))
    finally:
        network.close()


def test_who_stood_still_himself_asks_before_he_leaves(workshop, receivers):
    # The server says nothing by itself.
    cluster = workshop.server(wal_segsize=1, settings={"wal_sender_timeout": "0"})
    pgcairn = workshop.pgcairn(cluster)
    pgcairn.write_config(general={"server-timeout": 4})
    pgcairn.init()
    receiver = receivers(pgcairn).start().says("receiving from")
    wait_flushed(cluster)
    receiver.process.send_signal(signal.SIGSTOP)
    time.sleep(5)  # longer than the limit
    receiver.process.send_signal(signal.SIGCONT)
    cluster.sql(LOAD_TABLE)
    wait_flushed(cluster)
    receiver.stop()
    assert "said nothing" not in receiver.output()


@pytest.mark.parametrize("running", [False, True])
def test_an_invalidated_slot_is_named_and_the_gap_is_recorded(workshop, receivers, running):
    """max_slot_wal_keep_size: the server would rather lose the receiver than its disk."""
    cluster, pgcairn, receiver = server_with_receiver(
        workshop, receivers, "--spool-limit=4MiB", settings={
            "max_wal_size": "'2MB'", "min_wal_size": "'2MB'", "max_slot_wal_keep_size": "'2MB'"})
    receiver.stop()
    pgcairn.write_config(general={"server-timeout": 3})
    receiver.start().says("receiving from")
    cluster.sql(LOAD_TABLE)
    wait_flushed(cluster)
    wait_stored(pgcairn, cluster.switch_wal())
    if running:
        # Full, it does not keep a connection that it reads nothing from: the checkpoint below would wait for it.
        os.chmod(pgcairn.repository, 0)
        fill(cluster, 9000)
        receiver.says("so that the server need not wait").says("the repository takes nothing")
    else:
        receiver.stop()
    for _ in range(10):
        fill(cluster, 3000)
        cluster.switch_wal()
        cluster.sql("CHECKPOINT")
    assert cluster.value("SELECT wal_status FROM pg_replication_slots") == "lost"
    if running:
        os.chmod(pgcairn.repository, 0o750)
        # Half a minute may pass, and as long again until it connects.
        wait_until("the repository is back", lambda: "the repository is back" in receiver.output()
                   or receiver.process.poll() is not None)
    else:
        receiver.start()
    code = receiver.ends()
    text = receiver.output()
    assert code in (NOT_FOUND, REFUSED), text
    assert "slot 'receive'" in text and "max_slot_wal_keep_size" in text and "--drop-slot" in text, text

    pgcairn.run("wal", "receive", "--slot=receive", "--drop-slot")
    receiver.start()
    assert receiver.ends() == REFUSED
    assert "--accept-gap" in receiver.output()
    receiver.start("--accept-gap").says("is lost (--accept-gap)")
    wait_stored(pgcairn, cluster.switch_wal())
    receiver.stop()
    assert not is_gapless(segments(pgcairn))
