"""Several repositories of which one is a bucket: each gets everything, either restores alone, and copies go both ways.

What tests/system/test_repositories.py says of directories, as far as a bucket may differ: plain and encrypted, with the
store out of reach, and with damage on either side.
"""

import json
import os
import random
import signal
import time

import pytest

from support.cluster import quoted, remove_tree
from support.encryption import Keys
from support.object_store import Bucket
from support.pgcairn import DAMAGED, FAILED, OK, REFUSED, Pgcairn
from support.process import owner, run, start, wait_until

TROUBLE = 126
ROWS = 5000
KILLS = 2  # less where keys make no difference


def flipped(content):
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


class Mixed(Pgcairn):
    """The cluster's repositories `near`, a directory, and `cloud`, a bucket; places for copies, `vault` and `attic`."""

    def __init__(self, programs, directory, cluster, bucket, encryption):
        self.bucket, self.encryption = bucket, encryption
        self.proxy = bucket.faults()
        super().__init__(programs, directory, cluster)

    def write_config(self, without_keys=False, **cloud):
        self.places = {name: self.directory / name for name in ("near", "vault")}
        secret = {name: value for name, value in self.encryption.items() if name == "encryption" or not without_keys}
        sections = {"near": {"path": self.places["near"]}, "vault": {"path": self.places["vault"]},
                    "cloud": {**self.bucket.section(self.proxy.endpoint, prefix="cloud"), **cloud},
                    "attic": self.bucket.section(prefix="attic")}
        lines = ["[global]", "jobs = 2"]
        for name, values in sections.items():
            lines += [f"[repository {name}]"]
            lines += [f"{key} = {value}" for key, value in {**values, **secret}.items() if value is not None]
        lines += ["[cluster main]", f"conninfo = {self.conninfo}", "repository = near, cloud"]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.chown(self.config, *owner())

    # -- what is stored, by the names that both sides have for it

    def names(self, place):
        if place in self.places:
            root = self.places[place]
            return {str(path.relative_to(root)) for path in root.rglob("*")
                    if path.is_file() and not path.name.startswith(".")}
        return {name.removeprefix(f"{place}/") for name in self.bucket.objects(f"{place}/")}

    def read(self, place, name):
        return (self.places[place] / name).read_bytes() if place in self.places else self.bucket.get(f"{place}/{name}")

    def put(self, place, name, content):
        if place not in self.places:
            self.bucket.put(f"{place}/{name}", content)
            return
        (self.places[place] / name).write_bytes(content)
        os.chown(self.places[place] / name, *owner())

    def delete(self, place, name):
        if place in self.places:
            (self.places[place] / name).unlink()
        else:
            self.bucket.delete(f"{place}/{name}")

    def objects(self, place):
        """Name and content of each object that a copy is to have."""
        found = {name: self.read(place, name) for name in self.names(place) if name.split("/")[2:3] not in
                 (["pin"], ["gc"]) and not name.startswith(("gc/", "probe/"))}
        for name in ("pgcairn.repo", "pgcairn.replica"):
            if name in found:
                found["descriptor"] = found.pop(name)
        return found

    def segments(self, place):
        """Names of objects by segment."""
        return {name.rsplit("/", 1)[-1]: name for name in self.names(place)
                if "/w/" in name and len(name.rsplit("/", 1)[-1]) == 24}

    # -- out of reach

    def take_away(self, place):
        """A bucket that answers, but nothing else: one that does not is waited for, and tests are short."""
        if place == "cloud":
            self.proxy.set(denied=100)
        else:
            self.places[place].rename(self.places[place].with_name("away"))

    def bring_back(self, place):
        if place == "cloud":
            self.proxy.quiet()
        else:
            self.places[place].with_name("away").rename(self.places[place])

    def copy(self, source, target, *arguments, expect=OK):
        return json.loads(self.run("repo", "copy", "--from", source, "--to", target, "--output=json", *arguments,
                                   expect=expect).stdout)


