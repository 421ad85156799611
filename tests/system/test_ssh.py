"""A repository on another host, through a real sshd: everything works, and a stolen database host takes nothing away."""

import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import signal
import time

import pytest

from support.cluster import make_directory, quoted
from support.compare import digest
from support.disk import MIB, SmallDisk
from support.encryption import Keys
from support.pgcairn import FAILED, NOT_FOUND, NO_SPACE, OK, UNREACHABLE, USAGE, Pgcairn
from support.process import is_root, must, owner, run, wait_until
from support import ssh as frames
from support.ssh import Frames, SshHost

pytestmark = pytest.mark.skipif(not os.path.exists(frames.SSHD), reason="no sshd: openssh-server")


class Pair:
    """A database host and a repository host: `db` reaches by ssh what is a directory for `host`."""

    def __init__(self, workshop, **initdb):
        self.cluster = workshop.cluster().initdb(**initdb)
        name = self.cluster.directory.name
        self.host = workshop.pgcairn(self.cluster, name=f"{name}-host")
        self.sshd = SshHost(workshop.directory / f"{name}-sshd", workshop.programs, self.host.config)
        self.db = workshop.pgcairn(self.cluster, name=f"{name}-db")
        self.db.repository = self.host.repository
        self.use_key("locked")
        self.cluster.archive_with(self.db)
        self.cluster.start()
        self.cluster.make_role()

    def use_key(self, key, general=None, **more):
        self.db.write_config(repository=self.sshd.options(key, **more), general=general)

    def close(self):
        self.sshd.close()


@pytest.fixture(scope="module")
def pair(module_workshop):
    """With a small history: initialised there, a full backup, changes, an incremental one."""
    found = Pair(module_workshop, wal_segsize=1)
    try:
        found.host.run("init", "--no-server")
        found.db.init()
        found.cluster.sql("CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 30000) AS n")
        found.full = found.db.backup()
        found.cluster.sql("UPDATE t SET text = text || '!' WHERE n % 100 = 0")
        found.incremental = found.db.json("backup", "--type=incr", "--start-fast")
        found.cluster.archive_all()
        yield found
    finally:
        found.close()


def snapshot(pgcairn):
    """Every object and what it holds."""
    return {path.relative_to(pgcairn.repository): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in pgcairn.objects()}


# -- everything works

def test_the_whole_cycle(pair, module_workshop):
    db = pair.db
    assert pair.full["state"] == pair.incremental["state"] == "wal-complete"
    assert pair.incremental["parent_label"] == pair.full["label"]
    assert "create-only" in db.run("check").stdout
    db.run("verify")
    db.run("targets", "--last", expect=None)
    expected = digest(pair.cluster)
    pair.cluster.sql("INSERT INTO t SELECT n, 'more' FROM generate_series(1, 2000) AS n")
    expected_later = digest(pair.cluster)
    pair.cluster.archive_all()
    assert db.info() == pair.host.info() or len(db.backups()) == 2

    # Through the network up to the incremental one; then all WAL through restore_command.
    first = module_workshop.restore(db, "--set", pair.incremental["label"], "--type=immediate")
    first.start_restored()
    assert digest(first)["postgres"]["table public.t"] == expected["postgres"]["table public.t"]
    module_workshop.discard(first)
    second = module_workshop.restore(db, "--as=clone")
    second.start_restored()
    assert digest(second) == expected_later
    module_workshop.discard(second)


def test_restored_over_ssh_and_from_the_directory_are_equal_bytes(pair, module_workshop):
    changed = ("postgresql.auto.conf", "backup_manifest")  # they name this very restore
    found = []
    for pgcairn in pair.db, pair.host:
        directory = module_workshop.restore(pgcairn, "--set", pair.incremental["label"], "--type=immediate").data
        found.append({path.relative_to(directory): path.read_bytes() for path in directory.rglob("*")
                      if path.is_file() and "pgcairn" not in path.name and path.name not in changed})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 900
    assert [path for path, content in found[0].items() if found[1][path] != content] == []


