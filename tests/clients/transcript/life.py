"""A connection's life: authentication, opening, features, identity, keepalive, closing.

Leans on talk.py and wire.py. Refuses to wait for pings unless it is asked to: see `pings`.
"""

import time

from .talk import as_text
from .wire import KEEPALIVE, MESSAGE, NOTHING, Dropped, Silent, i32, packet, param, params, some, string, u32


def run(talk):
    before_open(talk)
    opening(talk)
    questions(talk)
    identity(talk)
    keepalive(talk)
    closing(talk)


def before_open(talk):
    with talk.case("authentication, where none is asked for", flags=None) as client:
        client.ask("AUTH_LIST", 66)
        client.ask("AUTH_LIST again", 66)
        polkit_elsewhere(client)
        client.ask("AUTH_SASL_INIT", 67)
        client.ask("AUTH_SASL_START", 68, string("PLAIN") + i32(0) + params())
        client.ask("AUTH_SASL_STEP", 69, i32(0) + params())
    with talk.case("calls before OPEN", flags=None) as client:
        for what, proc, arguments in CALLS:
            client.ask(what, proc, arguments, version if proc == 157 else None)
    with talk.case("SET_IDENTITY before OPEN", flags=None) as client:
        client.ask("SET_IDENTITY, empty", 419, params() + u32(0))
    with talk.case("CLOSE before OPEN", flags=None) as client:
        client.ask("CLOSE", 2)


def polkit_elsewhere(client):
    """On a socket that doesn't ask for it. libvirt's error is whatever its thread said last, so that alone is told."""
    print(f"-> AUTH_POLKIT\n<- {'an error' if client.call(70).status else 'success'}")


def opening(talk):
    base = talk.uri
    path = base.removeprefix("secret://")
    other = "/session" if path == "/system" else "/system"
    for flags in [1, 2, 6, 7, 0x80000000, 0xFFFFFFFF]:
        with talk.case(f"OPEN with flags {flags:#x}", flags=None) as client:
            client.ask("OPEN", 1, some(string(base)) + u32(flags))
            client.ask("GET_VALUE of an unknown secret", 145, bytes(20) + string("") + u32(0))
    alike = [
        f"secret:{path}",
        f"{base}?foo=bar",
        f"{base}?a=1&b=2#part",
        f"{base}#part",
        f"{base}?",
        f"secret://{path}/",
        f"secret://{other}",
        "secret:///",
        "secret:///nowhere",
        "secret://",
        "secret:",
        f"{base}%20",
        f"secret://{path.upper()}",
        path,
        "nothing",
        "secret",
    ]
    for uri in alike:
        with talk.case(f"OPEN {uri}", flags=None) as client:
            client.ask("OPEN", 1, some(string(uri)) + u32(0))
            client.ask("GET_URI", 110, b"", as_text)
    with talk.case("OPEN without a name", flags=None) as client:
        client.ask("OPEN", 1, NOTHING + u32(0))
        client.ask("GET_URI", 110, b"", as_text)
        client.ask("NUM_OF_SECRETS", 139)
    print("\nHere daemons that have all drivers answer otherwise than daemons that have one.")
    for uri in [f"SECRET://{path}", f"nonsense://{path}", f"secret+unix://{path}", f"secret+nonsense://{path}", ""]:
        with talk.case(f"OPEN {uri or 'of an empty name'}", flags=None) as client:
            client.ask("OPEN", 1, some(string(uri)) + u32(0))
    with talk.case("OPEN of a keystore of its own", flags=None) as client:
        # After some dozen of these libvirt has another text: each takes one of its places for drivers.
        refused = client.call(1, some(string("secret:///embed?root=/nonexistent/root")) + u32(0))
        print(f"-> OPEN secret:///embed?root=/nonexistent/root\n<- {refused.code()[:2]}")
    with talk.case("OPEN after an OPEN that failed", flags=None) as client:
        client.ask("OPEN", 1, some(string("secret:///nowhere")) + u32(0))
        client.ask("NUM_OF_SECRETS", 139)
        client.ask("OPEN", 1, some(string(base)) + u32(0))
        client.ask("NUM_OF_SECRETS", 139)
    with talk.case("a second OPEN") as client:
        client.ask("OPEN", 1, some(string(base)) + u32(0))
        client.ask("OPEN, read-only", 1, some(string(base)) + u32(1))
        client.ask("GET_URI", 110, b"", as_text)
        client.ask("NUM_OF_SECRETS", 139)


