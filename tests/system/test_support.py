"""The fixtures themselves: a test that can't fail proves nothing."""

import hashlib
import io
import pathlib
import random
import sys
import tarfile
import tempfile

import pytest

from support.cluster import ROOT
from support.compare import after_restore, check_checksums, check_tables, digest
from support.compare_stream import check_bytes
from support.pgcairn import last_object
from support.process import run

sys.path.insert(0, str(ROOT / "tests/support"))
# pylint: disable-next=wrong-import-position
from recording_proxy import Recording, TarRecorder  # noqa: E402


def test_digest_sees_one_changed_row_and_not_their_order(workshop):
    server = workshop.server(wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT n, n * n AS square FROM generate_series(1, 1000) n")
    before = digest(server)
    server.sql("CREATE TABLE other AS SELECT * FROM t ORDER BY square DESC; DROP TABLE t;"
               "ALTER TABLE other RENAME TO t")
    assert digest(server) == before
    server.sql("UPDATE t SET square = 0 WHERE n = 500")
    assert digest(server) != before


def test_digest_sees_large_objects_and_empties_unlogged_tables(workshop):
    server = workshop.server(wal_segsize=1)
    server.sql("CREATE UNLOGGED TABLE u AS SELECT 1 AS n")
    before = digest(server)
    server.sql("SELECT lo_from_bytea(4711, 'something')")
    after = digest(server)
    assert before != after
    assert after_restore(after)["postgres"]["unlogged public.u"] == (0, "0")
    assert after["postgres"]["large objects"][0] == 1


def test_checkers_see_a_flipped_byte(workshop):
    server = workshop.server(wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n")
    path = server.data / server.value("SELECT pg_relation_filepath('t')")
    check_tables(server)
    server.stop()
    check_checksums(server.data)
    with open(path, "r+b") as file:
        file.seek(8000)
        byte = file.read(1)
        file.seek(8000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(pytest.fail.Exception):
        check_checksums(server.data)


def test_last_object_is_found_behind_other_lines():
    assert last_object('copying\n{"a": 1}\n{\n "label": {"b": 2}\n}\n') == {"label": {"b": 2}}


def archive_of(files):
    """A tar archive, and a recorder that was fed it in pieces of any size."""
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size, member.mode = len(content or b""), 0o700 if content is None else 0o600
            archive.addfile(member, io.BytesIO(content or b""))
    recorder, data, chance = TarRecorder(), text.getvalue(), random.Random(15)
    at = 0
    while at < len(data):
        size = chance.choice((1, 100, 511, 512, 513, 5000))
        recorder.feed(data[at:at + size])
        at += size
    return recorder


FILES = {"base": None, "base/empty": b"", "base/one": b"1", "base/block": b"b" * 512,
         "base/page": b"p" * 8192, "base/odd": b"o" * 100001}


def test_the_recorder_reads_an_archive_as_tarfile_wrote_it():
    recorder = archive_of(FILES)
    assert recorder.ended and list(recorder.members) == list(FILES)
    for name, content in FILES.items():
        assert recorder.members[name].size == len(content or b"")
        assert recorder.members[name].sha256 == hashlib.sha256(content or b"").hexdigest()


def change_byte(data):
    (data / "base/page").write_bytes(b"p" * 8191 + b"q")


def make_longer(data):
    (data / "base/odd").write_bytes(FILES["base/odd"] + b"\0")


def take_away(data):
    (data / "base/empty").unlink()


def put_beside(data):
    (data / "base/more").touch(mode=0o600)


def open_up(data):
    (data / "base/one").chmod(0o644)


@pytest.mark.parametrize("spoil", [change_byte, make_longer, take_away, put_beside, open_up])
def test_a_directory_that_differs_from_the_stream_is_seen(workshop, spoil):
    recording = Recording()
    recording.archives[""] = archive_of(FILES).members
    data = workshop.new_directory()
    for name, content in FILES.items():
        if content is None:
            (data / name).mkdir(mode=0o700)
        else:
            (data / name).write_bytes(content)
            (data / name).chmod(0o600)
    check_bytes(data, recording, "as it was")
    spoil(data)
    with pytest.raises(AssertionError):
        check_bytes(data, recording, "spoilt")


@pytest.fixture
def place():
    """Inside the tree, as all files that tests/run-system runs."""
    with tempfile.TemporaryDirectory(prefix="test-support-", dir=ROOT / "build") as directory:
        yield pathlib.Path(directory)


def test_run_system_counts_every_file_and_shows_only_what_failed(place):
    (place / "test_good.py").write_text("def test_a(): print('good words')\ndef test_second(): pass\n")
    (place / "test_bad.py").write_text("def test_a(): assert 'bad words' == ''\ndef test_second(): pass\n")
    (place / "test_none.py").write_text("import pytest\ndef test_a(): pytest.skip('no words')\n")
    (place / "test_other.py").write_text("import pytest\npytest.skip('not here', allow_module_level=True)\n")
    (place / "test_dead.py").write_text("import os\ndef test_a(): os.abort()\n")

    def run_system(*arguments):
        return run(ROOT / "tests/run-system", *(arguments or [place]), as_root=True)

    result = run_system()
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "3 passed, 2 failed, 2 skipped"
    assert all(words in result.stdout for words in ("bad words", "no words", "not here"))
    assert "good words" not in result.stdout
    assert "FAILED  test_dead: 0 passed, 1 failed, 0 skipped" in result.stdout
    result = run_system("-v", "-k", "second", place)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "2 passed, 0 failed, 1 skipped"
    result = run_system(f"{place}/test_bad.py::test_second", place / "test_none.py")
    assert result.stdout.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"
    assert run_system("-k", "nobody", place / "test_good.py").returncode == 1


@pytest.mark.parametrize("left", [128, 104, 120, 136])
def test_the_segment_that_a_switch_ended_is_named(workshop, left):
    """A restore point takes 104 bytes, a switch 24: what ends with the segment, and what goes beyond."""
    server = workshop.server(wal_segsize=1)
    with server.filled_segment(left):
        before = server.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        name = server.switch_wal()
        server.sql("SELECT pg_create_restore_point('next')")
        now = server.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    assert name == before if left != 120 else before < name
    assert int(now, 16) == int(name, 16) + 1
