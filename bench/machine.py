"""Commands timed on a quiet machine, with the CPU time of a server beside their own."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import platform
import pwd
import shlex
import shutil
import subprocess
import threading
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
QUIET_CPUS = 0.1  # what others may use before we call the machine busy
SAMPLE_SECONDS = 0.1


class CommandFailed(Exception):
    """A command that had to work did not; its output is the message."""


def stat_fields(pid):
    """/proc/PID/stat behind the command's name, which may hold anything."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rsplit(")", 1)[1].split()


def descendants(pid):
    """Process ids below pid, without it."""
    found, unseen = [], [pid]
    while unseen:
        parent = unseen.pop()
        with contextlib.suppress(OSError):  # ended meanwhile
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as file:
                    unseen += [int(child) for child in file.read().split()]
        if parent != pid:
            found.append(parent)
    return found


def tree_cpu_seconds(pid):
    """CPU time of a process, of all below it, and of all that ended below it and was waited for."""
    ticks = 0
    for each in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            ticks += sum(int(field) for field in stat_fields(each)[11:15])
    return ticks / TICKS_PER_SECOND


def tree_peak_bytes(pid):
    """Sum of the peak resident sets of the processes that live below pid now."""
    total = 0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            for line in open(f"/proc/{each}/status", encoding="utf-8", errors="replace"):
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def busy_seconds():
    """CPU time that anything on this machine used; idle and waiting for disks left out."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def tree_bytes(path):
    """Apparent size of all files below a directory."""
    return sum(os.lstat(os.path.join(top, name)).st_size
               for top, _, names in os.walk(path) for name in names)


@dataclasses.dataclass
class Measured:
    """What one command took, or several in a row: sums, and the peak of the largest."""

    wall: float        # seconds
    cpu_tool: float    # CPU seconds of the tool's processes
    cpu_server: float  # CPU seconds of the server's, the archiver and its commands included
    cpu_other: float   # CPU seconds of all else on the machine, the kernel's threads included
    rss: int           # peak resident bytes: the sum over the processes alive at one time
    calls: int
    p50_ms: float      # of single calls
    p99_ms: float

    def quiet(self):
        return self.cpu_other < 0.25 * self.wall + 0.05

    def row(self):
        return {"wall": round(self.wall, 4), "cpu_tool": round(self.cpu_tool, 4),
                "cpu_server": round(self.cpu_server, 3), "cpu_other": round(self.cpu_other, 3),
                "rss": self.rss, "calls": self.calls, "p50_ms": self.p50_ms,
                "p99_ms": self.p99_ms, "quiet": self.quiet()}


class Sampler(threading.Thread):
    """Follows the memory of a tool that has several processes."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.done = pid, 0, threading.Event()

    def run(self):
        while not self.done.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, tree_peak_bytes(self.pid))

    def finish(self):
        self.done.set()
        self.join()
        return self.peak


