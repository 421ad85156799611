"""What a thief with the host's credentials does to a bucket that keeps versions, and how all of it comes back.

Row 58 of the fault matrix: delete markers, overwritten versions. The server keeps versions for real; on Ceph also in a
bucket with object lock. The repository is encrypted, and who heals it has no key.
"""

import datetime
import re
import time

import pytest

from support.compare import digest
from support.encryption import Keys, section
from support.object_store import Bucket
from support.pgcairn import DAMAGED, NOT_FOUND, REFUSED, USAGE
from support.s3_site import Site

ENABLED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
AT_ONCE = ("--grace", "0s", "--force")


class Versioned(Bucket):
    """A bucket that keeps versions. On Ceph its creates are not exclusive then, on Swift none are."""

    def __init__(self, server, directory, lock=False):
        super().__init__(server, directory, lock)
        if not lock:
            self.client.request("PUT", self.name, query={"versioning": ""}, body=ENABLED)
        self.lock = {"lock-mode": "governance", "lock-days": 2} if lock else {}

    def section(self, endpoint=None, **more):
        return super().section(endpoint, **{"writers": "one", **self.lock, **more})

    def history(self, name):
        """What the store keeps of a name, newest first."""
        text = self.client.request("GET", self.name, query={"versions": "", "prefix": name})[2].decode()
        found = re.findall(r"<(Version|DeleteMarker)>.*?<Key>(.*?)</Key>", text, re.DOTALL)
        return [kind for kind, key in found if key == name]


@pytest.fixture(scope="module", params=["plain", "locked"])
def site(request, s3_server, module_workshop):
    """Two backups of a running server; and healer: who has the bucket's credentials and no key."""
    if request.param == "locked" and s3_server.engine != "ceph":
        pytest.skip("object lock: PGCAIRN_TEST_S3=ceph only")
    bucket = Versioned(s3_server, module_workshop.directory / request.param, lock=request.param == "locked")
    keys = Keys(module_workshop.programs, module_workshop.directory / f"{request.param}-keys")
    made = Site(module_workshop, bucket, section=section("key-file", keys))
    made.healer = module_workshop.pgcairn(None, name=f"{request.param}-healer", repository=bucket.section(
        **{"encryption": "key-file", "key-file": keys.directory / "not-here.key"}))
    made.fill(2000)
    made.old = made.pgcairn.backup()
    made.fill(2000)
    made.pgcairn.backup()
    made.cluster.archive_all()
    yield made
    bucket.close()


def now():
    """A moment after everything that was done so far, as the store tells it: in whole seconds, and Swift rounds up."""
    time.sleep(2.05 - time.time() % 1)
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S+00")


def heal(site, since, *arguments):
    return site.healer.json("repo", "heal", "--versions", "--since", since, *arguments)


def rob(bucket):
    """All fates, packs and keys are deleted, some WAL and a summary overwritten. Returns the names."""
    names = list(bucket.objects())
    summary = next(name for name in names if name.endswith("/refs"))
    hidden = [name for name in names if re.search("/fate$|/b/[^/]*/[pm]/|^keys/|^pgcairn.repo", name)]
    changed = [name for name in names if "/w/" in name][:3] + [summary]
    for name in hidden:
        bucket.delete(name)
    for name in changed[:3]:
        bucket.put(name, b"pay 2 bitcoins")
    bucket.put(summary, b"x" * bucket.objects(summary)[summary])  # as large as it was
    return hidden, changed


