"""Hosts that can create and read and nothing else, and objects that are locked: on Ceph, which has both for real.

PGCAIRN_TEST_S3=ceph; the default server takes lock headers and locks nothing, and that is tested too.
"""

import base64
import datetime
import hashlib
import json
import re

import pytest

from support.compare import digest
from support.object_store import Bucket, S3Client, S3Error
from support.pgcairn import DAMAGED, FAILED, OK, REFUSED, last_object
from support.process import wait_until
from support.s3_site import Site

LOCK = {"lock-mode": "governance", "lock-days": 2, "writers": "one"}
AT_ONCE = ("--grace", "0s", "--force")


@pytest.fixture
def ceph(s3_server):
    if s3_server.engine != "ceph":
        pytest.skip("PGCAIRN_TEST_S3=ceph only")
    return s3_server


@pytest.fixture
def locked(ceph, workshop):
    """A bucket with object lock, which makes it a versioned one."""
    bucket = Bucket(ceph, workshop.directory / "locked", lock=True)
    yield bucket
    bucket.close()


def retention(bucket, name):
    """Mode and end of an object's lock, as the store itself tells them."""
    headers = bucket.client.request("GET", bucket.name, name)[1]
    until = headers.get("x-amz-object-lock-retain-until-date")
    return headers.get("x-amz-object-lock-mode"), until and datetime.datetime.fromisoformat(until[:19])


def modification(bucket, name):
    """When the object was written, as the store tells it."""
    return bucket.client.request("GET", bucket.name, name)[1]["last-modified"]


def versions(bucket, marker=False):
    """(name, version id) of every version, or of every delete marker."""
    text = bucket.client.request("GET", bucket.name, query={"versions": ""})[2].decode()
    kind = "DeleteMarker" if marker else "Version"
    return re.findall(rf"<{kind}>.*?<Key>(.*?)</Key>.*?<VersionId>(.*?)</VersionId>", text, re.DOTALL)


def test_a_bucket_that_does_not_lock_is_refused(workshop, bucket, s3_server):
    """Swift takes the headers and forgets them; Ceph refuses them where the bucket was made without object lock."""
    pgcairn = workshop.pgcairn(None, repository=bucket.section(**LOCK))
    result = pgcairn.run("init", "--no-server", expect=REFUSED)
    assert "the object store does not lock" in result.stderr
    wanted = "has none when read back" if s3_server.engine == "swift" else "InvalidRequest"
    assert wanted in result.stderr


def test_a_race_finds_what_412_hides(workshop, locked):
    """Ceph 20 answers 412 in sequence; in a versioned bucket several racing creates win."""
    locked.client.put(locked.name, "once", b"1", {"if-none-match": "*"})
    with pytest.raises(S3Error) as refused:
        locked.client.put(locked.name, "once", b"2", {"if-none-match": "*"})
    assert refused.value.status == 412
    pgcairn = workshop.pgcairn(None, repository=locked.section(writers="many"))
    result = pgcairn.run("init", "--no-server", expect=None)
    if result.returncode == OK:
        pytest.skip("this release has mended it")
    assert re.search(r"[2-8] of 8 racing creates of one name succeeded", result.stderr), result.stderr


def test_the_race_is_run_at_init_and_after_a_day(workshop, ceph):
    bucket = Bucket(ceph, workshop.directory / "raced")
    pgcairn = workshop.pgcairn(None, repository=bucket.section())
    pgcairn.run("init", "--no-server")
    assert not [name for name in bucket.objects("probe/") if "proof" not in name]  # nothing is left behind
    records = bucket.objects("probe/")
    assert len(records) == 1  # the first backup need not race again
    first = pgcairn.run("check", expect=None).stdout
    assert re.search(r"^object-store: OK \(conditional create proven by race at 20", first, re.MULTILINE)
    assert bucket.objects("probe/") == records
    assert pgcairn.run("check", expect=None).stdout.count("proven by race") == 1
    assert bucket.objects("probe/") == records  # not raced again on the same day
    bucket.close()


