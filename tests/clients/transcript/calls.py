"""Packets and calls as such: lengths, types, statuses, programs, numbers, arguments, descriptors, bursts.

Leans on talk.py and wire.py. Refuses to change anything in the keystore.
"""

import os
import struct

from .talk import as_text
from .wire import (
    ADMIN,
    CALL_WITH_FDS,
    CONTINUE,
    ERROR,
    KEEPALIVE,
    LONGEST,
    LXC,
    MESSAGE,
    PROGRAMS,
    QEMU,
    REMOTE,
    REPLY,
    REPLY_WITH_FDS,
    STREAM,
    STREAM_HOLE,
    TYPES,
    i32,
    opaque,
    packet,
    some,
    string,
    u32,
    u64,
)

SUPPORTS_FEATURE = 60
NIL = bytes(16)


def run(talk):
    lengths(talk)
    dropped_types(talk)
    programs_and_numbers(talk)
    arguments(talk)
    descriptors(talk)
    burst(talk)


def lengths(talk):
    for length in [0, 1, 3, 4, 5, 27, LONGEST + 1, 0x7FFFFFFF, 0xFFFFFFFF]:
        with talk.case(f"the length word says {length}") as client:
            client.tell("that, and a header", packet(SUPPORTS_FEATURE, i32(8), length=length))
    with talk.case("the length word says 28, and the connection ends after 20 bytes") as client:
        client.tell("half a header", packet(SUPPORTS_FEATURE)[:20])
        client.socket.shutdown(1)
        client.next()
    with talk.case("a header without the arguments that are due") as client:
        client.ask("SUPPORTS_FEATURE without a number", SUPPORTS_FEATURE)
    with talk.case("arguments cut short") as client:
        client.ask("SUPPORTS_FEATURE with three bytes", SUPPORTS_FEATURE, b"\0\0\0")
    with talk.case("bytes behind the arguments") as client:
        client.ask("SUPPORTS_FEATURE with four bytes more", SUPPORTS_FEATURE, i32(8) + b"junk")
        client.ask("with three bytes more", SUPPORTS_FEATURE, i32(8) + b"odd")
        client.ask("AUTH_LIST, which takes none, with bytes", 66, b"\1\2\3\4\5")
    with talk.case("the longest packet") as client:
        client.ask("SUPPORTS_FEATURE with 32 MiB behind", SUPPORTS_FEATURE, i32(8) + bytes(LONGEST - 32))
    with talk.case("a packet in small pieces") as client:
        print("-> SUPPORTS_FEATURE, byte by byte")
        for byte in packet(SUPPORTS_FEATURE, i32(8), serial=77):
            client.send(bytes([byte]))
        client.hear()


def dropped_types(talk):
    for kind in [REPLY, MESSAGE, STREAM, STREAM_HOLE, REPLY_WITH_FDS, 7, 255, 0xFFFFFFFF]:
        name = TYPES[kind] if kind < len(TYPES) else f"type {kind}"
        with talk.case(f"{name} from a client") as client:
            body = i32(8) if kind != REPLY_WITH_FDS else u32(0) + i32(8)
            for prog in [REMOTE, 0x12345678]:
                odd = packet(SUPPORTS_FEATURE, body, type=kind, prog=prog, serial=9)
                client.tell(f"program {PROGRAMS.get(prog, prog)}", odd)
    for status in [CONTINUE, ERROR]:
        with talk.case(f"STREAM with status {status}") as client:
            client.tell("that", packet(SUPPORTS_FEATURE, b"", type=STREAM, status=status, serial=9))