def test_a_robbed_bucket_is_healed_without_keys(site):
    bucket = site.bucket
    expected = digest(site.cluster)
    before = bucket.objects()
    since = now()
    hidden, changed = rob(bucket)

    # Nothing is silent about it, and nothing is lost.
    assert "pgcairn repo heal --versions" in site.pgcairn.run("verify", expect=NOT_FOUND).stderr
    plan = heal(site, since, "--dry-run")
    assert plan["dry_run"] and plan["objects_complete"] and plan["failed"] == 0
    assert {item["name"] for item in plan["objects"] if item["how"] == "hidden"} == set(hidden)
    assert {item["name"] for item in plan["objects"] if item["how"] == "overwritten"} == set(changed)
    assert plan["bytes"] == sum(before[name] for name in hidden + changed)
    assert plan["subjects"]["fates"]["hidden"] == 2 and plan["subjects"]["keys"]["hidden"] >= 1
    assert all(since[:19] <= item["changed_at"][:19] for item in plan["objects"])
    assert not set(hidden) & set(bucket.objects())  # a plan, and no more

    text = site.healer.run("repo", "heal", "--versions", "--since", since).stdout
    assert len(re.findall("^hidden 20", text, re.MULTILINE)) == len(hidden)
    assert f"brought back {len(hidden) + len(changed)} objects" in text
    assert "keys are among them" in text and "now run `pgcairn verify`" in text
    assert {name: size for name, size in bucket.objects().items() if name in before} == before
    assert bucket.history(hidden[0]) == ["Version", "DeleteMarker", "Version"]  # nothing was removed

    assert site.pgcairn.json("verify")["finding_count"] == 0
    site.check_restores(expected)
    again = heal(site, since)
    assert (again["hidden"], again["overwritten"], again["failed"]) == (0, 0, 0)
    assert len(bucket.history(hidden[0])) == 3


def test_what_is_hidden_is_missing_until_it_is_healed(site):
    """With the descriptor and the keys still there: nothing takes what is left for all there ever was."""
    bucket = site.bucket
    since = now()
    fates = [name for name in bucket.objects() if name.endswith("/fate")]
    bucket.put(fates[0], b"not yours")
    bucket.delete(fates[1])
    assert site.pgcairn.backups("wal-complete", "verified") == []
    said = site.pgcairn.run("verify", "--quick", expect=DAMAGED).stdout
    assert "damaged" in said and "pgcairn repo heal --versions" in said
    site.pgcairn.run("restore", "--to", site.workshop.directory / "no", expect=DAMAGED)
    healed = heal(site, since)
    assert {item["name"] for item in healed["objects"]} == set(fates) and healed["failed"] == 0
    assert len(site.pgcairn.backups("wal-complete", "verified")) == 2


def test_what_was_collected_comes_back_and_is_collected_again(site):
    """Undoing what a collector did by right brings garbage, which it takes again; nothing alive is touched."""
    bucket = site.bucket
    since = now()
    site.pgcairn.run("expire", "--retention=full 1")
    assert site.pgcairn.json("collect", *AT_ONCE)["packs"] > 0
    swept = {name for name in bucket.objects() if "/p/" in name}
    healed = heal(site, since)
    assert healed["hidden"] > 0 and healed["overwritten"] == 0 and healed["new_marks"] == 1
    assert f"c/main/b/{site.old['bid']}/refs" in bucket.objects()
    assert not [name for name in bucket.objects() if "/doomed." in name or "/condemned." in name]

    assert site.pgcairn.json("collect", *AT_ONCE)["packs"] > 0
    assert {name for name in bucket.objects() if "/p/" in name} == swept
    assert site.pgcairn.json("verify")["finding_count"] == 0


def test_what_is_asked_wrongly_or_in_vain_is_said(workshop, s3_server):
    bucket = Bucket(s3_server, workshop.directory / "unversioned")
    pgcairn = workshop.pgcairn(None, repository=bucket.section())
    since = "2026-01-01 00:00:00+00"
    empty = pgcairn.run("repo", "heal", "--versions", "--since", since, expect=NOT_FOUND)
    assert "no object of a repository is there" in empty.stderr
    pgcairn.run("init", "--no-server")
    vain = pgcairn.run("repo", "heal", "--versions", "--since", since, expect=REFUSED)
    assert "the bucket keeps no versions" in vain.stderr
    for arguments in ((), ("--versions",), ("--since", since), ("--versions", "--since", "2026-01-01 00:00:00"),
                      ("--versions", "--since", "2999-01-01 00:00:00+00"),
                      ("--versions", "--since", since, "--cluster", "main")):
        assert "HINT" in pgcairn.run("repo", "heal", *arguments, expect=USAGE).stderr or len(arguments) > 2
    bucket.close()
    disk = workshop.pgcairn(None, name="disk")
    disk.run("init", "--no-server")
    none = disk.run("repo", "heal", "--versions", "--since", since, expect=REFUSED)
    assert "this storage keeps no versions" in none.stderr
