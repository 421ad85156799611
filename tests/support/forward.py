"""forward.py DESCRIPTOR FILE: forwards connections to the Unix socket that FILE names at that moment.

They come to the listening socket DESCRIPTOR, which its owner keeps open, so that nobody else gets its port.
Where FILE has several lines, each connection takes the first away; the last stays.
SIGUSR1 freezes those that there are, as a firewall does that forgets them; new ones work.
"""

import contextlib
import pathlib
import signal
import socket
import sys
import threading

frozen = set()
alive = set()


def forward(pair, source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if pair in frozen:
                threading.Event().wait()
            target.sendall(data)
    alive.discard(pair)
    for end in source, target:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def take(target):
    first, *others = target.read_text(encoding="utf-8").splitlines()
    if others:
        target.write_text("\n".join(others), encoding="utf-8")
    return first


def serve(descriptor, target):
    listener = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGUSR1, lambda *_: frozen.update(alive))
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(take(target))
        except OSError:
            client.close()
            continue
        pair = (client.fileno(), server.fileno(), object())
        alive.add(pair)
        for ends in (client, server), (server, client):
            threading.Thread(target=forward, args=(pair, *ends), daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