def programs_and_numbers(talk):
    with talk.case("programs and versions") as client:
        for prog, vers in [(0, 1), (0x12345678, 1), (0xFFFFFFFF, 0xFFFFFFFF), (ADMIN, 1), (0x0EA7BEEF, 1)]:
            client.ask(f"program {prog} version {vers}", 1, prog=prog, vers=vers)
        for vers in [0, 2, 0xFFFFFFFF]:
            client.ask(f"REMOTE version {vers}", SUPPORTS_FEATURE, i32(8), vers=vers)
        client.ask("keepalive as a call", 1, prog=KEEPALIVE)
        client.ask("keepalive version 2 as a call", 1, prog=KEEPALIVE, vers=2)
        client.ask("QEMU 1", 1, bytes(64), prog=QEMU)
        client.ask("QEMU 0", 0, prog=QEMU)
        client.ask("QEMU 6, an event", 6, prog=QEMU)
        client.ask("LXC 1", 1, bytes(64), prog=LXC)
        client.ask("LXC 2", 2, prog=LXC)
        client.ask("QEMU version 2", 1, prog=QEMU, vers=2)
    with talk.case("procedures") as client:
        for proc in [0, -1, -2147483648, 2147483647, 461, 1000, 107, 362, 382, 383]:
            client.ask(f"procedure {proc}", proc, bytes(64))
    with talk.case("statuses of a call") as client:
        for status in [1, 2, 3, 255, 0xFFFFFFFF]:
            client.ask(f"status {status}", SUPPORTS_FEATURE, i32(8), status=status)
        client.ask("status 1 of an unknown procedure", 9999, status=1)
        client.ask("status 1 of an unknown program", 1, status=1, prog=7)
    with talk.case("serials are echoed") as client:
        for serial in [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 5, 5]:
            client.ask(f"serial {serial}", SUPPORTS_FEATURE, i32(8), serial=serial)


def arguments(talk):
    with talk.case("padding that isn't zero") as client:
        name = opaque(talk.uri + "x", pad=b"\xff")
        client.ask("LOOKUP_BY_USAGE, padded with 0xff", 147, i32(2) + name)
        client.ask("and without the padding", 147, i32(2) + u32(5) + b"abcde")
    with talk.case("a string with a NUL in it") as client:
        client.ask("LOOKUP_BY_USAGE", 147, i32(2) + string(b"before\0after"))
    with talk.case("a string that isn't UTF-8") as client:
        client.ask("LOOKUP_BY_USAGE", 147, i32(2) + string(b"caf\xe9 \xff\xfe"))
    for discriminant in [2, 0x01000000, 0xFFFFFFFF]:
        with talk.case(f"OPEN whose name is announced by {discriminant:#x}", flags=None) as client:
            client.ask("OPEN", 1, some(string(talk.uri), discriminant) + u32(0))
            client.ask("GET_URI", 110, b"", as_text)
    with talk.case("OPEN with bytes behind the name's NUL", flags=None) as client:
        client.ask("OPEN", 1, some(string(talk.uri + "\0behind")) + u32(0))
        client.ask("GET_URI", 110, b"", as_text)
    with talk.case("strings that are too long") as client:
        client.ask("LOOKUP_BY_USAGE of 4 GiB that aren't there", 147, i32(2) + u32(0xFFFFFFFF))
        client.ask("of 100 bytes of which 8 are there", 147, i32(2) + u32(100) + b"12345678")
        client.ask("of 4 MiB and one", 147, i32(2) + string(bytes(4_194_305)))
        client.ask("of 4 MiB, all NUL", 147, i32(2) + string(bytes(4_194_304)))
    with talk.case("arrays that are too long") as client:
        handle = NIL + i32(0) + string("")
        client.ask("SET_VALUE of 65,537 bytes", 144, handle + opaque(bytes(65_537)) + u32(0))
        client.ask("SET_VALUE of 65,536 bytes that aren't there", 144, handle + u32(65_536))
        client.ask("SET_VALUE of 4 GiB", 144, handle + u32(0xFFFFFFFF))
        client.ask("SET_IDENTITY with 21 parameters that aren't there", 419, u32(21))
    for proc, name, due in SHORT:
        with talk.case(f"{name}, cut short") as client:
            print(f"-> the first 0 to {len(due) - 1} bytes of {len(due)}")
            for error in sorted({client.call(proc, due[:count]).error() for count in range(len(due))}):
                print(f"<- {error}")


