"""The packet filter of one network namespace: a few rules for nf_tables, told to the kernel directly.

No program has to be installed for that, and nothing inside the sandbox can change it: that takes a capability which
nobody inside has.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

NETLINK_NETFILTER = 12
SUBSYSTEM = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEW_TABLE, NEW_CHAIN, NEW_RULE, DELETE_RULE = 0, 3, 6, 8
REQUEST, ACK, CREATE, APPEND = 0x1, 0x4, 0x400, 0x800
NLMSG_ERROR = 2
NESTED = 0x8000

FAMILY_INET = 1
HOOK_OUTPUT = 3
REGISTER, VERDICT_REGISTER = 1, 0
DROP, ACCEPT = 0, 1
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
DESTINATION_OFFSET, DESTINATION_PORT_OFFSET = 16, 2
META_OUT_INTERFACE, META_PROTOCOL_FAMILY = 5, 15
IPV4 = 2
LOOPBACK_INDEX = 1  # the first interface of every namespace
REJECT_ICMP, ADMINISTRATIVELY_PROHIBITED = 2, 3

TABLE, CHAIN = b"grotte\0", b"out\0"
DNS_PORT = 53
ANSWER_SECONDS = 5

EVERYTHING = "0.0.0.0/0"
# Never the internet: this host, link-local (cloud metadata), multicast and what is reserved.
NEVER = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")


@dataclass(frozen=True)
class Policy:
    """Where a sandbox may send packets; the first that fits decides.

    Attributes:
        resolvers: Addresses that may be asked for names.
        closed: Ranges that nobody may reach, on top of those that are never reached.
        allow: Ranges that may be reached.
        deny: Ranges that may not.
    """

    resolvers: tuple[str, ...]
    closed: tuple[str, ...]
    allow: tuple[str, ...]
    deny: tuple[str, ...]


@functools.lru_cache(maxsize=16)
def compiled(policy: Policy) -> bytes:
    """Return the transaction that replaces the filter of a network namespace by this one, all at once."""
    messages = [
        _message(NEW_TABLE, CREATE, _attribute(1, TABLE)),
        _message(NEW_CHAIN, CREATE, _chain()),
        # All rules of the chain. The kernel takes its time to remove what there is, so the chain itself stays.
        _message(DELETE_RULE, 0, _attribute(1, TABLE) + _attribute(2, CHAIN)),
        *(_message(NEW_RULE, CREATE | APPEND, _rule(expressions)) for expressions in _rules(policy)),
    ]
    begin = (BATCH_BEGIN, REQUEST, struct.pack(">BBH", 0, 0, SUBSYSTEM))
    end = (BATCH_END, REQUEST, struct.pack(">BBH", 0, 0, SUBSYSTEM))
    *first, (kind, flags, body) = messages
    batch = [begin, *first, (kind, flags | ACK, body), end]
    return b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body
        for number, (kind, flags, body) in enumerate(batch)
    )


def apply(transaction: bytes) -> None:
    """Have the kernel carry out such a transaction in the calling process's network namespace.

    Raises:
        OSError: It refused.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(ANSWER_SECONDS)
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(2 * len(transaction), 1 << 16))
        netlink.sendto(transaction, (0, 0))
        answer = netlink.recv(1 << 16)
    error = _first_error(answer)
    if error:
        raise OSError(error, f"nf_tables: {os.strerror(error)}")


def _rules(policy: Policy) -> Iterable[list[bytes]]:
    yield [_meta(META_OUT_INTERFACE), _compare(struct.pack("=I", LOOPBACK_INDEX)), _verdict(ACCEPT)]
    yield [_meta(META_PROTOCOL_FAMILY), _compare(bytes([IPV4]), unequal=True), _verdict(DROP)]
    for address in policy.resolvers:
        port = [_payload(TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2), _compare(struct.pack(">H", DNS_PORT))]
        yield [*_destination(f"{address}/32"), *port, _verdict(ACCEPT)]
    for closed in (*NEVER, *policy.closed):
        yield [*_destination(closed), _reject()]
    for allowed in policy.allow:
        yield [*_destination(allowed), _verdict(ACCEPT)]
    for denied in policy.deny:
        yield [*_destination(denied), _reject()]


def _destination(cidr: str) -> list[bytes]:
    address, _, length = cidr.partition("/")
    mask = struct.pack(">I", (0xFFFFFFFF << (32 - int(length))) & 0xFFFFFFFF)
    network = bytes(a & m for a, m in zip(socket.inet_aton(address), mask, strict=True))
    return [_payload(NETWORK_HEADER, DESTINATION_OFFSET, 4), _mask(mask), _compare(network)]


# -- expressions, as include/uapi/linux/netfilter/nf_tables.h numbers them ---------------------------------------


def _expression(name: bytes, *attributes: bytes) -> bytes:
    return _attribute(1 | NESTED, _attribute(1, name + b"\0") + _attribute(2 | NESTED, b"".join(attributes)))


def _meta(key: int) -> bytes:
    return _expression(b"meta", _number(1, REGISTER), _number(2, key))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(b"payload", _number(1, REGISTER), _number(2, base), _number(3, offset), _number(4, length))


def _mask(mask: bytes) -> bytes:
    values = (_attribute(4 | NESTED, _attribute(1, mask)), _attribute(5 | NESTED, _attribute(1, bytes(len(mask)))))
    return _expression(b"bitwise", _number(1, REGISTER), _number(2, REGISTER), _number(3, len(mask)), *values)


def _compare(value: bytes, *, unequal: bool = False) -> bytes:
    data = _attribute(3 | NESTED, _attribute(1, value))
    return _expression(b"cmp", _number(1, REGISTER), _number(2, int(unequal)), data)


def _verdict(code: int) -> bytes:
    data = _attribute(2 | NESTED, _attribute(2 | NESTED, _number(1, code)))
    return _expression(b"immediate", _number(1, VERDICT_REGISTER), data)


def _reject() -> bytes:
    """Tell the sender at once, rather than let it wait."""
    return _expression(b"reject", _number(1, REJECT_ICMP), _attribute(2, bytes([ADMINISTRATIVELY_PROHIBITED])))


# -- messages ----------------------------------------------------------------------------------------------------


def _chain() -> bytes:
    hook = _number(1, HOOK_OUTPUT) + _number(2, 0)
    attributes = _attribute(1, TABLE) + _attribute(3, CHAIN) + _attribute(4 | NESTED, hook)
    return attributes + _number(5, ACCEPT) + _attribute(7, b"filter\0")


def _rule(expressions: list[bytes]) -> bytes:
    return _attribute(1, TABLE) + _attribute(2, CHAIN) + _attribute(4 | NESTED, b"".join(expressions))


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _message(kind: int, flags: int, body: bytes) -> tuple[int, int, bytes]:
    return SUBSYSTEM << 8 | kind, REQUEST | flags, struct.pack(">BBH", FAMILY_INET, 0, 0) + body


def _first_error(answer: bytes) -> int:
    while len(answer) >= 20:
        length, kind = struct.unpack_from("=IH", answer)
        number = -int(struct.unpack_from("=i", answer, 16)[0])
        if kind == NLMSG_ERROR and number:
            return number
        answer = answer[(length + 3) & ~3 :]
    return 0