def test_push_in_batches_and_get_ahead(pair, workshop):
    """One connection for many files, and a get that leaves a process behind which has its own."""
    spool = workshop.new_directory("spool")
    pair.use_key("locked", general={"spool-path": spool})
    try:
        for _ in range(8):
            pair.cluster.sql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 1500) AS n")
        pair.cluster.archive_all()
        stored = [path.name for path in pair.host.objects("c/main/w/*/*/*/*") if len(path.name) == 24]
        target = workshop.new_directory("pgdata")
        for part in "global", "pg_wal":
            make_directory(target / part)
        must("cp", pair.cluster.data / "global/pg_control", target / "global/pg_control")
        for name in stored[:6]:
            pair.db.get(name, f"{target}/pg_wal/RECOVERYXLOG", "--pgdata", target, "--prefetch=4", cwd=target)
            assert (target / "pg_wal/RECOVERYXLOG").stat().st_size == MIB
        wait_until("nothing is fetched ahead any more", lambda: not pair.sshd.clients())
    finally:
        pair.use_key("locked")


def test_receive_over_ssh(pair, workshop):
    spool = workshop.new_directory("receive")
    process = pair.db.start("wal", "receive", "--spool-path", spool, "--tail-interval=1", "--slot", "r", "--create-slot")
    try:
        pair.cluster.sql("CREATE TABLE received (n int)")
        wait_until("a piece arrives", lambda: [path for path in pair.host.objects("c/main/w/*/*/*/*") if ".tail." in path.name])
        name = pair.cluster.switch_wal()
        wait_until("the segment arrives", lambda: pair.host.objects(f"c/main/w/*/*/*/{name}"))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == OK
    pair.cluster.drop_slot("r")


def test_what_lets_go_runs_on_the_repository_host(pair):
    db, host = pair.db, pair.host
    before = snapshot(host)
    for words in (["expire", "--set", "latest"], ["expire", "--retention", "last 1"], ["keep", "latest"],
                  ["release", "latest"], ["collect", "--grace", "0s", "--force"], ["expire", "--undo"]):
        result = db.run(*words, expect=FAILED)
        assert "repository host" in result.stderr, result.stderr
    # A policy on the database host does not make its backup fail.
    db.run("backup", "--retention", "last 1", "--type=incr", "--start-fast")
    after = snapshot(host)
    assert before.items() <= after.items()
    assert not [path for path in after if path.name.startswith("mark.")]
    host.run("expire", "--set", pair.full["label"])
    assert len(db.backups("wal-complete", "verified")) == 2
    host.run("collect")
    host.run("expire", "--undo")
    assert len(db.backups("wal-complete", "verified")) == 3


def test_init_without_rights_says_where(workshop):
    pair = Pair(workshop)
    try:
        make_directory(pair.host.repository)
        # What is not mounted looks like this: the host says so, and shows no repository without objects.
        assert "is no repository" in pair.db.run("info", expect=NOT_FOUND).stderr
        result = pair.db.run("init", expect=None)
        assert result.returncode != OK
        assert "init --no-server" in result.stderr and "repository host" in result.stderr
        # Whoever may do everything makes it from here, the directory included.
        shutil.rmtree(pair.host.repository)
        pair.use_key("free")
        pair.db.init()
        pair.use_key("locked")
        pair.db.init()
        pair.db.run("check")
    finally:
        pair.close()


# -- several repositories

class Mixed(Pgcairn):
    """A directory of this host and two encrypted repositories on one other host, which two programs lead to."""

    def write_config(self, sshd=None, hosts=(), key_file=None, **_):
        self.places = {"near": self.repository, **{name: host.repository for name, host in hosts}}
        sections = {"global": {"spool-path": self.directory / "spool"},
                    "repository near": {"path": self.repository, "encryption": "none"},
                    "cluster main": {"conninfo": self.conninfo, "repository": "near, one, two"}}
        for name, host in hosts:
            sections[f"repository {name}"] = {
                **sshd.options("free"), "remote-program": f"{self.programs.pgcairn} --config {host.config}",
                "encryption": "key-file", "key-file": key_file}
        self.config.write_text("".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
                                       for name, values in sections.items()), encoding="utf-8")
        os.chown(self.config, *owner())

    def stored(self, name):
        return {path.name for path in self.places[name].glob("c/main/w/*/*/*/*") if len(path.name) == 24}


