#!/usr/bin/python3
"""A secret's whole life on a daemon somewhere, through libvirt's Python binding.

    remote.py URI UUID VALUE_FILE        define, set, get, list, events, a private one, undefine; says what it saw
    remote.py URI                        only connects and lists

SASL credentials come from the environment: AUTHNAME and PASSPHRASE. Without them nobody answers for us. What can't be
done is said on standard error as virsh says it, with exit status 1.

Needs Debian's python3-libvirt.
"""

import os
import sys
import threading

import libvirt

# Every event must be there by then; only a daemon that loses one makes the script wait so long.
PATIENCE = 20


def main():
    uri, *rest = sys.argv[1:]
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=run_events, daemon=True).start()
    try:
        connection = connect(uri)
        if rest:
            live(connection, *rest)
        else:
            connection.listAllSecrets()
        connection.close()
    except libvirt.libvirtError as error:
        sys.exit(f"error: {error.get_error_message()}")


def connect(uri):
    if "AUTHNAME" not in os.environ:
        return libvirt.open(uri)
    kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
    return libvirt.openAuth(uri, [kinds, answer, None], 0)


def answer(asked, _):
    for credential in asked:
        name = "AUTHNAME" if credential[0] == libvirt.VIR_CRED_AUTHNAME else "PASSPHRASE"
        credential[4] = os.environ[name]
    return 0


def live(connection, uuid, value_file):
    with open(value_file, "rb") as file:
        value = file.read()
    heard = threading.Semaphore(0)
    told = []

    def hear(_connection, secret, event, _detail, _opaque):
        if secret.UUIDString() == uuid:
            told.append(event)
            heard.release()

    lifecycle = libvirt.VIR_SECRET_EVENT_ID_LIFECYCLE
    callback = connection.secretEventRegisterAny(None, lifecycle, hear, None)
    secret = connection.secretDefineXML(f"<secret><uuid>{uuid}</uuid></secret>")
    print("defined")
    secret.setValue(value)
    print("set")
    print("got", "the same" if secret.value() == value else "something else")
    listed = [one.UUIDString() for one in connection.listAllSecrets()]
    print("listed", "all" if len(listed) >= 1000 and uuid in listed else len(listed))
    told_in_time = heard.acquire(timeout=PATIENCE)
    print("told", "of it" if told_in_time and told == [libvirt.VIR_SECRET_EVENT_DEFINED] else told)
    connection.secretEventDeregisterAny(callback)
    secret.undefine()
    secret = connection.secretDefineXML(f"<secret private='yes'><uuid>{uuid}</uuid></secret>")
    secret.setValue(value)
    try:
        print("private", len(secret.value()))
    except libvirt.libvirtError as error:
        print("private", error.get_error_message())
    secret.undefine()
    print("undefined")


def run_events():
    while True:
        libvirt.virEventRunDefaultImpl()


main()
