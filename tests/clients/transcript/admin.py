"""The admin socket: every procedure with good arguments and bad ones, and the replies decoded.

Leans on talk.py and wire.py. What it sets it sets back: limits, thread pool, filters, outputs, timeout. Refuses to send
the call that ends the daemon with flags that it would take.
"""

import os
import time

from .talk import Talk
from .wire import (
    ADMIN,
    KEEPALIVE,
    MESSAGE,
    NOTHING,
    REMOTE,
    REPLY,
    STREAM,
    Reader,
    packet,
    param,
    params,
    some,
    string,
    u32,
    u64,
)

KINDS = ["0", "int", "uint", "llong", "ullong", "double", "boolean", "string"]


def run(talk):
    talk = Talk(talk.path, talk.uri, ADMIN)
    wire(talk)
    connection(talk)
    main = servers(talk)
    for server in [main, "admin"]:
        pool(talk, server, main)
        limits(talk, server, main)
    clients(talk, main)
    logging(talk)
    rest(talk, main)


def wire(talk):
    with talk.case("other programs", flags=None) as client:
        client.ask("REMOTE", 1, some(string("secret:///system")) + u32(0), prog=REMOTE)
        client.ask("AUTH_LIST", 66, prog=REMOTE)
        client.ask("version 2", 1, u32(0), vers=2)
        client.ask("version 0", 1, u32(0), vers=0)
    with talk.case("procedures", flags=None) as client:
        for proc in [0, -1, 21, 66, 1000]:
            client.ask(f"procedure {proc}", proc, bytes(16))
        client.ask("status 1", 3, status=1)
        for kind in [REPLY, MESSAGE, STREAM]:
            client.tell(f"type {kind}", packet(3, prog=ADMIN, type=kind))
    with talk.case("a ping", flags=None) as client:
        client.tell("ping", packet(1, prog=KEEPALIVE, type=MESSAGE))
        print(f"<- {client.receive().head()}")
    for length in [3, 4, 27, 33_554_437]:
        with talk.case(f"the length word says {length}", flags=None) as client:
            client.tell("that", packet(3, prog=ADMIN, length=length))


def connection(talk):
    with talk.case("calls before OPEN", flags=None) as client:
        client.ask("GET_LIB_VERSION", 3, b"", version)
        client.ask("LIST_SERVERS", 4, u32(0) + u32(0), lambda reader: f"{reader.u32()} listed, ret {reader.u32()}")
    with talk.case("OPEN", flags=None) as client:
        client.ask("cut short", 1)
        client.ask("flags 1", 1, u32(1))
        client.ask("flags 0x80000000", 1, u32(0x80000000))
        client.ask("flags 0", 1, u32(0))
        client.ask("flags 0 again", 1, u32(0))
        client.ask("GET_LIB_VERSION", 3, b"", version)
    with talk.case("CLOSE") as client:
        client.ask("CLOSE", 2)
        client.next()


def servers(talk):
    names = []

    def listed(reader):
        names.extend(reader.list(reader.string))
        # libvirt's order is that of a hash table: another one now and then
        return " ".join("[main]" if name != "admin" else name for name in sorted(names)) + f", ret {reader.u32()}"

    with talk.case("servers") as client:
        client.ask("LIST_SERVERS", 4, u32(1) + u32(0), listed)
        main = next(name for name in names if name != "admin")
        for need in [0, 7]:
            names.clear()
            client.ask(f"LIST_SERVERS, need_results {need}", 4, u32(need) + u32(0), listed)
        client.ask("LIST_SERVERS, flags 1", 4, u32(1) + u32(1))
        client.ask("LOOKUP_SERVER admin", 5, string("admin") + u32(0))
        client.ask("LOOKUP_SERVER [main]", 5, string(main) + u32(0),
                   lambda reader: "[main]" if reader.string() == main else "another")
        client.ask("LOOKUP_SERVER, flags 1", 5, string("admin") + u32(1))
        for name in ["nothing", "", "Admin"]:
            client.ask(f"LOOKUP_SERVER {name!r}", 5, string(name) + u32(0))
        client.ask("LOOKUP_SERVER nothing, flags 1", 5, string("nothing") + u32(1))
        client.ask("LOOKUP_SERVER, cut short", 5, u32(100))
    return main


def pool(talk, server, main):
    settings(talk, server, main, 6, 7, "THREADPOOL_PARAMETERS", ["minWorkers", "maxWorkers", "prioWorkers"],
             ["nWorkers", "freeWorkers", "jobQueueDepth"])


def limits(talk, server, main):
    settings(talk, server, main, 12, 13, "CLIENT_LIMITS", ["nclients_max", "nclients_unauth_max"],
             ["nclients", "nclients_unauth"])


