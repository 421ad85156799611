"""A repository on disk, its configuration file, and the two programs run against it."""

import contextlib
import dataclasses
import glob
import json
import os
import pathlib
import subprocess

import pytest

from support.cluster import Cluster, make_directory
from support.process import explain, owner, run, start

# Exit codes of design section 3.
OK, FAILED, USAGE, NOT_FOUND, REFUSED, DAMAGED, UNREACHABLE, NO_SPACE = range(8)
INTERRUPTED = 130

CAPTURED = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@dataclasses.dataclass
class Programs:
    """Copies that the server's user can reach."""

    pgcairn: pathlib.Path
    wal: pathlib.Path


class Pgcairn:
    """One configuration: a repository, and a cluster with or without a server."""

    def __init__(self, programs, directory, cluster, role="pgcairn", cluster_name="main", **options):
        self.programs = programs
        self.cluster_name = cluster_name
        self.directory = make_directory(directory)
        self.cluster = cluster
        self.conninfo = cluster.conninfo(user=role) if cluster else None
        self.repository = self.directory / "repository"
        self.config = self.directory / "pgcairn.conf"
        self.write_config(**options)

    def write_config(self, repository=None, cluster=None, general=None):
        """Options of the sections; what is not given, or None, is left at its default."""
        sections = {
            "global": {"jobs": 2, **(general or {})},
            "repository main": {"path": self.repository, "encryption": "none",
                                **(repository or {})},
            f"cluster {self.cluster_name}": {**({"conninfo": self.conninfo} if self.conninfo else {}),
                             **(cluster or {})},
        }
        with open(self.config, "w", encoding="utf-8") as file:
            for name, values in sections.items():
                file.write(f"[{name}]\n")
                file.writelines(f"{key} = {value}\n" for key, value in values.items()
                                if value is not None)
        os.chown(self.config, *owner())

    def archive_command(self):
        return f"{self.programs.wal} push --config {self.config} %p"

    def command(self, *arguments):
        name, *rest = arguments
        return [self.programs.pgcairn, name, "--config", self.config, *rest]

    def run(self, *arguments, expect=OK, **options):
        """Runs `pgcairn ARGUMENTS`; a wrong exit code fails the test."""
        command = self.command(*arguments)
        result = run(*command, **options)
        if expect is not None and result.returncode != expect:
            pytest.fail(f"expected exit code {expect}\n{explain(command, result)}")
        return result

    def start(self, *arguments, capture=False, **options):
        """capture: its output is for communicate()."""
        return start(*self.command(*arguments), **(CAPTURED if capture else {}), **options)

    def start_push(self, path, *arguments, **options):
        return start(self.programs.wal, "push", "--config", self.config, *arguments, path, **CAPTURED, **options)

    def wal_processes(self, command=None):
        """Ids of running pgcairn-wal with this configuration: all, or those with this command."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = pathlib.Path(path).read_bytes().split(b"\0")
                if (bytes(self.config) in words and words[0].endswith(b"pgcairn-wal")
                        and (command is None or command.encode() in words)):
                    found.append(int(path.split("/")[2]))
        return found

    def json(self, *arguments, **options):
        """The object that a command ends with under --output=json."""
        return last_object(self.run(*arguments, "--output=json", **options).stdout)

    def push(self, path, *arguments, expect=OK, **options):
        command = [self.programs.wal, "push", "--config", self.config, *arguments, path]
        return self._checked(command, expect, options)

    def get(self, name, path, *arguments, expect=OK, **options):
        command = [self.programs.wal, "get", "--config", self.config, *arguments, name, path]
        return self._checked(command, expect, options)

    @staticmethod
    def _checked(command, expect, options):
        result = run(*command, **options)
        if expect is not None and result.returncode != expect:
            pytest.fail(f"expected exit code {expect}\n{explain(command, result)}")
        return result

    # -- what tests do all the time

    def init(self):
        self.run("init")
        return self

    def backup(self, *arguments, **options):
        return self.json("backup", "--type=full", "--start-fast", *arguments, **options)

    def info(self):
        """What info says of the configured cluster; None where the repository does not know it."""
        clusters = [found for found in self.json("info")["clusters"] if found["name"] == self.cluster_name]
        return clusters[0] if clusters else None

    def backups(self, *states):
        """Backups that info lists, all or those in one of the states."""
        cluster = self.info()
        return [backup for backup in (cluster["backups"] if cluster else [])
                if not states or backup["state"] in states]

    def restore(self, directory, *arguments, **options):
        """Restores into directory/data and returns the cluster, not started."""
        restored = Cluster(directory)
        self.run("restore", "--to", restored.data, *arguments, **options)
        return restored

    def objects(self, pattern="**/*"):
        """Files of the repository below a pattern, sorted, temporary ones left out."""
        return sorted(path for path in self.repository.glob(pattern)
                      if path.is_file() and not path.name.endswith(".tmp"))


def last_object(text):
    """The last JSON object in what a program printed."""
    text = text.rstrip()
    decoder = json.JSONDecoder()
    at = 0 if text.startswith("{") else text.find("\n{") + 1
    while 0 <= at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            value, end = None, at
        if value is not None and end == len(text):
            return value
        at = text.find("\n{", at) + 1 or len(text)
    pytest.fail(f"no JSON object at the end of:\n{text[-3000:]}")
    return None