def test_what_is_created_is_locked_and_outlives_collect(workshop, locked):
    """All objects have the lock; collect hides them by delete markers, and the versions can be had back."""
    site = Site(workshop, locked, section=LOCK)
    site.fill(2000)
    old = site.pgcairn.backup()
    expected = digest(site.cluster)
    new = site.pgcairn.backup()
    site.cluster.archive_all()
    assert "object lock read back" in site.pgcairn.run("check").stdout
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    names = [name for name in locked.objects() if not name.startswith("probe/")]
    for name in names:
        mode, until = retention(locked, name)
        assert mode == "GOVERNANCE" and until > now + datetime.timedelta(days=1, hours=23), name
    version = dict(versions(locked))[next(name for name in names if name.endswith("/fate"))]
    with pytest.raises(S3Error) as denied:
        locked.client.request("DELETE", locked.name, next(name for name in names if name.endswith("/fate")),
                              query={"versionId": version})
    assert denied.value.status == 403

    site.pgcairn.run("expire", "--retention=full 1")
    done = site.pgcairn.json("collect", *AT_ONCE)
    assert done["packs"] > 0 and done["denied"] == 0
    assert [backup["label"] for backup in site.pgcairn.backups("wal-complete")] == [new["label"]]
    packs = {name for name, _ in versions(locked) if f"/b/{old['bid']}/p/" in name}
    assert packs and not packs & set(locked.objects())
    # What a thief with the right to delete can do at most: hide. The markers go, and all is there again.
    for name, marker in versions(locked, marker=True):
        locked.client.request("DELETE", locked.name, name, query={"versionId": marker})
    assert packs <= set(locked.objects())
    site.check_restores(expected, "--set", new["label"], "--type=immediate", "--target-action=promote")


def left(bucket, name):
    """How long an object stays locked from now."""
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    return retention(bucket, name)[1] - now


def age(bucket, name, hours=1):
    """A lock as it looks when most of its time is over: the bucket's owner may shorten it, in governance mode."""
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
    body = (f"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until:%Y-%m-%dT%H:%M:%SZ}</RetainUntilDate>"
            "</Retention>")
    bucket.client.request("PUT", bucket.name, name, query={"retention": ""}, body=body.encode(),
                          headers={"x-amz-bypass-governance-retention": "true",
                                   "content-md5": base64.b64encode(hashlib.md5(body.encode()).digest()).decode()})
    assert left(bucket, name) < datetime.timedelta(hours=hours)


def of_backup(bucket, backup, below="p/"):
    """Names of what one backup made, packs unless said otherwise."""
    return [name for name in bucket.objects(f"c/main/b/{backup['bid']}/") if f"/b/{backup['bid']}/{below}" in name]


def object_lock(pgcairn):
    """Status and text of the line of check."""
    results = pgcairn.json("check", "--no-switch", expect=None)["results"]
    return next((result["status"], result["text"]) for result in results if result["name"] == "object-lock")


DAY = datetime.timedelta(days=1)
SHORT_LOCK = {"lock-mode": "governance", "lock-days": 1, "writers": "one"}


def test_an_incremental_extends_the_locks_of_what_it_inherits(workshop, locked):
    site = Site(workshop, locked, section=SHORT_LOCK)
    site.fill(2000)
    full = site.pgcairn.backup()
    assert full["locks"]["days"] == 1 and full["locks"]["renewed"] == 0
    packs = of_backup(locked, full)
    assert packs and all(left(locked, name) > 1.9 * DAY for name in packs)
    modified = modification(locked, packs[0])
    for name in [packs[0], "pgcairn.repo"]:
        age(locked, name)
    newer = of_backup(locked, full, "fate")[0]
    age(locked, newer, 0.002)  # which the next backup does not need; a few seconds, since the past is refused
    site.fill(100)
    text = site.pgcairn.run("backup", "--start-fast").stdout
    assert re.search(r"^  \d+ older objects that it needs asked for their lock, 2 renewed; locked until 20", text,
                     re.MULTILINE)
    made = site.pgcairn.backups("wal-complete")[-1]
    assert made["type"] == "incr"
    assert all(left(locked, name) > 1.9 * DAY for name in [*packs, "pgcairn.repo"])
    wait_until("a lock has run out", lambda: left(locked, newer) < datetime.timedelta(0))
    status, text = object_lock(site.pgcairn)
    assert status == "WARNING" and f"backup {full['label']} is kept and its lock has run out" in text
    assert "governance: new objects for 2 days" in text and f"what {made['label']} needs is locked until 20" in text
    assert modification(locked, packs[0]) == modified

    # A backup that is kept for longer than its lock lasts is the business of the host that collects.
    plan = site.pgcairn.json("repo", "renew", "--dry-run")
    assert plan["renewed"] == 1 and plan["earliest_object"] == newer and left(locked, newer) < DAY
    done = site.pgcairn.json("repo", "renew")
    assert done["renewed"] == 1 and done["backups"] == 2 and done["missing"] == done["unproven"] == 0
    assert left(locked, newer) > 1.9 * DAY
    assert object_lock(site.pgcairn)[0] == "OK"
    assert site.pgcairn.json("repo", "renew")["renewed"] == 0

    locked.delete(packs[0])  # a marker in front of it
    told = site.pgcairn.json("repo", "renew", expect=DAMAGED)
    assert told["missing"] == 1 and told["first_missing"] == packs[0] and told["unproven"] == 0