def settings(talk, server, main, reads, writes, what, can, cannot):
    """Reads a set of parameters, tries what may be set and what may not, and puts back what was there."""
    with talk.case(f"{what} of {'[main]' if server == main else server}") as client:
        at = string(server)
        client.ask("GET", reads, at + u32(0), described)
        client.ask("GET, flags 1", reads, at + u32(1))
        client.ask("GET of an unknown server", reads, string("nothing") + u32(0))
        client.ask("GET, cut short", reads, at)
        before = values(client.call(reads, at + u32(0)))
        for name in can:
            value = before[name]
            client.ask(f"SET {name} to what it is", writes, at + params(param(name, 2, value)) + u32(0))
            client.ask(f"SET {name} as a llong", writes, at + params(param(name, 3, value)) + u32(0))
            client.ask(f"SET {name} twice", writes, at + params(*[param(name, 2, value)] * 2) + u32(0))
            client.ask(f"SET {name} to one more", writes, at + params(param(name, 2, value + 1)) + u32(0))
            client.ask("GET", reads, at + u32(0), described)
            client.call(writes, at + params(param(name, 2, value)) + u32(0))
        for name in [*cannot, "nothing", ""]:
            client.ask(f"SET {name!r}", writes, at + params(param(name, 2, 1)) + u32(0))
        client.ask("SET nothing at all", writes, at + params() + u32(0))
        client.ask("SET, flags 1", writes, at + params(param(can[0], 2, before[can[0]])) + u32(1))
        client.ask("SET of an unknown server", writes, string("nothing") + params() + u32(0))
        client.ask("SET 33 parameters", writes, at + params(*[param(can[0], 2, 1)] * 33) + u32(0))
        if what == "CLIENT_LIMITS":
            low, high = param("nclients_max", 2, 10), param("nclients_unauth_max", 2, 11)
            client.ask("SET more unauthenticated than all", writes, at + params(low, high) + u32(0))
        else:
            low, high = param("maxWorkers", 2, 5), param("minWorkers", 2, 6)
            client.ask("SET fewer at most than at least", writes, at + params(low, high) + u32(0))
            client.ask("SET maxWorkers to 0", writes, at + params(param("maxWorkers", 2, 0)) + u32(0))
        client.ask("GET", reads, at + u32(0), described)
        back = [param(name, 2, before[name]) for name in can]
        client.ask("SET back", writes, at + params(*back) + u32(0))


def clients(talk, main):
    """Clients are numbered as they come: told from our own number, as are their times."""
    with talk.case("clients") as client:
        own = ids(client.call(8, string("admin") + u32(1) + u32(0)))[-1]
        for server in ["admin", main]:
            name = "[main]" if server == main else server
            at = string(server)
            client.ask(f"LIST_CLIENTS of {name}", 8, at + u32(1) + u32(0), lambda reader: clients_of(reader, own, main))
            client.ask("without results", 8, at + u32(0) + u32(0), without_results)
            client.ask("flags 1", 8, at + u32(1) + u32(1))
        client.ask("LIST_CLIENTS of an unknown server", 8, string("nothing") + u32(1) + u32(0))
        at = string("admin")
        client.ask("LOOKUP_CLIENT", 9, at + u64(own) + u32(0), lambda reader: one_client(reader, own, main))
        client.ask("LOOKUP_CLIENT, flags 1", 9, at + u64(own) + u32(1))
        for number in [0, 999_999, 0xFFFFFFFFFFFFFFFF]:
            client.ask(f"LOOKUP_CLIENT {number}", 9, at + u64(number) + u32(0))
        client.ask("LOOKUP_CLIENT of an unknown server", 9, string("nothing") + u64(1) + u32(0))
        client.ask("GET_INFO of ourselves", 10, described_client("admin", own) + u32(0), described)
        client.ask("GET_INFO, flags 1", 10, described_client("admin", own) + u32(1))
        client.ask("GET_INFO of nobody", 10, described_client("admin", 999_999) + u32(0))
        client.ask("GET_INFO of nobody's server", 10, described_client("nothing", 1) + u32(0))
        client.ask("CLIENT_CLOSE of nobody", 11, described_client("admin", 999_999) + u32(0))
        client.ask("CLIENT_CLOSE, flags 1", 11, described_client("admin", own) + u32(1))
        with talk.connect(0) as another:
            theirs = ids(client.call(8, string("admin") + u32(1) + u32(0)))[-1]
            client.ask("CLIENT_CLOSE of another", 11, described_client("admin", theirs) + u32(0))
            print(f"   the other is at its end: {another.socket.recv(1) == b''}")
    with talk.case("a client that closes itself") as client:
        own = ids(client.call(8, string("admin") + u32(1) + u32(0)))[-1]
        client.ask("CLIENT_CLOSE", 11, described_client("admin", own) + u32(0))
        client.next()