class Site:
    """A server with small segments; nothing is archived but by hand."""

    def __init__(self, workshop, bucket, encryption, cluster):
        self.workshop, self.cluster = workshop, cluster
        self.pgcairn = Mixed(workshop.programs, workshop.directory / f"{encryption['encryption']}-repo", cluster, bucket,
                             encryption)
        self.pgcairn.init()
        self.backed_up = False

    def segment(self):
        self.cluster.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 100) AS n")
        return self.cluster.switch_wal()

    def push(self, name, *arguments, expect=OK):
        result = run(self.pgcairn.programs.wal, "push", "--config", self.pgcairn.config, "--no-batch", *arguments,
                     f"pg_wal/{name}", cwd=self.cluster.data)
        assert result.returncode == expect, result.stderr
        return result.stderr

    def get(self, name, expect=OK):
        target = self.cluster.data / "got"
        target.unlink(missing_ok=True)
        result = run(self.pgcairn.programs.wal, "get", "--config", self.pgcairn.config, "--prefetch", "0",
                     "--retry-timeout", "0", "--pgdata", self.cluster.data, name, target, cwd=self.cluster.data)
        assert result.returncode == expect, (result.returncode, result.stderr)
        return target.read_bytes() if expect == OK else result.stderr

    def wal(self, name):
        return (self.cluster.data / "pg_wal" / name).read_bytes()

    def push_all(self, *arguments):
        """What no push has seen yet."""
        last = self.cluster.switch_wal()
        stored = set(self.pgcairn.segments("near")) & set(self.pgcairn.segments("cloud"))
        for path in sorted(self.cluster.data.glob("pg_wal/0000*")):
            if len(path.name) == 24 and path.name <= last and path.name not in stored:
                self.push(path.name, *arguments)

    def backups(self):
        """A full backup and an incremental one in each, with all of their WAL."""
        if self.backed_up:
            return self.pgcairn
        for kind in ("full", "incr"):
            self.pgcairn.run("backup", f"--type={kind}", "--start-fast", "--wal-timeout=0", "--no-expire", expect=None)
            self.cluster.sql("UPDATE big SET text = 'changed' WHERE n % 100 = 0")
        self.push_all()
        shown = self.pgcairn.json("info", "--offline")["repositories"]
        for one in shown.values():
            assert [backup["state"] for backup in one["clusters"][0]["backups"]] == 2 * ["wal-complete"]
        self.backed_up = True
        return self.pgcairn


@pytest.fixture(scope="module")
def server(module_workshop):
    cluster = module_workshop.cluster().initdb(wal_segsize=1, settings={"wal_keep_size": "'256MB'"})
    cluster.configure(archive_mode="on", archive_command=quoted("/bin/false"))
    cluster.start()
    cluster.make_role()
    cluster.sql("CREATE TABLE t (n int, text text)")
    cluster.sql("CREATE TABLE big AS SELECT n, md5(n::text) AS text FROM generate_series(1, %s) AS n", ROWS)
    return cluster


@pytest.fixture(scope="module", params=["none", "key-file"])
def site(request, s3_server, module_workshop, server):
    bucket = Bucket(s3_server, module_workshop.directory / f"bucket-{request.param}")
    encryption = {"encryption": request.param}
    if request.param != "none":
        keys = Keys(module_workshop.programs, module_workshop.directory / "keys")
        encryption["key-file"] = keys.generate("main.key")
    yield Site(module_workshop, bucket, encryption, server)
    bucket.close()


# -- WAL


PLAIN = pytest.mark.parametrize("site", ["none"], indirect=True)


def test_push_stores_in_both_and_get_takes_what_either_has(site):
    pgcairn = site.pgcairn
    stored = site.segment()
    site.push(stored)
    for place in ("near", "cloud"):
        assert stored in pgcairn.segments(place)
        # Damaged here, there it is whole; then not there at all.
        name = pgcairn.segments(place)[stored]
        content = pgcairn.read(place, name)
        pgcairn.put(place, name, flipped(content))
        assert site.get(stored) == site.wal(stored)
        pgcairn.delete(place, name)
        assert site.get(stored) == site.wal(stored)
        pgcairn.put(place, name, content)
    site.get(f"{int(stored, 16) + 1:024X}", expect=FAILED)


@PLAIN
def test_one_that_is_out_of_reach_is_told_and_never_the_end_of_wal(site):
    pgcairn = site.pgcairn
    missed = site.segment()
    for place, other in (("cloud", "near"), ("near", "cloud")):
        pgcairn.take_away(place)
        text = site.push(missed, expect=FAILED)
        assert f"NOT in repository '{place}'" in text and f"it is in '{other}'" in text
        assert missed in pgcairn.segments(other)
        assert site.get(missed) == site.wal(missed)
        following = f"{int(missed, 16) + 1:024X}"
        assert place in site.get(following, expect=TROUBLE)
        pgcairn.bring_back(place)
        site.push(missed)
        assert missed in pgcairn.segments(place)
        missed = site.segment()
    pgcairn.proxy.stop()
    assert "NOT in repository 'cloud'" in site.push(missed, "--timeout", "4", expect=FAILED)
    assert missed in pgcairn.segments("near")
    pgcairn.proxy.restart()
    site.push(missed)
    assert missed in pgcairn.segments("cloud")