def test_a_directory_and_two_encrypted_repositories_on_one_host(workshop, tmp_path):
    cluster = workshop.cluster().initdb(wal_segsize=1)
    name = cluster.directory.name
    hosts = [(which, workshop.pgcairn(cluster, name=f"{name}-{which}")) for which in ("one", "two")]
    sshd = SshHost(workshop.directory / f"{name}-sshd", workshop.programs, hosts[0][1].config)
    try:
        keys = Keys(workshop.programs, workshop.directory / f"{name}-keys")
        db = Mixed(workshop.programs, workshop.directory / f"{name}-db", cluster, sshd=sshd, hosts=hosts,
                   key_file=keys.generate("main.key"))
        cluster.configure(archive_mode="on", archive_command=quoted("/bin/false"))
        cluster.start()
        cluster.make_role()
        db.init()
        cluster.sql("CREATE TABLE t AS SELECT n, 'a secret' AS text FROM generate_series(1, 1000) AS n")
        names = {cluster.switch_wal() for _ in range(12) if cluster.sql("INSERT INTO t VALUES (0, 'a secret')") or True}
        # What is remembered as durable in one of them is not in the other yet.
        first = min(names)
        ahead = run(workshop.programs.wal, "wal", "push-ahead", "--repository", "one", "--config", db.config,
                    f"pg_wal/{first}", cwd=cluster.data)
        assert ahead.returncode == OK and names <= db.stored("one") and not db.stored("two"), ahead.stderr
        for segment in sorted(names):
            db.push(f"pg_wal/{segment}", cwd=cluster.data)
            assert all(segment in db.stored(which) for which in db.places)
        cluster.configure(archive_command=quoted(db.archive_command()))
        cluster.reload()
        cluster.archive_all()
        reports = db.json("backup", "--type=full", "--start-fast")["repositories"]
        assert {which: report["state"] for which, report in reports.items()} == dict.fromkeys(db.places, "wal-complete")
        db.run("verify", "--repository", "two")
        assert not any(b"a secret" in path.read_bytes() for _, host in hosts for path in host.objects())
        cluster.archive_all()
        restored = workshop.restore(db, "--repository", "two", "--type=immediate", "--target-action=promote", name="mixed")
        restored.start_restored()
        restored.wait_promoted()
        assert restored.sql("SELECT count(*) FROM t") == [(1012,)]
        workshop.discard(restored)
    finally:
        sshd.close()


# -- a stolen database host

def test_a_thief_takes_nothing_away(pair):
    """With the real client's key, and frames of his own."""
    host = pair.sshd
    before = snapshot(pair.host)
    names = [str(path) for path in before]
    fate = next(name for name in names if name.endswith("/fate"))
    backup = fate.rsplit("/", 1)[0]
    thief = Frames(host)
    for name in names:
        assert thief.ask(frames.REMOVE, frames.text(name))[0] == frames.FAILED, name
    for prefix in {name.rsplit("/", 1)[0] for name in names if "/" in name}:
        assert thief.ask(frames.PRUNE, frames.text(prefix))[0] == frames.FAILED
        assert thief.ask(frames.SWEEP, b"\xff" * 7 + b"\x7f" + frames.text(prefix))[0] == frames.FAILED
    for name in random.sample(names, 20):
        assert not thief.put(name, b"garbage"), name
    for name in (f"{backup}/mark.1", f"{backup}/doomed.1", f"{backup}/ev.damaged.all.0123456789abcdef",
                 "c/main/gc/0123456789abcdef/condemned.1", "c/other/i/1", "pgcairn.repo", "keys/mine",
                 "c/main/cat/x"):
        assert not thief.put(name, b"garbage"), name
    for name in (b"../outside", b"/etc/passwd", b"c/main/../other/x", b"c/main/i/.hidden", b"c/main/i/a\0b",
                 b"c/main/i/" + b"x" * 600, b""):
        assert thief.ask(frames.CREATE, frames.text(name))[0] == frames.FAILED, name
        assert thief.ask(frames.OPEN, frames.text(name))[0] == frames.FAILED, name
    # What he may: add. It is in nobody's way.
    assert thief.put("c/main/pin/0123456789abcdef", b"garbage")
    assert thief.ask(frames.REMOVE, frames.text("c/main/pin/0123456789abcdef"))[0] == frames.DONE
    thief.close()
    assert snapshot(pair.host) == before

    # Another connection's pin is nobody's to remove.
    reader, thief = Frames(host), Frames(host)
    assert reader.put("c/main/pin/00000000000000aa", b"a reader's")
    assert thief.ask(frames.REMOVE, frames.text("c/main/pin/00000000000000aa"))[0] == frames.FAILED
    assert reader.ask(frames.REMOVE, frames.text("c/main/pin/00000000000000aa"))[0] == frames.DONE
    reader.close()
    thief.close()