def logging(talk):
    for what, reads, writes in [("outputs", 14, 16), ("filters", 15, 17)]:
        with talk.case(f"logging {what}") as client:
            shown = outputs if what == "outputs" else filters
            before = []
            client.ask("GET", reads, u32(0), lambda reader: f"[before], {shown(reader, before)[1]} in number")
            client.ask("GET, flags 1", reads, u32(1))
            for text in TRIED[what]:
                client.ask(f"SET {text!r}", writes, some(string(text)) + u32(0))
                # What the outputs are when none are set depends on where the daemon's standard error goes.
                told = repr if text or what == "filters" else lambda outputs: "[default]"
                client.ask("GET", reads, u32(0), lambda reader: told(shown(reader, [])))
            client.ask("SET, flags 1", writes, some(string("1:secret")) + u32(1))
            client.ask("SET to nothing", writes, NOTHING + u32(0))
            client.call(writes, (some(string(before[0])) if before[0] else NOTHING) + u32(0))


def rest(talk, main):
    with talk.case("TLS files") as client:
        for server in [main, "admin", "nothing"]:
            client.ask(f"UPDATE_TLS_FILES of {'[main]' if server == main else server}", 18, string(server) + u32(0))
        client.ask("UPDATE_TLS_FILES, flags 1", 18, string(main) + u32(1))
    with talk.case("the daemon's timeout") as client:
        for seconds in [100_000, 0]:
            client.ask(f"SET_DAEMON_TIMEOUT {seconds}", 19, u32(seconds) + u32(0))
        client.ask("SET_DAEMON_TIMEOUT, flags 1", 19, u32(0) + u32(1))
        client.ask("SET_DAEMON_TIMEOUT, cut short", 19, u32(0))
    with talk.case("DAEMON_SHUTDOWN with flags that there aren't") as client:
        client.ask("flags 0x80000000", 20, u32(0x80000000))


TRIED = {
    "outputs": ["1:stderr", "4:stderr", "5:stderr", "0:stderr", "1:nonsense", "nonsense", "1:file", "1:syslog", ""],
    "filters": ["1:secret", "1:secret 3:rpc", "4:*a*", "1:+secret", "0:secret", "5:secret", "1:", "nonsense", ""],
}


# Replies in words.


def version(reader):
    return "[version]" if reader.u64() >= 9_000_000 else "a version before 9.0"


def described(reader):
    return ", ".join(shown(*each) for each in reader.list(reader.param))


def shown(name, kind, value):
    own = {"unix_process_id": os.getpid(), "unix_user_id": os.getuid(), "unix_group_id": os.getgid()}
    if own.get(name) == value:
        value = "[our own]"
    elif name in ("unix_user_name", "unix_group_name", "selinux_context") and value:
        value = "[name]"
    elif name in ("nWorkers", "prioWorkers", "freeWorkers", "nclients", "nclients_unauth"):
        value = "[some]"  # as many as there are now: threads and clients come and go late
    return f"{name} {KINDS[kind]} {value}"


def values(reply):
    reader = Reader(reply.payload)
    return {name: value for name, _, value in reader.list(reader.param)}


def ids(reply):
    reader = Reader(reply.payload)
    return sorted(reader.list(lambda: client_of(reader)[1]))


def client_of(reader):
    """Server, number, time of connecting, transport."""
    return reader.string(), reader.u64(), reader.u64(), reader.u32()


def one_client(reader, own, main):
    server, number, when, transport = client_of(reader)
    recent = "[just now]" if abs(time.time() - when) < 60 else f"at {when}"
    told = f"[own] + {number - own}" if server == "admin" else "[number]"
    return f"{'[main]' if server == main else server} {told} {recent} transport {transport}"


def clients_of(reader, own, main):
    """Without those of the cases before, which may not be gone yet."""
    listed = reader.list(lambda: one_client(reader, own, main))
    right = "as many" if reader.u32() == len(listed) else "another number"
    return "; ".join([*sorted(one for one in listed if "[own] + " in one and "+ -" not in one), f"ret {right}"])


def without_results(reader):
    return f"{reader.u32()} listed, ret {'[some]' * (reader.u32() >= 0)}"


def described_client(server, number):
    return string(server) + u64(number) + u64(0) + u32(0)


def outputs(reader, kept):
    text, count = reader.string(), reader.u32()
    kept.append(text)
    return text, count


def filters(reader, kept):
    text, count = reader.optional(reader.string), reader.u32()
    kept.append(text)
    return text, count
