"""Encryption as a DBA lives with it: every mode end to end, keys added, lost and rotated, secrets kept."""

import contextlib
import os
import pathlib
import pty

import pytest

from support.compare import after_restore, digest, verify_backup
from support.encryption import PASSPHRASE, EncryptedPgcairn, Keys, section
from support.pgcairn import DAMAGED, FAILED, OK, REFUSED, USAGE
from support.process import is_root, run, start, wait_until

READER = pathlib.Path(__file__).parents[2] / "tools" / "pgcairn-reader.py"
MODES = ("key-file", "passphrase", "sealed")

# In rows, in the name of a table, and in the name of a restore point.
MARKER = "Kennzeichen4711"


class Site:
    """A server that archives into an encrypted repository, with two backups and a moment between them."""

    def __init__(self, shop, mode):
        self.shop, self.mode = shop, mode
        self.keys = Keys(shop.programs, shop.directory / f"{mode}-keys")
        self.cluster = shop.cluster(f"{mode}-server").initdb()
        self.spool = shop.new_directory(f"{mode}-spool")
        # Stored as it is in one mode, so that nothing but encryption hides a text.
        self.section = {**section(mode, self.keys), "compression": "none" if mode == "key-file" else "lz4"}
        self.host = self.pgcairn("host", self.section)
        self.cluster.archive_with(self.host)
        self.cluster.start()
        self.cluster.make_role()
        self.init = self.host.run("init")
        self.fill()
        if mode == "sealed":
            self.reader = self.pgcairn("reader", {"encryption": "sealed",
                                                  "key-file": self.keys.directory / "restore.key"})
        else:
            self.reader = self.host

    def pgcairn(self, name, repository, spool=True):
        """Another configuration of the same repository, as another host would have."""
        made = EncryptedPgcairn(self.shop.programs, self.shop.directory / f"{self.mode}-{name}", self.cluster)
        place = getattr(self, "host", made).repository
        made.repository = place
        made.write_config(repository={**repository, "path": place},
                          general={"spool-path": self.spool} if spool else {})
        return made

    def fill(self):
        sql = self.cluster.sql
        sql(f"CREATE TABLE {MARKER} AS SELECT n, '{MARKER}' || n AS body FROM generate_series(1, 5000) n")
        self.full = self.host.backup()["label"]
        sql(f"UPDATE {MARKER} SET body = body || ' changed' WHERE n % 50 = 0")
        sql(f"SELECT pg_create_restore_point('{MARKER}')")
        self.at_point = digest(self.cluster)
        sql(f"DELETE FROM {MARKER} WHERE n % 3 = 0")
        self.incremental = self.host.json("backup", "--type=incr", "--start-fast")["label"]
        sql(f"INSERT INTO {MARKER} SELECT n, 'after {MARKER}' FROM generate_series(1, 500) n")
        self.at_end = digest(self.cluster)
        self.cluster.archive_all()


@pytest.fixture(scope="module")
def sites(module_workshop):
    """Made at first use, one a mode."""
    made = {}

    def of(mode):
        if mode not in made:
            made[mode] = Site(module_workshop, mode)
        return made[mode]

    return of


@pytest.fixture(params=MODES)
def site(request, sites):
    return sites(request.param)


def restore_and_start(shop, pgcairn, *arguments):
    restored = shop.restore(pgcairn, "--as=clone", *arguments)
    verify_backup(restored.data, wal=False)
    return restored.start_restored()


def results(pgcairn, expect=OK):
    report = pgcairn.json("check", "--no-switch", expect=expect)
    return {result["name"]: (result["status"], result["text"]) for result in report["results"]}


def slots(pgcairn):
    return {slot["name"]: slot for slot in pgcairn.json("key", "list")["slots"]}


# -- the whole way, in every mode


