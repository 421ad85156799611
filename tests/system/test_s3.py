"""A repository in a bucket: everything that works on disk works there, and what is wrong is told apart.

The server is a real one (support/object_store.py says which), TLS with a private CA is always on.
"""

import re
import shlex
import subprocess
import time

import pytest

from support.compare import digest, digest_database
from support.object_store import Bucket
from support.pgcairn import FAILED, NOT_FOUND, OK, REFUSED, UNREACHABLE, USAGE
from support.process import must, run, wait_until
from support.receiver import Receiver
from support.s3_site import Site

AT_ONCE = ("--grace", "0s", "--force")


@pytest.fixture(scope="module")
def shared(s3_server, module_workshop):
    """A bucket that a repository without a server is in, for questions that need no more."""
    bucket = Bucket(s3_server, module_workshop.directory / "shared-bucket")
    pgcairn = module_workshop.pgcairn(None, repository=bucket.section())
    pgcairn.run("init", "--no-server")
    yield bucket, pgcairn
    bucket.close()


# -- everything works there


def test_a_life_in_a_bucket(workshop, bucket):
    """init, check, full, incremental, push in batches, targets, restores, verify, expire, collect, info."""
    site = Site(workshop, bucket)
    cluster, pgcairn = site.cluster, site.pgcairn
    again = pgcairn.json("init")
    assert not again["repository_created"] and again["cluster"]["existed"]
    site.fill()
    old = pgcairn.backup()
    assert old["state"] == "wal-complete"
    first = digest(cluster)

    cluster.sql("UPDATE t SET body = 'changed' WHERE n % 997 = 0")
    cluster.sql("CREATE TABLE doomed AS SELECT n FROM generate_series(1, 3000) n")
    made = pgcairn.json("backup", "--start-fast")
    assert made["type"] == "incr" and made["stored_bytes"] < old["stored_bytes"]
    at_name = digest(cluster)
    cluster.sql("SELECT pg_create_restore_point('before the accident')")
    before_drop = digest_database(cluster, "postgres")["table public.doomed"]
    cluster.sql("DROP TABLE doomed")
    for _ in range(8):  # several ready at a time: they go along with the first
        site.fill(4000)
    expected = digest(cluster)
    cluster.archive_all()

    lines = pgcairn.run("check").stdout.splitlines()
    assert lines and not [line for line in lines if "FAILED" in line]
    assert "no gaps" in pgcairn.run("info").stdout.splitlines()[0]
    report = pgcairn.json("verify")
    assert report["finding_count"] == 0 and report["good_backups"] == report["backups"] == 2

    text = pgcairn.run("targets", "--before-drop", "doomed", "--to", workshop.directory / "undropped").stdout
    command = re.findall(r"^  (/\S+/pgcairn restore .*)$", text, re.MULTILINE)[-1]
    must("sh", "-c", command)
    undropped = workshop.cluster(data=workshop.directory / "undropped").start_restored()
    assert digest_database(undropped, "postgres")["table public.doomed"] == before_drop
    workshop.discard(undropped)

    site.check_restores(expected)  # recovery fetches ahead
    site.check_restores(at_name, "--type=name", "--target=before the accident")
    site.check_restores(first, "--set", old["label"], "--type=immediate", "--target-action=promote")

    new = pgcairn.backup()
    cluster.archive_all()
    before = bucket.objects()
    pgcairn.run("expire", "--retention=full 1")
    assert [backup["label"] for backup in pgcairn.backups("wal-complete")] == [new["label"]]
    done = pgcairn.json("collect", *AT_ONCE)
    assert done["packs"] > 0 and done["wal_files"] > 0 and not done["waiting"]
    after = bucket.objects()
    assert sum(after.values()) < sum(before.values())
    assert not [name for name in after if f"/b/{old['bid']}/p/" in name]
    expected = digest(cluster)
    cluster.archive_all()
    site.check_restores(expected)
    cluster.stop()


def test_receive_ships_pieces_and_restore_uses_them(workshop, bucket):
    """Alone, without archive_command: what was written a second ago is there."""
    cluster = workshop.server(wal_segsize=1)
    pgcairn = workshop.pgcairn(cluster, repository=bucket.section(prefix="streamed"))
    pgcairn.init()
    receiver = Receiver(pgcairn, workshop.directory / "spool", "--slot", "receive", "--create-slot", slot=None)
    receiver.start().says("receiving from")
    try:
        cluster.sql("CREATE TABLE load AS SELECT n, md5(n::text) FROM generate_series(1, 30000) n")
        assert pgcairn.backup("--wal-timeout=60")["state"] == "wal-complete"
        cluster.sql("INSERT INTO load SELECT n, 'last words' FROM generate_series(1, 200) n")
        written = cluster.value("SELECT pg_current_wal_flush_lsn()")
        expected = digest(cluster)
        wait_until("the tail is stored", lambda: [name for name in bucket.objects("streamed/") if ".tail." in name])
        wait_until("all of it", lambda: cluster.value(
            "SELECT %s::pg_lsn <= %s::pg_lsn", written, end_of_wal(pgcairn)))
        cluster.kill()
        assert digest(workshop.restore(pgcairn).start_restored()) == expected
    finally:
        receiver.close()