def questions(talk):
    with talk.case("features") as client:
        for feature in [*range(21), -1, 2147483647, -2147483648]:
            client.ask(f"SUPPORTS_FEATURE {feature}", 60, i32(feature))
    with talk.case("questions about the connection") as client:
        for what, proc in QUESTIONS:
            client.ask(what, proc, b"", {3: as_text, 110: as_text, 157: version}.get(proc))
        for what, proc in [("REGISTER", 360), ("REGISTER", 360), *[("UNREGISTER", 361)] * 3]:
            client.ask(f"{what}_CLOSE_CALLBACK", proc)
    with talk.case("UNREGISTER_CLOSE_CALLBACK without REGISTER") as client:
        client.ask("that", 361)


def identity(talk):
    names = {
        "user-name": 7,
        "unix-user-id": 4,
        "group-name": 7,
        "unix-group-id": 4,
        "process-id": 3,
        "process-time": 4,
        "sasl-user-name": 7,
        "x509-distinguished-name": 7,
        "selinux-context": 7,
        "system.token": 7,
    }
    for name, right in names.items():
        with talk.case(f"identity: {name}") as client:
            for kind in range(1, 8):
                value = "text" if kind == 7 else 1
                what = f"type {kind}{', the right one' if kind == right else ''}"
                client.ask(what, 419, params(param(name, kind, value)) + u32(0))
    with talk.case("identity: odd parameters") as client:
        for name in ["nothing", "", "User-Name", "user_name", "x" * 79]:
            client.ask(f"unknown name {name!r}", 419, params(param(name, 7, "text")) + u32(0))
        client.ask("a name of 80 characters", 419, params(param("x" * 80, 7, "text")) + u32(0))
        client.ask("a name of 5,000 characters", 419, params(param("x" * 5000, 7, "text")) + u32(0))
        for kind in [0, 8, -1]:
            client.ask(f"type {kind}", 419, params(param("user-name", kind, 1)) + u32(0))
        twice = param("user-name", 7, "a"), param("user-name", 7, "b")
        client.ask("the same name twice", 419, params(*twice) + u32(0))
        client.ask("and of different types", 419, params(twice[0], param("user-name", 1, 1)) + u32(0))
        client.ask("unknown behind wrong", 419, params(param("user-name", 1, 1), param("n", 7, "")) + u32(0))
        client.ask("wrong behind unknown", 419, params(param("n", 7, ""), param("user-name", 1, 1)) + u32(0))
        client.ask("an empty text", 419, params(param("user-name", 7, "")) + u32(0))
    with talk.case("identity: counts and flags") as client:
        client.ask("empty", 419, params() + u32(0))
        client.ask("flags 0xffffffff", 419, params() + u32(0xFFFFFFFF))
        right = [param(name, kind, "text" if kind == 7 else 1) for name, kind in names.items()]
        client.ask("all ten", 419, params(*right) + u32(0))
        client.ask("all ten, twice", 419, params(*right, *right) + u32(0))
        client.ask("21 parameters", 419, params(*[right[0]] * 21) + u32(0))
    with talk.case("identity on a read-only connection", flags=1) as client:
        client.ask("empty", 419, params() + u32(0))
        client.ask("a wrong token", 419, params(param("system.token", 7, "0" * 32)) + u32(0))


def keepalive(talk):
    ping = packet(1, prog=KEEPALIVE, type=MESSAGE)
    for flags in [None, 0]:
        with talk.case(f"a ping {'before' if flags is None else 'after'} OPEN", flags) as client:
            client.tell("ping", ping)
            print(f"<- {client.receive().head()}")
            client.tell("ping with serial 9, status 1 and a body", packet(
                1, b"body", prog=KEEPALIVE, type=MESSAGE, serial=9, status=1))
            answer = client.receive()
            print(f"<- {answer.head()}, {len(answer.payload)} bytes")
    with talk.case("ten pings and a call at once") as client:
        client.tell("them", ping * 10 + packet(60, i32(8), serial=9))
        heard = sorted(client.receive().head() for _ in range(11))
        for head in sorted(set(heard)):
            print(f"<- {heard.count(head)} x {head}")
    with talk.case("keepalive procedures that there aren't") as client:
        for proc in [0, 2, 3, -1]:
            client.tell(f"procedure {proc}", packet(proc, prog=KEEPALIVE, type=MESSAGE))
        client.tell("version 2", packet(1, prog=KEEPALIVE, type=MESSAGE, vers=2))
        client.tell("ping as a stream", packet(1, prog=KEEPALIVE, type=3))
        client.tell("ping as a reply", packet(1, prog=KEEPALIVE, type=1))


def closing(talk):
    with talk.case("CLOSE") as client:
        client.ask("CLOSE", 2)
        client.next()
    with talk.case("a call in the same breath as CLOSE") as client:
        print("-> CLOSE, GET_URI")
        client.send(packet(2, serial=9) + packet(110, serial=10))
        for _ in range(3):  # which of the two are answered, and in which order, is a race
            client.next()
    with talk.case("CLOSE with arguments") as client:
        client.ask("CLOSE", 2, b"junk")
        client.next()