def test_backups_restore_to_the_end_and_to_a_point(site, workshop):
    """The incremental one goes back to the frames of the full one."""
    for arguments, expected in ((["--set", site.incremental], site.at_end),
                                (["--set", site.full, "--type=name", f"--target={MARKER}"], site.at_point)):
        restored = restore_and_start(workshop, site.reader, *arguments)
        assert digest(restored) == after_restore(expected), arguments
        workshop.discard(restored)


def test_verify_and_targets_read_what_is_encrypted(site):
    report = site.reader.json("verify")
    assert report["findings"] == [] and report["good_backups"] == 2
    assert MARKER in site.reader.run("targets", "--restore-points").stdout


def test_nothing_in_the_repository_can_be_read_without_the_key(site):
    plain = b"".join(path.read_bytes() for path in (site.cluster.data / "base").rglob("*") if path.is_file())
    assert MARKER.encode() in plain  # so the search finds what there is to be found
    for path in site.host.objects():
        stored = path.read_bytes()
        for text in (MARKER, "pg_control", "base/", "PG_VERSION", "backup_label", "START WAL LOCATION"):
            assert text.encode() not in stored, (path, text)


def test_key_verify_proves_the_key_with_a_page_and_a_segment(site):
    proof = site.reader.json("key", "verify", "--full")
    assert proof["backup"] == site.incremental and proof["file"].startswith("base/")
    assert proof["page_bytes"] >= 8192 and proof["wal"]
    assert proof["full"]["objects"] > 0 and proof["full"]["findings"] == 0


def test_key_verify_goes_on_beside_a_system_s_record_that_cannot_be_read(site):
    record, = site.host.objects("c/main/i/*")
    rubbish = record.with_name(f"{1:016x}-15")
    rubbish.write_bytes(b"rubbish")
    try:
        said = site.reader.run("key", "verify", expect=DAMAGED)
        assert "decrypted and authenticated" in said.stdout and "WAL 0" in said.stdout
        assert rubbish.name in said.stderr and "bring it back from a copy" in said.stderr
        proof = site.reader.json("key", "verify", expect=DAMAGED)
        assert proof["wal"] and proof["unreadable_record"].endswith(rubbish.name)
    finally:
        rubbish.unlink()
    assert site.reader.json("key", "verify")["unreadable_record"] is None


def test_check_says_what_is_encrypted_and_that_one_key_is_too_few(site):
    found = results(site.host, expect=None)
    assert found["encryption"][0] == "OK"
    assert found["key-slots"][0] == ("OK" if site.mode == "passphrase" else "WARNING")
    assert found["key-files"][0] == "OK"
    assert "key-speed" not in found
    assert "next" in site.init.stdout and "key verify" in site.init.stdout


# -- keys that are wrong, lost, added, taken away


def test_a_wrong_key_is_told_so_and_nothing_is_touched(sites, workshop):
    site = sites("key-file")
    before = site.host.objects()
    wrong = {"stranger": {"encryption": "key-file", "key-file": site.keys.generate("stranger.key")},
             "words": {"encryption": "passphrase", "passphrase-command": "echo open sesame"}}
    for name, repository in wrong.items():
        pgcairn = site.pgcairn(name, repository, spool=False)
        target = workshop.new_directory() / "data"
        segment = next(path for path in (site.cluster.data / "pg_wal").iterdir() if len(path.name) == 24)
        for refused in (pgcairn.run("backup", "--type=full", expect=FAILED),
                        pgcairn.run("restore", "--to", target, expect=FAILED),
                        pgcairn.run("info", expect=FAILED),
                        pgcairn.push(segment, expect=FAILED),
                        pgcairn.get(segment.name, workshop.directory / "got", "--pgdata", site.cluster.data,
                                    "--retry-timeout=0", expect=126)):
            assert "wrong key" in refused.stderr, refused
            assert "sesame" not in refused.stderr
        assert not target.exists() or not any(target.iterdir())
    assert site.host.objects() == before


