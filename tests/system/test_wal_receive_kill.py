"""Receiver and primary killed at random under load: nothing that was acknowledged is missing (kill_rounds.py)."""

import contextlib
import signal
import threading
import time

import psycopg2
import pytest

from support.cluster import lsn_number
from support.compare import digest
from support.kill_rounds import chance_of, kill_rounds, report
from support.process import wait_until
from support.receiver import (LOAD_TABLE, fill, flush_lsn, is_gapless, segments, server_with_receiver, wait_flushed,
                              wait_stored)


def test_kill_9_of_the_receiver_loses_nothing_acknowledged(workshop, receivers):
    # The server keeps nothing that it need not, so a segment lost after it was acknowledged stays lost.
    cluster, pgcairn, receiver = server_with_receiver(
        workshop, receivers, settings={"max_wal_size": "'2MB'", "min_wal_size": "'2MB'"})
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    chance = chance_of("receiver")
    rounds = kill_rounds(10)
    for _ in range(rounds):
        writer = threading.Thread(target=fill, args=(cluster, 4000))
        writer.start()
        time.sleep(chance.random() / 2)
        receiver.kill()
        writer.join()
        cluster.sql("CHECKPOINT")
        receiver.start()
    acknowledged = wait_flushed(cluster)
    expected = digest(cluster)
    wait_stored(pgcairn, cluster.switch_wal())
    receiver.stop()

    names = segments(pgcairn)
    assert is_gapless(names)
    pgcairn.run("verify")
    assert digest(workshop.restore(pgcairn).start_restored()) == expected
    report("receiver", kills=rounds, acknowledged_bytes=acknowledged, segments=len(names), missing=0)


@pytest.mark.parametrize("round_number", range(kill_rounds(3)))
def test_kill_9_of_both_loses_no_acknowledged_byte(workshop, receivers, round_number):
    cluster, pgcairn, receiver = server_with_receiver(workshop, receivers)
    cluster.sql(LOAD_TABLE)
    pgcairn.backup("--wal-timeout=60")
    chance = chance_of(f"both {round_number}")
    ends = []

    def write():
        with contextlib.suppress(psycopg2.Error):
            while True:
                fill(cluster, 20)
                ends.append(lsn_number(cluster.value("SELECT pg_current_wal_flush_lsn()")))

    writer = threading.Thread(target=write)
    writer.start()
    enough = chance.randrange(5, 120)
    wait_until("some of it is acknowledged", lambda: len(ends) > enough and flush_lsn(cluster) > ends[4])
    acknowledged = flush_lsn(cluster)
    receiver.kill()
    cluster.kill()
    writer.join()
    kept = sum(end <= acknowledged for end in ends) * 20

    # The server is gone for good: what waits in the spool must not wait for it.
    receiver.start().says("is stored meanwhile")
    wait_until("the spool is empty", lambda: not [
        path for path in receiver.spool.glob("receive/*/*/0*")])
    receiver.stop()
    assert lsn_number(pgcairn.info()["recoverable"]["to_lsn"]) + 8192 >= acknowledged
    restored = workshop.restore(pgcairn).start_restored()
    assert restored.value("SELECT count(*) FROM load WHERE n <= %s", kept) == kept
    report(f"both {round_number}", kills=2, acknowledged_rows=kept, missing=0)


def wait_commits_wait(cluster, receiver):
    """The server's checkpointer turns waiting on, a moment after everybody else knows of it: tried with a receiver
    that does not answer."""
    wait_until("the receiver is the synchronous one", lambda: cluster.value(
        "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1)
    receiver.process.send_signal(signal.SIGSTOP)
    commits = []

    def waits():
        if not commits or not commits[-1].is_alive():
            commits.append(threading.Thread(target=cluster.sql, args=("SELECT pg_logical_emit_message(true, '', '')",)))
            commits[-1].start()
        return cluster.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

    try:
        wait_until("a commit waits", waits)
    finally:
        receiver.process.send_signal(signal.SIGCONT)
        for commit in commits:
            commit.join()


@pytest.mark.parametrize("round_number", range(kill_rounds(3)))
def test_kill_9_of_the_primary_loses_no_acknowledged_commit(workshop, receivers, round_number):
    cluster, pgcairn, receiver = server_with_receiver(
        workshop, receivers, "--synchronous", "--application-name=pgcairn_sync")
    cluster.sql("CREATE TABLE acknowledged (writer int, n int)")
    pgcairn.backup("--wal-timeout=60")
    cluster.configure(synchronous_standby_names="'pgcairn_sync'")
    cluster.reload()
    wait_commits_wait(cluster, receiver)
    chance = chance_of(f"primary {round_number}")
    done = [0, 0, 0, 0]

    def write(writer):
        with contextlib.suppress(psycopg2.Error):
            connection = cluster.connect()
            while True:
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO acknowledged VALUES (%s, %s)",
                                   (writer, done[writer] + 1))
                done[writer] += 1

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    enough = chance.randrange(5, 80)
    wait_until("commits come back", lambda: min(done) >= enough)
    time.sleep(chance.random() / 10)
    # Half the time the receiver goes first, in the middle of whatever it does.
    for victim in chance.sample([cluster, receiver], 2):
        victim.kill()
    for writer in writers:
        writer.join()

    restored = workshop.restore(pgcairn).start_restored()
    for writer, count in enumerate(done):
        kept = restored.value("SELECT count(*) FROM acknowledged WHERE writer = %s AND n <= %s",
                              writer, count)
        assert kept == count, f"writer {writer}: {kept} of {count} acknowledged commits"
    report(f"primary {round_number}", kills=2, acknowledged_commits=sum(done), missing=0)