def test_a_thief_gets_no_shell(pair, tmp_path):
    host = pair.sshd
    before = snapshot(pair.host)
    for words in (["rm", "-rf", str(pair.host.repository)], [f"touch {tmp_path}/here"],
                  [f"{pair.sshd.programs.pgcairn} serve --config {pair.host.config} --stdio"]):
        result = host.ssh(*words, stdin="")
        assert result.stdout == "" and not (tmp_path / "here").exists()
    # Asking for an unrestricted server starts the forced command all the same.
    thief = Frames(host, "locked", f"{pair.sshd.remote_program} serve --stdio")
    assert not thief.put("c/main/gc/1/condemned.1", b"x")
    thief.close()
    # A server that hears no hello waits for one, but not for long.
    result = run("timeout", "3", "sftp", "-F", host.directory / "ssh_locked", "-b", "-", "127.0.0.1", stdin=f"rm {pair.host.repository}/pgcairn.repo\n")
    assert result.returncode != 0
    assert snapshot(pair.host) == before


@pytest.mark.parametrize("damage", ["no hello", "a huge frame", "an unknown request", "a handle that is not open",
                                    "half a frame", "an answer"])
def test_a_client_that_breaks_the_protocol_is_shown_out(pair, damage):
    client = Frames(pair.sshd)
    if damage == "no hello":
        client.send(frames.HELLO, b"x" * 30)
    elif damage == "a huge frame":
        client.process.stdin.write(b"\xff\xff\xff\x7f" + b"\0" * 12)
        client.process.stdin.flush()
    elif damage == "an unknown request":
        client.send(40)
    elif damage == "a handle that is not open":
        client.send(frames.WRITE, b"x", request=0, handle=3)
    elif damage == "half a frame":
        client.process.stdin.write(b"\0" * 7)
        client.process.stdin.close()
    else:
        client.send(frames.DONE)
    kind, _, _ = client.receive()
    assert kind is None
    client.close()
    wait_until("its server ends", lambda: not pair.sshd.servers())


# -- trouble

def test_what_ssh_says_reaches_the_dba(pair):
    try:
        for key, more, code, words in (
                ("unknown", {}, FAILED, ["Permission denied (publickey", "authorized_keys"]),
                ("free", {"remote-program": "/nonexistent/pgcairn"}, USAGE, ["remote-program"]),
                ("free", {"remote-program": "/bin/echo welcome"}, UNREACHABLE, ["welcome serve --stdio", "print nothing"]),
                ("free", {"remote-program": "/bin/sleep 0"}, UNREACHABLE, ["no connection to repository host"]),
                ("locked", {"ssh-command": "/nonexistent/ssh"}, USAGE, ["ssh-command"]),
                ("locked", {"ssh-command": pair.sshd.command() + " -p 1"}, UNREACHABLE, ["Connection refused"]),
                ("locked", {"ssh-command": pair.sshd.command() + " -o UserKnownHostsFile=/dev/null"}, FAILED,
                 ["Host key verification failed", "fingerprint"]),
                ("locked", {"host": "-oProxyCommand=true"}, USAGE, ["no name of a host"]),
                ("free", {"remote-program": "pgcairn; rm -rf /"}, USAGE, ["remote-program"])):
            pair.use_key(key, **more)
            result = pair.db.run("info", expect=code)
            for word in words:
                assert word in result.stderr, result.stderr
    finally:
        pair.use_key("locked")


def test_other_clusters_are_out_of_reach(pair):
    config = pair.db.config.read_text(encoding="utf-8")
    try:
        pair.db.config.write_text(config.replace("[cluster main]", "[cluster other]"), encoding="utf-8")
        result = pair.db.run("init", expect=FAILED)
        assert "authorized_keys" in result.stderr
    finally:
        pair.db.config.write_text(config, encoding="utf-8")


