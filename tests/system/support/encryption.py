"""Encrypted repositories: sections of the configuration, keys, and everything that programs said."""

import os
import re

from support.cluster import make_directory
from support.pgcairn import Pgcairn
from support.process import owner, run

PASSPHRASE = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich"


class EncryptedPgcairn(Pgcairn):
    """Remembers what its programs print, so that a test can look for secrets in it."""

    said = []  # shared by all: a secret must be nowhere

    def run(self, *arguments, **options):
        result = super().run(*arguments, **options)
        self.said.append(result.stdout + result.stderr)
        return result

    @classmethod
    def _checked(cls, command, expect, options):
        result = super()._checked(command, expect, options)
        cls.said.append(result.stdout + result.stderr)
        return result


class Keys:
    """Files that keys lie in, made by `pgcairn key generate`."""

    def __init__(self, programs, directory):
        self.programs = programs
        self.directory = make_directory(directory)
        self.generated = []

    def generate(self, name, *options):
        path = self.directory / name
        made = run(self.programs.pgcairn, "key", "generate", *options, path)
        assert made.returncode == 0, made.stderr
        self.generated.append(path)
        EncryptedPgcairn.said.append(made.stdout + made.stderr)
        return path

    def write(self, name, text, mode=0o600):
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        os.chown(path, *owner())
        return path

    def secrets(self):
        """Every secret that generate made here, as it is written."""
        found = {PASSPHRASE}
        for path in self.generated:
                found.update(re.findall(r"^[0-9a-f]{64}$", path.read_text(encoding="utf-8"), re.MULTILINE))
        return found


def section(mode, keys):
    """What a [repository] section says in each mode; the keys are made."""
    if mode == "key-file":
        return {"encryption": "key-file", "key-file": keys.generate("main.key")}
    if mode == "passphrase":
        return {"encryption": "passphrase", "passphrase-file": keys.write("passphrase", PASSPHRASE + "\n"),
                "key-file": keys.generate("main.key")}
    assert mode == "sealed"
    keys.generate("restore.key", "--recipient")
    return {"encryption": "sealed", "key-file": keys.generate("host.key"),
            "recipients": keys.directory / "restore.key.pub"}
