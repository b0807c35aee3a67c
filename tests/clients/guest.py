#!/usr/bin/python3
"""A QEMU guest whose LUKS disk opens by a secret of the daemon.

    guest.py DIRECTORY SOCKET TOKEN

libvirt's QEMU driver runs embedded in a process of ours (see machine.py) and asks the secret daemon for the
passphrase as virtqemud does: over virtsecretd-sock, with the system token in its identity. The disk is encrypted
as a whole, boot sector included; that one writes a line to the serial port and switches the guest off. The line
can come from nowhere else, so it says that the passphrase was right. A guest that doesn't start says why.

SOCKET is where the daemon listens, TOKEN its system.token. The driver has fixed places for both, so it gets a
view of its own: an $XDG_RUNTIME_DIR in DIRECTORY, or, for root, /run/libvirt and /etc/libvirt in a mount
namespace. DIRECTORY is empty, has a short name and belongs to who runs this, in whose name the daemon runs too.
The daemon must hold no secrets; it holds none afterwards. The transcript is the same on every run. Ends with 0
once it ran through, whatever the guests did.

Needs Debian's python3-libvirt, libvirt-daemon-driver-qemu, qemu-system-x86 and qemu-utils, but no KVM.
"""

import os
import pathlib
import re
import subprocess
import sys

import libvirt

import machine

PRIVATE = "6c756b73-0000-4000-8000-000000000001"
OPEN = "6c756b73-0000-4000-8000-000000000002"
PASSPHRASE = b"the passphrase"


def main():
    if len(sys.argv) != 4:
        sys.exit("Say where: guest.py DIRECTORY SOCKET TOKEN")
    if os.geteuid() == 0 and "IN_OWN_VIEW" not in os.environ:
        os.environ["IN_OWN_VIEW"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    os.umask(0o077)
    libvirt.registerErrorHandler(lambda *_: None, None)
    directory, socket, token = (pathlib.Path(argument).absolute() for argument in sys.argv[1:])
    view = View(directory, socket, token.read_text())
    disk = make_disk(directory)
    secrets = libvirt.open(view.uri)

    section("the secret is not there")
    guest(view, disk, f"uuid='{PRIVATE}'")
    section("it has no value")
    private = define(secrets, PRIVATE, "yes", disk)
    guest(view, disk, f"uuid='{PRIVATE}'")
    section("its value is wrong")
    private.setValue(b"not this one")
    guest(view, disk, f"uuid='{PRIVATE}'")
    section("its value is right")
    private.setValue(PASSPHRASE)
    guest(view, disk, f"uuid='{PRIVATE}'")
    section("asked for by its usage")
    guest(view, disk, f"usage='{disk}'")
    section("asked for by an unknown usage")
    guest(view, disk, "usage='/unknown'")
    section("with another token")
    view.token.write_text("0" * 32)
    guest(view, disk, f"uuid='{PRIVATE}'")
    section("with another token, a secret that is not private")
    public = define(secrets, OPEN, "no", "/other")
    public.setValue(PASSPHRASE)
    guest(view, disk, f"uuid='{OPEN}'")
    private.undefine()
    public.undefine()


class View:
    """What the driver sees of the host: the daemon's socket and a token, in the places it looks at."""

    def __init__(self, directory, socket, token):
        self.directory = directory
        if os.geteuid() == 0:
            # The socket itself may lie in the folder that is going to be hidden.
            behind = directory / "behind"
            behind.mkdir()
            subprocess.run(["mount", "--bind", socket.parent, behind], check=True)
            socket = behind / socket.name
            runtime, configuration = pathlib.Path("/run"), pathlib.Path("/etc")
            for folder in (runtime / "libvirt", configuration / "libvirt"):
                folder.mkdir(exist_ok=True)
                subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
            # The driver looks its default user up before it reads that it is to take another.
            for table, line in {"passwd": "libvirt-qemu:x:0:0::/:", "group": "libvirt-qemu:x:0:"}.items():
                copy = directory / table
                copy.write_text(f"{(configuration / table).read_text()}{line}\n")
                subprocess.run(["mount", "--bind", copy, configuration / table], check=True)
        else:
            runtime, configuration = directory / "runtime", directory / "configuration"
            os.environ |= {
                "HOME": str(directory),
                "XDG_RUNTIME_DIR": str(runtime),
                "XDG_CONFIG_HOME": str(configuration),
                "XDG_CACHE_HOME": str(directory / "cache"),
            }
        self.token = runtime / "libvirt/common/system.token"
        self.token.parent.mkdir(parents=True)
        self.token.write_text(token)
        (runtime / "libvirt/virtsecretd-sock").symlink_to(socket)
        settings = configuration / "libvirt/libvirt.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text('remote_mode = "direct"\n')
        self.uri = f"secret:///{'session' if os.geteuid() else 'system'}?socket={socket}"


def make_disk(directory):
    raw, passphrase, disk = directory / "disk.raw", directory / "passphrase", directory / "disk.luks"
    raw.write_bytes(machine.system("The disk is open"))
    passphrase.write_bytes(PASSPHRASE)
    secret = f"secret,id=passphrase,file={passphrase}"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "luks", "--object", secret]
    subprocess.run([*command, "-o", "key-secret=passphrase,iter-time=10", raw, disk], check=True)
    raw.unlink()
    passphrase.unlink()
    return disk


def section(title):
    print(f"\n== {title}", flush=True)


def define(secrets, uuid, private, volume):
    usage = f"<usage type='volume'><volume>{volume}</volume></usage>"
    return secrets.secretDefineXML(f"<secret private='{private}'><uuid>{uuid}</uuid>{usage}</secret>")


def guest(view, disk, which):
    serial = view.directory / "serial"
    serial.unlink(missing_ok=True)
    root = machine.configure(view.directory / "embedded")
    machine.apart(lambda: run(root, domain(disk, serial, which)))
    if serial.exists():
        print(f"serial port: {serial.read_text(errors='replace').strip()}", flush=True)


def run(root, document):
    try:
        started = machine.Machine(root, document)
    except libvirt.libvirtError as error:
        print(f"no guest: code={error.get_error_code()} domain={error.get_error_domain()}", flush=True)
        print(stable(error.get_error_message(), root.parent), flush=True)
        return
    print("the guest is on", flush=True)
    print(started.end(), flush=True)


def stable(message, directory):
    """Without folders and times; of a QEMU that ended, what it said last, however its end was noticed."""
    message = re.sub(r"^internal error: .*qemu-system-x86_64: -blockdev .*\}: ", "QEMU ended: ", message)
    message = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z ", "", message)
    return message.replace(str(directory), "[DIR]").strip()


def domain(disk, serial, which):
    return f"""
<domain type='qemu'>
  <name>guest</name>
  <uuid>6c756b73-0000-4000-8000-00000000ffff</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{disk}'>
        <encryption format='luks'><secret type='passphrase' {which}/></encryption>
      </source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='file'><source path='{serial}'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>"""


if __name__ == "__main__":
    main()
