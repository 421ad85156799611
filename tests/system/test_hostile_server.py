"""A server that lies in its backup stream: nothing of it is believed, nothing leaves the repository."""

import re
import sys

import pytest

from support.cluster import ROOT
from support.compare import digest, verify_backup
from support.pgcairn import OK

sys.path.insert(0, str(ROOT / "tests/support"))
# pylint: disable-next=wrong-import-position
from hostile_proxy import (Edit, HostileProxy, edit_manifest_files, renamed, resized, retyped,  # noqa: E402
                           sealed, with_right_hash)

VICTIM = "global/1262"  # pg_database: every cluster has it, and it is small


class HeaderLie(Edit):
    """Changes the header of one member."""

    def __init__(self, change):
        self.change = change

    def header(self, header, name):
        return self.change(header) if name == VICTIM else header


class ContentLie(Edit):
    def content(self, name, data):
        return data[:100] + bytes([data[100] ^ 1]) + data[101:] if name == VICTIM else data


class ArchiveLie(Edit):
    def __init__(self, name, path=b""):
        self.name, self.path = name, path

    def archive(self, name, path):
        return self.name, self.path


class TruncatedLie(Edit):
    """The last file is announced, and half of it comes."""

    def content(self, name, data):
        return data[:len(data) // 2] if name == "global/pg_control" else data

    def archive_end(self, data):
        return b""


class ManifestLie(Edit):
    def __init__(self, change):
        self.change = change

    def manifest(self, text):
        return self.change(text)


def wrong_checksum(files):
    entry = next(file for file in files if file.get("Path") == VICTIM)
    entry["Checksum"] = "00000000" if entry["Checksum"] != "00000000" else "11111111"


def wrong_size(files):
    next(file for file in files if file.get("Path") == VICTIM)["Size"] += 8192


def missing_file(files):
    files[:] = [file for file in files if file.get("Path") != VICTIM]


def extra_file(files):
    files.append({**files[0], "Path": "global/9999999"})


def file_twice(files):
    files.append(dict(files[0]))


def climbing_path(files):
    files[0]["Path"] = "../../outside"


def no_checksums(files):
    for file in files:
        file.pop("Checksum", None)
        file.pop("Checksum-Algorithm", None)


def wrong_system_identifier(text):
    """17 and newer say whose manifest it is; for 15 and 16 it is a line that does not belong there."""
    if b'"System-Identifier"' in text:
        return with_right_hash(re.sub(rb'"System-Identifier": \d+', b'"System-Identifier": 42', text))
    return with_right_hash(text.replace(b'"Files"', b'"System-Identifier": 42,\n"Files"', 1))


def wrong_wal_range(text):
    return with_right_hash(re.sub(rb'"End-LSN": "[^"]*"', b'"End-LSN": "0/28"', text))


def manifest_of(change):
    return ManifestLie(lambda text: edit_manifest_files(text, change))


LIES = {
    "name climbs out": HeaderLie(lambda header: renamed(header, b"../../../../tmp/pgcairn-was-here")),
    "name climbs inside": HeaderLie(lambda header: renamed(header, b"global/../../outside")),
    "name is absolute": HeaderLie(lambda header: renamed(header, b"/tmp/pgcairn-was-here")),
    "name is empty": HeaderLie(lambda header: renamed(header, b"")),
    "name is a dot": HeaderLie(lambda header: renamed(header, b".")),
    "name has a double slash": HeaderLie(lambda header: renamed(header, b"global//1262")),
    "name has a line feed": HeaderLie(lambda header: renamed(header, b"global/12\n62")),
    "name fills its field": HeaderLie(lambda header: renamed(header, b"x" * 100)),
    "name comes twice": HeaderLie(lambda header: renamed(header, b"PG_VERSION")),
    "name is pg_control": HeaderLie(lambda header: renamed(header, b"global/pg_control")),
    "name is our marker": HeaderLie(lambda header: renamed(header, b".pgcairn-restore-in-progress")),
    "name is the manifest": HeaderLie(lambda header: renamed(header, b"backup_manifest")),
    "symbolic link": HeaderLie(lambda header: retyped(resized(header, 0), b"2", b"/etc")),
    "hard link": HeaderLie(lambda header: retyped(header, b"1", b"PG_VERSION")),
    "device": HeaderLie(lambda header: retyped(header, b"3")),
    "fifo": HeaderLie(lambda header: retyped(header, b"6")),
    "directory with content": HeaderLie(lambda header: retyped(header, b"5")),
    "unknown type": HeaderLie(lambda header: retyped(header, b"x")),
    "file is larger than announced": HeaderLie(lambda header: resized(header, 512)),
    "file is smaller than announced": HeaderLie(lambda header: resized(header, 1 << 20)),
    "file is enormous": HeaderLie(lambda header: resized(header, 1 << 62)),
    "size is no number": HeaderLie(lambda header: sealed(header[:124] + b"not a number" + header[136:])),
    "header checksum is wrong": HeaderLie(lambda header: header[:148] + b"000000\0 " + header[156:]),
    "header is garbage": HeaderLie(lambda header: b"\xaa" * 512),
    "header is missing": HeaderLie(lambda header: b""),
    "header is cut": HeaderLie(lambda header: header[:100]),
    "one bit of a file differs": ContentLie(),
    "archive ends early": TruncatedLie(),
    "archive name climbs out": ArchiveLie(b"../../base.tar"),
    "archive name is absolute": ArchiveLie(b"/tmp/base.tar"),
    "archive name is empty": ArchiveLie(b""),
    "archive is an unknown tablespace": ArchiveLie(b"4711.tar", b"/nowhere"),
    "manifest has a wrong checksum": manifest_of(wrong_checksum),
    "manifest has a wrong size": manifest_of(wrong_size),
    "manifest lacks a file": manifest_of(missing_file),
    "manifest has a file too many": manifest_of(extra_file),
    "manifest has a file twice": manifest_of(file_twice),
    "manifest path climbs out": manifest_of(climbing_path),
    "manifest has no checksums": manifest_of(no_checksums),
    "manifest's own checksum is wrong": ManifestLie(lambda text: text[:-10] + b"00000" + text[-5:]),
    "manifest is cut": ManifestLie(lambda text: text[:len(text) // 2]),
    "manifest is empty": ManifestLie(lambda text: b""),
    "manifest is garbage": ManifestLie(lambda text: b"\0" * 1000),
    "manifest goes on after its end": ManifestLie(lambda text: text + b"{}"),
    "manifest has a wrong WAL range": ManifestLie(wrong_wal_range),
    "manifest is of another system": ManifestLie(wrong_system_identifier),
}


@pytest.fixture(scope="module")
def honest(module_workshop):
    """A real server and its repository; the proxies stand before them."""
    server, pgcairn = module_workshop.archiving_server("honest", wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n")
    return server, pgcairn


@pytest.fixture
def behind(honest, workshop):
    """pgcairn with a proxy between it and the server."""
    server, pgcairn = honest
    proxies = []

    def make(edit):
        directory = workshop.new_directory("proxy", mode=0o755)
        proxies.append(HostileProxy(directory, server.directory / ".s.PGSQL.5432", edit))
        made = workshop.pgcairn(server, name="hostile")
        made.repository = pgcairn.repository
        made.conninfo = f"host={directory} port=5432 user=pgcairn dbname=postgres"
        made.write_config()
        return made

    yield make
    for proxy in proxies:
        proxy.close()
        assert proxy.failures == []


def good_backups(pgcairn):
    return len(pgcairn.backups("copied", "wal-complete", "verified", "damaged"))


def test_an_honest_proxy_changes_nothing(honest, behind, workshop):
    server, _ = honest
    pgcairn = behind(Edit())
    expected = digest(server)
    made = pgcairn.backup()
    restored = workshop.restore(pgcairn, "--set", made["label"])
    verify_backup(restored.data)
    restored.start_restored()
    assert digest(restored) == expected


def test_a_rewritten_honest_manifest_is_accepted(behind):
    """So the refusals below are about the lies, not about the rewriting."""
    assert behind(manifest_of(lambda files: None)).backup()["state"] == "wal-complete"


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_gets_no_backup_committed(honest, behind, lie):
    _, pgcairn = honest
    before = good_backups(pgcairn)

    result = behind(LIES[lie]).run("backup", "--type=full", "--start-fast", expect=None)

    assert result.returncode not in (OK, None) and 0 < result.returncode < 126, result.stderr
    (message,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
    assert message.isprintable()
    assert good_backups(pgcairn) == before, result.stderr


def test_after_all_lies_an_honest_backup_works(honest):
    _, pgcairn = honest
    assert pgcairn.backup()["state"] == "wal-complete"
    assert pgcairn.json("verify")["findings"] == []
