"""What is measured. A tool answers with shell lines; None where it has no such thing to offer."""

import pathlib
import shlex


class Tool:
    """One repository of one tool, for one cluster."""

    name = ""
    archive_command = "/bin/true"

    def __init__(self, machine, cluster):
        self.machine, self.cluster = machine, cluster
        self.home = machine.work / "tools" / self.name
        self.repository = self.home / "repository"

    def version(self):
        return ""

    def prepare(self):
        """An empty repository, ready for a first backup; the server archives into it. Not timed."""
        self.cluster.archive_with("/bin/true")
        self.machine.directory(self.home, empty=True)
        self.machine.directory(self.repository)
        self.set_up()
        if self.archive_command != "/bin/true":
            self.cluster.archive_with(self.archive_command)

    def set_up(self):
        pass

    def remove(self):
        self.cluster.archive_with("/bin/true")
        self.machine.directory(self.home, empty=True)

    def backup(self):
        return None

    def restore(self, target):
        return None

    # The server runs these in its data directory; so do we.
    def push(self, path):
        return None

    def get(self, name, path):
        return None


class Pgcairn(Tool):
    """Ours: two workers."""

    name = "pgcairn"

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.config = self.home / "pgcairn.conf"
        self.program = machine.programs / "pgcairn"
        self.wal = machine.programs / "pgcairn-wal"
        self.archive_command = f"{self.wal} push --config {self.config} %p"

    def version(self):
        return self.machine.run(self.program, "--version").split("\n")[0].removeprefix("pgcairn ")

    def set_up(self):
        self.machine.write(self.config, f"[repository main]\npath = {self.repository}\n"
                                        "encryption = none\ncompression = lz4\n\n[cluster bench]\n"
                                        f"conninfo = {self.cluster.conninfo('pgcairn')}\n")
        self.machine.run(self.program, "init", "--config", self.config)

    def backup(self):
        return f"{self.program} backup --config {self.config} --type=full --start-fast --jobs=2"

    def restore(self, target):
        return (f"{self.program} restore --config {self.config} --to {target} --type=none --as=clone"
                " --no-wal --jobs=2")

    def push(self, path):
        return f"{self.wal} push --config {self.config} {path}"

    def get(self, name, path):
        return f"{self.wal} get --config {self.config} {name} {path}"


class PgBackRest(Tool):
    """The peer that DBAs know: lz4, two processes, small files bundled."""

    name = "pgBackRest"

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.program = f"pgbackrest --config={self.home}/pgbackrest.conf --stanza=bench"
        self.archive_command = f"{self.program} archive-push %p"

    def version(self):
        return self.machine.run("pgbackrest", "version").split()[1]

    def settings(self):
        settings = {"repo1-path": self.repository, "repo1-bundle": "y", "compress-type": "lz4",
                    "process-max": 2, "start-fast": "y", "log-level-file": "off",
                    "log-level-console": "warn", "lock-path": self.home / "lock",
                    "spool-path": self.home / "spool", "expire-auto": "n"}
        if [int(part) for part in self.version().split(".")[:2]] >= [2, 46]:
            settings["repo1-block"] = "y"  # as its users would have it
        return settings

    def set_up(self):
        lines = ["[global]", *(f"{key}={value}" for key, value in self.settings().items()),
                 "[bench]", f"pg1-path={self.cluster.data}", f"pg1-socket-path={self.cluster.home}",
                 "pg1-port=5432", "pg1-user=postgres"]
        self.machine.write(self.home / "pgbackrest.conf", "\n".join(lines) + "\n")
        self.machine.run(*shlex.split(self.program), "stanza-create")

    def backup(self):
        return f"{self.program} --type=full backup"

    def restore(self, target):
        return f"{self.program} --pg1-path={target} --type=none restore"

    def push(self, path):
        return f"{self.program} --pg1-path=\"$PWD\" archive-push {path}"

    def get(self, name, path):
        return f"{self.program} --pg1-path=\"$PWD\" archive-get {name} {path}"


class PgBasebackup(Tool):
    """PostgreSQL's own, compressing in the client as we do. Its restore is one by hand."""

    name = "pg_basebackup"

    def version(self):
        return self.machine.run(self.cluster.bin / "pg_basebackup", "--version").split()[2]

    def backup(self):
        return (f"{self.cluster.bin}/pg_basebackup -d '{self.cluster.conninfo()}' -c fast -X none"
                f" -Ft --compress=client-lz4 --no-password -D {self.repository}/base 2>&1")

    def restore(self, target):
        base = self.repository / "base"
        return (f"lz4 -dcq {base}/base.tar.lz4 | tar -x -C {target}"
                f" && cp {base}/backup_manifest {target}"
                f" && {self.cluster.bin}/pg_verifybackup -q -n {target} && sync -f {target}")


class Sink(Tool):
    """The protocol alone: the same stream, thrown away. The floor for any tool that uses it."""

    name = "bare protocol"

    def backup(self):
        return f"{self.machine.programs}/sink '{self.cluster.conninfo()} replication=true'"


class Copy(Tool):
    """cp, flushed before it is said to be there: no compression, no checks, no promises."""

    name = "cp"

    def push(self, path):
        name = pathlib.Path(path).name
        new, final = self.repository / f"{name}.tmp", self.repository / name
        return f"cp {path} {new} && sync {new} && mv {new} {final} && sync {self.repository}"

    def get(self, name, path):
        return f"cp {self.repository / name} {path}"
