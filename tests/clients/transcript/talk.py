"""What is said and heard, printed. Leans on wire.py; knows no case. Refuses to let one case's end be another's."""

from contextlib import contextmanager

from .wire import ADMIN, CALL, ERROR, REMOTE, Connection, Dropped, Garbled, Reader, Silent
from .wire import i32, packet, quote, some, string, u32

PROBE = 0x70726F62  # the serial of the call that asks whether a connection is still usable


class Talk:
    """A server to talk to: its socket, the URI to open, the program it speaks."""

    def __init__(self, path, uri, prog=REMOTE):
        self.path, self.uri, self.prog = path, uri, prog

    def connect(self, flags=None, path=None):
        """A connection; opened with `flags` unless they are None."""
        client = Client(path or self.path, self.prog)
        if flags is not None:
            opened = client.call(1, self.open_arguments(flags))
            if opened.status == ERROR:
                raise SystemExit(f"{self.uri}: {opened.error()}")
        return client

    def open_arguments(self, flags):
        return u32(flags) if self.prog == ADMIN else some(string(self.uri)) + u32(flags)

    @contextmanager
    def case(self, name, flags=0, path=None):
        """A case: its heading, a connection for it, and what became of the connection."""
        print(f"\n== {name}")
        with self.connect(flags, path) as client:
            try:
                yield client
                client.probe()
                print("still usable")
            except Dropped:
                print("dropped")
            except Silent:
                print("nothing more is heard")
            except Garbled:
                print("what follows is no packet")


class Client(Connection):
    """A connection that prints what goes over it."""

    def __init__(self, path, prog):
        super().__init__(path)
        self.prog = prog

    def call(self, proc, arguments=b"", **head):
        head.setdefault("prog", self.prog)
        return super().call(proc, arguments, **head)

    def ask(self, what, proc, arguments=b"", show=None, **head):
        """Sends a call and prints it and the reply, whose body `show` puts in words. Returns the reply."""
        print(f"-> {what}")
        reply = self.call(proc, arguments, **head)
        print_reply(reply, show)
        return reply

    def hear(self, show=None):
        """Prints the next packet."""
        print_reply(self.next(), show)

    def tell(self, what, data):
        """Sends bytes to which no reply is expected. If there is one, the probe at the end finds it."""
        print(f"-> {what}")
        self.send(data)

    def probe(self):
        """Whether the server still answers; what else it has to say is printed."""
        proc, arguments = (3, b"") if self.prog == ADMIN else (60, i32(8))
        self.send(packet(proc, arguments, prog=self.prog, type=CALL, serial=PROBE))
        while (heard := self.next()).serial != PROBE:
            print("unasked:")
            print_reply(heard)


def print_reply(reply, show=None):
    print(f"<- {reply.head()}")
    if reply.status == ERROR:
        print(f"   {reply.error()}")
    elif show:
        reader = Reader(reply.payload)
        print(f"   {show(reader)}")
        reader.end()
    elif reply.payload:
        body = reply.payload
        print(f"   {body.hex()}" if len(body) <= 128 else f"   {len(body)} bytes, beginning {body[:32].hex()}")


def as_text(reader):
    """For a body that is a string."""
    return quote(reader.string())
