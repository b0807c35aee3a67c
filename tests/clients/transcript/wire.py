"""libvirt's RPC as bytes: XDR, packets, replies in words, and a connection that never hangs.

Written for raw.py, which sends what no client library would. So nothing here stops a caller from saying something wrong:
lengths, types and statuses are what the caller says they are. Leans on the standard library alone. Refuses to wait: what
doesn't come within five seconds isn't coming.
"""

import array
import socket
import struct

REMOTE, QEMU, LXC, KEEPALIVE, ADMIN = 0x20008086, 0x20008087, 0x00068000, 0x6B656570, 0x06900690
CALL, REPLY, MESSAGE, STREAM, CALL_WITH_FDS, REPLY_WITH_FDS, STREAM_HOLE = range(7)
OK, ERROR, CONTINUE = range(3)
LONGEST = 33_554_436  # the most that a length word may say
PATIENCE = 5.0

PROGRAMS = {REMOTE: "REMOTE", QEMU: "QEMU", LXC: "LXC", KEEPALIVE: "KEEPALIVE", ADMIN: "ADMIN"}
TYPES = ["CALL", "REPLY", "MESSAGE", "STREAM", "CALL_WITH_FDS", "REPLY_WITH_FDS", "STREAM_HOLE"]
STATUSES = ["OK", "ERROR", "CONTINUE"]


# Encoding: every function gives bytes, so that a call's arguments are written as a sum.


def u32(value):
    return struct.pack(">I", value & 0xFFFFFFFF)


i32 = u32


def u64(value):
    return struct.pack(">Q", value & 0xFFFFFFFFFFFFFFFF)


def opaque(data, pad=b"\0"):
    data = data.encode() if isinstance(data, str) else data
    return u32(len(data)) + data + pad * (-len(data) % 4)


string = opaque


def some(encoded, discriminant=1):
    return u32(discriminant) + encoded


NOTHING = u32(0)


def uuid(text):
    return bytes.fromhex(text.replace("-", ""))


def param(name, kind, value):
    """A typed parameter. `kind` is 1 int, 2 uint, 3 llong, 4 ullong, 5 double, 6 boolean, 7 string."""
    if isinstance(value, (bytes, str)):
        encoded = string(value)
    elif kind == 5:
        encoded = struct.pack(">d", value)
    else:
        encoded = u64(value) if kind in (3, 4) else u32(value)
    return string(name) + u32(kind) + encoded


def params(*each):
    return u32(len(each)) + b"".join(each)


def packet(proc, payload=b"", *, prog=REMOTE, vers=1, type=CALL, serial=0, status=OK, length=None):
    """One packet; its length word is right unless `length` says otherwise."""
    length = 28 + len(payload) if length is None else length
    return struct.pack(">IIIiIII", length, prog, vers, proc, type, serial, status) + payload


# Decoding.


class Reader:
    """Takes values off a payload, from its front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError(f"ends at byte {len(self.data)}, where {count} more are due")
        self.at += count
        return self.data[self.at - count : self.at]

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def u64(self):
        return struct.unpack(">Q", self.take(8))[0]

    def opaque(self):
        length = self.u32()
        data = self.take(length)
        self.take(-length % 4)
        return data

    def string(self):
        return self.opaque().decode("utf-8", "backslashreplace")

    def optional(self, read):
        return read() if self.u32() else None

    def list(self, read):
        return [read() for _ in range(self.u32())]

    def uuid(self):
        return self.take(16).hex()

    def param(self):
        """A typed parameter, as (name, kind, value)."""
        name, kind = self.string(), self.u32()
        if kind == 7:
            return name, kind, self.string()
        if kind == 5:
            return name, kind, struct.unpack(">d", self.take(8))[0]
        return name, kind, self.u64() if kind in (3, 4) else self.i32()

    def rest(self):
        return self.take(len(self.data) - self.at)

    def end(self):
        """What must be true when all is read."""
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many")


class Packet:
    """One packet that was received."""

    def __init__(self, data):
        fields = struct.unpack(">IIiIII", data[:24])
        self.prog, self.vers, self.proc, self.type, self.serial, self.status = fields
        self.payload = data[24:]

    def head(self):
        program = PROGRAMS.get(self.prog, str(self.prog))
        kind = TYPES[self.type] if self.type < len(TYPES) else f"type {self.type}"
        status = STATUSES[self.status] if self.status < len(STATUSES) else f"status {self.status}"
        return f"{program}/{self.vers} proc {self.proc} {kind} serial {self.serial} {status}"

    def error(self):
        """The error struct with all its fields, in words."""
        reader = Reader(self.payload)
        code, domain = reader.i32(), reader.i32()
        message = reader.optional(reader.string)
        level = reader.i32()
        dom = reader.optional(lambda: (reader.string(), reader.uuid(), reader.i32()))
        texts = [reader.optional(reader.string) for _ in range(3)]
        ints = reader.i32(), reader.i32()
        net = reader.optional(lambda: (reader.string(), reader.uuid()))
        reader.end()
        quoted = ["-" if text is None else quote(text) for text in [message, *texts]]
        absent = " ".join(f"{name} {value!r}" for name, value in [("dom", dom), ("net", net)] if value)
        return (
            f"{code}/{domain} {quoted[0]} level {level} str1 {quoted[1]} str2 {quoted[2]} str3 {quoted[3]} "
            f"int1 {ints[0]} int2 {ints[1]} {absent or 'no dom, no net'}"
        )

    def code(self):
        """An error's (code, domain, message)."""
        reader = Reader(self.payload)
        return reader.i32(), reader.i32(), reader.optional(reader.string)


def quote(text):
    return '"' + text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') + '"'


class Dropped(Exception):
    """The server closed the connection."""


class Silent(Exception):
    """The server said nothing, for as long as our patience lasts."""


class Garbled(Exception):
    """The server sent what is no packet."""


class Connection:
    """A Unix socket that speaks packets. Pings are answered unseen; messages are put aside in `messages`."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.messages = []
        self.serial = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise Silent from None
        except OSError:
            raise Dropped from None

    def send_descriptor(self, descriptor):
        """One descriptor with a byte of its own, as libvirt passes them."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        try:
            self.socket.sendmsg([b"\0"], [rights])
        except OSError:
            raise Dropped from None

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except TimeoutError:
                raise Silent from None
            except OSError:
                raise Dropped from None
            if not part:
                raise Dropped
            data += part
        return bytes(data)

    def receive(self):
        """The next packet, whatever it is."""
        length = struct.unpack(">I", self.exactly(4))[0]
        if not 28 <= length <= LONGEST:
            raise Garbled
        return Packet(self.exactly(length - 4))

    def next(self):
        """The next packet that is neither the server's ping nor an event."""
        while True:
            received = self.receive()
            if received.type != MESSAGE:
                return received
            if received.prog != KEEPALIVE:
                self.messages.append(received)
            elif received.proc == 1:
                self.send(packet(2, prog=KEEPALIVE, type=MESSAGE))

    def call(self, proc, payload=b"", **head):
        """Sends a call and returns the next packet that comes."""
        self.serial = head.setdefault("serial", self.serial + 1)
        self.send(packet(proc, payload, **head))
        return self.next()

    def events(self, count):
        """Waits until `count` messages are there, and hands them out."""
        while len(self.messages) < count:
            received = self.receive()
            if received.type == MESSAGE and received.prog != KEEPALIVE:
                self.messages.append(received)
        messages, self.messages = self.messages, []
        return messages
