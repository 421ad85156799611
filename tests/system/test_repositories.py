"""Several repositories at once: each gets everything, none holds the others back; and copies of repositories."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from support.archive_module import copied_module
from support.cluster import ROOT, other_file_system, quoted, remove_tree
from support.encryption import Keys
from support.pgcairn import DAMAGED, FAILED, NOT_FOUND, OK, REFUSED, USAGE, Pgcairn
from support.process import owner, run, start, wait_until

TROUBLE = 126
ROUNDS = int(os.environ.get("PGCAIRN_TEST_KILL_ROUNDS", "10"))


class Several(Pgcairn):
    """A cluster with the repositories `near` and `far`, and a place for copies, `vault`."""

    def write_config(self, far=None, cluster=None, general=None, every=None, **_):
        self.places = {name: self.directory / name for name in ("near", "far", "vault", "usb")}
        self.repository = self.places["near"]
        lines = ["[global]", "jobs = 2", *(f"{key} = {value}" for key, value in (general or {}).items())]
        for name, path in self.places.items():
            lines += [f"[repository {name}]", f"path = {path}"]
            lines += [f"{key} = {value}" for key, value in (every or {"encryption": "none"}).items()]
            lines += [f"{key} = {value}" for key, value in (far or {}).items()] if name == "far" else []
        lines += ["[cluster main]", f"conninfo = {self.conninfo}", "repository = near, far"]
        lines += [f"{key} = {value}" for key, value in (cluster or {}).items()]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.chown(self.config, *owner())

    def stored(self, name, pattern="c/main/w/*/*/*/*"):
        """Segments in one repository."""
        return {path.name: path for path in self.places[name].glob(pattern)
                if len(path.name) == 24 and not path.name.startswith(".")}

    def away(self, name):
        return self.places[name].with_name(f"{name}.away")

    def take_away(self, name):
        self.places[name].rename(self.away(name))

    def bring_back(self, name):
        self.away(name).rename(self.places[name])


def put(path, content):
    """As the server's user would have written it."""
    path.write_bytes(content)
    os.chown(path, *owner())


class Site:
    """A server with small segments whose archiver does what the test says."""

    def __init__(self, workshop, command="/bin/false", **options):
        self.workshop = workshop
        self.cluster = workshop.cluster().initdb(wal_segsize=1)
        self.pgcairn = Several(workshop.programs, workshop.directory / f"{self.cluster.directory.name}-repo",
                               self.cluster, **options)
        if command is None:
            command = self.pgcairn.archive_command() + " || exit 1"
        self.cluster.configure(archive_mode="on", archive_command=quoted(command))
        self.cluster.start()
        self.cluster.make_role()
        self.pgcairn.init()
        self.cluster.sql("CREATE TABLE t (n int, text text)")

    def segment(self):
        """A finished one with something in it."""
        self.cluster.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 300) AS n")
        return self.cluster.switch_wal()

    def push(self, name, *arguments, expect=OK):
        result = run(self.pgcairn.programs.wal, "push", "--config", self.pgcairn.config, *arguments,
                     f"pg_wal/{name}", cwd=self.cluster.data)
        assert result.returncode == expect, result.stderr
        return result.stderr

    def get(self, name, *arguments, expect=OK):
        target = self.cluster.data / "got"
        target.unlink(missing_ok=True)
        result = run(self.pgcairn.programs.wal, "get", "--config", self.pgcairn.config, "--prefetch", "0",
                     "--retry-timeout", "0", "--pgdata", self.cluster.data, *arguments, name, target, cwd=self.cluster.data)
        assert result.returncode == expect, (result.returncode, result.stderr)
        return target.read_bytes() if expect == OK else result.stderr

    def wal(self, name):
        return (self.cluster.data / "pg_wal" / name).read_bytes()

    def wal_json(self, *arguments, expect=OK):
        result = run(*self.pgcairn.command("wal", *arguments, "--output=json"), cwd=self.cluster.data)
        assert result.returncode == expect, result.stdout + result.stderr
        return json.loads(result.stdout)["repositories"] if "--repository" not in arguments else json.loads(
            result.stdout)


