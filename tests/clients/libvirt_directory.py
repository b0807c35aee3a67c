"""Directories of libvirt's secret driver, made and read without Strongroom.

plain ROOT MANIFEST COUNT           secrets that the embedded driver of Debian's libvirt writes
encrypted DIR MANIFEST KEY COUNT    secrets in the form of libvirt 12.1, their values encrypted by openssl
read ROOT                           what Debian's libvirt reads there
decrypt DIR KEY                     what openssl reads there

A manifest, and what is read, has a line for each secret: its UUID, `private` or `plain`, its usage id or `-`, and its
value in hexadecimal, `-` if there is none.
"""

import base64
import os
import random
import subprocess
import sys
import uuid
from multiprocessing.pool import ThreadPool

import libvirt


def value(number, dice):
    """Odd ones among them: one byte, whole blocks, zero bytes, the longest that there can be."""
    if number % 10 == 0:
        return dice.randbytes(1)
    if number % 10 == 1:
        return dice.randbytes(16 * dice.randint(1, 8))
    if number % 10 == 2:
        return bytes(3) + dice.randbytes(40) + bytes(2)
    if number % 200 == 3:
        return dice.randbytes(65536)
    return dice.randbytes(dice.randint(17, 300))


def secrets(count):
    dice = random.Random(os.urandom(16))
    for number in range(count):
        name = str(uuid.UUID(bytes=dice.randbytes(16), version=4))
        private = number % 3 == 0
        usage = "-" if number % 7 == 0 else f"client.{name}"
        yield name, private, usage, None if number % 97 == 96 else value(number, dice)


def document(name, private, usage):
    """As libvirt writes it, to the byte."""
    flag = "yes" if private else "no"
    text = f"<secret ephemeral='no' private='{flag}'>\n  <uuid>{name}</uuid>\n"
    if usage != "-":
        text += f"  <usage type='ceph'>\n    <name>{usage}</name>\n  </usage>\n"
    return text + "</secret>\n"


def line(name, private, usage, secret):
    return f"{name} {'private' if private else 'plain'} {usage} {'-' if secret is None else secret.hex()}\n"


def connect(root):
    libvirt.virEventRegisterDefaultImpl()
    return libvirt.open(f"secret:///embed?root={root}")


def plain(root, manifest, count):
    connection = connect(root)
    with open(manifest, "w") as written:
        for one in secrets(int(count)):
            name, private, usage, secret = one
            handle = connection.secretDefineXML(document(name, private, usage))
            if secret is not None:
                handle.setValue(secret)
            written.write(line(*one))


def openssl(key, iv, data, *arguments):
    command = ["openssl", "enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex(), *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def create(path, data):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def encrypted(directory, manifest, key_file, count):
    with open(key_file, "rb") as file:
        key = file.read()

    def write(one):
        name, private, usage, secret = one
        if secret is not None:
            iv = os.urandom(16)
            create(f"{directory}/{name}.aes256cbc", base64.b64encode(iv + openssl(key, iv, secret)))
        create(f"{directory}/{name}.xml", document(name, private, usage).encode())
        return line(*one)

    with ThreadPool(4) as pool, open(manifest, "w") as written:
        written.writelines(pool.imap(write, secrets(int(count)), 16))


def read(root):
    for handle in connect(root).listAllSecrets():
        text = handle.XMLDesc()
        private = "private='yes'" in text
        usage = handle.usageID() or "-"
        path = f"{root}/etc/secrets/{handle.UUIDString()}.base64"
        if not os.path.exists(path):
            secret = None
        elif private:
            # libvirt gives it to no client; what a hypervisor's daemon would be given lies here.
            with open(path, "rb") as file:
                secret = base64.b64decode(file.read(), validate=True)
        else:
            secret = handle.value()
        sys.stdout.write(line(handle.UUIDString(), private, usage, secret))


def decrypt(directory, key_file):
    with open(key_file, "rb") as file:
        key = file.read()

    def read_one(name):
        with open(f"{directory}/{name}", "rb") as file:
            data = base64.b64decode(file.read(), validate=True)
        return f"{name.split('.')[0]} {openssl(key, data[:16], data[16:], '-d').hex()}\n"

    names = [name for name in os.listdir(directory) if name.endswith(".aes256cbc")]
    with ThreadPool(4) as pool:
        sys.stdout.writelines(pool.imap(read_one, names, 16))


if __name__ == "__main__":
    {"plain": plain, "encrypted": encrypted, "read": read, "decrypt": decrypt}[sys.argv[1]](*sys.argv[2:])