def test_what_the_configuration_says_is_what_happens(sites):
    site = sites("key-file")
    for encryption, mode in (("none", "plain"), ("sealed", "other")):
        stated = site.pgcairn(mode, {**site.section, "encryption": encryption}, spool=False)
        for command in (["backup"], ["info"]):
            assert "encrypted with keys" in stated.run(*command, expect=None).stderr
    loose = site.keys.write("loose.key", (site.keys.directory / "main.key").read_text(), mode=0o644)
    refused = site.pgcairn("loose", {"encryption": "key-file", "key-file": loose}).run("info", expect=FAILED)
    assert f"chmod 600 '{loose}'" in refused.stderr


def read_terminal(reading):
    """All that was said: a terminal hands it over bit by bit, and fails when nobody has it open any more."""
    said = b""
    with contextlib.suppress(OSError):
        while piece := os.read(reading, 1 << 16):
            said += piece
    return said


def test_init_wants_the_decision_and_shows_the_lines(workshop):
    pgcairn = workshop.pgcairn(workshop.cluster())
    pgcairn.config.write_text(pgcairn.config.read_text().replace("encryption = none\n", ""))
    refused = pgcairn.run("init", "--no-server", expect=USAGE)
    for line in ("encryption = none", "encryption = key-file", "encryption = passphrase", "encryption = sealed"):
        assert line in refused.stderr
    assert not pgcairn.repository.exists()
    assert "#encryption = sealed" in pgcairn.run("init", "--print").stdout

    reading, terminal = pty.openpty()  # to a person it says what each choice costs
    told = start(*pgcairn.command("init", "--no-server"), stderr=terminal)
    os.close(terminal)
    assert b"Whoever breaks into this host cannot read old backups" in read_terminal(reading)
    os.close(reading)
    assert told.wait(60) == USAGE


def test_a_second_key_opens_and_a_removed_one_opens_no_more(sites, workshop):
    site = sites("key-file")
    escrow = site.keys.write("escrow", PASSPHRASE + "\n")
    site.host.run("key", "add", "escrow", "--passphrase-file", escrow)
    site.keys.generate("safe.key", "--recipient")
    site.host.run("key", "add", "safe", "--recipient", site.keys.directory / "safe.key.pub")
    assert {"escrow", "safe"} < set(slots(site.host))
    assert results(site.host, expect=None)["key-slots"][0] == "OK"
    for option, path in (("--passphrase-file", escrow), ("--key-file", site.keys.directory / "safe.key")):
        assert site.host.json("key", "verify", option, path)["backup"] == site.incremental

    lost = site.pgcairn("lost", {"encryption": "passphrase", "passphrase-command": f"cat {escrow}"})
    restored = workshop.restore(lost, "--as=clone", "--type=none", "--set", site.full)
    verify_backup(restored.data, wal=False)
    assert "half a second" in results(lost, expect=None)["key-speed"][1]
    assert site.host.run("key", "remove", "key-file", expect=REFUSED).stderr

    site.host.run("key", "remove", "escrow")
    assert "wrong key" in lost.run("info", expect=FAILED).stderr
    site.host.run("key", "remove", "safe")
    refused = site.host.run("key", "remove", "key-file", "--force", expect=REFUSED)
    assert "nobody could read" in refused.stderr
    assert set(slots(site.host)) == {"key-file"}


def test_after_a_rotation_old_and_new_backups_restore(sites, workshop):
    site = sites("passphrase")
    assert site.host.json("key", "rotate")["epoch"] == 2
    rotated = site.host.json("backup", "--type=incr", "--start-fast")["label"]
    expected = digest(site.cluster)
    site.cluster.archive_all()
    for label in (site.full, rotated):
        restored = restore_and_start(workshop, site.reader, "--set", label)
        assert digest(restored) == after_restore(expected)
        workshop.discard(restored)
    assert "epoch 2" in results(site.host, expect=None)["encryption"][1]


