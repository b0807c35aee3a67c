#!/usr/bin/python3
"""What libvirt's Python binding sees of a secret daemon, as a transcript that is the same on every run.

    libvirt_python.py URI [--read-only URI] [--token FILE]

The daemon must hold no secrets; it holds none afterwards. Lists are sorted; UUIDs that the daemon made up are
shown as <uuid>, what libxml2 says of a document is left out, and so is the version. Two daemons' transcripts
can so be compared line by line. `--read-only` is for a daemon with a socket of its own for that; `--token` names
the daemon's system.token and adds the look at a private value. Ends with 0 once it ran through, whatever the
answers were.

Needs Debian's python3-libvirt.
"""

import argparse
import re
import sys
import threading

import libvirt

TYPES = ["none", "volume", "ceph", "iscsi", "tls", "vtpm"]
CHILD = {"volume": "volume", "ceph": "name", "iscsi": "target", "tls": "name", "vtpm": "name"}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# Every event must be there by then; only a daemon that loses one makes the script wait so long.
PATIENCE = 20


def main():
    options = argparse.ArgumentParser()
    options.add_argument("uri")
    options.add_argument("--read-only", default=None, metavar="URI")
    options.add_argument("--token", default=None, metavar="FILE")
    options = options.parse_args()

    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=run_events, daemon=True).start()

    connection = libvirt.open(options.uri)
    if connection.numOfSecrets():
        sys.exit("The daemon has secrets already: start it on an empty directory")
    about_the_connection(connection)
    definitions(connection)
    conflicts(connection)
    documents(connection)
    values(connection)
    look_ups(connection)
    lists(connection)
    handles(connection)
    read_only(connection, libvirt.openReadOnly(options.read_only or options.uri))
    events(connection, libvirt.open(options.uri))
    at_once(options.uri)
    identity(options.uri, options.token)
    other_drivers(connection)
    section("the end")
    forget_all(connection)
    say("secrets", connection.numOfSecrets)
    say("close", connection.close)


def run_events():
    while True:
        libvirt.virEventRunDefaultImpl()


# --- what the transcript is made of ---


def section(title):
    print(f"\n== {title}", flush=True)


def say(label, call, show=None):
    """One line: what was asked, and the answer or the error with all its fields. Returns the answer."""
    try:
        answer = call()
    except libvirt.libvirtError as error:
        print(f"{label}: {in_full(error)}", flush=True)
        return None
    print(f"{label}: {masked(str((show or plain)(answer)))}", flush=True)
    return answer


def in_full(error):
    fields = [
        f"code={error.get_error_code()}",
        f"domain={error.get_error_domain()}",
        f"level={error.get_error_level()}",
        f"message={text(error.get_error_message())}",
        *(f"str{n}={text(getattr(error, f'get_str{n}')())}" for n in (1, 2, 3)),
        f"int1={error.get_int1()}",
        f"int2={error.get_int2()}",
    ]
    return "error " + " ".join(fields)


def text(message):
    if message is None:
        return "none"
    line = re.match(r"(?:\(definition_of_secret\):|at line )(\d+): ", message)
    if line:
        return f'"<libxml2 of line {line[1]}>"'
    message = re.sub(r"Unable to validate doc against .*", "<libxml2>", message, flags=re.DOTALL)
    return f'"{masked(message)}"'


FIXED = set()


def uuid(number):
    """The UUIDs of this script: all start alike, so that the others are known for made up."""
    fixed = f"5a5a5a5a-0000-4000-8000-{number:012x}"
    FIXED.add(fixed)
    return fixed


def masked(line):
    return UUID.sub(lambda found: found[0] if found[0] in FIXED else "<uuid>", line)


def plain(answer):
    if isinstance(answer, bytes):
        return f"{len(answer)} bytes {answer[:16].hex()}"
    if isinstance(answer, libvirt.virSecret):
        return secret(answer)
    if isinstance(answer, list):
        return " ".join(sorted(plain(entry) for entry in answer)) or "nothing"
    return repr(answer)


