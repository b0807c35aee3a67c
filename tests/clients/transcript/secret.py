"""The secret driver's procedures: what they check, in which order, and what they answer.

Leans on talk.py and wire.py. Makes secrets of its own, with fixed UUIDs, and takes them away again. Refuses a keystore
that holds others: lists and counts would not be the same in every run.
"""

from .talk import as_text
from .wire import NOTHING, i32, opaque, param, params, some, string, u32, uuid

NAMED = "11111111-1111-4111-8111-111111111111"  # ceph, with a value
PRIVATE = "22222222-2222-4222-8222-222222222222"  # volume, private
FLEETING = "33333333-3333-4333-8333-333333333333"  # iscsi, ephemeral
BARE = "44444444-4444-4444-8444-444444444444"  # without usage
OTHER = "55555555-5555-4555-8555-555555555555"  # what single cases define
ABSENT = "99999999-9999-4999-8999-999999999999"
ALL = [NAMED, PRIVATE, FLEETING, BARE, OTHER]


def run(talk, read_only, token):
    with talk.connect(0) as client:
        for document in DOCUMENTS:
            define(client, document)
    definitions(talk)
    values(talk)
    lookups(talk)
    lists(talk)
    order_of_checks(talk, 0, None, "")
    order_of_checks(talk, 1, None, "read-only by flag: ")
    if read_only:
        order_of_checks(talk, 0, read_only, "the read-only socket: ")
    events(talk)
    elevation(talk, token)
    undefining(talk)


def insist_on_an_empty_keystore(talk):
    with talk.connect(0) as client:
        for made in ALL:
            client.call(146, handle(made))
        count = client.call(139).payload
    if count != i32(0):
        raise SystemExit(f"{talk.path}: this keystore has secrets in it, and we want an empty one")


def document(made, usage="", attributes="", more=""):
    identity = f"<uuid>{made}</uuid>" if made else ""
    return f"<secret{attributes}>{identity}{usage}{more}</secret>"


def usage(kind, name, value):
    return f"<usage type='{kind}'><{name}>{value}</{name}></usage>"


CEPH = usage("ceph", "name", "n1")
DOCUMENTS = [
    document(NAMED, CEPH),
    document(PRIVATE, usage("volume", "volume", "/v"), " private='yes'"),
    document(FLEETING, usage("iscsi", "target", "iqn.t"), " ephemeral='yes'"),
    document(BARE),
]


def define(client, text):
    """Without a word, for what a case needs."""
    reply = client.call(142, string(text) + u32(0))
    if reply.status:
        raise SystemExit(reply.error())


def handle(made, kind=0, name=""):
    """A secret as a client names it. Only its UUID counts."""
    return uuid(made) + i32(kind) + string(name)


def secret(reader):
    found, kind, name = reader.uuid(), reader.i32(), reader.string()
    mine = found in [made.replace("-", "") for made in ALL]
    return f"{found if mine else '[uuid]'} type {kind} {name!r}"


def number_of(reader):
    return f"{reader.i32()} in number"


def uuids(reader):
    return " ".join(sorted(reader.list(reader.string))) or "none"


def secrets(reader):
    listed = sorted(reader.list(lambda: secret(reader)))
    return "; ".join([*listed, f"ret {reader.i32()}"])