def test_a_host_that_may_not_extend_locks_says_so(workshop, locked, ceph):
    """The backup is made, loudly; the host that collects mends it, and check goes green."""
    if not hasattr(ceph, "must"):
        pytest.skip("needs a gateway of its own, for a second user")
    key, secret = writer_keys(ceph, locked, ["s3:GetObjectRetention"], ["s3:PutObjectRetention"])
    section = {**SHORT_LOCK, "access-key-file": locked.file("writer-key", key),
               "secret-key-file": locked.file("writer-secret", secret)}
    site = Site(workshop, locked, section=section)
    site.fill(2000)
    full = site.pgcairn.backup()
    pack = of_backup(locked, full)[0]
    age(locked, pack)
    site.fill(100)
    made = site.pgcairn.run("backup", "--start-fast", "--output=json", expect=FAILED)
    assert "is made, but 1 older objects that it needs are not proven to stay locked for 1 days" in made.stderr
    assert "s3:PutObjectRetention" in made.stderr
    done = last_object(made.stdout)
    assert done["state"] == "wal-complete" and done["locks"]["unproven"] == 1 and "403" in done["locks"]["problem"]
    assert left(locked, pack) < DAY
    assert [backup["label"] for backup in site.pgcairn.backups("wal-complete")] == [full["label"], done["label"]]
    shown = site.pgcairn.run("info", "--set", done["label"]).stdout
    assert "were not proven to stay locked for 1 days" in shown and "PutObjectRetention" in shown
    status, text = object_lock(site.pgcairn)
    assert status == "FAILED" and pack in text and "pgcairn repo renew" in text and "PutObjectRetention" in text
    refused = site.pgcairn.json("repo", "renew", expect=FAILED)
    assert refused["renewed"] == 0 and refused["unproven"] == 1

    owner = workshop.pgcairn(site.cluster, name="owner", general=site.general,
                             repository=locked.section(**SHORT_LOCK, retention="daily 30; min 2"))
    assert owner.json("repo", "renew")["renewed"] == 1
    assert left(locked, pack) > 1.9 * DAY
    status, text = object_lock(site.pgcairn)
    assert status == "OK" and "without a policy backups are kept for longer than locks last" in text
    assert "retention keeps backups for 30 days, longer than locks last" in object_lock(owner)[1]


def test_governance_becomes_compliance_where_the_right_is(workshop, locked, ceph):
    """The configuration changed: a host without the right says so, the one that collects changes what is there."""
    if not hasattr(ceph, "must"):
        pytest.skip("needs a gateway of its own, for a second user")
    key, secret = writer_keys(ceph, locked, ["s3:GetObjectRetention", "s3:PutObjectRetention"],
                              ["s3:BypassGovernanceRetention"])
    section = {**SHORT_LOCK, "access-key-file": locked.file("writer-key", key),
               "secret-key-file": locked.file("writer-secret", secret)}
    site = Site(workshop, locked, section=section)
    site.fill(2000)
    pack = of_backup(locked, site.pgcairn.backup())[0]
    site.fill(100)
    site.more["lock-mode"] = "compliance"
    site.lead_through(None)
    made = site.pgcairn.run("backup", "--start-fast", expect=REFUSED)
    assert "is locked in governance mode, and lock-mode is compliance" in made.stderr
    assert "s3:BypassGovernanceRetention" in made.stderr
    status, text = object_lock(site.pgcairn)
    assert status == "FAILED" and "s3:BypassGovernanceRetention" in text
    assert retention(locked, pack)[0] == "GOVERNANCE"

    stricter = {**SHORT_LOCK, "lock-mode": "compliance"}
    owner = workshop.pgcairn(site.cluster, name="owner", repository=locked.section(**stricter), general=site.general)
    assert owner.json("repo", "renew")["renewed"] > 0
    assert retention(locked, pack)[0] == "COMPLIANCE" and left(locked, pack) > 1.9 * DAY
    assert object_lock(site.pgcairn)[0] == "OK"


