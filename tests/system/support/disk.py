"""A small disk: a tmpfs in a mount namespace of its own, so that nothing can stay mounted."""

import os
import pathlib
import signal
import subprocess

from support.process import is_root, must, owner, run, start, wait_until


MIB = 1024 * 1024
GROWN_BYTES = 256 * MIB


class SmallDisk:
    """`free_bytes` are free at first, and many more after `grow`. `run` runs commands that see the disk mounted on the directory; `path` shows it from outside.

    Root makes a mount namespace, others a user namespace beside it.
    """

    def __init__(self, directory, free_bytes):
        self.directory = pathlib.Path(directory)
        options = [] if is_root() else ["--user", "--map-root-user"]
        self.holder = start("unshare", *options, "--mount", f"--propagation={self._propagation(options)}",
                            "sleep", "infinity", as_root=True)
        wait_until("the namespace is there", self._is_apart)
        self._enter("mount", "-t", "tmpfs", "-o", f"size={GROWN_BYTES},mode=0750", "tmpfs", self.directory)
        if is_root():
            self._enter("chown", ":".join(map(str, owner())), self.directory)
        # Whoever is not root may not remount with another size.
        self._take("reserve", GROWN_BYTES - free_bytes)

    @staticmethod
    def _propagation(options):
        """private: nothing is seen from outside. A chroot's root is no mount, and cannot be made so."""
        can = run("unshare", *options, "--mount", "--propagation=private", "true", as_root=True)
        return "private" if can.returncode == 0 else "unchanged"

    def _is_apart(self):
        assert self.holder.poll() is None, "unshare failed"
        own = os.readlink("/proc/self/ns/mnt")
        command = pathlib.Path(f"/proc/{self.holder.pid}/comm").read_text(encoding="ascii").strip()
        return command == "sleep" and os.readlink(f"/proc/{self.holder.pid}/ns/mnt") != own

    def _prefix(self):
        options = [] if is_root() else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", self.holder.pid, *options, "--mount", "--root", "--wd"]

    def _enter(self, *command):
        must(*self._prefix(), *command, as_root=True)

    def run(self, *command, **options):
        """Runs a command as the server's user with the disk mounted."""
        user = (["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if is_root() else [])
        return run(*self._prefix(), *user, *command, as_root=True, **options)

    @property
    def path(self):
        return pathlib.Path(f"/proc/{self.holder.pid}/root") / self.directory.relative_to("/")

    def used_bytes(self):
        usage = os.statvfs(self.path)
        return (usage.f_blocks - usage.f_bfree) * usage.f_frsize

    def grow(self):
        (self.path / "reserve").unlink()

    def _take(self, name, size_bytes):
        with open(self.path / name, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)

    def fill(self):
        """Takes what is left but for a few kilobytes."""
        usage = os.statvfs(self.path)
        self._take("filler", usage.f_bavail * usage.f_frsize - 8192)

    def free(self):
        (self.path / "filler").unlink()

    def close(self):
        self.holder.send_signal(signal.SIGKILL)
        try:
            self.holder.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
