"""Daemons of the test servers: started with their own logs, found healthy, and ended whatever happens."""

import contextlib
import ctypes
import os
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time

PR_SET_PDEATHSIG = 1
START_SECONDS = 60
# Below the ports that the kernel gives to outgoing connections: what is free stays free a little longer.
PORTS = range(20000, 32000)
LIBC = ctypes.CDLL(None, use_errno=True)


class ServiceFailed(Exception):
    """A server did not come up; the message ends with what its daemons said."""


def free_ports(count):
    """Ports of the loopback interface that nobody listens on."""
    found = []
    while len(found) < count:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def die_with_parent():
    """Also when whoever started us is killed and can't end us."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Daemon:
    """One process with its output in DIRECTORY/NAME.log."""

    def __init__(self, directory, name, *command, env=None):
        assert threading.current_thread() is threading.main_thread(), "it would end with this thread"
        self.name = name
        self.log = pathlib.Path(directory) / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT, cwd="/",
                                            env={**os.environ, **(env or {})},
                                            start_new_session=True, preexec_fn=die_with_parent)

    def is_alive(self):
        return self.process.poll() is None

    def end(self):
        """At once: nothing that it keeps is worth a farewell. It may be dead already."""
        self.process.kill()
        self.process.wait()

    def tail(self):
        with contextlib.suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        return ""


def wait_healthy(daemons, what, check, seconds=START_SECONDS):
    """Until check() is true; not when a daemon has ended, and not for ever."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if check():
                return
        dead = [daemon for daemon in daemons if not daemon.is_alive()]
        if dead or time.monotonic() > deadline:
            said = "".join(f"\n{daemon.name}: {daemon.tail()}" for daemon in dead or daemons)
            raise ServiceFailed(f"{what}: {'a daemon ended' if dead else f'not up after {seconds} s'}{said}")
        time.sleep(0.02)


def listens(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def end_all(daemons):
    for daemon in daemons:
        daemon.process.kill()
    for daemon in daemons:
        daemon.process.wait()


def started(make, attempts=3):
    """make(), again with other ports when somebody was faster at one of them."""
    for attempt in range(attempts):
        try:
            return make()
        except ServiceFailed:
            if attempt == attempts - 1:
                raise
    raise AssertionError
