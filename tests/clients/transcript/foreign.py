"""Every number of the REMOTE program that isn't the secret driver's or the connection's, and what is said to it.

A server may read the arguments before it says that it lacks the driver, and find fault with them. So each call is made
with arguments of several shapes, until one brings the answer. Leans on talk.py and wire.py. Refuses to lose a line: the
calls of which libvirt dies come last, and its death ends the transcript.
"""

import random

from .wire import Dropped, params, param, some, string, u32, u64

LAST = 460
OURS = {1, 2, 3, 60, 66, 67, 68, 69, 70, 110, *range(139, 148), 149, 157, 287, 360, 361, 380, 381, 419}
# STORAGE_POOL_GET_INFO, STORAGE_VOL_GET_INFO, {NETWORK,STORAGE_POOL}_IS_{ACTIVE,PERSISTENT}, INTERFACE_IS_ACTIVE,
# STORAGE_VOL_GET_INFO_FLAGS, NETWORK_{SET,GET}_METADATA: without the driver, libvirt (9.0, 11.3) follows a null pointer.
DEADLY = [87, 98, 152, 153, 154, 155, 156, 378, 444, 445]


def run(talk):
    client = talk.connect(0)
    for proc in [*[proc for proc in range(1, LAST + 1) if proc not in OURS and proc not in DEADLY], *DEADLY]:
        try:
            print(f"{proc}: {answer(client, proc)}", flush=True)
        except Dropped:
            print(f"{proc}: dropped")
            return


def answer(client, proc):
    """The answer that names what is missing, or else the first."""
    first = None
    for arguments in shapes(proc):
        reply = client.call(proc, arguments)
        code, domain, text = reply.code() if reply.status else (0, 0, f"success {reply.payload[:32].hex()}")
        said = f"{code}/{domain} {text}"
        if code == 3 or text.startswith("unknown procedure") or text == "internal error: connection not open":
            return said
        first = first or said
    return first


def shapes(proc):
    domain, network = string("d") + bytes(16) + u32(1), string("n") + bytes(16)
    volume = string("p") + string("v") + string("k")
    zeros = bytes(4096)
    for front in [b"", domain, network, volume, domain + string("x") + u32(1) * 6]:
        yield front + zeros
    pieces = [domain, network, volume, string("x"), u32(1), u32(0), u64(1), bytes(16), some(string("y"))]
    pieces += [params(param("a", 1, 1)), domain + string("s")]
    chance = random.Random(proc)
    for _ in range(400):
        front = b"".join(chance.choice(pieces) for _ in range(chance.randint(1, 7)))
        yield front + zeros[: chance.choice([0, 4, 64, 400])]