@pytest.fixture(scope="module")
def site(module_workshop):
    """Nothing is archived by itself; tests leave both repositories where they were."""
    return Site(module_workshop)


@pytest.fixture(scope="module")
def archiving(module_workshop):
    """Archives into both; a full backup and an incremental one in each."""
    server = Site(module_workshop, command=None)
    server.cluster.sql("CREATE TABLE big AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) AS n")
    for kind in ("full", "incr"):
        report = server.pgcairn.json("backup", f"--type={kind}", "--start-fast")
        assert {one["state"] for one in report["repositories"].values()} == {"wal-complete"}
        server.cluster.sql("UPDATE big SET text = 'changed' WHERE n % 100 = 0")
        server.segment()
    server.cluster.archive_all()
    return server


# -- push


def test_push_stores_in_both_and_one_that_is_away_holds_nobody_back(site):
    pgcairn = site.pgcairn
    first, second = site.segment(), site.segment()
    site.push(first)
    assert first in pgcairn.stored("near") and first in pgcairn.stored("far")
    pgcairn.take_away("far")
    text = site.push(second, expect=FAILED)
    assert "NOT in repository 'far'" in text and "it is in 'near'" in text
    assert second in pgcairn.stored("near")
    before = pgcairn.stored("near")[second].stat().st_mtime_ns
    pgcairn.bring_back("far")
    site.push(second)
    assert second in pgcairn.stored("far")
    assert before == pgcairn.stored("near")[second].stat().st_mtime_ns


def test_the_first_one_away_is_no_different(site):
    name = site.segment()
    site.pgcairn.take_away("near")
    assert "NOT in repository 'near'" in site.push(name, expect=FAILED)
    assert name in site.pgcairn.stored("far")
    site.pgcairn.bring_back("near")
    site.push(name)
    assert name in site.pgcairn.stored("near")


def test_info_of_one_tells_what_waits_for_another_that_is_away(site):
    pgcairn = site.pgcairn
    overflow = other_file_system(site.cluster.data)
    assert overflow is not None, "there is no disk beside that of PGCAIRN_TEST_SCRATCH"
    pgcairn.write_config(general={"overflow-path": overflow})
    names = [site.segment(), site.segment()]
    pgcairn.take_away("far")
    try:
        for name in names:
            site.push(name)
        told = pgcairn.json("info", "--repository", "near")["clusters"][0]["overflow"]
        other, = told["of_other_repositories"]
        assert (other["repository"], other["files_not_off_host"], other["bytes_not_off_host"]) == ("far", 2, 2 << 20)
        assert told["files_not_off_host"] == 0 and told["files_elsewhere"] == 0
        text = pgcairn.run("info", expect=None).stdout
        assert "WARNING: 2 files of WAL (2.1 MB) are not in repository 'far'" in text
        # What cannot be looked through is said, and hides nothing of our own.
        directory, = overflow.glob("main-*")
        directory.chmod(0)
        told = pgcairn.json("info", "--repository", "near")["clusters"][0]["overflow"]
        directory.chmod(0o700)
        other, = told["of_other_repositories"]
        assert told["files_not_off_host"] == 0 and other["repository"] == "far" and other["problem"]
        pgcairn.bring_back("far")
        site.wal_json("status", "--ship", "--repository", "far")
        assert not pgcairn.json("info", "--repository", "near")["clusters"][0]["overflow"]["of_other_repositories"]
    finally:
        if pgcairn.away("far").exists():
            pgcairn.bring_back("far")
        pgcairn.write_config()
        remove_tree(overflow)


def test_repository_option_pushes_into_one_only(site):
    name = site.segment()
    site.push(name, "--repository", "far")
    assert name in site.pgcairn.stored("far") and name not in site.pgcairn.stored("near")
    site.push(name)
    assert name in site.pgcairn.stored("near")