def secret(handle):
    return f"{handle.UUIDString()}/{TYPES[handle.usageType()]}/{handle.usageID()}"


def xml(number=None, usage=None, name=None, private="no", ephemeral="no", description=None):
    lines = [f"<secret ephemeral='{ephemeral}' private='{private}'>"]
    if number is not None:
        lines.append(f"<uuid>{uuid(number)}</uuid>")
    if description is not None:
        lines.append(f"<description>{description}</description>")
    if usage is not None:
        child = CHILD.get(usage, "name")
        lines.append(f"<usage type='{usage}'><{child}>{name}</{child}></usage>")
    return "".join(lines) + "</secret>"


def forget_all(connection):
    for handle in connection.listAllSecrets():
        handle.undefine()


# --- what is asked ---


def about_the_connection(connection):
    section("the connection")
    say("type", connection.getType)
    say("uri", lambda: re.sub(r"\?.*", "", connection.getURI()))
    say("version", connection.getVersion)
    say("library version", connection.getLibVersion, lambda version: version >= 9_000_000)
    say("hostname", connection.getHostname)
    say("alive", connection.isAlive)
    say("secure", connection.isSecure)
    say("encrypted", connection.isEncrypted)
    say("keepalive", lambda: connection.setKeepAlive(5, 3))
    say("close callback", lambda: connection.registerCloseCallback(lambda *_: None, None))
    say("close callback again", lambda: connection.registerCloseCallback(lambda *_: None, None))
    say("no close callback", connection.unregisterCloseCallback)


def definitions(connection):
    section("definitions")
    define = connection.secretDefineXML
    say("no uuid", lambda: define("<secret/>"))
    say("empty uuid", lambda: define("<secret><uuid/></secret>"))
    for number, usage in enumerate(TYPES):
        say(f"type {usage}", lambda: define(xml(number, usage, f"name of {usage}")))
    say("type none, shown", lambda: connection.secretLookupByUUIDString(uuid(0)).XMLDesc())
    say("private", lambda: define(xml(6, private="yes")))
    say("ephemeral", lambda: define(xml(7, ephemeral="yes")))
    marks = "&amp; &lt;all&gt; of &quot;&apos; ä"
    say("both", lambda: define(xml(8, "ceph", "both", "yes", "yes", marks)))
    say("both, shown", lambda: connection.secretLookupByUUIDString(uuid(8)).XMLDesc())
    bare = uuid(9).replace("-", "").upper()
    say("upper case, no dashes", lambda: define(f"<secret><uuid>{bare}</uuid></secret>"))
    say("a long name", lambda: len(define(xml(10, "ceph", "n" * 5000)).usageID()))
    say("flag 2", lambda: define(xml(11), 2))
    say("flag 3", lambda: define(xml(11), 3))
    say("validated", lambda: define(xml(11, "tls", "valid"), libvirt.VIR_SECRET_DEFINE_VALIDATE))
    say("validated, relative path", lambda: define(xml(12, "volume", "a/b"), 1))
    say("validated, unknown element", lambda: define("<secret><foo/></secret>", 1))
    say("validated, type none", lambda: define(xml(12, "none", ""), 1))
    say("not validated, unknown element", lambda: define(f"<secret><uuid>{uuid(12)}</uuid><foo/></secret>"))
    say("shown with flag 1", lambda: connection.secretLookupByUUIDString(uuid(12)).XMLDesc(1))
    say("how many", connection.numOfSecrets)
    forget_all(connection)