def before_authentication(talk):
    """For a socket that asks for polkit or SASL, and a user that it asks. What polkit says is the host's own."""
    for what, proc, arguments in [*CALLS, ("OPEN", 1, some(string(talk.uri)) + u32(0)), ("CLOSE", 2, b"")]:
        with talk.case(f"unauthenticated: {what}", flags=None) as client:
            client.ask(what, proc, arguments)
    with talk.case("unauthenticated: odd calls", flags=None) as client:
        client.ask("short arguments", 60)
        client.ask("procedure 0", 0)
        client.ask("an unknown program", 1, prog=7)
        client.ask("status 1", 60, i32(8), status=1)
        client.ask("SET_IDENTITY", 419, params() + u32(0))
    with talk.case("unauthenticated: methods", flags=None) as client:
        if client.ask("AUTH_LIST", 66).payload == u32(1) + u32(2):
            client.ask("AUTH_POLKIT", 70)
        else:
            polkit_elsewhere(client)
        client.ask("AUTH_SASL_STEP first", 69, i32(0) + params())
        client.ask("AUTH_SASL_START first", 68, string("PLAIN") + i32(0) + params())
        client.ask("AUTH_SASL_INIT", 67, b"", lambda reader: "[mechanisms]" * bool(reader.string()))
        client.ask("AUTH_SASL_INIT again", 67)
        client.ask("AUTH_SASL_START NONSENSE", 68, string("NONSENSE") + i32(0) + params())
        client.ask("SUPPORTS_FEATURE 8", 60, i32(8))
        client.tell("ping", packet(1, prog=KEEPALIVE, type=MESSAGE))
        print(f"<- {client.receive().head()}")


def pings(talk, interval):
    """How a server that pings every `interval` seconds treats clients that keep still, answer, or never asked."""
    for what, asks, answers in [("keeps still", True, False), ("answers", True, True), ("never asked", False, False)]:
        print(f"\n== a client that {what}")
        with talk.connect() as client:
            client.socket.settimeout(8 * interval)
            if asks:
                client.ask("SUPPORTS_FEATURE 10", 60, i32(10))
            start = time.monotonic()
            try:
                for _ in range(6):
                    received = client.receive()
                    print(f"<- {received.head()} after {(time.monotonic() - start) / interval:.0f} intervals")
                    if answers:
                        client.send(packet(2, prog=KEEPALIVE, type=MESSAGE))
            except Dropped:
                print(f"dropped after {(time.monotonic() - start) / interval:.0f} intervals")
            except Silent:
                print("nothing in 8 intervals")


def version(reader):
    return "[version]" if reader.u64() >= 9_000_000 else "a version before 9.0"


QUESTIONS = [
    ("GET_TYPE", 3),
    ("GET_VERSION", 4),
    ("GET_HOSTNAME", 59),
    ("GET_URI", 110),
    ("IS_SECURE", 149),
    ("GET_LIB_VERSION", 157),
]

# One of every kind, for connections that aren't open or not authenticated.
CALLS = [
    *[(what, proc, b"") for what, proc in QUESTIONS],
    ("SUPPORTS_FEATURE 8", 60, i32(8)),
    ("SUPPORTS_FEATURE 10", 60, i32(10)),
    ("SUPPORTS_FEATURE 14", 60, i32(14)),
    ("REGISTER_CLOSE_CALLBACK", 360, b""),
    ("UNREGISTER_CLOSE_CALLBACK", 361, b""),
    ("NUM_OF_SECRETS", 139, b""),
    ("LIST_SECRETS", 140, i32(9)),
    ("LIST_SECRETS -1", 140, i32(-1)),
    ("LOOKUP_BY_UUID", 141, bytes(16)),
    ("DEFINE_XML", 142, string("<nothing/>") + u32(0)),
    ("GET_XML_DESC", 143, bytes(20) + string("") + u32(0)),
    ("GET_VALUE", 145, bytes(20) + string("") + u32(0)),
    ("UNDEFINE", 146, bytes(20) + string("")),
    ("LOOKUP_BY_USAGE", 147, i32(2) + string("name")),
    ("LIST_ALL_SECRETS", 287, i32(1) + u32(0)),
    ("EVENT_REGISTER_ANY 0", 380, i32(0) + NOTHING),
    ("EVENT_DEREGISTER_ANY", 381, i32(9_999)),
    ("GetCapabilities", 7, b""),
    ("ListAllNetworks", 283, i32(1) + u32(0)),
]