def test_one_that_is_not_required_is_not_waited_for_and_what_it_missed_is_told(site):
    pgcairn = site.pgcairn
    try:
        pgcairn.write_config(far={"required": "no"})
        site.push(site.segment())
        pgcairn.take_away("far")
        missed = [site.segment(), site.segment()]
        for name in missed:
            assert "(required = no)" in site.push(name)
        pgcairn.bring_back("far")
        site.push(site.segment())
        status = site.wal_json("status", "-D", site.cluster.data)
        assert status["far"]["compared_with"][0]["segments_lacking"] == len(missed)
        assert status["far"]["compared_with"][0]["first"] == missed[0]
        assert status["near"]["compared_with"][0]["segments_lacking"] == 0
        report = pgcairn.json("check", "--no-switch", expect=None)["repositories"]["far"]
        result, = [one for one in report["results"] if one["name"] == "other-repositories"]
        assert result["status"] == "WARNING" and missed[0] in result["text"]
    finally:
        pgcairn.write_config()


def test_where_none_is_required_all_are(site):
    pgcairn = site.pgcairn
    try:
        pgcairn.write_config(far={"required": "no"})
        pgcairn.config.write_text(pgcairn.config.read_text().replace("[repository near]",
                                                                     "[repository near]\nrequired = no"))
        pgcairn.take_away("far")
        site.push(site.segment(), expect=FAILED)
        pgcairn.bring_back("far")
    finally:
        pgcairn.write_config()


def test_push_killed_at_any_moment_is_settled_by_the_next_one(site):
    pgcairn = site.pgcairn
    for _ in range(ROUNDS):
        name = site.segment()
        process = start(pgcairn.programs.wal, "push", "--config", pgcairn.config, "--no-batch", f"pg_wal/{name}",
                        cwd=site.cluster.data)
        time.sleep(random.uniform(0.001, 0.03))
        process.send_signal(signal.SIGKILL)
        process.wait()
        site.push(name)
        assert {name} <= set(pgcairn.stored("near")) & set(pgcairn.stored("far"))
        assert site.get(name, "--repository", "near") == site.get(name, "--repository", "far") == site.wal(name)


def test_other_content_in_one_is_that_ones_failure(site):
    pgcairn = site.pgcairn
    name, other = site.segment(), site.segment()
    site.push(name)
    shutil.copy(pgcairn.stored("far")[name], pgcairn.directory / "kept")
    pgcairn.stored("far")[name].write_bytes(b"\0" * 4096)
    text = site.push(name, expect=FAILED)
    assert "NOT in repository 'far'" in text
    shutil.copy(pgcairn.directory / "kept", pgcairn.stored("far")[name])
    site.push(name)
    site.push(other)


# -- get


