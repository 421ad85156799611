"""What a restored data directory is made of, for golden repositories."""

import hashlib
import os
import pathlib

# Restore writes the places of tablespaces into these, which differ from run to run.
RELOCATED = ("tablespace_map", "backup_manifest")


def describe(data):
    """Path to type, mode, size and SHA-256, through the links of the tablespaces."""
    described = {}
    for directory, names, files in os.walk(data, followlinks=True):
        for name in names + files:
            path = pathlib.Path(directory) / name
            relative = str(path.relative_to(data))
            mode = f"{path.stat().st_mode & 0o777:o}"
            if path.is_dir():
                described[relative] = ["directory", mode]
            elif relative in RELOCATED:
                described[relative] = ["file", mode]
            else:
                content = path.read_bytes()
                described[relative] = ["file", mode, len(content), hashlib.sha256(content).hexdigest()]
    return dict(sorted(described.items()))