def test_a_damaged_slot_hides_no_other(sites):
    site = sites("passphrase")
    slot = site.host.repository / "keys/key-file"
    whole = slot.read_bytes()
    slot.chmod(0o600)
    slot.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    try:
        opened = site.host.run("info")  # by the passphrase
        assert opened.stdout.startswith("recoverable")
        found = results(site.host, expect=FAILED)
        assert found["key-slots"][0] == "FAILED" and "'key-file'" in found["key-slots"][1]
        assert not slots(site.host)["key-file"]["whole"]
    finally:
        slot.write_bytes(whole)
    assert site.host.json("key", "verify")["slot"] == "key-file"


def test_another_repository_in_its_place_is_noticed(sites, workshop):
    """By what this host remembers, though the configuration and the key would fit."""
    site = sites("passphrase")
    site.host.run("info")
    other = site.pgcairn("fake", site.section)
    other.repository = workshop.directory / "fake"
    other.write_config(repository={**site.section, "path": other.repository}, general={"spool-path": site.spool})
    other.run("init", "--no-server")
    moved = workshop.directory / "moved"
    site.host.repository.rename(moved)
    other.repository.rename(site.host.repository)
    try:
        refused = site.host.run("backup", "--type=full", expect=REFUSED)
        assert "not the one that this host used before" in refused.stderr
    finally:
        site.host.repository.rename(workshop.directory / "gone")
        moved.rename(site.host.repository)
    site.host.run("info")


# -- without pgcairn


def reader(repository, *arguments, secrets=()):
    return run("/usr/bin/python3", READER, *secrets, repository, *arguments)


def test_the_independent_reader_restores_with_the_same_keys(site, workshop):
    """tools/pgcairn-reader.py knows encryption from docs/format.md alone."""
    pytest.importorskip("cryptography")
    if site.mode == "passphrase":
        secrets = ["--passphrase-file", site.keys.directory / "passphrase"]
    else:
        name = "restore.key" if site.mode == "sealed" else "main.key"
        secrets = ["--key-file", site.keys.directory / name]
    target = workshop.new_directory() / "data"
    made = reader(site.host.repository, "restore", site.full, target, secrets=secrets)
    assert made.returncode == 0, made.stderr
    verify_backup(target, wal=False)
    assert reader(site.host.repository, "scrub", secrets=secrets).returncode == 0
    assert reader(site.host.repository, "scrub").returncode == 0  # checksums need no key
    refused = reader(site.host.repository, "list")
    assert refused.returncode == 1 and "give --key-file" in refused.stderr


def test_the_independent_reader_is_told_of_a_wrong_key(site):
    pytest.importorskip("cryptography")
    wrong = site.keys.directory / f"{site.mode}-other.key"
    if not wrong.exists():
        site.keys.generate(wrong.name)
    refused = reader(site.host.repository, "list", secrets=["--key-file", wrong])
    assert refused.returncode == 1 and "wrong key" in refused.stderr


# -- sealed


def test_a_sealed_host_writes_what_it_cannot_read(sites, workshop):
    site = sites("sealed")
    told = site.host.run("info").stdout
    assert told.startswith("recoverable") and site.incremental in told
    assert "cannot read pages and WAL" in results(site.host, expect=None)["encryption"][1]
    target = workshop.new_directory() / "data"
    refused = site.host.run("restore", "--to", target, "--as=clone", expect=FAILED)
    assert "private key" in refused.stderr + refused.stdout
    assert not (target / "global/pg_control").exists()
    segment = site.host.objects("c/main/w/*/*/*/*")[0].name
    got = site.host.get(segment, workshop.directory / "wal", "--pgdata", site.cluster.data, "--retry-timeout=0",
                        expect=126)
    assert "private key" in got.stderr
    assert "private key" in site.host.run("key", "verify", expect=FAILED).stderr