def test_get_falls_over_to_the_next_one_and_never_takes_trouble_for_the_end(site):
    pgcairn = site.pgcairn
    names = [site.segment() for _ in range(4)]
    for name in names:
        site.push(name)
    near = pgcairn.stored("near")
    lost, damaged, behind, last = names
    near[lost].unlink()
    assert site.get(lost) == site.wal(lost)
    bytes_ = bytearray(near[damaged].read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    near[damaged].write_bytes(bytes_)
    assert site.get(damaged) == site.wal(damaged)
    # One is out of reach: what the other has is delivered, what it does not have is trouble.
    following = f"{int(last, 16) + 1:024X}"
    pgcairn.take_away("near")
    assert site.get(behind) == site.wal(behind)
    assert "near" in site.get(following, expect=TROUBLE)
    pgcairn.bring_back("near")
    # Both answer: absent, and that is the end; a hole of both is none.
    site.get(following, expect=FAILED)
    pgcairn.stored("far")[lost].unlink()
    assert "a hole in the WAL" in site.get(lost, expect=TROUBLE)
    # The one that has fallen behind is not believed about the end.
    near[last].unlink()
    near[damaged].unlink()
    assert site.get(last) == site.wal(last)


# -- commands that are about one, or about each


def test_names_that_are_none_are_refused(site):
    pgcairn = site.pgcairn
    try:
        for names in ("near, nowhere", "near, near", "near,,far"):
            pgcairn.write_config()
            pgcairn.config.write_text(pgcairn.config.read_text().replace("repository = near, far",
                                                                         f"repository = {names}"))
            pgcairn.run("info", expect=USAGE)
    finally:
        pgcairn.write_config()
    assert "say which one" in pgcairn.run("keep", "latest", expect=USAGE).stderr


def test_backup_goes_on_with_the_others_and_info_shows_each(archiving):
    pgcairn = archiving.pgcairn
    pgcairn.take_away("near")
    report = pgcairn.json("backup", "--type=incr", "--start-fast", "--wal-timeout=0", expect=None)["repositories"]
    assert "error" in report["near"] and report["far"]["label"]
    pgcairn.bring_back("near")
    archiving.cluster.archive_all()
    shown = pgcairn.json("info")["repositories"]
    count = {name: len(one["clusters"][0]["backups"]) for name, one in shown.items()}
    assert count["far"] == count["near"] + 1
    assert "repository far:" in pgcairn.run("info", "--offline").stdout
    assert set(pgcairn.json("verify", "--quick")["repositories"]) == {"near", "far"}
    assert set(pgcairn.json("collect")["repositories"]) == {"near", "far"}
    pgcairn.run("expire")


def rows(cluster):
    return cluster.sql("SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM big")


def test_restore_takes_the_one_that_can_and_recovery_asks_both(archiving):
    pgcairn, shop = archiving.pgcairn, archiving.workshop
    hidden = {path: path.read_bytes() for path in pgcairn.places["near"].glob("c/main/b/*/fate")}
    segments = sorted(pgcairn.stored("far"))
    lost = pgcairn.stored("far")[segments[-1]]
    kept = lost.read_bytes()
    try:
        for path in hidden:
            path.unlink()
        lost.unlink()
        result = pgcairn.run("restore", "--to", shop.directory / "picked", "--as=clone", "--log-level=info")
        assert "repository 'near' is passed over" in result.stderr
        assert "restoring from repository 'far'" in result.stderr
        restored = shop.cluster("picked-home", data=shop.directory / "picked")
        restored.start_restored()
        restored.wait_promoted()
        assert rows(restored) == rows(archiving.cluster)
        shop.discard(restored)
        remove_tree(shop.directory / "picked")
    finally:
        for path, content in hidden.items():
            put(path, content)
        put(lost, kept)


def test_repair_brings_what_the_other_has_holes_and_end(archiving):
    pgcairn = archiving.pgcairn
    names = sorted(pgcairn.stored("near"))
    taken = [names[-4], names[-1]]
    bytes_ = {name: pgcairn.stored("near")[name].read_bytes() for name in taken}
    for name in taken:
        pgcairn.stored("near")[name].unlink()
    report = archiving.wal_json("repair", "--repository", "near", "--from", "far")
    assert {one["name"] for one in report["files"] if one["found"]} == set(taken)
    for name in taken:
        assert pgcairn.stored("near")[name].stat().st_size == len(bytes_[name])


def compared(pgcairn):
    """What check says of the first repository beside the other one."""
    report = pgcairn.json("check", "--no-switch", expect=None)["repositories"]["near"]
    return [one for one in report["results"] if one["name"] == "other-repositories"]


def test_repositories_are_compared_beside_a_system_s_record_that_cannot_be_read(archiving):
    pgcairn = archiving.pgcairn
    newest = max(pgcairn.stored("near"))
    path = pgcairn.stored("near")[newest]
    kept = path.read_bytes()
    path.unlink()
    rubbish = pgcairn.places["near"] / "c/main/i" / f"{1:016x}-15"
    rubbish.write_bytes(b"rubbish")
    try:
        unread, lacks = compared(pgcairn)
        assert unread["status"] == lacks["status"] == "WARNING"
        assert f"{rubbish.name}' in 'near'" in unread["text"] and newest in lacks["text"]
        lag, = archiving.wal_json("status")["near"]["compared_with"]
        assert lag["segments_lacking"] == 1 and rubbish.name in lag["problem"]
        path.write_bytes(kept)
        only, = compared(pgcairn)
        assert only["status"] == "WARNING" and rubbish.name in only["text"]
    finally:
        rubbish.unlink()
        path.write_bytes(kept)


# -- copies


def objects(directory):
    """Name and content of each object that a copy is to have."""
    found = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_file() and not path.name.startswith(".") and name.split("/")[2:3] not in (["pin"], ["gc"]):
            found[name] = path.read_bytes()
    for name in ("pgcairn.repo", "pgcairn.replica"):
        if name in found:
            found["descriptor"] = found.pop(name)
    return found


def copy(pgcairn, *arguments, to="vault", expect=OK):
    return json.loads(pgcairn.run("repo", "copy", "--from", "near", "--to", to, "--output=json", *arguments,
                                  expect=expect).stdout)


@pytest.fixture
def vault(archiving):
    """An empty place for a copy, in the end too. What is copied stands still: all is archived."""
    wait_until("nothing arrives any more", archiving.cluster.is_all_archived)
    yield archiving.pgcairn
    for name in ("vault", "usb"):
        remove_tree(archiving.pgcairn.places[name])


def test_a_copy_is_the_same_objects_is_read_only_and_can_be_promoted(vault, archiving):
    report = copy(vault)
    assert report["damaged"] == report["conflicts"] == report["backups_withheld"] == 0
    assert report["backups_copied"] >= 2
    original, copied = objects(vault.places["near"]), objects(vault.places["vault"])
    assert original == copied
    again = copy(vault)
    assert again["objects_copied"] == 0 and again["backups_copied"] == 0
    # It reads like any other, and nobody writes to it.
    vault.run("verify", "--repository", "vault")
    assert [backup["label"] for backup in vault.json("info", "--repository", "vault")["clusters"][0]["backups"]]
    for command in (["backup", "--start-fast"], ["collect"], ["expire", "--retention", "last 1"],
                    ["keep", "latest"]):
        assert "read-only replica" in vault.run(*command, "--repository", "vault", expect=REFUSED).stderr
    name = archiving.segment()
    assert "read-only replica" in archiving.push(name, "--repository", "vault", expect=FAILED)
    assert objects(vault.places["vault"]) == copied
    # Something new comes with the next copy.
    archiving.cluster.archive_all()
    assert copy(vault)["objects_copied"] > 0
    vault.run("repo", "promote", "vault")
    assert "no replica" in vault.run("repo", "copy", "--from", "near", "--to", "vault", expect=REFUSED).stderr
    states = {one["name"]: one["state"] for one in vault.json("repo", "list", expect=None)["repositories"]}
    assert states["vault"] == "ok" and states["near"] == "ok"
    vault.run("backup", "--type=incr", "--start-fast", "--wal-timeout=0", "--repository", "vault", expect=None)
    vault.run("collect", "--repository", "vault")
    label = next(iter(labels_of_the_original(vault)))
    vault.run("verify", "--quick", "--repository", "vault", "--set", label)


def labels_of_the_original(pgcairn):
    """Of the backups that the original has, too."""
    shown = pgcairn.json("info", "--repository", "near")["clusters"][0]["backups"]
    return [backup["label"] for backup in shown]


def test_a_copy_restores_byte_for_byte_what_the_original_does(vault, archiving):
    copy(vault)
    shop = archiving.workshop
    trees = {}
    for name in ("near", "vault"):
        directory = shop.directory / f"from-{name}"
        vault.run("restore", "--repository", name, "--to", directory, "--type=immediate", "--no-wal")
        trees[name] = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*")
                       if path.is_file() and path.name not in ("postgresql.auto.conf", "pgcairn.identity", "backup_manifest")}
        remove_tree(directory)
    assert len(trees["near"]) > 900 and trees["near"] == trees["vault"]


