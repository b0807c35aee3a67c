#!/usr/bin/python3
"""Guests of libvirt's QEMU driver, which runs embedded in this process and asks for secrets as virtqemud does.

    machine.py system FILE TEXT...
    machine.py create ROOT DOCUMENT

`system` makes the image of a system for a guest, not encrypted: it writes the first text to the serial port; at
each byte that comes from there it reads another text from the disk and writes that; after the last it switches
the guest off. What is said can come from nowhere but the disk.

`create` stands in for `virsh create` where there is no virtqemud (Debian 12 packages none), and says what that
would. Beside what the document says, the guest has a serial port, ROOT/NAME.in and ROOT/NAME.out, both FIFOs; it
does without KVM, and is little. ROOT/NAME.log is locked as long as the guest is on; the last line there tells how
it ended. The driver uses the secret daemon's socket and token in libvirt's own places.

Needs Debian's python3-libvirt, libvirt-daemon-driver-qemu and qemu-system-x86, but no KVM.
"""

import ctypes
import fcntl
import os
import pathlib
import sys
import threading
import xml.etree.ElementTree as tree

import libvirt

PR_SET_CHILD_SUBREAPER = 36

# A guest is on for a second or two where nothing else runs.
PATIENCE = 60

SECTOR = 512

# What the one that holds a guest tells the one that asked for it, if not the error.
ON = "on"

# Where the boot sector keeps how many texts there are besides its own.
MORE = 509

BOOT = bytes.fromhex(
    "31c0 8ed8 8ec0 bb007e"  # xor ax, ax; mov ds, ax; mov es, ax; mov bx, 7E00h (behind the boot sector)
    "be4c7c b102 e82f00"  # mov si, text; mov cl, 2 (the second sector); call say
    "fe0efd7d 7820"  # next: dec byte [MORE]; js off
    "bafd03 ec a801 74f8"  # wait: mov dx, 3FDh (the first serial port); in al, dx; test al, 1; jz wait
    "baf803 ec"  # mov dx, 3F8h; in al, dx
    "b80102 b500 ba8000"  # mov ax, 201h (one sector); mov ch, 0; mov dx, 80h (the first disk)
    "cd13 7208 89de e80c00"  # int 13h; jc off; mov si, bx; call say
    "41 ebda"  # inc cx; jmp next
    "ba0406 b80020 ef"  # off: mov dx, 604h (ACPI's switch); mov ax, 2000h; out dx, ax
    "faf4"  # cli; hlt
    "baf803"  # say: mov dx, 3F8h
    "ac 84c0 7403"  # lodsb; test al, al; jz 2
    "ee ebf8 c3"  # out dx, al; jmp -8; ret
)


def main():
    match sys.argv[1:]:
        case ["system", file, *texts] if texts:
            pathlib.Path(file).write_bytes(system(*texts))
        case ["create", root, document]:
            sys.exit(create(pathlib.Path(root), pathlib.Path(document)))
        case _:
            sys.exit(__doc__)


def system(*texts):
    """The image that says these, one after the other."""
    first, *more = (f"{text}\n\0".encode() for text in texts)
    assert len(BOOT + first) <= MORE and all(len(text) <= SECTOR for text in more), "too much to say"
    boot = (BOOT + first).ljust(MORE, b"\0") + bytes([len(more)]) + b"\x55\xaa"
    return b"".join([boot, *(text.ljust(SECTOR, b"\0") for text in more)]).ljust(1 << 20, b"\0")


class Machine:
    """A guest that is on."""

    def __init__(self, root, document):
        be_somebody()
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=run_events, daemon=True).start()
        self.driver = libvirt.open(f"qemu:///embed?root={root}")
        self.off = threading.Event()

        def lifecycle(_, __, event, ___, ____):
            if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                self.off.set()

        self.driver.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
        self.domain = self.driver.createXML(document)

    def end(self):
        """How it ends, once it does."""
        if self.off.wait(PATIENCE):
            return "the guest is off"
        self.domain.destroy()
        return "the guest doesn't end"


def configure(root):
    """The driver's own folder. Its QEMU keeps this user, and is put into no sandbox."""
    (root / "log/qemu").mkdir(parents=True, exist_ok=True)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/qemu.conf").write_text(
        f'user = "+{os.geteuid()}"\ngroup = "+{os.getegid()}"\nsecurity_driver = "none"\n'
        'stdio_handler = "file"\nnamespaces = []\ncgroup_controllers = []\n'
    )
    return root


def apart(work):
    """Does it in a process of its own, for a driver keeps the token that it saw first."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("This kernel doesn't hand us the guests that have ended")
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"Failed to run a guest: {error!r}", flush=True)
        finally:
            os._exit(0)
    # A QEMU that has ended is ours to clear away: the driver waits until there is no such process.
    while os.wait()[0] != child:
        pass


def be_somebody():
    """Newer embedded drivers do this themselves; 9.0 asks for secrets as nobody, which fails in itself."""
    library = ctypes.CDLL("libvirt.so.0")
    library.virIdentityGetSystem.restype = ctypes.c_void_p
    library.virIdentitySetCurrent.argtypes = [ctypes.c_void_p]
    if library.virIdentitySetCurrent(library.virIdentityGetSystem()) < 0:
        raise OSError("libvirt takes no identity")


def run_events():
    while True:
        libvirt.virEventRunDefaultImpl()


def create(root, document):
    """What virsh would end with. The guest stays on."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    text = document.read_text()
    name = tree.fromstring(text).findtext("name")
    for end in ("in", "out"):
        (root / f"{name}.{end}").unlink(missing_ok=True)
        os.mkfifo(root / f"{name}.{end}")
    log = open(root / f"{name}.log", "w")
    fcntl.flock(log, fcntl.LOCK_EX)
    told, tell = os.pipe()
    if os.fork() != 0:
        os.close(tell)
        answer = os.read(told, 1 << 16).decode()
        if answer == ON:
            print(f"Domain '{name}' created from {document}\n")
            return 0
        print(f"error: Failed to create domain from {document}\nerror: {answer}", file=sys.stderr)
        return 1
    os.setsid()
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence if descriptor == 0 else log.fileno(), descriptor)

    def work():
        try:
            machine = Machine(configure(root / name), little(text, root / name))
        except libvirt.libvirtError as error:
            os.write(tell, error.get_error_message().encode())
            return
        os.write(tell, ON.encode())
        print(machine.end(), flush=True)

    apart(work)
    os._exit(0)


def little(document, serial):
    """The guest as it suits a test."""
    domain = tree.fromstring(document)
    domain.set("type", "qemu")
    domain.find("memory").text = "32"
    domain.find("memory").set("unit", "MiB")
    devices = domain.find("devices")
    for device in (
        f"<serial type='pipe'><source path='{serial}'/></serial>",
        "<controller type='usb' model='none'/>",
        "<memballoon model='none'/>",
    ):
        devices.append(tree.fromstring(device))
    return tree.tostring(domain, encoding="unicode")


if __name__ == "__main__":
    main()