def test_where_nothing_locks_there_is_nothing_to_renew(workshop):
    pgcairn = workshop.pgcairn(None)
    pgcairn.run("init", "--no-server")
    assert "repository 'main' locks nothing" in pgcairn.run("repo", "renew", expect=REFUSED).stderr


WRITER_ACTIONS = ["s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:ListBucketMultipartUploads",
                  "s3:AbortMultipartUpload"]


def writer_keys(ceph, bucket, more=(), denied=()):
    """Another user, whom the bucket's policy (docs/object-stores.md) lets create and read, and end what it pins."""
    key, secret = "writer" + bucket.name, "secret" + bucket.name
    ceph.must("radosgw-admin", "user", "create", f"--uid=writer-{bucket.name}", "--display-name=writer",
              f"--access-key={key}", f"--secret={secret}")
    arn = f"arn:aws:s3:::{bucket.name}"
    writer = {"Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/writer-{bucket.name}"]}}
    policy = {"Version": "2012-10-17", "Statement": [
        {**writer, "Action": [*WRITER_ACTIONS, *more], "Resource": [arn, f"{arn}/*"]},
        {**writer, "Action": ["s3:DeleteObject"], "Resource": [f"{arn}/c/*/pin/*", f"{arn}/probe/*"]},
        # What the writer creates is the writer's there: the bucket's owner has to be let in as well.
        {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/test"]}, "Action": ["s3:*"],
         "Resource": [arn, f"{arn}/*"]}]}
    if denied:  # as the owner of what it created, it may do more there than it was allowed to
        policy["Statement"].append({**writer, "Effect": "Deny", "Action": denied, "Resource": f"{arn}/*"})
    bucket.client.request("PUT", bucket.name, query={"policy": ""}, body=json.dumps(policy).encode())
    return key, secret


def test_a_host_that_may_only_create_and_read(workshop, ceph):
    """It backs up, pushes and restores, and deletes nothing; expire and collect run where the right is."""
    if not hasattr(ceph, "must"):
        pytest.skip("needs a gateway of its own, for a second user")
    bucket = Bucket(ceph, workshop.directory / "writer")
    key, secret = writer_keys(ceph, bucket)
    section = {"access-key-file": bucket.file("writer-key", key), "secret-key-file": bucket.file("writer-secret", secret)}
    site = Site(workshop, bucket, section=section)
    site.fill(2000)
    old = site.pgcairn.backup()
    site.fill(200)
    new = site.pgcairn.backup()
    expected = digest(site.cluster)
    site.cluster.archive_all()
    site.check_restores(expected)

    name = next(name for name in bucket.objects() if name.endswith("/fate"))
    writer = S3Client(ceph.endpoint, key, secret, ceph.region, ceph.certificates.ca)
    with pytest.raises(S3Error) as denied:
        writer.delete(bucket.name, name)
    assert denied.value.status == 403

    assert not bucket.objects("c/main/pin/") and len(bucket.objects("probe/")) == 1
    site.pgcairn.run("expire", "--retention=full 1")  # a mark is created, which can be taken back
    before = bucket.objects()
    tried = site.pgcairn.json("collect", *AT_ONCE)
    assert tried["denied"] > 0 and tried["packs"] == tried["wal_files"] == 0
    assert {name for name in before if "/p/" in name or "/w/" in name} <= set(bucket.objects())
    assert "may not be deleted and stay, first c/main/" in site.pgcairn.run("collect", *AT_ONCE).stdout

    owner = workshop.pgcairn(site.cluster, name="owner", repository=bucket.section(), general=site.general)
    done = owner.json("collect", *AT_ONCE)
    assert done["packs"] > 0
    assert not [name for name in bucket.objects() if f"/b/{old['bid']}/p/" in name]
    assert [backup["label"] for backup in owner.backups("wal-complete")] == [new["label"]]
    site.check_restores(expected)
    bucket.close()