def test_the_independent_reader_reads_a_copy(vault):
    copy(vault)
    reader = os.path.join(ROOT, "tools/pgcairn-reader.py")
    labels = [backup["label"] for backup in vault.json("info", "--repository", "vault")["clusters"][0]["backups"]]
    result = run("/usr/bin/python3", reader, vault.places["vault"], "list", as_root=True)
    assert all(label in result.stdout for label in labels), result.stderr
    assert run("/usr/bin/python3", reader, vault.places["vault"], "scrub", as_root=True).returncode == 0


def test_chosen_backups_come_alone_and_restore(vault, archiving):
    report = copy(vault, "--set", "latest", to="usb")
    assert report["backups_copied"] == 1
    backups = vault.json("info", "--repository", "usb")["clusters"][0]["backups"]
    assert [backup["state"] for backup in backups if backup["state"] in ("wal-complete", "verified")]
    vault.run("verify", "--repository", "usb", "--set", "latest")
    assert len(vault.stored("usb")) < len(vault.stored("near"))
    restored = archiving.workshop.restore(vault, "--repository", "usb", "--type=immediate",
                                          "--target-action=promote", name="subset")
    restored.start_restored()
    restored.wait_promoted()
    assert restored.sql("SELECT count(*) FROM big") == [(20000,)]
    archiving.workshop.discard(restored)
    # The rest can follow, and then it is a whole copy; a promoted subset is a repository like any other.
    assert copy(vault, "--since", "2000-01-01 00:00:00+00", to="usb")["backups_copied"] >= 1
    copy(vault, to="usb")
    assert objects(vault.places["usb"]) == objects(vault.places["near"])


