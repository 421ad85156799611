"""What stands in front of a port of the loopback interface and has a thread for each connection (meddler.py, wire.py)."""

import socket
import threading

BACKLOG = 256


class Relay:
    """Listens on a free port, `port`; a subclass says in serve() what becomes of a connection."""

    def __init__(self, upstream_port):
        self.upstream_port = upstream_port
        self.ended = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port = self.listener.getsockname()[1]
        start(self.accept)

    def close(self):
        self.ended = True
        self.listener.close()

    def accept(self):
        while not self.ended:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            start(self.serve, client)

    def serve(self, client):
        """In a thread of the connection's own; the client is this method's to close."""
        raise NotImplementedError

    def connect(self, timeout_seconds):
        """A connection to what stands behind."""
        return socket.create_connection(("127.0.0.1", self.upstream_port), timeout=timeout_seconds)


def start(function, *arguments):
    """In a thread that ends with the program."""
    threading.Thread(target=function, args=arguments, daemon=True).start()
