"""The network, the server or the repository goes away under a backup, or another server takes over."""

import pytest

from support.compare import digest, verify_backup
from support.network import Network
from support.pgcairn import FAILED, OK, REFUSED, UNREACHABLE
from support.process import wait_until

CONNECTIONS = 2  # of a backup, while nothing is wrong
NOISE_ROWS = 100000  # random bytes for more than one pack, so that one is durable in the middle of a backup


class Site:
    """A server, a standby of it, and a network to them that can be broken."""

    def __init__(self, workshop, rows=5000, rate="3MB", enough=2000000):
        self.workshop, self.rate, self.enough = workshop, rate, enough
        self.server, self.pgcairn = workshop.archiving_server(wal_segsize=1)
        self.server.sql("UPDATE pg_database SET datistemplate = false")
        for name in ("template0", "template1"):
            self.server.sql(f"DROP DATABASE {name}")
        self.server.sql("CREATE EXTENSION pgcrypto")
        self.server.sql("CREATE TABLE noise AS SELECT gen_random_bytes(1000) AS b FROM generate_series(1, %s)", rows)
        self.server.sql("CHECKPOINT")
        self.network = Network(workshop.directory, self.server)
        self.pgcairn.conninfo = self.network.conninfo() + " connect_timeout=6"
        self.pgcairn.write_config(general={"server-timeout": 2})
        self.before = 0
        self.log = workshop.directory / "backup.log"

    def start_backup(self, *options):
        """One that takes some seconds, and the moment when enough of it has come."""
        wait_until("no other is sent any more", lambda: not self.server.sql("SELECT 1 FROM pg_stat_progress_basebackup"))
        with open(self.log, "w", encoding="utf-8") as log:
            process = self.pgcairn.start("backup", "--type=full", "--start-fast", f"--max-rate={self.rate}", "--log-level=info",
                                         "--wal-timeout=30", *options, stderr=log)
        self.before = self.made()
        wait_until("enough is sent", lambda: process.poll() is not None or self.server.sql(
            "SELECT 1 FROM pg_stat_progress_basebackup WHERE backup_streamed > %s", self.enough))
        assert process.poll() is None, self.output()
        return process

    def made(self):
        return len(self.pgcairn.backups("wal-complete", "copied", "damaged"))

    def durable_packs(self):
        """Of attempts that are no backups yet."""
        attempts = [path for path in self.pgcairn.repository.glob("c/main/b/*") if not (path / "fate").exists()]
        return [pack for path in attempts for pack in path.glob("p/*/*") if not pack.name.startswith(".")]

    def output(self):
        return self.log.read_text(encoding="utf-8")

    def ends(self, process, code, *words):
        """With this code, with these words, and without a backup."""
        assert process.wait(timeout=60) == code, self.output()
        for text in words:
            assert text in self.output()
        assert self.made() == self.before

    def next_backup(self):
        made = self.pgcairn.backup("--wal-timeout=30")
        assert made["state"] == "wal-complete"
        self.check_restored(made["label"], self.server)
        return made

    def check_restored(self, label, server):
        restored = self.workshop.restore(self.pgcairn, "--set", label, "--type=immediate")
        verify_backup(restored.data)
        assert digest(restored.start_restored()) == digest(server)
        self.workshop.discard(restored)


@pytest.fixture(scope="module")
def site(module_workshop):
    made = Site(module_workshop)
    yield made
    made.network.close()


def test_a_network_gone_for_a_while_costs_time_only(site):
    backup = site.start_backup()
    site.network.stop()
    wait_until("the server is being asked", lambda: site.network.connections() > CONNECTIONS)
    assert backup.poll() is None
    site.network.go_on()
    assert backup.wait(timeout=60) == OK, site.output()


def test_a_network_gone_for_ever_ends_the_backup(site):
    backup = site.start_backup()
    site.network.stop()
    try:
        assert backup.wait(timeout=30) == UNREACHABLE, site.output()
    finally:
        site.network.go_on()
    site.ends(backup, UNREACHABLE, "sent nothing of the backup for", "HINT")


