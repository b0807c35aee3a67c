#!/usr/bin/python3
"""What stock virt-admin sees of a daemon, as a transcript that is the same on every run.

    virt_admin.py ADMIN-URI SERVER URI

ADMIN-URI is virt-admin's, such as virtsecretd:///session?socket=PATH; SERVER is what the daemon calls itself;
URI, with ?socket=PATH too, that of its secrets: from there come the connections for virt-admin to look at. Who
runs this must be whom the daemon runs as, and nobody else may be connected. Times, process numbers, client
numbers and counts of workers are masked, SERVER is shown as such. Ends with 0 once it ran through, whatever the
answers were.

Needs Debian's libvirt-clients and python3-libvirt.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse

import libvirt

# The question for ways to authenticate, which any client begins with, and how many bytes its answer has.
AUTH_LIST = bytes.fromhex("0000001c 20008086 00000001 00000042 00000000 00000000 00000000")
ANSWER = 36

PATIENCE = 20


def main():
    if len(sys.argv) != 4:
        sys.exit("Say whom to ask: virt_admin.py ADMIN-URI SERVER URI")
    libvirt.registerErrorHandler(lambda *_: None, None)
    admin = Admin(*sys.argv[1:3])
    uri = sys.argv[3]
    the_daemon(admin)
    workers(admin)
    clients(admin, uri)
    limits(admin, uri)
    logging(admin)


class Admin:
    """Calls virt-admin, and notes the numbers of the clients that it saw."""

    def __init__(self, uri, server):
        self.uri = uri
        self.server = server
        self.known = {}

    def __call__(self, *command):
        """Runs a command and shows it with its answer; SERVER in it stands for the server."""
        of_client = command[0].startswith("client-")
        words = [self.known.get(word, word) if of_client else word for word in command]
        print("$", *words, flush=True)
        done = self.run(*command)
        for line in self.masked(done.stdout + done.stderr).splitlines():
            if line:
                print(f"  {line.rstrip()}", flush=True)
        if done.returncode:
            print(f"  status {done.returncode}", flush=True)

    def run(self, *command):
        words = [self.server if word == "SERVER" else word for word in command]
        environment = {**os.environ, "LANG": "C.UTF-8", "TZ": "UTC"}
        command = ["virt-admin", "-c", self.uri, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def newest_client(self, name):
        """The number of the one that connected last, which is shown by this name from now on."""
        rows = re.findall(r"^ (\d+) +\w", self.run("client-list", "SERVER").stdout, re.MULTILINE)
        number = max(rows, key=int)
        self.known[number] = f"<{name}>"
        return number

    def masked(self, text):
        for number, name in self.known.items():
            # In a list, in a client's own data, in a message.
            text = re.sub(rf"(?m)^( |id +: |.*(?:Client|ID) '){number}\b", rf"\1{name}", text)
        text = text.replace(self.uri, "ADMIN-URI")
        text = re.sub(rf"\b{re.escape(self.server)}\b", "SERVER", text)
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+0000", "<time>", text)
        # Columns and rules are as wide as the numbers were.
        text = re.sub(r"(?m)^-{10,}", "---", text)
        text = re.sub(r"(?m)^( <\w+>| Id) +(\w+) {2,}", r"\1 \2 ", text)
        text = re.sub(rf"(unix_process_id: ){os.getpid()}\b", r"\1<this process>", text)
        text = re.sub(r"(?m)^(nWorkers|freeWorkers)( *): \d+", r"\1\2: <number>", text)
        text = re.sub(r"(library|daemon): (libvirt )?\d+\.\d+\.\d+", r"\1: <version>", text)
        return text


def section(title):
    print(f"\n== {title}", flush=True)


def the_daemon(admin):
    section("the daemon")
    admin("version")
    admin("uri")
    print("$ server-list")
    for name in sorted(line.split()[1] for line in admin.run("server-list").stdout.splitlines()[2:] if line):
        print(f"  {admin.masked(name)}")
    admin("daemon-timeout", "--timeout", "100000")
    admin("daemon-timeout", "--timeout", "0")
    admin("server-update-tls", "SERVER")
    admin("server-update-tls", "nobody")


def workers(admin):
    section("workers")
    admin("server-threadpool-info", "SERVER")
    admin("server-threadpool-info", "admin")
    admin("server-threadpool-info", "nobody")
    admin("server-threadpool-set", "SERVER", "--max-workers", "30", "--min-workers", "7")
    admin("server-threadpool-set", "SERVER", "--priority-workers", "6")
    admin("server-threadpool-info", "SERVER")
    admin("server-threadpool-set", "SERVER", "--min-workers", "31")
    admin("server-threadpool-set", "SERVER", "--max-workers", "6")
    admin("server-threadpool-set", "SERVER", "--max-workers", "many")
    admin("server-threadpool-set", "SERVER")
    admin("server-threadpool-set", "nobody", "--max-workers", "6")
    admin("server-threadpool-set", "SERVER", "--max-workers", "20", "--min-workers", "5")
    admin("server-threadpool-set", "SERVER", "--priority-workers", "5")
    admin("server-threadpool-info", "SERVER")


def clients(admin, uri):
    section("clients")
    admin("client-list", "SERVER")
    admin("client-list", "nobody")
    writer = libvirt.open(uri)
    first = admin.newest_client("first")
    reader = libvirt.openReadOnly(uri)
    second = admin.newest_client("second")
    admin("client-list", "SERVER")
    admin("client-info", "SERVER", first)
    admin("client-info", "SERVER", second)
    admin("client-info", "SERVER", "999999")
    admin("client-info", "SERVER", "x")
    admin("client-info", "nobody", first)
    print("the first says that it is fred, with a pid of its own")
    writer.setIdentity({"user-name": "fred", "unix-user-id": 4711, "process-id": 4712})
    admin("client-info", "SERVER", first)
    admin("client-disconnect", "SERVER", "999999")
    admin("client-disconnect", "nobody", second)
    admin("client-disconnect", "SERVER", second)
    print("the second is", "lost" if lost(reader) else "still there")
    print("the first is", "lost" if lost(writer) else "still there")
    admin("client-disconnect", "SERVER", second)
    admin("client-list", "SERVER")
    writer.close()
    wait_for_clients(admin, 0)
    third = libvirt.open(uri)
    print("no number comes twice:", int(admin.newest_client("third")) > int(second))
    third.close()
    wait_for_clients(admin, 0)


def lost(connection):
    try:
        connection.numOfSecrets()
    except libvirt.libvirtError:
        return True
    return False


def wait_for_clients(admin, number):
    """A client that has left is known to have left a moment later."""
    end = time.monotonic() + PATIENCE
    while f"nclients            : {number}\n" not in admin.run("server-clients-info", "SERVER").stdout:
        if time.monotonic() > end:
            print(f"there are never {number} clients")
            return
        time.sleep(0.05)


def limits(admin, uri):
    section("limits")
    admin("server-clients-info", "SERVER")
    admin("server-clients-info", "admin")
    admin("server-clients-info", "nobody")
    admin("server-clients-set", "SERVER", "--max-clients", "100", "--max-unauth-clients", "10")
    admin("server-clients-info", "SERVER")
    admin("server-clients-set", "SERVER", "--max-clients", "5")
    admin("server-clients-set", "SERVER", "--max-unauth-clients", "101")
    admin("server-clients-set", "SERVER", "--max-clients", "0")
    admin("server-clients-set", "SERVER")
    admin("server-clients-set", "nobody", "--max-clients", "5")
    admin("server-clients-info", "SERVER")
    admin("server-clients-set", "SERVER", "--max-clients", "1", "--max-unauth-clients", "1")
    connection = libvirt.open(uri)
    wait_for_clients(admin, 1)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(urllib.parse.parse_qs(urllib.parse.urlparse(uri).query)["socket"][0])
    waiting.sendall(AUTH_LIST)
    waiting.settimeout(0.2)
    print("one too many is", answered(waiting))
    admin("server-clients-info", "SERVER")
    admin("server-clients-set", "SERVER", "--max-clients", "2")
    waiting.settimeout(PATIENCE)
    print("with a higher limit it is", answered(waiting))
    waiting.close()
    connection.close()
    wait_for_clients(admin, 0)
    admin("server-clients-set", "SERVER", "--max-clients", "5000", "--max-unauth-clients", "20")
    admin("server-clients-info", "SERVER")


def answered(waiting):
    try:
        return "answered" if len(waiting.recv(ANSWER, socket.MSG_WAITALL)) == ANSWER else "closed"
    except socket.timeout:
        return "not answered"


def logging(admin):
    section("the log")
    before = admin.run("daemon-log-outputs").stdout.partition(":")[2].strip()
    admin("daemon-log-filters", "--filters", "1:secret 3:rpc")
    admin("daemon-log-filters")
    admin("daemon-log-filters", "--filters", "4:*rpc*")
    admin("daemon-log-filters")
    admin("daemon-log-filters", "--filters", "9:rpc")
    admin("daemon-log-filters", "--filters", "rpc")
    admin("daemon-log-filters", "--filters", "1:")
    admin("daemon-log-filters")
    admin("daemon-log-filters", "--filters", "")
    admin("daemon-log-filters")
    admin("daemon-log-outputs", "--outputs", "4:stderr")
    admin("daemon-log-outputs")
    admin("daemon-log-outputs", "--outputs", "4:nowhere")
    admin("daemon-log-outputs", "--outputs", "9:stderr")
    admin("daemon-log-outputs", "--outputs", "4:file")
    admin("daemon-log-outputs", "--outputs", "4:file:/no/such/folder")
    admin("daemon-log-outputs", "--outputs", "4:syslog")
    admin("daemon-log-outputs", "--outputs", "4")
    admin("daemon-log-outputs")
    admin("daemon-log-outputs", "--outputs", "3:stderr 4:file:/dev/null")
    admin("daemon-log-outputs")
    admin.run("daemon-log-outputs", "--outputs", before)


if __name__ == "__main__":
    main()