def definitions(talk):
    with talk.case("DEFINE_XML, flags") as client:
        for flags in [0, 1, 2, 3, 4, 0x80000000, 0xFFFFFFFF]:
            client.ask(f"flags {flags:#x}", 142, string(document(NAMED, CEPH)) + u32(flags), secret)
    with talk.case("DEFINE_XML, documents that are refused") as client:
        for what, text in REFUSED:
            client.ask(what, 142, string(text) + u32(0), secret)
    with talk.case("DEFINE_XML, against the schema") as client:
        wrong = document(OTHER, more="<nonsense/>")
        client.ask("an unknown element", 142, string(wrong) + u32(0), secret)
        client.call(146, handle(OTHER))
        print("-> the same, validated")
        code, domain, text = client.call(142, string(wrong) + u32(1)).code()
        print(f"<- {code}/{domain} {text[:60]!r}...")  # what follows is libxml2's, and names a file of the host's
    with talk.case("DEFINE_XML, conflicts and redefinition") as client:
        for what, text in CONFLICTS:
            client.ask(what, 142, string(text) + u32(0), secret)
        client.call(146, handle(OTHER))
    with talk.case("DEFINE_XML, what is taken") as client:
        for kind, name in [("vtpm", "name"), ("tls", "name"), ("volume", "volume")]:
            text = document(OTHER, usage(kind, name, "t"))
            client.ask(f"usage {kind}", 142, string(text) + u32(0), secret)
            client.ask("its XML", 143, handle(OTHER) + u32(0), as_text)
            client.call(146, handle(OTHER))
        text = document(OTHER, more="<!--" + "x" * 4_194_000 + "-->").ljust(4_194_304)
        client.ask("a document of 4 MiB", 142, string(text) + u32(0), secret)
        client.ask("a document of 4 MiB and one", 142, string(text + " ") + u32(0), secret)
        client.ask("a document with a NUL behind it", 142, string(document(OTHER) + "\0<") + u32(0), secret)
        client.ask("an upper-case UUID", 142, string(document(OTHER.upper())) + u32(0), secret)
        client.call(146, handle(OTHER))
        made_up = client.ask("no UUID", 142, string(document("")) + u32(0), secret)
        client.call(146, made_up.payload)
        zero = client.ask("the UUID of zeros", 142, string(document("0" * 32)) + u32(0))
        client.call(146, zero.payload)
    with talk.case("GET_XML_DESC") as client:
        for made in [NAMED, PRIVATE, FLEETING, BARE, ABSENT]:
            client.ask(made, 143, handle(made) + u32(0), as_text)
        for flags in [1, 2, 0x80000000, 0xFFFFFFFF]:
            client.ask(f"flags {flags:#x}", 143, handle(NAMED) + u32(flags))


def values(talk):
    with talk.case("values") as client:
        client.ask("GET_VALUE where there is none", 145, handle(NAMED) + u32(0))
        client.ask("SET_VALUE", 144, handle(NAMED) + opaque("s3cret") + u32(0))
        client.ask("GET_VALUE", 145, handle(NAMED) + u32(0))
        client.ask("SET_VALUE of nothing", 144, handle(NAMED) + opaque("") + u32(0))
        client.ask("GET_VALUE, still", 145, handle(NAMED) + u32(0))
        for size in [1, 3, 4, 65_535, 65_536]:
            value = (b"\0\xff" * 32_768)[:size]
            client.ask(f"SET_VALUE of {size} bytes", 144, handle(NAMED) + opaque(value) + u32(0))
            client.ask("GET_VALUE", 145, handle(NAMED) + u32(0))
        client.ask("SET_VALUE of 65537 bytes", 144, handle(NAMED) + opaque(bytes(65_537)) + u32(0))
        client.ask("SET_VALUE, padded with 0xff", 144, handle(NAMED) + opaque("s3cret", b"\xff") + u32(0))
        client.ask("GET_VALUE", 145, handle(NAMED) + u32(0))
        client.ask("GET_VALUE, named with another usage", 145, handle(NAMED, 77, "wrong") + u32(0))
        client.ask("GET_VALUE with bytes behind", 145, handle(NAMED) + u32(0) + b"behind!!")
        for flags in [1, 2, 0x80000000, 0xFFFFFFFF]:
            client.ask(f"GET_VALUE with flags {flags:#x}", 145, handle(NAMED) + u32(flags))
            client.ask(f"SET_VALUE with flags {flags:#x}", 144, handle(NAMED) + opaque("x") + u32(flags))
        client.ask("SET_VALUE, ephemeral", 144, handle(FLEETING) + opaque("brief") + u32(0))
        client.ask("GET_VALUE, ephemeral", 145, handle(FLEETING) + u32(0))
        client.ask("GET_VALUE, private without a value", 145, handle(PRIVATE) + u32(0))
        client.ask("SET_VALUE, private", 144, handle(PRIVATE) + opaque("hidden") + u32(0))
        client.ask("GET_VALUE, private", 145, handle(PRIVATE) + u32(0))