def end_of_wal(pgcairn):
    return pgcairn.json("info", "--offline")["clusters"][0]["recoverable"]["to_lsn"]


def test_clusters_share_a_bucket_and_never_meet(workshop, bucket):
    """Two below one prefix, one repository; a third in a repository of its own, under a name that begins alike."""
    one = Site(workshop, bucket, cluster_name="one", section={"prefix": "site"})
    two = Site(workshop, bucket, cluster_name="two", section={"prefix": "site"})
    three = Site(workshop, bucket, cluster_name="one", section={"prefix": "site2"})
    for number, site in enumerate((one, two, three)):
        site.fill(1000 * (number + 1))
        site.pgcairn.backup()
    assert {name.split("/")[0] for name in bucket.objects()} == {"site", "site2"}
    assert {name.split("/")[2] for name in bucket.objects("site/c/")} == {"one", "two"}
    two.pgcairn.run("expire", "--retention=full 1")
    two.pgcairn.run("collect", *AT_ONCE)
    for number, site in enumerate((one, two, three)):
        assert len(site.pgcairn.backups("wal-complete")) == 1
        expected = digest(site.cluster)
        site.cluster.archive_all()
        site.check_restores(expected)
    # A stranger's WAL is refused by name, also where only a bucket is between them.
    stranger = workshop.pgcairn(three.cluster, name="stranger", cluster_name="one",
                                repository=bucket.section(prefix="site"))
    segment = three.cluster.switch_wal()
    refused = stranger.push(f"pg_wal/{segment}", expect=FAILED, cwd=three.cluster.data)
    assert three.cluster.control("Database system identifier") in refused.stderr


def test_a_segment_with_other_content_is_refused_and_the_same_one_is_not(workshop, bucket):
    site = Site(workshop, bucket)
    site.fill()
    name = site.cluster.switch_wal()
    wait_until(f"{name} is archived", lambda: site.cluster.has_archived(name))
    stored = {key: bucket.get(key) for key in bucket.objects() if key.endswith(name)}
    assert len(stored) == 1
    site.push(name)
    segment = site.cluster.data / "pg_wal" / name
    content = bytearray(segment.read_bytes())
    content[5000] ^= 1
    segment.write_bytes(content)
    refused = site.push(name, expect=FAILED)
    assert name in refused.stderr
    assert {key: bucket.get(key) for key in stored} == stored


def test_virtual_host_style(workshop, bucket, s3_server):
    """The bucket in the host's name."""
    endpoint = f"https://s3.localhost:{s3_server.tls_port}"
    pgcairn = workshop.pgcairn(None, repository=bucket.section(endpoint, uri_style="virtual"))
    pgcairn.run("init", "--no-server")
    assert "pgcairn.repo" in bucket.objects()
    # By the other style it is the same repository.
    pgcairn.write_config(repository=bucket.section())
    assert not pgcairn.json("init", "--no-server")["repository_created"]


# -- what is wrong is told apart: {name: what is configured, exit codes, words that the message has}

