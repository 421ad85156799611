"""HAProxy in front of an S3 server: doing TLS, or doing damage."""

import pathlib
import re
import socket

import meddler
from service import Daemon, free_ports, listens, wait_healthy

CLIENT_SECONDS = 120

# What the proxy can do to a request, in percent of those that it applies to (FaultProxy.limit).
#   answered by the proxy, the server never sees the request:
#     slow_down 503, internal 500, conflict 409, expired and skewed and denied 403, ok_error (200 with an error
#     inside), close (no answer)
#   executed by the server, but:
#     lost (the client gets 500), hang (it gets nothing, ever), cut (the body ends half-way), flip (a bit of the
#     body is changed), short (half of the body, and the length says so)
#   delay: it waits (FaultProxy.delay_ms) before the request is passed on
#   unconditional: creates are no longer conditional; stale: listings are of a while ago (FaultProxy.stale_seconds)
# NAME_once instead of NAME: every request that differs from all before (method, address, range) is hit once.
ANSWERS = {"slow_down": (503, "SlowDown"), "internal": (500, "InternalError"),
           "conflict": (409, "ConditionalRequestConflict"), "expired": (403, "ExpiredToken"),
           "skewed": (403, "RequestTimeTooSkewed"), "denied": (403, "AccessDenied"),
           "ok_error": (200, "InternalError")}
FAULTS = (*ANSWERS, "close", "lost", "hang", *meddler.FAULTS)
METHODS = {"GET": 1, "HEAD": 2, "PUT": 4, "POST": 8, "DELETE": 16}


def base(timeout=CLIENT_SECONDS):
    return (f"defaults\n  mode http\n  timeout connect 10s\n  timeout client {timeout}s\n"
            f"  timeout server {timeout}s\n  timeout http-keep-alive 60s\n")


def tls_in_front(directory, port, upstream_port, certificate):
    """TLS on one port, plain HTTP to another."""
    configuration = pathlib.Path(directory) / "tls.cfg"
    configuration.write_text(f"""global
  maxconn 1000
{base()}frontend f
  bind 127.0.0.1:{port} ssl crt {certificate}
  default_backend b
backend b
  server s 127.0.0.1:{upstream_port}
""", encoding="ascii")
    return Daemon(directory, "tls", "haproxy", "-db", "-f", configuration)