def lookups(talk):
    with talk.case("look-ups") as client:
        for made in [NAMED, PRIVATE, FLEETING, BARE, ABSENT, "0" * 32]:
            client.ask(f"LOOKUP_BY_UUID {made}", 141, uuid(made), secret)
        for kind in [0, 1, 2, 3, 4, 5, 6, -1]:
            for name in ["n1", "/v", ""]:
                client.ask(f"LOOKUP_BY_USAGE {kind} {name!r}", 147, i32(kind) + string(name), secret)
        for made in [ABSENT, "0" * 32]:
            client.ask("UNDEFINE of an unknown secret", 146, handle(made))
            client.ask("GET_VALUE", 145, handle(made) + u32(0))
            client.ask("SET_VALUE", 144, handle(made) + opaque("x") + u32(0))


def lists(talk):
    with talk.case("lists") as client:
        client.ask("NUM_OF_SECRETS", 139, b"", number_of)
        for most in [0, 4, 5, 16_384, 16_385, 2147483647, -1, -2147483648]:
            client.ask(f"LIST_SECRETS {most}", 140, i32(most), uuids)
        reply = client.call(140, i32(2))
        print(f"-> LIST_SECRETS 2\n<- {reply.payload[3]} of them")
        for flags in range(17):
            client.ask(f"LIST_ALL_SECRETS flags {flags:#x}", 287, i32(1) + u32(flags), secrets)
        for flags in [0x1F, 0x8000000F, 0xFFFFFFFF]:
            client.ask(f"LIST_ALL_SECRETS flags {flags:#x}", 287, i32(1) + u32(flags), secrets)
        for need in [0, 7, -1]:
            client.ask(f"LIST_ALL_SECRETS, need_results {need}", 287, i32(need) + u32(0), secrets)
        client.ask("need_results 0, flags 0x4", 287, i32(0) + u32(4), secrets)
        client.ask("need_results 0, flags 0x10", 287, i32(0) + u32(16), secrets)


def order_of_checks(talk, flags, path, where):
    with talk.case(f"{where}which check comes first", flags, path) as client:
        client.ask("DEFINE_XML: flags, XML", 142, string("<broken") + u32(2))
        client.ask("DEFINE_XML: XML", 142, string("<broken") + u32(0))
        client.ask("SET_VALUE: empty, flags, unknown", 144, handle(ABSENT) + opaque("") + u32(1))
        client.ask("SET_VALUE: flags, unknown", 144, handle(ABSENT) + opaque("x") + u32(1))
        client.ask("SET_VALUE: empty, unknown", 144, handle(ABSENT) + opaque("") + u32(0))
        client.ask("SET_VALUE: unknown", 144, handle(ABSENT) + opaque("x") + u32(0))
        client.ask("SET_VALUE: cut short", 144, handle(ABSENT) + u32(9))
        client.ask("GET_VALUE: flags, unknown", 145, handle(ABSENT) + u32(1))
        client.ask("GET_VALUE: unknown", 145, handle(ABSENT) + u32(0))
        client.ask("GET_VALUE: flags, private", 145, handle(PRIVATE) + u32(1))
        client.ask("GET_VALUE: none", 145, handle(BARE) + u32(0))
        client.ask("UNDEFINE: unknown", 146, handle(ABSENT))
        client.ask("GET_XML_DESC: flags, unknown", 143, handle(ABSENT) + u32(1))
        client.ask("GET_XML_DESC", 143, handle(BARE) + u32(0), as_text)
        client.ask("LOOKUP_BY_UUID", 141, uuid(BARE), secret)
        client.ask("LOOKUP_BY_USAGE", 147, i32(2) + string("n1"), secret)
        client.ask("NUM_OF_SECRETS", 139, b"", number_of)
        client.ask("LIST_ALL_SECRETS", 287, i32(1) + u32(0), secrets)
        client.ask("EVENT_REGISTER_ANY: 9, unknown", 380, i32(9) + some(handle(ABSENT)))
        client.ask("SET_IDENTITY", 419, params() + u32(0))


