"""Golden repositories: what an earlier version wrote must be read for ever, by both readers.

tests/golden/<version>/ holds what tools/make-golden made once: a repository, and what must come back.
"""

import json
import pathlib
import shutil

import pytest

from support.cluster import ROOT, make_directory, pg_major
from support.compare import verify_backup
from support.golden import describe
from support.pgcairn import Pgcairn, last_object
from support.process import must, owner

GOLDEN = sorted(path for path in (ROOT / "tests/golden").iterdir() if path.is_dir())

# What restore adds or changes on purpose: settings of a copy that must not archive, and whose copy it is.
CHANGED_BY_RESTORE = ("postgresql.auto.conf",)


class Golden:
    """A copy of one golden repository, for the server's user to work on."""

    def __init__(self, shop, source):
        self.shop = shop
        self.expected = json.loads((source / "expected.json").read_text(encoding="utf-8"))
        self.keys = shop.directory / "golden-keys"
        section = {key: self.place(value) for key, value in self.expected.get("section", {}).items()}
        self.pgcairn = Pgcairn(shop.programs, shop.directory / "golden", None, repository=section)
        shutil.copytree(source / "repository", self.pgcairn.repository)
        if (source / "keys").exists():
            shutil.copytree(source / "keys", self.keys)
            for path in self.keys.iterdir():
                path.chmod(0o600)  # which git does not keep
        for root in (self.pgcairn.repository, self.keys):
            for path in [root, *root.rglob("*")]:
                if path.exists():
                    shutil.chown(path, *owner())

    def place(self, word):
        return self.keys / word.removeprefix("keys/") if word.startswith("keys/") else word

    def secrets(self):
        """Options of the reader."""
        return [self.place(word) for word in self.expected.get("reader", [])]

    def tablespace(self):
        return f"{self.expected['tablespace']}={self.shop.new_directory()}"


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request, workshop):
    return Golden(workshop, request.param)


def restore_by_reader(golden, shop):
    reader = pathlib.Path(shutil.copy(ROOT / "tools/pgcairn-reader.py", shop.directory))
    data = make_directory(shop.directory / "read") / "data"
    must("/usr/bin/python3", reader, *golden.secrets(), golden.pgcairn.repository, "restore", golden.expected["label"], data,
         "--tablespace-map", golden.tablespace())
    return data


def without(described, names):
    return {path: facts for path, facts in described.items() if path not in names}


def test_python_reader_restores_every_byte(golden, workshop):
    data = restore_by_reader(golden, workshop)
    assert describe(data) == golden.expected["files"]


def test_pgcairn_restores_every_byte(golden, workshop):
    restored = workshop.restore(golden.pgcairn, "--set", golden.expected["label"], "--type=none",
                                "--tablespace-map", golden.tablespace())

    found = describe(restored.data)

    added = set(found) - set(golden.expected["files"])
    assert all(name.startswith(("pgcairn", ".pgcairn", "pg_wal/archive_status")) for name in added), added
    assert without(found, (*CHANGED_BY_RESTORE, *added)) == without(golden.expected["files"],
                                                                  CHANGED_BY_RESTORE)
    if pg_major() == golden.expected["major"]:
        verify_backup(restored.data)


def test_verify_finds_nothing_wrong(golden):
    report = golden.pgcairn.json("verify")
    assert report["findings"] == []
    assert report["good_backups"] == 1


def test_info_tells_both_timelines(golden):
    (incarnation,) = golden.pgcairn.info()["incarnations"]
    assert [line["timeline"] for line in incarnation["timelines"]] == [1, 2]
    (backup,) = golden.pgcairn.backups("wal-complete", "verified")
    assert backup["label"] == golden.expected["label"]
    assert backup["name"] == "golden – größe"


def test_restore_point_of_a_golden_repository_is_found_and_has_its_rows(golden, workshop):
    """Finding it reads WAL objects under each codec; replaying it needs a server of that version."""
    arguments = ["--type=name", "--target", golden.expected["restore_point"], "--target-timeline=1",
                 "--target-action=promote"]
    restored = workshop.restore(golden.pgcairn, *arguments, "--tablespace-map", golden.tablespace())
    assert "recovery_target" in (restored.data / "postgresql.auto.conf").read_text(encoding="utf-8")
    if pg_major() == golden.expected["major"]:
        restored.start_restored()
        assert restored.value("SELECT count(*) FROM plain") == golden.expected["rows_of_plain_at_restore_point"]


def test_wal_without_facts_is_searched_all_the_same(workshop):
    """What the first version stored has no facts of its segments beside it: they are read."""
    golden = Golden(workshop, ROOT / "tests/golden/v1")
    done = golden.pgcairn.run("targets", "--restore-points", "--output=json")
    assert "read whole" in done.stderr
    segments = last_object(done.stdout)["segments"]
    assert segments["decoded"] > 0 and segments["stored"] == 0 and segments["unreadable"] == 0
    nearest = golden.pgcairn.json("targets", "--around", "2026-01-01 00:00+00")["moments"]
    assert nearest and all(moment["reachable"] or moment["why_not"] for moment in nearest)
