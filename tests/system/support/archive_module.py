"""A server that archives through pgcairn_archive, and a look at the module's helper process."""

import contextlib
import os
import pathlib
import shutil
import signal

from support.cluster import ROOT, pg_major, quoted
from support.process import wait_until


def copied_module(directory):
    """The module of the server under test, where the server's user can read it."""
    build = ROOT / os.environ.get("BUILD", "build/release")
    source = build / f"module/{pg_major()}/pgcairn_archive.so"
    assert source.exists(), f"{source} is missing: make all, with postgresql-server-dev installed"
    target = directory / source.name
    if not target.exists():  # writing over what a server has loaded would end that server
        shutil.copy(source, target)
    return target


class ModuleServer:
    """A cluster whose archiver has the module, its repository, and what the tests ask of both."""

    def __init__(self, workshop, name=None, init=True, **settings):
        self.cluster = workshop.cluster(name).initdb(wal_segsize=1)
        self.pgcairn = workshop.pgcairn(self.cluster,
                                        name=f"{self.cluster.directory.name}-repo")
        self.library = copied_module(self.pgcairn.programs.wal.parent)
        self.cluster.configure(archive_mode="on", archive_library=quoted(self.library))
        self.configure(command=self.pgcairn.programs.wal, config=self.pgcairn.config, **settings)
        self.cluster.start()
        self.cluster.make_role()
        if init:
            self.pgcairn.init()
        self.cluster.sql("CREATE TABLE t (n int)")

    def configure(self, **settings):
        self.cluster.configure(**{f"pgcairn_archive.{name}": quoted(value)
                                  for name, value in settings.items()})

    def reconfigure(self, **settings):
        self.configure(**settings)
        self.cluster.reload()

    def write(self, segments=1):
        """Ends segments with something in them; their names."""
        names = []
        for number in range(segments):
            self.cluster.sql("INSERT INTO t VALUES (%s)", number)
            names.append(self.cluster.switch_wal())
        return names

    # -- processes

    def archiver(self):
        rows = self.cluster.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'")
        return rows[0][0] if rows else None

    @contextlib.contextmanager
    def archiver_held(self):
        archiver = self.archiver()
        os.kill(archiver, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(archiver, signal.SIGCONT)

    def helpers(self):
        """Process ids of everything that runs `pgcairn-wal serve` in the data directory."""
        found = []
        for link in pathlib.Path("/proc").glob("[0-9]*/cwd"):
            try:
                words = (link.parent / "cmdline").read_bytes().split(b"\0")
                state = (link.parent / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if os.readlink(link) == str(self.cluster.data) and b"serve" in words and state != "Z":
                    found.append(int(link.parent.name))
            except OSError:
                pass
        return found

    def helper(self):
        """The one helper, once it runs, and no other any more."""
        def only_one():
            found = self.helpers()
            return len(found) == 1 and found[0]

        return wait_until("one helper process runs", only_one)

    def waits_for_helper(self):
        """Whether the archiver has sent its request, and the answer has not come: the module's own wait event tells."""
        event = self.cluster.value("SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'archiver'")
        return event == "Extension"

    # -- what became of it

    def stat(self):
        """archived_count and failed_count."""
        return self.cluster.sql("SELECT archived_count, failed_count FROM pg_stat_archiver")[0]

    def wait_archived(self, name, seconds=120):
        wait_until(f"{name} is archived", lambda: self.cluster.has_archived(name), seconds)

    def is_ready(self, name):
        return (self.cluster.data / "pg_wal/archive_status" / f"{name}.ready").exists()

    def stored(self):
        """Names of the stored segments."""
        return [path.name for path in self.pgcairn.objects("c/main/w/*/*/*/*")
                if len(path.name) == 24]

    def check_no_gap(self):
        """Every segment from the first one on is stored, as far as the archive reaches."""
        numbers = sorted(int(name[8:16], 16) * 4096 + int(name[16:], 16) for name in self.stored())
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        return len(numbers)

    def log(self):
        return self.cluster.log.read_text(encoding="utf-8", errors="replace")

    def wait_log(self, text, seconds=120):
        wait_until(f"the server's log says '{text}'", lambda: text in self.log(), seconds)