def conflicts(connection):
    section("definitions once more, and conflicts")
    define = connection.secretDefineXML

    def known(number):
        return connection.secretLookupByUUIDString(uuid(number)).XMLDesc()

    say("first", lambda: define(xml(20, "ceph", "one", description="first")))
    say("a value", lambda: connection.secretLookupByUUIDString(uuid(20)).setValue(b"kept"))
    say("the same", lambda: define(xml(20, "ceph", "one", description="first")))
    say("another description", lambda: define(xml(20, "ceph", "one", description="second")))
    say("shown", lambda: known(20))
    say("another type", lambda: define(xml(20, "tls", "one")))
    say("shown", lambda: known(20))
    say("another name", lambda: define(xml(20, "tls", "two")))
    say("no usage", lambda: define(xml(20)))
    say("ephemeral", lambda: define(xml(20, "tls", "one", ephemeral="yes")))
    say("shown", lambda: known(20))
    say("persistent again", lambda: define(xml(20, "tls", "one")))
    say("the value", lambda: connection.secretLookupByUUIDString(uuid(20)).value())
    say("private", lambda: define(xml(20, "tls", "one", private="yes")))
    say("no longer private", lambda: define(xml(20, "tls", "one", private="no")))
    say("shown", lambda: known(20))
    say("usage is taken", lambda: define(xml(21, "tls", "one")))
    say("usage is taken, made-up uuid", lambda: define(xml(None, "tls", "one")))
    say("same name, other type", lambda: define(xml(21, "vtpm", "one")))
    say("no usage at first", lambda: define(xml(22)))
    say("then a usage", lambda: define(xml(22, "ceph", "late")))
    say("none twice", lambda: [define(xml(23, "none", "")), define(xml(24, "none", ""))])
    forget_all(connection)


def documents(connection):
    section("documents that are refused")
    cases = {
        "empty": "",
        "blank": "  \n",
        "no XML": "secret",
        "not closed": "<secret>\n<uuid>",
        "declaration after a blank": " <?xml version='1.0'?><secret/>",
        "undefined entity": "<secret><description>&nope;</description></secret>",
        "another root": "<domain/>",
        "ephemeral": "<secret ephemeral='maybe'/>",
        "private": "<secret private='YES'/>",
        "ephemeral and private": "<secret private='x' ephemeral='x'/>",
        "uuid": "<secret><uuid>1234</uuid></secret>",
        "uuid in braces": f"<secret><uuid>{{{uuid(30)}}}</uuid></secret>",
        "uuid and usage": "<secret><uuid>1234</uuid><usage type='x'/></secret>",
        "usage without type": "<secret><usage><name>x</name></usage></secret>",
        "usage with empty type": "<secret><usage type=''><name>x</name></usage></secret>",
        "usage of unknown type": "<secret><usage type='nfs'><name>x</name></usage></secret>",
        "volume without path": "<secret><usage type='volume'/></secret>",
        "ceph without name": "<secret><usage type='ceph'/></secret>",
        "iscsi without target": "<secret><usage type='iscsi'><target/></usage></secret>",
        "tls without name": "<secret><usage type='tls'><target>x</target></usage></secret>",
        "vtpm without name": "<secret><usage type='vtpm'/></secret>",
    }
    for name, document in cases.items():
        say(name, lambda: connection.secretDefineXML(document))
    for name in ("not closed", "another root", "ephemeral"):
        say(f"{name}, validated", lambda: connection.secretDefineXML(cases[name], 1))
    say("how many", connection.numOfSecrets)


def values(connection):
    section("values")
    handle = connection.secretDefineXML(xml(40, "volume", "/images/a"))
    say("none yet", handle.value)
    say("set", lambda: handle.setValue(b"open sesame"))
    say("it", handle.value)
    say("set once more", lambda: handle.setValue(b"another"))
    say("it", handle.value)
    say("empty", lambda: handle.setValue(b""))
    say("still", handle.value)
    say("with NULs", lambda: handle.setValue(b"\0\xff\0nul\n\0"))
    say("it", handle.value)
    longest = bytes(n * 7 & 0xFF for n in range(65_536))
    say("65,536 bytes", lambda: handle.setValue(longest))
    say("they", handle.value, lambda value: f"the same: {value == longest}")
    say("65,537 bytes", lambda: handle.setValue(longest + b"."))
    say("still", handle.value, lambda value: f"the same: {value == longest}")
    say("set with flag 1", lambda: handle.setValue(b"x", 1))
    say("get with flag 1", lambda: handle.value(1))
    private = connection.secretDefineXML(xml(41, private="yes"))
    say("private, none yet", private.value)
    say("private, set", lambda: private.setValue(b"hidden"))
    say("private", private.value)
    ephemeral = connection.secretDefineXML(xml(42, ephemeral="yes"))
    say("ephemeral, set", lambda: ephemeral.setValue(b"fleeting"))
    say("ephemeral", ephemeral.value)
    say("ephemeral, undefined", ephemeral.undefine)
    say("ephemeral, defined again", lambda: connection.secretDefineXML(xml(42, ephemeral="yes")).value())
    forget_all(connection)