def events(talk):
    with talk.case("event registrations") as client:
        base = client.call(380, i32(0) + NOTHING).payload

        def number(reader):
            """Callbacks are numbered over the whole daemon: told from the first of this connection."""
            return f"callback [first] + {reader.i32() - int.from_bytes(base, 'big')}"

        client.ask("lifecycle again", 380, i32(0) + NOTHING, number)
        client.ask("lifecycle of one secret", 380, i32(0) + some(handle(NAMED)), number)
        client.ask("lifecycle of it again", 380, i32(0) + some(handle(NAMED)), number)
        client.ask("lifecycle of it, named otherwise", 380, i32(0) + some(handle(NAMED, 3, "x"), 2), number)
        client.ask("lifecycle of one that isn't there", 380, i32(0) + some(handle(ABSENT)), number)
        client.ask("value changed", 380, i32(1) + NOTHING, number)
        client.ask("value changed again", 380, i32(1) + NOTHING, number)
        for kind in [2, 3, -1, 2147483647, -2147483648]:
            client.ask(f"event {kind}", 380, i32(kind) + NOTHING, number)
        for callback in [1_000_000, -1, 2147483647, -2147483648]:
            client.ask(f"EVENT_DEREGISTER_ANY {callback}", 381, i32(callback))
        client.ask("EVENT_DEREGISTER_ANY of the first", 381, base)
        print("-> and once more")
        again = client.call(381, base)
        code, domain, text = again.code()
        print(f"<- {code}/{domain} {text.replace(str(int.from_bytes(base, 'big')), '[first]')!r}")
        client.ask("lifecycle anew", 380, i32(0) + NOTHING, number)
    with talk.case("a callback of another connection") as client, talk.connect(0) as another:
        theirs = another.call(380, i32(0) + NOTHING).payload
        print("-> EVENT_DEREGISTER_ANY")
        code, domain, text = client.call(381, theirs).code()
        print(f"<- {code}/{domain} {text.replace(str(int.from_bytes(theirs, 'big')), '[theirs]')!r}")
    for flags in [0, 1]:
        with talk.case(f"events on a {'read-only ' if flags else ''}connection", flags) as client:
            with talk.connect(0) as maker:
                watch(client, maker)
    with talk.case("events to the one that causes them") as client:
        watch(client, client)


def watch(client, maker):
    callbacks = {}
    for name, kind, which in [
        ("any life", 0, NOTHING),
        ("its life", 0, some(handle(OTHER))),
        ("another's life", 0, some(handle(NAMED))),
        ("any value", 1, NOTHING),
        ("its value", 1, some(handle(OTHER))),
    ]:
        callbacks[client.call(380, i32(kind) + which).payload] = name
    text = document(OTHER, usage("tls", "name", "t"))
    for what, proc, arguments, count in [
        ("defined", 142, string(text) + u32(0), 2),
        ("defined again", 142, string(text) + u32(0), 2),
        ("refused", 142, string(document(OTHER)) + u32(0), 0),
        ("a value set", 144, handle(OTHER) + opaque("v") + u32(0), 2),
        ("the same value set", 144, handle(OTHER) + opaque("v") + u32(0), 2),
        ("a value refused", 144, handle(OTHER) + opaque("") + u32(0), 0),
        ("another's value set", 144, handle(NAMED) + opaque("s3cret") + u32(0), 1),
        ("undefined", 146, handle(OTHER), 2),
    ]:
        print(f"-> {what}")
        maker.call(proc, arguments)
        for line in sorted(f"   {event.head()}: {callbacks.get(event.payload[:4], '?')}, {event.payload[4:].hex()}"
                           for event in client.events(count)):
            print(line)