def test_a_silent_failover_is_seen_by_who_answers(site):
    """The connection hangs, and another server than the one that sends is there now."""
    standby = site.workshop.standby(site.server)
    backup = site.start_backup()
    site.network.lead_to(standby)
    site.network.freeze()
    site.ends(backup, UNREACHABLE, "does not send it any more")
    site.network.lead_to(site.server)
    site.network.cut()  # or the server would send it for ever
    site.workshop.discard(standby)


def test_a_server_killed_under_the_backup(workshop):
    site = Site(workshop, rows=NOISE_ROWS, rate="16MB")
    try:
        backup = site.start_backup()
        wait_until("a pack is durable", lambda: backup.poll() is not None or site.durable_packs())
        assert backup.poll() is None, site.output()
        site.server.kill()
        assert backup.wait(timeout=60) == UNREACHABLE, site.output()
        site.server.start()
        site.ends(backup, UNREACHABLE)
        assert site.next_backup()["pages_salvaged"] > 5000
    finally:
        site.network.close()


def test_a_repository_that_is_gone_is_not_made_anew(site):
    away = site.pgcairn.repository.with_name("away")
    backup = site.start_backup()
    site.pgcairn.repository.rename(away)
    try:
        assert backup.wait(timeout=60) == UNREACHABLE, site.output()
        assert not site.pgcairn.repository.exists()
        name = site.server.switch_wal()
        site.pgcairn.push(site.server.data / "pg_wal" / name, expect=FAILED)
    finally:
        away.rename(site.pgcairn.repository)
    site.ends(backup, UNREACHABLE, "no longer at", "HINT")
    site.pgcairn.push(site.server.data / "pg_wal" / name)


def test_a_failover_under_the_backup(site):
    standby = site.workshop.standby(site.server)
    backup = site.start_backup()
    standby.promote()
    site.network.lead_to(standby)
    site.network.cut()
    site.ends(backup, UNREACHABLE)

    # Between the first connection and the one that streams.
    site.network.lead_to(site.server, standby)
    with open(site.log, "w", encoding="utf-8") as log:
        backup = site.pgcairn.start("backup", "--start-fast", "--log-level=info", stderr=log)
    site.ends(backup, REFUSED, "there was a failover meanwhile")

    # The old primary was backed up beyond the switch; what the new one has is told apart page by page.
    site.network.lead_to(site.server)
    site.server.sql("UPDATE noise SET b = b WHERE ctid < '(300,0)'")
    parent = site.pgcairn.backup("--wal-timeout=30")
    standby.sql("UPDATE noise SET b = '' WHERE ctid < '(500,0)' AND ctid > '(200,0)'")
    site.server.stop()
    site.network.lead_to(standby)
    made = site.pgcairn.json("backup", "--type=incr", "--start-fast", "--wal-timeout=30")
    assert made["type"] == "incr" and made["timeline"] == 2 and parent["timeline"] == 1
    site.check_restored(made["label"], standby)


def test_a_standby_promoted_under_its_backup(workshop):
    primary, pgcairn = workshop.archiving_server(wal_segsize=1)
    standby = workshop.standby(primary)
    pgcairn.conninfo = standby.conninfo(user="pgcairn")
    pgcairn.write_config()
    log = workshop.directory / "backup.log"
    with open(log, "w", encoding="utf-8") as file:
        backup = pgcairn.start("backup", "--max-rate=1MB", "--log-level=info", stderr=file)
    wait_until("it streams", lambda: "starts at" in log.read_text(encoding="utf-8"))
    primary.stop()
    standby.promote()
    assert backup.wait(timeout=60) == REFUSED, log.read_text(encoding="utf-8")
    assert "promoted" in log.read_text(encoding="utf-8")
    assert not pgcairn.backups()
    assert pgcairn.backup("--wal-timeout=30")["timeline"] == 2