def look_ups(connection):
    section("look-ups")
    for number, usage in enumerate(TYPES[1:], 50):
        connection.secretDefineXML(xml(number, usage, "same"))
    raw = bytes.fromhex(uuid(50).replace("-", ""))
    say("by bytes", lambda: connection.secretLookupByUUID(raw))
    say("by unknown bytes", lambda: connection.secretLookupByUUID(bytes(16)))
    say("by text", lambda: connection.secretLookupByUUIDString(uuid(51)))
    bare = uuid(51).replace("-", "").upper()
    say("by text without dashes", lambda: connection.secretLookupByUUIDString(bare))
    say("by unknown text", lambda: connection.secretLookupByUUIDString(uuid(59)))
    say("by no uuid", lambda: connection.secretLookupByUUIDString("nonsense"))
    for number, usage in enumerate(TYPES):
        say(f"by usage {usage}", lambda: connection.secretLookupByUsage(number, "same"))
        say(f"by usage {usage}, unknown", lambda: connection.secretLookupByUsage(number, "other"))
    say("by usage of type 6", lambda: connection.secretLookupByUsage(6, "same"))
    say("by usage of type -1", lambda: connection.secretLookupByUsage(-1, "same"))
    say("by empty usage", lambda: connection.secretLookupByUsage(1, ""))
    forget_all(connection)


def lists(connection):
    section("lists")
    say("how many", connection.numOfSecrets)
    say("uuids", connection.listSecrets)
    say("all", connection.listAllSecrets)
    for number in range(8):
        connection.secretDefineXML(xml(60 + number, private=yes(number & 1), ephemeral=yes(number & 2)))
    say("how many", connection.numOfSecrets)
    say("uuids", connection.listSecrets)
    for flags in range(16):
        say(f"all with flags {flags}", lambda: connection.listAllSecrets(flags), numbers)
    for flags in (16, 17, 0x8000_0000):
        say(f"all with flags {flags:#x}", lambda: connection.listAllSecrets(flags), numbers)
    forget_all(connection)


def yes(number):
    return "yes" if number else "no"


def numbers(handles):
    return " ".join(sorted(handle.UUIDString()[-2:] for handle in handles)) or "nothing"


def handles(connection):
    section("a handle whose secret is gone")
    handle = connection.secretDefineXML(xml(70, "ceph", "gone"))
    handle.setValue(b"gone too")
    say("undefine", handle.undefine)
    say("its usage", lambda: f"{handle.usageType()} {handle.usageID()}")
    say("its document", handle.XMLDesc)
    say("its value", handle.value)
    say("a new value", lambda: handle.setValue(b"x"))
    say("an empty value", lambda: handle.setValue(b""))
    say("a value with flag 1", lambda: handle.value(1))
    say("undefine", handle.undefine)
    say("by usage", lambda: connection.secretLookupByUsage(2, "gone"))
    say("defined again", lambda: connection.secretDefineXML(xml(70, "ceph", "gone again")))
    say("has no value", handle.value)
    say("the old handle undefines", handle.undefine)