def test_no_key_on_a_sealed_host_opens_what_it_wrote(sites, workshop):
    """A thief of the host has its configuration, its keys, its spool and its data directory."""
    site = sites("sealed")
    host_key = (site.keys.directory / "host.key").read_text()
    as_private = site.keys.write("as-private.key", host_key.replace("pgcairn-key-1", "pgcairn-private-key-1"))
    public = (site.keys.directory / "restore.key.pub").read_text().split()[-2]
    as_key = site.keys.write("as-key.key", f"pgcairn-private-key-1\n{public}\n")
    for key in (as_private, as_key):
        thief = site.pgcairn("thief", {"encryption": "sealed", "key-file": key}, spool=False)
        target = workshop.new_directory() / "data"
        for refused in (thief.run("restore", "--to", target, expect=FAILED),
                        thief.run("key", "verify", expect=FAILED)):
            assert "wrong key" in refused.stderr
    private = set((site.keys.directory / "restore.key").read_text().split()) & site.keys.secrets()
    assert len(private) == 1
    for place in (site.host.directory, site.spool, site.cluster.data, site.host.repository):
        for path in place.rglob("*"):
            if path.is_file():
                assert private.copy().pop().encode() not in path.read_bytes(), path


def test_another_recipient_opens_what_is_written_after_it_was_added(sites, workshop):
    site = sites("sealed")
    site.keys.generate("second.key", "--recipient")
    site.host.run("key", "add", "second", "--recipient", site.keys.directory / "second.key.pub")
    label = site.host.backup()["label"]
    expected = digest(site.cluster)
    site.cluster.archive_all()
    second = site.pgcairn("second", {"encryption": "sealed", "key-file": site.keys.directory / "second.key"})
    restored = restore_and_start(workshop, second, "--set", label)
    assert digest(restored) == after_restore(expected)
    refused = second.run("restore", "--to", workshop.new_directory() / "data", "--set", site.full, expect=None)
    assert refused.returncode != OK

    # A slot alone seals nothing: check looks at the list that counts.
    public = (site.keys.directory / "restore.key.pub").read_text() + (site.keys.directory / "second.key.pub").read_text()
    both = site.pgcairn("both", {**site.section, "recipients": site.keys.write("both.pub", public)})
    assert results(both, expect=None)["recipients"][0] == "OK"
    newest = max((site.host.repository / "keys").glob("recipients.*"))
    aside = newest.rename(workshop.directory / "aside")
    assert results(both, expect=None)["recipients"][0] == "WARNING"
    aside.rename(newest)
    site.host.run("key", "remove", "second")


# -- secrets


def test_a_process_with_a_secret_shows_it_to_nobody(sites):
    site = sites("key-file")
    held = site.shop.directory / "held"
    waiting = f"touch {held}; while test -e {held}; do sleep 0.05; done; echo {PASSPHRASE.split()[0]}"
    pgcairn = site.pgcairn("waiting", {"encryption": "passphrase", "passphrase-command": waiting}, spool=False)
    process = start(*pgcairn.command("info"))
    try:
        wait_until("the command runs", held.exists)
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text(encoding="utf-8")
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
        if is_root():
            assert os.stat(f"/proc/{process.pid}/environ").st_uid == 0  # not dumpable
    finally:
        held.unlink()
        assert process.wait(60) == FAILED


def test_a_passphrase_command_that_fails_is_named(sites):
    site = sites("key-file")
    for command, said in (("exit 7", "exit status 7"), ("echo; echo two", "more than one line"), ("true", "empty")):
        pgcairn = site.pgcairn("failing", {"encryption": "passphrase", "passphrase-command": command}, spool=False)
        assert said in pgcairn.run("info", expect=None).stderr


def test_no_secret_was_printed_or_logged_or_stored(sites):
    """Last, so that everything above has been said."""
    for mode in MODES:
        site = sites(mode)
        secrets = site.keys.secrets()
        assert secrets
        said = "\n".join(EncryptedPgcairn.said) + site.cluster.log.read_text(encoding="utf-8", errors="replace")
        places = [path for place in (site.spool, site.host.directory, site.host.repository)
                  for path in place.rglob("*") if path.is_file()]
        for secret in secrets:
            assert secret not in said
            for path in places:
                assert secret.encode() not in path.read_bytes(), path