def test_a_copy_of_chosen_backups_is_copied_with_all_they_need_and_without_keys(archiving):
    shop = archiving.workshop
    keys = Keys(shop.programs, shop.directory / "chosen-keys")
    with_keys = {"encryption": "key-file", "key-file": keys.generate("main.key")}
    pgcairn = Several(shop.programs, shop.directory / "chosen", archiving.cluster, every=with_keys,
                      general={"spool-path": shop.new_directory("chosen-spool")})
    for command in (["init"], ["backup", "--start-fast", "--wal-timeout=0"],
                    ["backup", "--type=incr", "--start-fast", "--wal-timeout=0"]):
        pgcairn.run(*command, "--repository", "near", expect=None)
    assert copy(pgcairn, "--set", "latest", to="usb")["backups_copied"] == 1
    assert len(list(pgcairn.places["usb"].glob("c/main/b/*"))) == 2
    pgcairn.write_config(every={"encryption": "key-file"})
    report = json.loads(pgcairn.run("repo", "copy", "--from", "usb", "--to", "vault", "--output=json").stdout)
    assert report["backups_copied"] == 1
    assert objects(pgcairn.places["usb"]) == objects(pgcairn.places["vault"])


def test_an_encrypted_repository_is_copied_whole_without_its_keys(archiving):
    shop = archiving.workshop
    keys = Keys(shop.programs, shop.directory / "keys")
    with_keys = {"encryption": "key-file", "key-file": keys.generate("main.key")}
    pgcairn = Several(shop.programs, shop.directory / "secret", archiving.cluster, every=with_keys,
                      general={"spool-path": shop.new_directory("secret-spool")})
    for command in (["init"], ["backup", "--start-fast", "--wal-timeout=0"]):
        pgcairn.run(*command, "--repository", "near", expect=None)
    pgcairn.write_config(every={"encryption": "key-file"})
    report = copy(pgcairn)
    assert report["backups_copied"] == 1 and report["damaged"] == 0
    assert objects(pgcairn.places["near"]) == objects(pgcairn.places["vault"])
    assert pgcairn.run("repo", "copy", "--from", "near", "--to", "usb", "--set", "latest", expect=None).returncode != OK
    # Damaged, and nobody can tell who needs it: no new backup is shown.
    remove_tree(pgcairn.places["vault"])
    pack = sorted(pgcairn.places["near"].glob("c/main/b/*/p/*/*"))[0]
    content = pack.read_bytes()
    pack.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert copy(pgcairn, expect=DAMAGED)["backups_withheld"] == 1
    pack.write_bytes(content)
    assert copy(pgcairn)["backups_copied"] == 1
    # With the keys it is read like its original.
    pgcairn.write_config(every=with_keys)
    assert len(pgcairn.json("info", "--repository", "vault")["clusters"][0]["backups"]) == 1
    assert copy(pgcairn, "--set", "latest", to="usb")["backups_copied"] == 1


def test_a_promoted_subset_backs_up_and_collects(vault):
    copy(vault, "--set", "latest", to="usb")
    vault.run("repo", "promote", "usb")
    for _ in range(2):
        vault.run("collect", "--repository", "usb", "--grace", "0s", "--force")
    plan = vault.json("expire", "--plan", "--repository", "usb", "--retention", "last 1", expect=None)
    assert [anomaly["kind"] for anomaly in plan["anomalies"]] == ["fates"]
    vault.run("verify", "--repository", "usb", "--set", "latest")


