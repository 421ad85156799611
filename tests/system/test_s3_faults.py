"""Trouble between us and a bucket, with backup, push and restore under way.

Whatever happens: a backup that was reported good restores exactly, a push that answered 0 is there, an error names
its cause, and nobody asks more often than is decent. Rows 45 to 59 of the fault matrix, as far as a proxy in front
of a real server can make them.
"""

import http.client
import os
import re
import time

import pytest

from support.cluster import other_file_system, quoted, remove_tree
from support.compare import digest
from support.object_store import Bucket, S3Client, S3Error
from support.pgcairn import DAMAGED, FAILED, OK, REFUSED, UNREACHABLE
from support.process import wait_until
from support.s3_site import Site

BUSY_SECONDS = float(os.environ.get("PGCAIRN_TEST_BUSY_SECONDS", "8"))


@pytest.fixture(scope="module")
def site(s3_server, module_workshop):
    """A server whose repository is in a bucket, with one full backup; the proxy is on its way there."""
    bucket = Bucket(s3_server, module_workshop.directory / "bucket")
    proxy = bucket.faults()
    # Segments stay in pg_wal, to be pushed again.
    made = Site(module_workshop, bucket, endpoint=proxy.endpoint, settings={"wal_keep_size": "'512MB'"})
    made.proxy = proxy
    made.fill(30000)
    made.pgcairn.backup()
    yield made
    bucket.close()


@pytest.fixture
def quiet(site):
    """The same, with no faults before and after the test, and nobody else on the way."""
    assert site.pgcairn.cluster.is_running()
    site.rest()
    site.proxy.quiet()
    site.proxy.limit()
    site.proxy.forget()
    yield site
    site.proxy.quiet()
    site.proxy.limit()


def next_segment(site):
    """The name of one that is complete, not archived by the server itself."""
    name = site.cluster.switch_wal()
    wait_until(f"{name} is archived", lambda: site.cluster.has_archived(name), 120)
    return name


def go_through(site):
    """A push, an incremental backup and a restore; what must hold is checked where there are no faults."""
    site.fill(2000)
    name = next_segment(site)
    made = site.pgcairn.json("backup", "--start-fast", timeout=240)
    assert made["state"] == "wal-complete"
    expected = digest(site.cluster)
    next_segment(site)
    site.check_restores(expected)
    requests = site.proxy.requests()
    site.proxy.quiet()
    assert name in site.stored_segments()
    report = site.pgcairn.json("verify")
    assert report["finding_count"] == 0 and report["good_backups"] == report["backups"]
    return requests


# -- the proxy itself: a fault that never comes about proves nothing

SEEN = {"slow_down": S3Error, "internal": S3Error, "conflict": S3Error, "expired": S3Error, "skewed": S3Error,
        "denied": S3Error, "close": OSError, "lost": S3Error, "cut": (http.client.IncompleteRead, OSError)}


