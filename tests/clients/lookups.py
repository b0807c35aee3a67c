#!/usr/bin/python3
"""What libvirt's drivers would get for the secrets that descriptions name.

    lookups.py URI TOKEN

Each line of standard input is a question: the usage type that is wanted, `uuid` or `usage`, and the UUID or the
usage's id. Each line of standard output is the answer: ready, no-value, other-usage, missing, or the error. The
secrets are asked for by libvirt's Python binding, in the order of libvirt's drivers, with the token as their
identity; so private ones are given.

Needs Debian's python3-libvirt.
"""

import sys

import libvirt

TYPES = ["none", "volume", "ceph", "iscsi", "tls", "vtpm"]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open(sys.argv[1])
    with open(sys.argv[2], encoding="ascii") as token:
        connection.setIdentity({"system.token": token.read()})
    for line in sys.stdin:
        wants, how, name = line.rstrip("\n").split(" ", 2)
        print(answer(connection, TYPES.index(wants), how, name), flush=True)


def answer(connection, wants, how, name):
    try:
        if how == "uuid":
            secret = connection.secretLookupByUUIDString(name)
        else:
            secret = connection.secretLookupByUsage(wants, name)
    except libvirt.libvirtError as error:
        return "missing" if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET else str(error)
    if secret.usageType() not in (TYPES.index("none"), wants):
        return "other-usage"
    try:
        return "ready" if secret.value() else "empty"
    except libvirt.libvirtError as error:
        return "no-value" if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET else str(error)


if __name__ == "__main__":
    main()