def read_only(connection, reader):
    section("a read-only connection")
    connection.secretDefineXML(xml(75, "ceph", "seen")).setValue(b"unseen")
    say("type", reader.getType)
    say("uri", lambda: re.sub(r"\?.*", "", reader.getURI()))
    say("how many", reader.numOfSecrets)
    say("uuids", reader.listSecrets)
    say("all", reader.listAllSecrets)
    handle = say("by uuid", lambda: reader.secretLookupByUUIDString(uuid(75)))
    say("by usage", lambda: reader.secretLookupByUsage(2, "seen"))
    say("its document", handle.XMLDesc)
    say("its value", handle.value)
    say("a new value", lambda: handle.setValue(b"x"))
    say("an empty value", lambda: handle.setValue(b""))
    say("define", lambda: reader.secretDefineXML(xml(76)))
    say("define nonsense", lambda: reader.secretDefineXML("nonsense", 2))
    say("undefine", handle.undefine)
    watch = Watch(reader)
    say("events of its values", lambda: watch.on("values", 1))
    say("identity", lambda: reader.setIdentity({"user-name": "fred"}))
    say("close", reader.close)
    say("the value is untouched", lambda: connection.secretLookupByUUIDString(uuid(75)).value())
    forget_all(connection)


class Watch:
    """Notes the events of one connection by the name of the registration they came to.

    One for all lifecycles is always there: when it hears of the sign, all events before have come.
    """

    def __init__(self, connection):
        self.connection = connection
        self.heard = {}
        self.change = threading.Condition()
        self.signs = 0
        self.ids = {}
        self.on("lifecycles", 0)

    def on(self, name, kind, number=None):
        """Registers for lifecycle (0) or value (1) events, of one secret or of all."""
        only = None if number is None else self.connection.secretLookupByUUIDString(uuid(number))

        def lifecycle(_, handle, event, detail, opaque):
            self.note(opaque, f"{('defined', 'undefined')[event]}({detail}) {secret(handle)}")

        def value(_, handle, opaque):
            self.note(opaque, f"value {secret(handle)}")

        callback = value if kind else lifecycle
        self.ids[name] = self.connection.secretEventRegisterAny(only, kind, callback, name)
        return "registered"

    def off(self, name):
        self.connection.secretEventDeregisterAny(self.ids[name])

    def note(self, name, what):
        with self.change:
            if SIGN not in what:
                self.heard.setdefault(name, []).append(what)
            elif what.startswith("undefined"):
                self.signs += 1
                self.change.notify_all()

    def until_sign(self, count):
        with self.change:
            if not self.change.wait_for(lambda: self.signs >= count, PATIENCE):
                print("  some events never came")
            heard, self.heard = self.heard, {}
        return heard


SIGN = uuid(0xFFFF)


def events(connection, second):
    section("events")
    say("nobody listens: define", lambda: connection.secretDefineXML(xml(80, "ceph", "heard")))
    watches = {"first": Watch(connection), "second": Watch(second)}
    signs = 0

    def after(label, call):
        """Does it, and shows what each registration heard of it, in the order in which it came there."""
        nonlocal signs
        say(label, call)
        connection.secretDefineXML(f"<secret ephemeral='yes'><uuid>{SIGN}</uuid></secret>").undefine()
        signs += 1
        for who, watch in watches.items():
            for name, what in sorted(watch.until_sign(signs).items()):
                print(f"  {who} {name}: {'; '.join(masked(line) for line in what)}", flush=True)

    first, other = watches["first"], watches["second"]
    say("all values", lambda: first.on("values", 1))
    say("lifecycles of 80", lambda: first.on("lifecycle of 80", 0, 80))
    say("values of 80", lambda: first.on("value of 80", 1, 80))
    say("on the second, values of 80", lambda: other.on("value of 80", 1, 80))
    say("all lifecycles once more", lambda: first.on("lifecycles again", 0))
    say("deregister 4711", lambda: connection.secretEventDeregisterAny(4711))
    after("define", lambda: connection.secretDefineXML(xml(81, "tls", "heard")))
    after("define again", lambda: connection.secretDefineXML(xml(80, "ceph", "heard", description="x")))
    after("set", lambda: connection.secretLookupByUUIDString(uuid(80)).setValue(b"x"))
    after("set the same", lambda: connection.secretLookupByUUIDString(uuid(80)).setValue(b"x"))
    after("set on the second", lambda: second.secretLookupByUUIDString(uuid(81)).setValue(b"x"))
    after("get", lambda: connection.secretLookupByUUIDString(uuid(81)).value())
    after("refused", lambda: connection.secretDefineXML(xml(82, "tls", "heard")))
    say("deregister all values", lambda: first.off("values"))
    say("deregister lifecycles of 80", lambda: first.off("lifecycle of 80"))
    say("deregister them again", lambda: first.off("lifecycle of 80"))
    after("undefine", lambda: connection.secretLookupByUUIDString(uuid(80)).undefine())
    after("set 81", lambda: connection.secretLookupByUUIDString(uuid(81)).setValue(b"y"))
    after("undefine on the second", lambda: second.secretLookupByUUIDString(uuid(81)).undefine())
    say("close the second", second.close)
    del watches["second"]
    after("define and undefine", lambda: connection.secretDefineXML(xml(83)).undefine())