def test_a_copy_killed_anywhere_holds_whole_backups_only_and_goes_on(vault):
    for _ in range(ROUNDS):
        process = vault.start("repo", "copy", "--from", "near", "--to", "vault")
        time.sleep(random.uniform(0.005, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (vault.places["vault"] / "pgcairn.replica").exists():
            shown = vault.json("info", "--repository", "vault", expect=None)
            if shown and shown["clusters"]:
                vault.run("verify", "--quick", "--repository", "vault", expect=None)
                for fate in vault.places["vault"].glob("c/main/b/*/fate"):
                    assert (fate.parent / "refs").exists()
    copy(vault)
    assert objects(vault.places["near"]) == objects(vault.places["vault"])


def test_a_list_names_another_encryption_than_the_configuration_expects(vault, archiving):
    """A plain one in the place of an encrypted one is what whoever owns the storage would put there."""
    keys = Keys(archiving.workshop.programs, archiving.workshop.directory / "list-keys")
    vault.write_config(every={"encryption": "key-file", "key-file": keys.generate("main.key")})
    try:
        listed = vault.json("repo", "list", expect=None)["repositories"]
    finally:
        vault.write_config()
    near = next(one for one in listed if one["name"] == "near")
    assert near["state"] == "not usable" and "encryption = key-file, but the repository is not encrypted" in near["problem"]


def test_what_is_damaged_is_named_and_left_out_with_what_needs_it(vault):
    near = vault.places["near"]
    newest = sorted(near.glob("c/main/b/*/fate"))[-1].parent
    pack = sorted(newest.glob("p/*/*"))[0]
    segment = sorted(vault.stored("near").values())[1]
    kept = {path: path.read_bytes() for path in (pack, segment)}
    try:
        for path, content in kept.items():
            changed = bytearray(content)
            changed[len(changed) // 2] ^= 1
            path.write_bytes(changed)
        report = copy(vault, expect=DAMAGED)
        named = {one["object"] for one in report["problems"]}
        assert {str(path.relative_to(near)) for path in kept} <= named
        assert report["damaged"] == 2 and report["backups_withheld"] >= 1 and report["backups_copied"] >= 1
        assert not (vault.places["vault"] / newest.relative_to(near) / "fate").exists()
        assert set(objects(near)) - set(objects(vault.places["vault"])) >= {str(pack.relative_to(near))}
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    copy(vault)
    assert objects(near) == objects(vault.places["vault"])


def test_other_content_in_the_copy_is_a_conflict_and_another_repository_is_refused(vault):
    copy(vault)
    pack = sorted(vault.places["vault"].glob("c/main/b/*/p/*/*"))[0]
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    report = copy(vault, expect=REFUSED)
    assert report["conflicts"] == 1 and report["problems"][0]["object"] in str(pack)
    # Damage between ends that agree is seen by who reads it.
    pack = sorted(vault.places["vault"].glob("c/main/b/*/p/*/*"))[1]
    good = pack.read_bytes()
    middle = len(good) // 2
    pack.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1:])
    assert copy(vault, expect=REFUSED)["damaged"] == 0
    report = copy(vault, "--verify", expect=DAMAGED)
    assert report["damaged"] == 1 and any("there is damaged" in one["text"] for one in report["problems"])
    pack.unlink()
    copy(vault, "--verify", expect=REFUSED)
    assert pack.read_bytes() == good
    assert "replica of another" in vault.run("repo", "copy", "--from", "far", "--to", "vault", expect=REFUSED).stderr
    assert "same place" in vault.run("repo", "copy", "--from", "near", "--to", "near", expect=USAGE).stderr
    assert vault.run("repo", "copy", "--from", "usb", "--to", "vault", expect=NOT_FOUND)


def test_no_backup_comes_to_exist_in_a_copy_where_it_is_seen_not_to_be_whole(vault):
    copy(vault)
    place = vault.places["vault"]
    fate = sorted(place.glob("c/main/b/*/fate"))[0]
    pack = sorted(fate.parent.glob("p/*/*"))[0]
    good = pack.read_bytes()
    middle = len(good) // 2
    # Damaged within, as --verify sees, or with an end that is not the source's.
    for bad, asked in [(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1:], ["--verify"]),
                       (good[:-1] + bytes([good[-1] ^ 1]), [])]:
        pack.write_bytes(bad)
        fate.unlink(missing_ok=True)
        report = copy(vault, *asked, expect=DAMAGED)
        assert report["backups_withheld"] == 1 and not fate.exists()
        assert any(one["object"] == str(fate.relative_to(place)) and pack.name in one["text"]
                   for one in report["problems"])
    pack.unlink()
    assert copy(vault)["backups_withheld"] == 0
    assert fate.exists() and pack.read_bytes() == good