class FaultProxy:
    """A proxy of its own: no faults at first; it keeps a log of all requests."""

    def __init__(self, directory, upstream_port, certificate=None, signer=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, = free_ports(1)
        self.scheme = "https" if certificate else "http"
        self.socket = self.directory / "ctl"
        self.daemon = None
        self.meddler = meddler.Meddler(upstream_port)
        self.meddler.signer = signer
        self.write_files(upstream_port, certificate)
        self.restart()

    def restart(self):
        """Up again, on the same port and without faults."""
        self.stop()  # two could listen on one port, each with faults of its own
        self.socket.unlink(missing_ok=True)
        self.daemon = Daemon(self.directory, "requests", "haproxy", "-db", "-f", self.directory / "faults.cfg")
        try:
            wait_healthy([self.daemon], "fault proxy",
                         lambda: self.socket.exists() and listens(self.port))
        except BaseException:
            self.stop()
            raise

    @property
    def endpoint(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    # -- configuration

    def write_files(self, upstream_port, certificate):
        for name, (_, code) in ANSWERS.items():
            (self.directory / f"{name}.xml").write_text(
                f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
                "<Message>injected by the test</Message><RequestId>fault</RequestId></Error>", encoding="ascii")
        (self.directory / "paths").write_text("/\n", encoding="ascii")
        variables = [*FAULTS, *(f"{name}_once" for name in FAULTS), "methods"]
        (self.directory / "faults.cfg").write_text(f"""global
  maxconn 1000
  stats socket {self.socket} mode 600 level admin
  log stdout format raw local0
{lines(f"set-var proc.{name} int(0)" for name in variables)}
{base()}  log global
  log-format "%Ts.%ms %HM %ST %ts %Tt %U %B %HU"
frontend f
  bind 127.0.0.1:{self.port} {f'ssl crt {certificate}' if certificate else ''}
  stick-table type string len 400 size 100k expire 1h store http_req_cnt
  http-request set-var(txn.url) url
  http-request set-var(txn.range) req.hdr(range)
  http-request set-var(txn.key) method,concat(" ",txn.url),concat(" ",txn.range)
  http-request track-sc0 var(txn.key)
{lines(f"http-request set-var(txn.bit) int({bit}) if {{ method {name} }}" for name, bit in METHODS.items())}
  acl chosen path -m sub -f {self.directory}/paths
  http-request set-var(txn.masked) var(txn.bit),and(proc.methods)
  http-request set-var(txn.applies) bool(true) if chosen {{ var(proc.methods) -m int 0 }}
  http-request set-var(txn.applies) bool(true) if chosen {{ var(txn.masked) -m int gt 0 }}
  http-request set-var(txn.first) bool(true) if {{ sc0_http_req_cnt eq 1 }}
{lines(self.decide(name) for name in FAULTS)}
{lines(f"http-request return status {status} {'hdr Retry-After 1 ' if status == 503 else ''}content-type application/xml file {self.directory}/{name}.xml if {hit(name)}" for name, (status, _) in ANSWERS.items())}
  http-request reject if {hit("close")}
  http-response return status 500 content-type application/xml file {self.directory}/internal.xml if {hit("lost")}
  http-response silent-drop if {hit("hang")}
  http-request del-header {meddler.FAULT_HEADER}
{lines(ask_meddler(name) for name in meddler.FAULTS)}
  use_backend meddler if {{ req.hdr_cnt({meddler.FAULT_HEADER}) gt 0 }}
  default_backend b
backend b
  http-reuse safe
  server s 127.0.0.1:{upstream_port}
backend meddler
  http-reuse never
  server s 127.0.0.1:{self.meddler.port}
""", encoding="ascii")

    @staticmethod
    def decide(name):
        """Whether it hits this request: by chance, or because the like of it was not seen before."""
        applies = "{ var(txn.applies) -m bool }"
        return (f"http-request set-var(txn.{name}) bool(true) if {applies} {{ rand(100),sub(proc.{name}) lt 0 }}\n"
                f"  http-request set-var(txn.{name}) bool(true) if {applies} {{ var(txn.first) -m bool }} "
                f"{{ var(proc.{name}_once) -m int gt 0 }}")

    # -- control

    def command(self, *commands):
        """Answers of HAProxy's command line."""
        answers = []
        for command in commands:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self.socket))
                connection.sendall(f"experimental-mode on; {command}\n".encode())
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
            answers.append(answer.decode().strip())
        return answers

    def set(self, delay_ms=None, stale_seconds=None, **rates):
        """slow_down=20, lost_once=1; delay=20, delay_ms=30."""
        if delay_ms is not None:
            self.meddler.delay_seconds = delay_ms / 1000
        if stale_seconds is not None:
            self.meddler.stale_seconds = stale_seconds
        for answer in self.command(*(f"set var proc.{name} int({value})" for name, value in rates.items())):
            if answer.replace("experimental-mode on", "").strip():
                raise ValueError(answer)

    def limit(self, *methods, paths=("/",)):
        """Faults hit only requests of these methods (none: all) whose address has one of the words in it."""
        self.set(methods=sum(METHODS[name] for name in methods))
        file = self.directory / "paths"
        self.command(f"clear acl {file}", *(f"add acl {file} {word}" for word in paths))

    def quiet(self):
        """No faults."""
        self.set(**{name: 0 for name in FAULTS}, **{f"{name}_once": 0 for name in FAULTS})

    def forget(self):
        """What counts as seen before, and the log."""
        self.meddler.listings.clear()
        self.command("clear table f")
        with open(self.daemon.log, "r+b") as log:
            log.truncate(0)

    def close(self):
        """For good."""
        self.stop()
        self.meddler.close()

    def stop(self):
        """Refuses connections from now on."""
        if self.daemon:
            self.daemon.end()

    # -- what passed

    def requests(self):
        """Of every request that has ended: when (seconds), method, status, address, bytes up and down."""
        pattern = re.compile(r"^(\d+)\.(\d+) (\S+) (-?\d+) (\S+) (\d+) (\d+) (\d+) (.*)$")
        found = []
        for line in self.daemon.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := pattern.match(line):
                found.append(Request(float(f"{match[1]}.{match[2]:>03}"), match[3], int(match[4]), match[5],
                                     int(match[6]) / 1000, int(match[7]), int(match[8]), match[9]))
        return found

    def log_text(self):
        return self.daemon.log.read_text(encoding="utf-8", errors="replace")


class Request:
    """One line of the log."""

    def __init__(self, began, method, status, ending, seconds, sent_bytes, received_bytes, address):
        self.began, self.method, self.status, self.ending = began, method, status, ending
        self.seconds, self.sent_bytes, self.received_bytes = seconds, sent_bytes, received_bytes
        self.address = address

    def __repr__(self):
        return f"{self.began:.3f} {self.method} {self.address} {self.status} {self.seconds:.3f} s"


def ask_meddler(name):
    """One more word in the header."""
    header = meddler.FAULT_HEADER
    return f'http-request set-header {header} "%[req.fhdr({header})] {name}" if {hit(name)}'


def hit(name):
    return f"{{ var(txn.{name}) -m bool }}"


def lines(texts):
    return "\n".join(f"  {text}" for text in texts)