def descriptors(talk):
    """Each follows its packet in a byte of its own."""
    held = os.open("/dev/null", os.O_RDONLY)
    for count in [0, 1, 32]:
        with talk.case(f"a call with {count} descriptors") as client:
            print("-> SUPPORTS_FEATURE")
            client.send(packet(SUPPORTS_FEATURE, u32(count) + i32(8), type=CALL_WITH_FDS, serial=9))
            for _ in range(count):
                client.send_descriptor(held)
            client.hear()
            client.ask("once more, without any", SUPPORTS_FEATURE, i32(10))
    for count in [33, 0xFFFFFFFF]:
        with talk.case(f"a call with {count} descriptors") as client:
            call = packet(SUPPORTS_FEATURE, u32(count) + i32(8), type=CALL_WITH_FDS, serial=9)
            client.tell("SUPPORTS_FEATURE", call)
            client.next()
    with talk.case("a call with descriptors without their count") as client:
        client.tell("SUPPORTS_FEATURE", packet(SUPPORTS_FEATURE, type=CALL_WITH_FDS, serial=9))
        client.next()
    with talk.case("a byte where a descriptor is due") as client:
        call = packet(SUPPORTS_FEATURE, u32(1) + i32(8), type=CALL_WITH_FDS, serial=9)
        client.tell("SUPPORTS_FEATURE", call + b"\0")
        client.next()
    for proc, prog in [(9999, REMOTE), (1, 7)]:
        with talk.case(f"a descriptor for procedure {proc} of program {PROGRAMS.get(prog, prog)}") as client:
            print("-> that")
            client.send(packet(proc, u32(1), type=CALL_WITH_FDS, serial=9, prog=prog))
            client.send_descriptor(held)
            client.hear()
    os.close(held)


def burst(talk):
    with talk.case("fifty calls at once") as client:
        print("-> fifty, of five kinds in turn, with serials 100 to 149")
        kinds = [(60, i32(14)), (110, b""), (147, i32(2) + string("nothing")), (139, b""), (9999, b"")]
        calls = [packet(*kinds[serial % 5], serial=serial) for serial in range(100, 150)]
        client.send(b"".join(calls))
        heard = [client.next() for _ in calls]
        complete = sorted(reply.serial for reply in heard) == list(range(100, 150))
        print(f"<- {'every serial once' if complete else [reply.serial for reply in heard]}")
        right = all(reply.proc == struct.unpack(">i", calls[reply.serial - 100][12:16])[0] for reply in heard)
        print(f"   each with its procedure: {right}")


# What a call of each of the secret driver's procedures is made of.
HANDLE = NIL + i32(2) + string("name")
SHORT = [
    (1, "OPEN", some(string("secret:///x")) + u32(0)),
    (68, "AUTH_SASL_START", string("PLAIN") + i32(0) + u32(1) + u32(65)),
    (140, "LIST_SECRETS", i32(4)),
    (141, "LOOKUP_BY_UUID", NIL),
    (142, "DEFINE_XML", string("<nothing/>") + u32(0)),
    (143, "GET_XML_DESC", HANDLE + u32(0)),
    (144, "SET_VALUE", HANDLE + opaque("value") + u32(0)),
    (145, "GET_VALUE", HANDLE + u32(0)),
    (146, "UNDEFINE", HANDLE),
    (147, "LOOKUP_BY_USAGE", i32(2) + string("nothing")),
    (287, "LIST_ALL_SECRETS", i32(1) + u32(0)),
    (380, "EVENT_REGISTER_ANY", i32(9) + some(HANDLE)),
    (381, "EVENT_DEREGISTER_ANY", i32(9_999)),
    (419, "SET_IDENTITY", u32(1) + string("process-time") + u32(4) + u64(1) + u32(0)),
]