@PLAIN
def test_a_bucket_that_is_not_required_holds_nobody_back_and_is_repaired(site):
    pgcairn = site.backups()
    try:
        pgcairn.write_config(required="no")
        site.push_all()
        missed = site.segment()
        pgcairn.take_away("cloud")
        assert "(required = no)" in site.push(missed)
        pgcairn.bring_back("cloud")
        site.push(site.segment())
        assert missed not in pgcairn.segments("cloud")
        result = run(*pgcairn.command("wal", "repair", "--repository", "cloud", "--from", "near", "--output=json"),
                     cwd=site.cluster.data)
        assert result.returncode == OK, result.stderr
        assert missed in pgcairn.segments("cloud")
        assert site.get(missed) == site.wal(missed)
    finally:
        pgcairn.write_config()


@PLAIN
def test_a_receiver_keeps_what_the_bucket_lacks_and_ships_it_when_it_is_back(site):
    pgcairn = site.pgcairn
    spool = site.workshop.new_directory("receiver")
    log = spool.with_name("receiver.log")

    def waiting():
        return [path.name for path in spool.rglob("0000*") if len(path.name) == 24]

    with open(log, "w", encoding="utf-8") as file:
        process = pgcairn.start("wal", "receive", "--spool-path", spool, "--tail-interval=1", "--slot", "both",
                                "--create-slot", stderr=file)
    try:
        first = site.segment()
        wait_until("both have it", lambda: all(first in pgcairn.segments(place) for place in ("near", "cloud")))
        wait_until("the spool is empty", lambda: not waiting())
        pgcairn.proxy.stop()
        second = site.segment()
        wait_until("the other one goes on", lambda: second in pgcairn.segments("near"))
        wait_until("it is told", lambda: "repository 'cloud' is out of reach" in log.read_text())
        assert second in waiting()
        pgcairn.proxy.restart()
        wait_until("both have it", lambda: second in pgcairn.segments("cloud"))
        wait_until("the spool is empty", lambda: not waiting())
    finally:
        if not pgcairn.proxy.daemon.is_alive():
            pgcairn.proxy.restart()
        process.kill()
        process.wait()
        site.cluster.drop_slot("both")


# -- backup and restore


def check_restores(site, name, *arguments, chosen):
    restored = site.workshop.cluster(f"{name}-home", data=site.workshop.directory / name)
    result = site.pgcairn.run("restore", "--to", restored.data, "--as=clone", "--log-level=info", *arguments)
    if chosen:
        assert f"restoring from repository '{chosen}'" in result.stderr
    restored.start_restored()
    restored.wait_promoted()
    assert restored.sql("SELECT count(*) FROM big") == [(ROWS,)]
    site.workshop.discard(restored)
    remove_tree(site.workshop.directory / name)


@PLAIN
def test_backup_goes_into_the_one_that_can_be_reached(site):
    pgcairn = site.backups()
    for place, other in (("cloud", "near"), ("near", "cloud")):
        pgcairn.take_away(place)
        report = pgcairn.json("backup", "--type=incr", "--start-fast", "--wal-timeout=0", "--no-expire",
                              expect=None)["repositories"]
        assert "error" in report[place] and report[other]["label"]
        pgcairn.bring_back(place)
    site.push_all()
    assert {one["finding_count"] for one in pgcairn.json("verify")["repositories"].values()} == {0}