def at_once(uri):
    section("at once")
    connections = [libvirt.open(uri) for _ in range(5)]
    handles = [connections[n % 5].secretDefineXML(xml(90 + n)) for n in range(10)]
    wrong = []

    def work(number, handle):
        try:
            for turn in range(20):
                value = f"{number} {turn} ".encode() * (turn * 50 + 1)
                handle.setValue(value)
                if handle.value() != value:
                    wrong.append(f"{number} {turn}: another value")
        except libvirt.libvirtError as error:
            wrong.append(in_full(error))

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(handles)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("ten threads on five connections, all values right", lambda: wrong or True)
    say("seen by another", lambda: connections[1].secretLookupByUUIDString(uuid(90)).value(), len)
    say("undefined by another", lambda: connections[1].secretLookupByUUIDString(uuid(90)).undefine())
    say("gone for the first", lambda: handles[0].value())
    forget_all(connections[0])
    say("closed", lambda: [connection.close() for connection in connections])


def identity(uri, token):
    section("identity")
    connection = libvirt.open(uri)
    private = connection.secretDefineXML(xml(100, private="yes"))
    private.setValue(b"for hypervisors only")
    say("a name", lambda: connection.setIdentity({"user-name": "fred", "unix-user-id": 4711}))
    say("private", private.value)
    say("unknown field", lambda: connection.setIdentity({"shoe-size": "46"}))
    say("wrong token", lambda: connection.setIdentity({"system.token": "0" * 32}))
    say("private", private.value)
    if token:
        with open(token, encoding="ascii") as file:
            right = file.read()
        say("the token", lambda: connection.setIdentity({"system.token": right}))
        say("private", private.value)
        say("no identity", lambda: connection.setIdentity({}))
        say("private", private.value)
    say("undefine", private.undefine)
    say("close", connection.close)


def other_drivers(connection):
    section("other drivers")
    calls = {
        "capabilities": connection.getCapabilities,
        "node": connection.getInfo,
        "maximal vcpus": lambda: connection.getMaxVcpus(None),
        "system information": connection.getSysinfo,
        "cpu models": lambda: connection.getCPUModelNames("x86_64"),
        "security model": connection.getSecurityModel,
        "number of domains": connection.numOfDomains,
        "domains": connection.listAllDomains,
        "domain by name": lambda: connection.lookupByName("x"),
        "domain capabilities": connection.getDomainCapabilities,
        "define a domain": lambda: connection.defineXML("<domain/>"),
        "domain events": lambda: connection.domainEventRegisterAny(None, 0, lambda *_: None, None),
        "number of networks": connection.numOfNetworks,
        "networks": connection.listAllNetworks,
        "number of pools": connection.numOfStoragePools,
        "pools": connection.listAllStoragePools,
        "interfaces": connection.listAllInterfaces,
        "devices": connection.listAllDevices,
        "filters": connection.listAllNWFilters,
        "filter bindings": connection.listAllNWFilterBindings,
    }
    for name, call in calls.items():
        say(name, call)


if __name__ == "__main__":
    main()
