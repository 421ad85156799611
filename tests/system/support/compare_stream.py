"""A restored directory beside what the server sent for its backup: byte for byte, nothing missing or extra."""

import hashlib
import os
import stat
import sys

from support.cluster import ROOT

sys.path.insert(0, str(ROOT / "tests/support"))
# pylint: disable-next=wrong-import-position
from recording_proxy import DIRECTORY, FILE, LINK  # noqa: E402

# What a restore writes itself, and why.
OURS = {
    "postgresql.auto.conf": "recovery settings, and none of an earlier recovery",
    "recovery.signal": "asks for recovery",
    "pgcairn.identity": "keeps a copy from archiving as the origin",
    "tablespace_map": "names the places that --tablespace-map gave",
    "backup_manifest": "the server's, with entries of the files above made to fit",
}


def sha256_of(path):
    digest_ = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest_.update(piece)
    return digest_.hexdigest()


def is_ours(path):
    return path in OURS or path.startswith("pg_wal/")  # WAL comes from the archive


def tree(data):
    """Kind, mode, size and digest by path; tablespaces as directories below pg_tblspc."""
    found = {}

    def walk(directory, prefix):
        for entry in os.scandir(directory):
            path = prefix + entry.name
            if entry.is_symlink() and prefix != "pg_tblspc/":
                found[path] = (LINK, 0, 0, os.readlink(entry.path))
            elif entry.is_dir():
                mode = stat.S_IMODE(entry.stat().st_mode)
                found[path] = (DIRECTORY, mode, 0, "")
                walk(entry.path, path + "/")
            else:
                status = entry.stat()
                if is_ours(path):
                    continue
                found[path] = (FILE, stat.S_IMODE(status.st_mode), status.st_size,
                               sha256_of(entry.path))

    walk(data, "")
    return found


def sent(recording):
    """The same of a recording."""
    found = {}
    for oid, members in recording.archives.items():
        prefix = f"pg_tblspc/{oid}/" if oid else ""
        if oid:
            found[prefix[:-1]] = (DIRECTORY, 0o700, 0, "")  # the link is told by tablespace_map
        for name, member in members.items():
            path = prefix + name.removeprefix("./")
            if is_ours(path) or name == ".":
                continue
            if member.kind == LINK:
                found[path] = (LINK, 0, 0, member.link)
            elif member.kind == DIRECTORY:
                found[path] = (DIRECTORY, member.mode, 0, "")
            else:
                found[path] = (FILE, member.mode, member.size, member.sha256)
    return found


def without_wal(paths):
    return {path: facts for path, facts in paths.items() if not path.startswith("pg_wal")}


def check_bytes(data, recording, where):
    """Byte for byte, and nothing beside it."""
    expected, found = without_wal(sent(recording)), without_wal(tree(data))
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = sorted(path for path in expected.keys() & found.keys() if expected[path] != found[path])
    assert not (missing or extra or wrong), (
        f"{where}: missing {missing[:9]}, not sent {extra[:9]}, different "
        f"{[(path, expected[path], found[path]) for path in wrong[:9]]}")
    assert any(facts[0] == FILE and facts[2] for facts in found.values())


def manifest_entries(text):
    """Lines of the list of files, by path: as text, so that nothing is lost in parsing."""
    lines = [line.rstrip(b",") for line in bytes(text).split(b"\n") if b'"Last-Modified"' in line]
    entries = {line.split(b'"', 4)[3].decode(): line for line in lines if b'{ "Path"' in line}
    assert len(entries) + sum(b'"Encoded-Path"' in line for line in lines) == len(lines)
    return entries


def check_manifest(data, recording, where):
    """The restored manifest is the server's but for what restore writes; pg_verifybackup does the rest."""
    with open(data / "backup_manifest", "rb") as file:
        found = manifest_entries(file.read())
    expected = manifest_entries(recording.manifest)
    differing = [path for path in expected.keys() | found.keys()
                 if not is_ours(path) and expected.get(path) != found.get(path)]
    assert not differing, f"{where}: {sorted(differing)[:9]}"
    sizes = {path: facts[2] for path, facts in sent(recording).items() if facts[0] == FILE}
    for path in expected.keys() - OURS.keys():
        assert f'"Size": {sizes[path]},'.encode() in expected[path], f"{where}: {path}"
