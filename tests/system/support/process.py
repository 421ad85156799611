"""Running programs as the server's user, and waiting for conditions."""

import os
import pwd
import socket
import subprocess
import time

import pytest

SERVER_USER = "postgres"
WAIT_SECONDS = 60


def is_root():
    return os.geteuid() == 0


def owner():
    """User and group id of everything that the tests make."""
    if is_root():
        user = pwd.getpwnam(SERVER_USER)
        return user.pw_uid, user.pw_gid
    return os.geteuid(), os.getegid()


def as_server_user(command):
    """The command line that runs as the server's user: PostgreSQL refuses root."""
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command]
    if is_root():
        return ["setpriv", f"--reuid={SERVER_USER}", f"--regid={SERVER_USER}", "--init-groups",
                *words]
    return words


def environment(extra=None):
    """Nothing of the caller's PGHOST, PGCAIRN_CONFIG and the like may reach what is tested."""
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("PG", "PGCAIRN"))}
    clean.update(LC_ALL="C.UTF-8", TZ="UTC", HOME="/nonexistent")
    clean.update({name: str(value) for name, value in (extra or {}).items()})
    return clean


def run(*command, env=None, text=True, timeout=300, cwd="/", stdin=None, as_root=False):
    """Runs a command to its end, whatever that is."""
    words = [str(word) for word in command] if as_root else as_server_user(command)
    feed = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(words, capture_output=True, text=text, timeout=timeout, check=False,
                          cwd=cwd, env=environment(env), **feed)


def start(*command, env=None, cwd="/", as_root=False, **options):
    """Starts a command; the caller ends it."""
    words = [str(word) for word in command] if as_root else as_server_user(command)
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, cwd=cwd, env=environment(env),
                            **options)


def catches(pid, number):
    """Whether a process has a handler for a signal; before it has, the signal just ends it."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt:"))
    return mask >> (number - 1) & 1


def has_ended(pid):
    """With all its threads, also when nobody has asked yet how. Until then its files may still be open."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            ended = stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
        return ended and len(os.listdir(f"/proc/{pid}/task")) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def free_port():
    """A port of the loopback interface that stays free for a minute, but for a server.

    A connection that was closed on our side keeps it from whoever wants any port; servers set SO_REUSEADDR.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            listener.accept()[0].close()
            client.recv(1)
        return listener.getsockname()[1]


def explain(command, result):
    return (f"{' '.join(map(str, command))}: exit status {result.returncode}\n"
            f"{result.stdout[-6000:]}\n{result.stderr[-6000:]}")


def must(*command, **options):
    """Standard output of a command that has to succeed."""
    result = run(*command, **options)
    if result.returncode != 0:
        pytest.fail(explain(command, result))
    return result.stdout


def wait_until(what, condition, seconds=WAIT_SECONDS):
    """Polls until the condition gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)