@PLAIN
def test_restore_takes_the_one_that_is_there_and_whole(site):
    pgcairn = site.backups()
    site.push_all()
    # Said of one, since the other might have more WAL: recovery would wait for its answer.
    for place, other in (("near", "cloud"), ("cloud", "near")):
        pgcairn.take_away(place)
        result = pgcairn.run("restore", "--to", site.workshop.directory / "planned", "--as=clone", "--dry-run",
                             "--log-level=info")
        assert f"restoring from repository '{other}'" in result.stderr
        if place == "near":
            check_restores(site, "from-the-cloud", "--repository", "cloud", chosen=None)
        pgcairn.bring_back(place)
    # All packs of the near one are gone; segments that the cloud lacks are nearby.
    packs = {name: pgcairn.read("near", name) for name in pgcairn.names("near") if "/p/" in name}
    last = max(pgcairn.segments("cloud").values())
    segment = pgcairn.read("cloud", last)
    for name in packs:
        pgcairn.delete("near", name)
    pgcairn.delete("cloud", last)
    check_restores(site, "from-both", chosen="cloud")
    for name, content in packs.items():
        pgcairn.put("near", name, content)
    pgcairn.put("cloud", last, segment)


# -- copies


def copy_killed(pgcairn, source, target, kills):
    """So many times in the middle, each time looked at, and then to its end."""
    for _ in range(kills):
        process = start(*pgcairn.command("repo", "copy", "--from", source, "--to", target))
        time.sleep(random.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        names = pgcairn.names(target)
        fates = {name for name in names if name.endswith("/fate")}
        assert {name.replace("/fate", "/refs") for name in fates} <= names
        if fates:
            pgcairn.run("verify", "--quick", "--repository", target, expect=None)
    report = pgcairn.copy(source, target)
    assert report["damaged"] == report["conflicts"] == report["backups_withheld"] == 0


def test_copies_go_into_a_bucket_and_out_of_it_and_one_is_promoted(site):
    pgcairn = site.backups()
    # Of an encrypted repository whoever copies needs no keys.
    pgcairn.write_config(without_keys=True)
    encrypted = pgcairn.encryption["encryption"] != "none"
    copy_killed(pgcairn, "near", "attic", 0 if encrypted else KILLS)
    copy_killed(pgcairn, "attic", "vault", 1)
    assert pgcairn.copy("near", "attic")["objects_copied"] == 0
    pgcairn.write_config()
    original = pgcairn.objects("near")
    assert original == pgcairn.objects("attic") == pgcairn.objects("vault")
    # Nobody writes to it, everybody reads it.
    assert "read-only replica" in pgcairn.run("keep", "latest", "--repository", "attic", expect=REFUSED).stderr
    assert pgcairn.json("verify", "--repository", "attic")["finding_count"] == 0
    assert original == pgcairn.objects("attic")
    if encrypted:
        check_restores(site, "from-a-copy", "--repository", "attic", chosen=None)
        return
    pgcairn.run("repo", "promote", "attic")
    assert "no replica" in pgcairn.run("repo", "copy", "--from", "near", "--to", "attic", expect=REFUSED).stderr
    before = len(pgcairn.json("info", "--offline", "--repository", "attic")["clusters"][0]["backups"])
    pgcairn.run("backup", "--type=incr", "--start-fast", "--wal-timeout=0", "--no-expire", "--repository", "attic",
                expect=None)
    pgcairn.run("collect", "--repository", "attic")
    assert len(pgcairn.json("info", "--offline", "--repository", "attic")["clusters"][0]["backups"]) == before + 1


@PLAIN
def test_damage_is_not_copied_out_of_a_bucket_and_not_overwritten_in_one(site):
    pgcairn = site.backups()
    for name in pgcairn.names("attic"):
        pgcairn.delete("attic", name)
    remove_tree(pgcairn.places["vault"])
    pack = sorted(name for name in pgcairn.names("cloud") if "/p/" in name)[0]
    content = pgcairn.read("cloud", pack)
    pgcairn.put("cloud", pack, flipped(content))
    report = pgcairn.copy("cloud", "vault", expect=DAMAGED)
    assert report["damaged"] == 1 and report["problems"][0]["object"] == pack and report["backups_withheld"] >= 1
    pgcairn.put("cloud", pack, content)
    assert pgcairn.copy("cloud", "vault")["damaged"] == 0
    assert pgcairn.objects("cloud") == pgcairn.objects("vault")
    pgcairn.copy("cloud", "attic", "--set", "latest")
    pack = sorted(name for name in pgcairn.names("attic") if "/p/" in name)[0]
    other = pgcairn.read("attic", pack)[:-1] + b"x"
    pgcairn.put("attic", pack, other)
    report = pgcairn.copy("cloud", "attic", "--set", "latest", expect=REFUSED)
    assert report["conflicts"] == 1 and report["problems"][0]["object"] == pack
    assert pgcairn.read("attic", pack) == other