def elevation(talk, token):
    with talk.case("a private value and the system token") as client:
        client.ask("GET_VALUE", 145, handle(PRIVATE) + u32(0))
        for wrong in ["0" * 32, "", "0" * 31, "0" * 33]:
            client.ask(f"SET_IDENTITY with a token of {len(wrong)}", 419, elevated(wrong))
            client.ask("GET_VALUE", 145, handle(PRIVATE) + u32(0))
    if token:
        with open(token) as file:
            right = file.read()
        for flags in [0, 1]:
            with talk.case(f"the right token on a {'read-only ' if flags else ''}connection", flags) as client:
                client.ask("SET_IDENTITY", 419, elevated(right))
                client.ask("GET_VALUE", 145, handle(PRIVATE) + u32(0))
                client.ask("GET_VALUE where there is none", 145, handle(BARE) + u32(0))
                client.ask("a failing SET_IDENTITY", 419, params(param("nothing", 7, "")) + u32(0))
                client.ask("GET_VALUE", 145, handle(PRIVATE) + u32(0))
                client.ask("SET_IDENTITY, empty", 419, params() + u32(0))
                client.ask("GET_VALUE", 145, handle(PRIVATE) + u32(0))
                client.ask("SET_IDENTITY with more behind it", 419, elevated(right + "0"))
                client.ask("GET_VALUE", 145, handle(PRIVATE) + u32(0))
                client.ask("SET_IDENTITY with a NUL behind it", 419, elevated(right + "\0junk"))
                client.ask("GET_VALUE", 145, handle(PRIVATE) + u32(0))


def elevated(token):
    return params(param("system.token", 7, token)) + u32(0)


def undefining(talk):
    with talk.case("UNDEFINE") as client:
        for made in [NAMED, PRIVATE, FLEETING, BARE]:
            client.ask(made, 146, handle(made))
        client.ask("once more", 146, handle(NAMED))
        client.ask("GET_VALUE of what is gone", 145, handle(NAMED) + u32(0))
        client.ask("LOOKUP_BY_USAGE", 147, i32(2) + string("n1"))
        client.ask("NUM_OF_SECRETS", 139, b"", number_of)
        client.ask("LIST_ALL_SECRETS", 287, i32(1) + u32(0), secrets)


REFUSED = [
    ("nothing", ""),
    ("blanks", "  "),
    ("not XML", "nonsense"),
    ("cut short", "<secret>"),
    ("not well-formed in line 3", "<secret>\n <uuid>\n </secret>\n</secret>"),
    ("bytes that aren't UTF-8", b"<secret><description>\xff</description></secret>"),
    ("another root element", "<domain/>"),
    ("ephemeral maybe", document(OTHER, attributes=" ephemeral='maybe'")),
    ("private empty", document(OTHER, attributes=" private=''")),
    ("both", document(OTHER, attributes=" ephemeral='1' private='1'")),
    ("a bad UUID", document("nonsense")),
    ("a bad UUID and a bad attribute", document("nonsense", attributes=" private='1'")),
    ("a bad UUID and a bad usage", document("nonsense", "<usage type='nonsense'/>")),
    ("usage without a type", document(OTHER, "<usage/>")),
    ("usage of an unknown type", document(OTHER, "<usage type='nonsense'/>")),
    ("usage of an empty type", document(OTHER, "<usage type=''/>")),
    *[(f"{kind} without its name", document(OTHER, f"<usage type='{kind}'/>"))
      for kind in ["volume", "ceph", "iscsi", "tls", "vtpm"]],
    ("ceph with an empty name", document(OTHER, usage("ceph", "name", ""))),
    ("volume with an empty path", document(OTHER, usage("volume", "volume", ""))),
]

CONFLICTS = [
    ("another usage", document(NAMED, usage("ceph", "name", "n2"))),
    ("no usage any more", document(NAMED)),
    ("a usage where there was none", document(BARE, CEPH)),
    ("another type, the same name", document(NAMED, usage("tls", "name", "n1"))),
    ("as it was", document(NAMED, CEPH)),
    ("a usage that is taken", document(OTHER, CEPH)),
    ("private no more", document(PRIVATE, usage("volume", "volume", "/v"))),
    ("private no more, and another usage", document(PRIVATE, usage("volume", "volume", "/w"))),
    ("ephemeral no more", document(FLEETING, usage("iscsi", "target", "iqn.t"))),
    ("ephemeral again", document(FLEETING, usage("iscsi", "target", "iqn.t"), " ephemeral='yes'")),
    ("the same name for another type", document(OTHER, usage("tls", "name", "n1"))),
    ("and that as ceph's", document(OTHER, CEPH)),
]
