#!/usr/bin/python3
"""A transcript of what a libvirt daemon answers to calls that no client library would send.

  raw.py SOCKET [URI]                the main socket; the URI is secret:///system unless another is given
         --read-only SOCKET          and the read-only socket
         --token FILE                and private values, with that system.token
  raw.py --admin SOCKET              the admin socket instead
  raw.py --unauthenticated SOCKET    a socket whose method isn't "none", by a user that it doesn't trust
  raw.py --foreign SOCKET [URI]      the calls of other drivers, by number
  raw.py --keepalive SECONDS SOCKET  when a server that pings every SECONDS pings, and when it gives up

Run it against two daemons and compare: what it prints is the same in every run, on every host. What can't be is put in
brackets, like [version]. Headers, errors with all their fields and the bytes of bodies are printed as they came. Every
case has a connection of its own, at whose end it says `still usable` or `dropped`. The cases are in transcript/; leans on
the standard library alone. Refuses a keystore that has secrets in it, and never waits longer than five seconds.
"""

import argparse
import sys

sys.dont_write_bytecode = True

from transcript import admin, calls, foreign, life, secret  # noqa: E402
from transcript.talk import Talk  # noqa: E402
from transcript.wire import Dropped  # noqa: E402


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("socket")
    arguments.add_argument("uri", nargs="?", default="secret:///system")
    arguments.add_argument("--read-only", metavar="SOCKET")
    arguments.add_argument("--token", metavar="FILE")
    arguments.add_argument("--admin", action="store_true")
    arguments.add_argument("--unauthenticated", action="store_true")
    arguments.add_argument("--foreign", action="store_true")
    arguments.add_argument("--keepalive", metavar="SECONDS", type=float)
    given = arguments.parse_args()
    talk = Talk(given.socket, given.uri)
    if given.admin:
        admin.run(talk)
    elif given.unauthenticated:
        life.before_authentication(talk)
    elif given.foreign:
        foreign.run(talk)
    elif given.keepalive:
        life.pings(talk, given.keepalive)
    else:
        secret.insist_on_an_empty_keystore(talk)
        calls.run(talk)
        life.run(talk)
        secret.run(talk, given.read_only, given.token)


if __name__ == "__main__":
    try:
        main()
    except (OSError, Dropped) as error:
        sys.exit(f"raw.py: nobody answers any more: {error!r}")
