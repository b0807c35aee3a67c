#!/usr/bin/python3
"""What libvirt's QEMU driver says to each device of the guests in descriptions, when they are defined.

    definitions.py ROOT FILE...

Each device that stands in a FILE's <domain>, and the firmware's variables, is in a guest of its own, which is
defined and removed again; nothing is started, and no secret is asked for. Standard output is a JSON object: by the
file's name another one, with what libvirt said by the device's place ("disk vda", "TPM"), null where it took it.
ROOT is a folder for the driver, which runs embedded in this process.

Needs Debian's python3-libvirt, libvirt-daemon-driver-qemu and qemu-system-x86, but no KVM.
"""

import collections
import json
import pathlib
import sys
import threading
import xml.etree.ElementTree as tree

import libvirt

import machine


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    libvirt.registerErrorHandler(lambda *_: None, None)
    # It looks what QEMU can do, and waits until there is no such process.
    machine.apart(lambda: judge(pathlib.Path(sys.argv[1]), map(pathlib.Path, sys.argv[2:])))


def judge(root, files):
    machine.be_somebody()
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=machine.run_events, daemon=True).start()
    driver = libvirt.open(f"qemu:///embed?root={machine.configure(root)}")
    answers = {}
    for file in files:
        domain = tree.parse(file).getroot()
        answers[file.name] = {place: define(driver, guest) for place, guest in guests(domain)}
    json.dump(answers, sys.stdout)
    sys.stdout.flush()


def define(driver, guest):
    try:
        defined = driver.defineXML(tree.tostring(guest, encoding="unicode"))
        defined.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    except libvirt.libvirtError as error:
        return error.get_error_message()
    return None


def guests(domain):
    """Each device as the only one of a guest, by its place."""
    variables = domain.find("os/nvram")
    if variables is not None:
        yield "NVRAM", guest(None, domain.find("os"))
    numbers = collections.Counter()
    for device in domain.findall("devices/*"):
        if device.tag.startswith("{"):
            continue
        numbers[device.tag] += 1
        yield place(device, numbers[device.tag]), guest(device, None)


def place(device, number):
    target, source = device.find("target"), device.find("source")
    match device.tag:
        case "disk" if target is not None:
            return f"disk {target.get('dev')}"
        case "hostdev" if source is not None and source.get("name"):
            return f"hostdev {source.get('name')}"
        case "tpm":
            return "TPM"
        case kind:
            return f"{kind} {number}"


def guest(device, firmware):
    whole = tree.Element("domain", type="qemu")
    tree.SubElement(whole, "name").text = "guest"
    tree.SubElement(whole, "memory", unit="MiB").text = "32"
    if firmware is None:
        firmware = tree.Element("os")
        tree.SubElement(firmware, "type", arch="x86_64", machine="pc").text = "hvm"
    whole.append(firmware)
    tree.SubElement(tree.SubElement(whole, "features"), "acpi")
    devices = tree.SubElement(whole, "devices")
    tree.SubElement(devices, "emulator").text = "/usr/bin/qemu-system-x86_64"
    if device is not None:
        devices.append(device)
    return whole


if __name__ == "__main__":
    main()