def test_faults_come_about(quiet):
    """Seen by a client that repeats nothing and checks nothing."""
    bucket, proxy = quiet.bucket, quiet.proxy
    client = S3Client(proxy.endpoint, bucket.server.key, bucket.server.secret, bucket.server.region, bucket.ca)
    content = bytes(range(256)) * 1000
    client.put(bucket.name, "probe", content)
    for name, error in SEEN.items():
        proxy.set(**{name: 100})
        with pytest.raises(error):
            client.get(bucket.name, "probe")
        proxy.quiet()
    proxy.set(flip=100)
    changed = client.get(bucket.name, "probe")
    assert sum(one != other for one, other in zip(content, changed)) == 1 and len(changed) == len(content)
    proxy.quiet()
    proxy.set(short=100)
    assert client.get(bucket.name, "probe") == content[:len(content) // 2]
    proxy.quiet()
    proxy.set(ok_error=100)
    assert b"<Error>" in client.get(bucket.name, "probe")
    proxy.quiet()
    proxy.forget()
    proxy.set(internal_once=1)
    with pytest.raises(S3Error):
        client.get(bucket.name, "probe")
    assert client.get(bucket.name, "probe") == content
    proxy.quiet()
    proxy.limit("PUT", paths=("/w/",))
    proxy.set(internal=100)
    client.put(bucket.name, "probe", content)
    assert client.get(bucket.name, "probe") == content
    with pytest.raises(S3Error):
        client.put(bucket.name, "c/w/probe", b"small")  # of a large one the answer may come too early
    proxy.quiet()
    client.delete(bucket.name, "probe")
    # The proxy writes its log when an answer has gone, which may be after it has come.
    wait_until("both requests are in the log", lambda: [request.method for request in proxy.requests()][-2:]
               == ["PUT", "DELETE"])


# -- all goes through

RATES = {
    "a bad day": {"slow_down": 8, "internal": 8, "close": 8, "lost": 8, "delay": 20, "delay_ms": 100},
    "every request refused once": {"internal_once": 1},
    "every reply lost once": {"lost_once": 1},
    "bodies cut and short": {"cut": 25, "short": 15},
    "errors inside of a 200, conflicts": {"ok_error": 15, "conflict": 20},
}
# Answers to GET are data.
ONLY = {"errors inside of a 200, conflicts": ("PUT", "POST")}


@pytest.mark.parametrize("name", RATES)
def test_all_goes_through(quiet, name):
    quiet.proxy.limit(*ONLY.get(name, ()))
    quiet.proxy.set(**RATES[name])
    requests = go_through(quiet)
    refused = [request for request in requests if request.status in (409, 500, 503) or request.status < 0]
    if name in ("a bad day", "every request refused once", "every reply lost once"):
        assert refused, "no fault came about"
    if name == "a bad day":
        # Whoever asked again at once, and more often than needed, would be refused more often than others.
        assert len(refused) < len(requests) / 2


def test_a_changed_bit_is_found(quiet):
    """By digests of ours, since nothing on the way notices: the data is asked for again, or damage is said."""
    quiet.fill(2000)
    expected = digest(quiet.cluster)
    next_segment(quiet)
    quiet.proxy.limit("GET", paths=("/p/", "/m/", "/w/", "/fate"))
    quiet.proxy.set(flip=20)
    target = quiet.workshop.new_directory()
    result = quiet.pgcairn.run("restore", "--to", target / "data", expect=None)
    assert result.returncode in (OK, DAMAGED), result.stderr
    quiet.proxy.quiet()
    if result.returncode == OK:
        restored = quiet.workshop.cluster(data=target / "data").start_restored()
        assert digest(restored) == expected
        quiet.workshop.discard(restored)
    else:
        assert not (target / "data/global/pg_control").exists()
        quiet.check_restores(expected)


# -- stores that are not what they seem (rows 51 and 52)

def test_a_store_that_ignores_conditions_is_refused(quiet, workshop):
    """It takes If-None-Match, answers 200, and lets every racing writer win."""
    quiet.proxy.limit("PUT")
    quiet.proxy.set(unconditional=100)
    other = Bucket(quiet.bucket.server, workshop.directory / "other")
    pgcairn = workshop.pgcairn(None, repository=other.section(quiet.proxy.endpoint, writers="many"))
    result = pgcairn.run("init", "--no-server", expect=REFUSED)
    assert re.search(r"[2-8] of 8 racing creates of one name succeeded", result.stderr), result.stderr
    assert "writers = one" in result.stderr
    assert not [name for name in other.objects() if not name.startswith("probe/")]
    other.close()


def test_a_store_whose_listings_are_stale_is_refused(quiet, workshop):
    quiet.proxy.set(stale=100, stale_seconds=60)
    other = Bucket(quiet.bucket.server, workshop.directory / "other")
    pgcairn = workshop.pgcairn(None, repository=other.section(quiet.proxy.endpoint))
    result = pgcairn.run("init", "--no-server", expect=REFUSED)
    assert "what was just created is missing in a listing" in result.stderr, result.stderr
    other.close()


def test_listings_that_become_stale_lose_nothing(quiet):
    """A probe is a day old at most: what is listed late in between is found later, and nobody deletes for want of it."""
    time.sleep(3)  # what the first probe recorded is listed
    quiet.proxy.set(stale=100, stale_seconds=3)
    made, names = [], []
    for _ in range(3):
        quiet.fill(1000)
        names.append(next_segment(quiet))
        made.append(quiet.pgcairn.json("backup", "--start-fast", "--no-expire", timeout=240)["label"])
        quiet.pgcairn.run("collect")
    quiet.pgcairn.run("expire", "--retention=last 2")
    quiet.pgcairn.run("collect")
    expected = digest(quiet.cluster)
    next_segment(quiet)
    quiet.proxy.quiet()
    assert set(names) <= set(quiet.stored_segments())
    assert set(made[-2:]) <= {backup["label"] for backup in quiet.pgcairn.backups("wal-complete")}
    report = quiet.pgcairn.json("verify")
    assert report["finding_count"] == 0 and report["good_backups"] == report["backups"]
    quiet.check_restores(expected)


# -- what is not worth asking again: {fault: how often at most, the word for it}

HOPELESS = {"denied": (3, "AccessDenied"), "expired": (6, "ExpiredToken"), "skewed": (6, "RequestTimeTooSkewed")}


@pytest.mark.parametrize("name", HOPELESS)
def test_what_does_not_help_is_not_repeated(quiet, name):
    """Rights that went, a token that ran out, a clock that is off: said at once, and after it all is well."""
    at_most, word = HOPELESS[name]
    quiet.fill(2000)
    next_segment(quiet)
    quiet.rest()  # the archiver's requests would count
    quiet.proxy.forget()
    quiet.proxy.set(**{name: 100})
    began = time.monotonic()
    result = quiet.pgcairn.run("backup", "--start-fast", expect=None)
    assert result.returncode in (FAILED, REFUSED, UNREACHABLE), result.stderr
    assert time.monotonic() - began < 20
    assert word in result.stderr, result.stderr
    assert len(quiet.proxy.requests()) <= at_most
    quiet.proxy.quiet()
    quiet.proxy.limit("PUT")
    quiet.proxy.set(denied=100)
    quiet.proxy.forget()
    result = quiet.pgcairn.run("backup", "--start-fast", expect=None)
    assert result.returncode in (FAILED, REFUSED) and "AccessDenied" in result.stderr
    quiet.proxy.quiet()
    assert quiet.pgcairn.json("backup", "--start-fast")["state"] == "wal-complete"


# -- connections

@pytest.mark.parametrize("direction", ["up", "down"])
def test_connections_break_at_any_byte(quiet, direction):
    """Reset after k bytes, of the handshake, of headers, of bodies: nothing half is there, and it goes through."""
    wire = quiet.bucket.wire()
    quiet.fill(6000)
    name = next_segment(quiet)
    segment = quiet.cluster.data / "pg_wal" / name
    key, = (key for key in quiet.bucket.objects() if key.endswith(name))
    quiet.lead_through(f"https://127.0.0.1:{wire.port}")
    try:
        for size in (0, 1, 300, 700, 1500, 2500, 4000, 20000, 100000, segment.stat().st_size // 8):
            quiet.bucket.delete(key)
            setattr(wire, f"cut_{direction}_after", size)
            wire.cuts_left = 2
            result = quiet.push(name, "--no-batch", timeout=90)
            stored = quiet.bucket.objects().get(key)
            assert stored, result.stderr
        assert wire.cuts >= 10
        wire.cut_up_after = wire.cut_down_after = None
        assert quiet.pgcairn.json("verify")["finding_count"] == 0
    finally:
        quiet.lead_through(quiet.proxy.endpoint)


def test_slow_is_not_dead(quiet):
    """A few hundred kB a second: it takes its time, and nothing gives up."""
    wire = quiet.bucket.wire()
    wire.bytes_per_second = 300000
    quiet.fill(3000)
    quiet.lead_through(f"https://127.0.0.1:{wire.port}")
    try:
        name = quiet.cluster.switch_wal()
        wait_until(f"{name} is archived", lambda: quiet.cluster.has_archived(name))
    finally:
        quiet.lead_through(quiet.proxy.endpoint)
    assert name in quiet.stored_segments()


def test_long_waits_side_by_side(quiet, workshop):
    """An answer that never comes; a store that is gone and comes back; one that does not; one that is busy for long.

    Rows 46 and 57 speak of ten minutes: PGCAIRN_TEST_BUSY_SECONDS=600.
    """
    bucket = quiet.bucket
    quiet.fill(6000)
    name = next_segment(quiet)
    ways = {word: bucket.faults() for word in ("hang", "gone", "back", "busy")}
    sides = {word: workshop.pgcairn(quiet.cluster, name=word, repository=bucket.section(way.endpoint))
             for word, way in ways.items()}
    ways["hang"].set(hang_once=1)
    ways["hang"].limit("PUT")
    ways["gone"].stop()
    began = time.monotonic()
    key, = (key for key in bucket.objects() if key.endswith(name))
    bucket.delete(key)
    running = {word: sides[word].start_push(f"pg_wal/{name}", cwd=quiet.cluster.data) for word in ("hang", "gone")}
    running |= {word: sides[word].start("backup", "--type=full", "--start-fast", "--max-rate=8MB", capture=True)
                for word in ("back", "busy")}
    for word in ("back", "busy"):
        wait_until(f"'{word}' is under way", lambda word=word: sum(
            request.method in ("PUT", "POST") for request in ways[word].requests()) > 1)
    ways["back"].stop()
    ways["busy"].forget()
    ways["busy"].set(slow_down=100)
    time.sleep(BUSY_SECONDS)
    ways["back"].restart()
    ways["busy"].quiet()
    asked = len(ways["busy"].requests())
    ended = {word: process.communicate(timeout=180)[1] for word, process in running.items()}
    took = time.monotonic() - began
    assert running["gone"].returncode == FAILED and "127.0.0.1" in ended["gone"], ended["gone"]
    for word in ("back", "busy"):
        assert running[word].returncode == OK, f"{word}: {ended[word]}"
    # push waits for half a minute, as long as the silence lasted; PostgreSQL asks again, and finds its file stored.
    assert running["hang"].returncode == OK or "30 seconds" in ended["hang"], ended["hang"]
    if running["hang"].returncode != OK:
        quiet.push(name, "--no-batch")
    assert took < 90 + BUSY_SECONDS
    assert asked < 60 + BUSY_SECONDS, "a store that is busy was asked all the time"
    assert name in quiet.stored_segments()
    assert quiet.pgcairn.json("verify")["finding_count"] == 0


# -- collecting

def test_deletion_that_is_denied_is_said_and_harms_nothing(quiet):
    """Row 59: rights that went, or a lock that refuses. A later run ends what this one could not."""
    quiet.pgcairn.backup()
    quiet.pgcairn.run("expire", "--retention=full 1")
    before = quiet.bucket.objects()
    quiet.proxy.limit("DELETE", "POST")
    quiet.proxy.set(denied=100)
    result = quiet.pgcairn.run("collect", "--grace", "0s", "--force", expect=None)
    # Packs that may not be deleted are counted, and the rest goes on; a mark that may not ends the run.
    assert "AccessDenied" in (result.stderr if result.returncode != OK else result.stdout), result
    assert before.keys() <= quiet.bucket.objects().keys()
    quiet.proxy.quiet()
    quiet.pgcairn.run("collect", "--grace", "0s", "--force")
    assert not before.keys() <= quiet.bucket.objects().keys()
    assert quiet.pgcairn.json("verify")["finding_count"] == 0
    expected = digest(quiet.cluster)
    next_segment(quiet)
    quiet.check_restores(expected)


def test_a_dead_store_is_waited_for_once_a_file_and_with_overflow_path_once_a_minute(quiet):
    site, proxy = quiet, quiet.proxy
    overflow = other_file_system(site.cluster.data)
    assert overflow is not None, "there is no disk beside that of PGCAIRN_TEST_SCRATCH"
    site.cluster.configure(archive_command=quoted("/bin/false"))
    site.cluster.reload()
    names = []
    for _ in range(4):
        site.fill(10)
        names.append(site.cluster.switch_wal())
    proxy.stop()
    try:
        said = site.push(names[0], "--log-level=debug", expect=FAILED).stderr
        assert len(re.findall(r": attempt 1, ", said)) == 1
        site.pgcairn.write_config(repository=site.section(site.endpoint),
                                  general={**site.general, "overflow-path": overflow})
        assert "NOT OFF THIS HOST" in site.push(names[0]).stderr
        for name in names[1:3]:
            said = site.push(name, "--log-level=debug").stderr
            assert "NOT OFF THIS HOST" in said and "was out of reach at" in said
            assert ": attempt " not in said
        # No failure rests on what is remembered: where overflow-path does not help, the store is asked.
        overflow.chmod(0)
        said = site.push(names[3], "--log-level=debug", expect=FAILED).stderr
        overflow.chmod(0o700)
        assert ": attempt 1, " in said
        # After a minute it is asked again; here the minute is over at once.
        proxy.restart()
        for absent in site.general["spool-path"].glob("*/absent"):
            absent.unlink()
        site.push(names[3])
        assert set(names) <= set(site.stored_segments())
    finally:
        overflow.chmod(0o700)
        proxy.restart()
        site.lead_through(site.endpoint)
        remove_tree(overflow)
        site.cluster.archive_with(site.pgcairn)
        site.cluster.reload()