WRONG = {
    "another CA": (lambda bucket: {"ca-file": bucket.file("other.pem", other_ca(bucket), 0o644)},
                   (UNREACHABLE,), ("certificate",)),
    "the system's CAs": (lambda bucket: {"ca-file": None}, (UNREACHABLE,), ("certificate",)),
    "another host's certificate": (lambda bucket: {"endpoint": bucket.faults(
        bucket.server.certificates.elsewhere).endpoint}, (UNREACHABLE,), ("127.0.0.1", "certificate")),
    "no TLS there": (lambda bucket: {"endpoint": f"https://127.0.0.1:{bucket.server.plain_port}"},
                     (UNREACHABLE,), ("TLS",)),
    "plain http": (lambda bucket: {"endpoint": f"http://127.0.0.1:{bucket.server.plain_port}"},
                   (USAGE,), ("http", "plain-http")),
    "plain http to elsewhere": (lambda bucket: {"endpoint": "http://s3.example.com", "plain-http": "allowed"},
                                (USAGE,), ("loopback",)),
    "wrong secret": (lambda bucket: {"secret-key-file": bucket.file("wrong", "a" * 40 + "\n")},
                     (FAILED, REFUSED), ("SignatureDoesNotMatch",)),
    "unknown key": (lambda bucket: {"access-key-file": bucket.file("nobody", "NOBODY\n")},
                    (FAILED, REFUSED), ("InvalidAccessKeyId|SignatureDoesNotMatch",)),
    "no such bucket": (lambda bucket: {"bucket": "no-such-bucket-here"}, (USAGE, NOT_FOUND),
                       ("no-such-bucket-here", "NoSuchBucket|does not exist")),
    "no secret": (lambda bucket: {"secret-key-file": bucket.directory / "absent"}, (USAGE, FAILED, NOT_FOUND),
                  ("absent",)),
    "readable secret": (lambda bucket: {"secret-key-file": bucket.file("open", "x\n", 0o644)},
                        (FAILED,), ("open to others", "chmod 600")),
}
# Whoever was never reached is waited for a little.
AWAY = {
    "no such host": (lambda bucket: {"endpoint": "https://no-such-host.invalid"}, (UNREACHABLE,),
                     ("no-such-host.invalid", "resolve")),
    "nobody listens": (lambda bucket: {"endpoint": "https://127.0.0.1:1"}, (UNREACHABLE,), ("127.0.0.1",)),
}
AWAY_SECONDS = 25


def other_ca(bucket):
    return bucket.server.certificates.other_ca.read_text(encoding="ascii")


COMMANDS = {"info": (), "init": ("--no-server",)}


def check_said(bucket, command, result, codes, words):
    assert result.returncode in codes, f"{command}: {result.returncode}: {result.stderr}"
    for word in words:
        assert re.search(word, result.stderr), f"{command} does not say '{word}': {result.stderr}"
    assert bucket.server.secret not in result.stderr + result.stdout


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(shared, workshop, name):
    bucket, _ = shared
    wrong, codes, words = WRONG[name]
    pgcairn = workshop.pgcairn(None, repository=bucket.section(**wrong(bucket)))
    before = bucket.objects()
    for command, options in COMMANDS.items():
        result = pgcairn.run(command, *options, "--log-level=debug", expect=None)
        assert not re.search(r": attempt (3|\d\d)", result.stderr), "what can't get better was tried again and again"
        result.stderr = "".join(line for line in result.stderr.splitlines(True) if not line.startswith("DEBUG: "))
        check_said(bucket, command, result, codes, words)
    assert bucket.objects() == before


def test_who_is_away_is_waited_for_and_named(shared, workshop):
    bucket, _ = shared
    began, running = time.monotonic(), []
    for number, (wrong, codes, words) in enumerate(AWAY.values()):
        pgcairn = workshop.pgcairn(None, name=f"away{number}", repository=bucket.section(**wrong(bucket)))
        for command, options in COMMANDS.items():
            running.append((command, pgcairn.start(command, *options, capture=True), codes, words))
    for command, process, codes, words in running:
        out, err = process.communicate(timeout=90)
        check_said(bucket, command, subprocess.CompletedProcess((), process.returncode, out, err), codes, words)
    assert time.monotonic() - began < AWAY_SECONDS


def test_the_wrong_region_is_said_or_is_none(shared, workshop):
    """Swift, as Amazon, wants the right one in the signature; Ceph does not look."""
    bucket, _ = shared
    pgcairn = workshop.pgcairn(None, repository=bucket.section(region="eu-nowhere-1"))
    result = pgcairn.run("info", expect=None)
    if bucket.server.engine == "ceph":
        assert result.returncode == OK
    else:
        assert result.returncode in (FAILED, REFUSED, USAGE)
        assert bucket.server.region in result.stderr and "region" in result.stderr


def test_an_empty_bucket_is_no_repository(workshop, bucket):
    pgcairn = workshop.pgcairn(None, repository=bucket.section())
    result = pgcairn.run("info", expect=NOT_FOUND)
    assert "init" in result.stderr
    assert not bucket.objects()


def test_secrets_are_nowhere_to_be_seen(shared, workshop):
    """Not in arguments, debug logs, or what a failure prints."""
    bucket, pgcairn = shared
    seen = pgcairn.run("info", "--log-level=debug")
    command = shlex.join(map(str, pgcairn.command("info")))
    assert bucket.server.secret not in seen.stdout + seen.stderr + command
    environment = {"AWS_ACCESS_KEY_ID": bucket.server.key, "AWS_SECRET_ACCESS_KEY": bucket.server.secret}
    other = workshop.pgcairn(None, repository=bucket.section(access_key_file=None, secret_key_file=None))
    result = run(*other.command("info", "--log-level=debug"), env=environment)
    assert result.returncode == OK, result.stderr
    assert bucket.server.secret not in result.stdout + result.stderr