class Machine:
    """Runs commands as the user that PostgreSQL runs as: it refuses root."""

    def __init__(self, work, lock, patience):
        self.work, self.patience = pathlib.Path(work), patience
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.user_ids = pwd.getpwnam(self.user)[2:4]
        self.lock = open(lock, "a", encoding="ascii")
        self.directory(self.work)
        self.programs = self.directory(self.work / "bin")
        self.programs.chmod(0o755)

    # -- files

    def own(self, path):
        if os.geteuid() == 0:
            os.chown(path, *self.user_ids)
        return path

    def directory(self, path, empty=False):
        path = pathlib.Path(path)
        if empty and path.exists():
            shutil.rmtree(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.own(path)

    def write(self, path, text):
        pathlib.Path(path).write_text(text, encoding="utf-8")
        self.own(path)

    def install(self, program):
        """A copy that the servers' user can reach, whatever the checkout's permissions are."""
        target = self.programs / pathlib.Path(program).name
        shutil.copy(program, target)
        target.chmod(0o755)
        return target

    def compile(self, source, *flags):
        target = self.programs / pathlib.Path(source).stem
        command = ["cc", "-std=gnu17", "-O2", "-D_GNU_SOURCE", "-o", target, source, *flags]
        subprocess.run(command, check=True)
        target.chmod(0o755)
        return target

    # -- commands

    def command(self, *words):
        """As an argument vector that runs as the servers' user, in a clean environment."""
        clean = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
                 f"HOME={self.work}"]
        if os.geteuid() != 0:
            return [*clean, *map(str, words)]
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups",
                *clean, *map(str, words)]

    def run(self, *words, stdin=None):
        """Runs a command that must succeed; its output."""
        result = subprocess.run(self.command(*words), input=stdin, cwd=self.work, text=True,
                                capture_output=True, check=False)
        if result.returncode != 0:
            raise CommandFailed(f"exit status {result.returncode}: {shlex.join(map(str, words))}\n"
                                f"{result.stdout}{result.stderr}")
        return result.stdout

    # -- measuring

    def wait_until_quiet(self):
        """Nothing of ours left to write, and, if patience allows, nobody else at work."""
        os.sync()
        deadline = time.monotonic() + self.patience
        while True:
            before, started = busy_seconds(), time.monotonic()
            time.sleep(0.5)
            if busy_seconds() - before < QUIET_CPUS * (time.monotonic() - started):
                return
            if time.monotonic() > deadline:
                return

    def measure(self, lines, directory=None, server_pid=None, remove_first=None, status=None):
        """Runs shell lines one after the other under a lock that measurements share."""
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            self.wait_until_quiet()
            return self.measure_now(lines, directory, server_pid, remove_first, status)
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def measure_now(self, lines, directory, server_pid, remove_first, status):
        timed = [self.programs / "timed", *(["-u", remove_first] if remove_first else []),
                 *(["-r", status] if status else [])]
        server_before = set(descendants(server_pid)) if server_pid else set()
        server = tree_cpu_seconds(server_pid) if server_pid else 0
        busy = busy_seconds()
        with subprocess.Popen(self.command(*timed), cwd=directory or self.work, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            # Single calls of a few milliseconds have one process each, and sampling would cost them.
            sampler = Sampler(process.pid) if len(lines) == 1 else None
            if sampler:
                sampler.start()
            out, err = process.communicate("".join(line + "\n" for line in lines))
            sampled = sampler.finish() if sampler else 0
        if process.returncode != 0:
            raise CommandFailed(err[-3000:])
        busy = busy_seconds() - busy
        if server_pid:
            settle(server_pid, server_before)
            server = tree_cpu_seconds(server_pid) - server
        return summary(out, sampled, server, busy)


def settle(server_pid, before):
    """Waits for backends to be gone: their CPU time reaches the postmaster when it has waited."""
    deadline = time.monotonic() + 3
    while set(descendants(server_pid)) - before and time.monotonic() < deadline:
        time.sleep(0.02)


def summary(out, sampled, server, busy):
    *lines, last = out.splitlines()
    calls = [[float(word) for word in line.split()] for line in lines]
    walls = sorted(wall for wall, _, _ in calls)
    tool = (sum(cpu for _, cpu, _ in calls) + float(last.removeprefix("behind "))) / 1e3
    peak = max(int(peak_kb) * 1024 for _, _, peak_kb in calls)
    return Measured(wall=sum(walls) / 1e3, cpu_tool=tool, cpu_server=server,
                    cpu_other=max(0.0, busy - tool - server), rss=max(peak, sampled),
                    calls=len(calls), p50_ms=round(walls[(len(walls) - 1) // 2], 2),
                    p99_ms=round(walls[int((len(walls) - 1) * 0.99)], 2))


def describe_machine():
    """For the head of a report."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return f"{os.cpu_count()} x {models[0] if models else platform.machine()}, {memory} GB, Linux {platform.release()}"