# -- an archiver that does it by itself


@pytest.mark.parametrize("module", [False, True], ids=["command", "module"])
def test_an_archiver_in_batches_fills_both_and_catches_up_with_one_that_was_away(workshop, module):
    spool = workshop.new_directory("spool")
    server = Site(workshop, command=None, general={"spool-path": spool})
    if module:
        programs = server.pgcairn.programs
        server.cluster.configure(archive_command="''", archive_library=quoted(copied_module(programs.wal.parent)),
                                 **{"pgcairn_archive.command": quoted(programs.wal),
                                    "pgcairn_archive.config": quoted(server.pgcairn.config)})
        server.cluster.restart()

    def load():
        server.cluster.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 60000) AS n")
        return server.cluster.switch_wal()

    def both_have(name):
        return name in server.pgcairn.stored("near") and name in server.pgcairn.stored("far")

    last = load()
    wait_until("both have the last segment", lambda: both_have(last))
    server.pgcairn.take_away("far")
    last = load()
    wait_until("the other one goes on", lambda: len(server.pgcairn.stored("near")) > 8)
    server.pgcairn.bring_back("far")
    wait_until("both have all", lambda: both_have(last), seconds=90)
    wait_until("both have the same", lambda: set(server.pgcairn.stored("near")) == set(server.pgcairn.stored("far")))


# -- a receiver


def test_a_receiver_ships_to_both_and_keeps_what_a_required_one_lacks(site):
    pgcairn = site.pgcairn
    spool = site.workshop.new_directory("receiver")
    log = spool.with_name("receiver.log")

    def received(name, place):
        return name in pgcairn.stored(place)

    def waiting():
        return [path.name for path in spool.rglob("0000*") if len(path.name) == 24]

    def receive(*options):
        with open(log, "a", encoding="utf-8") as file:
            return pgcairn.start("wal", "receive", "--spool-path", spool, "--tail-interval=1", "--slot", "both",
                                 "--create-slot", *options, stderr=file)

    process = receive()
    try:
        first = site.segment()
        wait_until("both have it", lambda: received(first, "near") and received(first, "far"))
        wait_until("the spool is empty", lambda: not waiting())
        pgcairn.take_away("far")
        second = site.segment()
        wait_until("the other one goes on", lambda: received(second, "near"))
        wait_until("it is told", lambda: "repository 'far' is out of reach" in log.read_text())
        assert second in waiting()
        pgcairn.bring_back("far")
        wait_until("both have it", lambda: received(second, "far"))
        wait_until("the spool is empty", lambda: not waiting())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        # Nobody waits for one that is not required and fails.
        pgcairn.write_config(far={"required": "no"})
        pgcairn.take_away("far")
        process = receive()
        third = site.segment()
        wait_until("the other one has it", lambda: received(third, "near"))
        wait_until("the spool is empty", lambda: not waiting())
        assert "required = no" in log.read_text()
        pgcairn.bring_back("far")
        later = []

        def one_arrives():
            time.sleep(0.5)
            later.append(site.segment())
            return any(received(name, "far") for name in later)

        wait_until("it is back", one_arrives)
    finally:
        if pgcairn.away("far").exists():
            pgcairn.bring_back("far")
        pgcairn.write_config()
        process.kill()
        process.wait()
        site.cluster.drop_slot("both")