def test_a_connection_that_is_cut_during_backup(pair, workshop):
    """Whatever is killed, and when: a backup that is reported is whole, and the next one succeeds."""
    pair.cluster.sql("CREATE TABLE big AS SELECT n, md5(n::text) || md5((n + 1)::text) AS text "
                     "FROM generate_series(1, 120000) AS n")

    def temporary():
        return set(pair.host.repository.glob("c/main/b/*/p/*/.*.tmp"))

    rng = random.Random(4711)
    codes = []
    for round_number in range(2):
        left = temporary()  # of the round before
        process = pair.db.start("backup", "--type=full", "--start-fast", "--no-progress", "--max-rate",
                                "16MB" if round_number == 0 else "2MB")
        wait_until("ssh runs", pair.sshd.clients)
        if round_number == 0:
            time.sleep(rng.uniform(0.1, 0.9))
        else:  # and once where it must hurt, however busy the machine is
            wait_until("a pack is on its way", lambda left=left: temporary() - left)
        for pid in (pair.sshd.clients if round_number % 2 else pair.sshd.servers)():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        codes.append(process.wait(timeout=120))
    assert set(codes) <= {OK, UNREACHABLE}, codes
    assert UNREACHABLE in codes
    whole = pair.db.backup()
    assert whole["state"] == "wal-complete"
    pair.db.run("verify", "--set", whole["label"])
    restored = workshop.restore(pair.host, "--set", whole["label"], "--type=immediate")
    restored.start_restored()
    assert digest(restored)["postgres"]["table public.big"] == digest(pair.cluster)["postgres"]["table public.big"]
    pair.cluster.sql("DROP TABLE big")


def test_answers_that_are_lost_during_push(pair, workshop):
    """The connection ends at any byte of what the host answers; push makes another, and no conflict is made up."""
    pair.cluster.configure(archive_command="'/bin/false'")
    pair.cluster.reload()
    script = workshop.programs.pgcairn.parent / "relay.py"
    shutil.copy(frames.__file__, script)
    support = pathlib.Path(frames.__file__).parent
    command = ["env", f"PYTHONPATH={support.parent}", "python3", "-B", str(script)]
    try:
        for limit in (190, 270, 310, 350):
            name = pair.cluster.switch_wal()
            words = [*command, str(limit), str(workshop.directory / f"cut-{limit}"), pair.sshd.command()]
            pair.use_key("locked", **{"ssh-command": " ".join(words)})
            pair.db.push(f"pg_wal/{name}", cwd=pair.cluster.data)
            (stored,) = pair.host.objects(f"c/main/w/*/*/*/{name}")
            content = stored.read_bytes()
            assert hashlib.sha256(content[:-32]).digest() == content[-32:]
            pair.use_key("locked")
            pair.db.push(f"pg_wal/{name}", cwd=pair.cluster.data)  # it is there, and the same
    finally:
        pair.use_key("locked")
        pair.cluster.configure(archive_command="'" + pair.db.archive_command() + "'")
        pair.cluster.reload()
        pair.cluster.archive_all()


def test_a_full_disk_over_there_is_no_space_here(workshop):
    cluster = workshop.server()
    host = workshop.pgcairn(cluster, name="host")
    make_directory(host.repository)
    disk = SmallDisk(host.repository, 12 * MIB)
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if is_root() else []
    sshd = SshHost(workshop.directory / "sshd", workshop.programs, host.config, prefix=[*disk._prefix(), *user])
    try:
        db = workshop.pgcairn(cluster, name="db")
        db.write_config(repository=sshd.options("locked"))
        disk.run(host.programs.pgcairn, "init", "--config", host.config, "--no-server")
        db.init()
        cluster.sql("CREATE TABLE t AS SELECT n, gen_random_uuid()::text AS text FROM generate_series(1, 300000) AS n")
        result = db.run("backup", "--start-fast", "--wal-timeout=0", expect=NO_SPACE)
        assert "No space left" in result.stderr
        disk.grow()
        db.run("backup", "--start-fast", "--wal-timeout=0", expect=FAILED)  # copied; its WAL is archived nowhere
        assert len(db.backups()) >= 1
    finally:
        sshd.close()
        disk.close()
