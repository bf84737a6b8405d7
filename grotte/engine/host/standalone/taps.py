"""The interface of a sandbox's way out, which waits without anybody behind it until the first packet wants to leave.

A process that carries packets takes 20 MiB, and most sandboxes never send one. So the launcher holds the interface's
other end. When a packet comes, it takes what has come, lets go, and has pasta take the end; then those packets are
sent once more, so that nothing of the wait is seen but its few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time

TUN, TUN_DEVICE = "/dev/net/tun", (10, 200)
INTERFACE = "eth0"
NAME = INTERFACE.encode()
MTU = 65520
IFF_UP, IFF_NOARP, IFF_TAP, IFF_NO_PI = 0x1, 0x80, 0x2, 0x1000
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
SIOCADDRT, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU = 0x890B, 0x8914, 0x8916, 0x891C, 0x8922
RTF_UP, RTF_GATEWAY = 1, 2
RTM_DELLINK, NLM_F_REQUEST, NLM_F_ACK, IFLA_IFNAME = 17, 1, 4, 3
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
ETHERNET, IPV4 = 14, b"\x08\x00"
MAX_FRAME, MAX_KEPT = 65536 + ETHERNET, 256
SECONDS, PAUSE = 10, 0.002


def raise_loopback() -> None:
    """Have the calling process's network namespace reach itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def make(address: str, mask: str, gateway: str) -> int:
    """Make the interface in the calling process's network namespace, with its address and route; return its other end.

    It speaks IPv4 alone, and asks nobody for the gateway's hardware address.
    """
    tap = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TAP | IFF_NO_PI))
    with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6", "w") as file:
        file.write("1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFMTU, struct.pack("16si20x", NAME, MTU))
        fcntl.ioctl(sock, SIOCSIFADDR, NAME.ljust(16, b"\0") + _address(address) + bytes(8))
        fcntl.ioctl(sock, SIOCSIFNETMASK, NAME.ljust(16, b"\0") + _address(mask) + bytes(8))
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", NAME, IFF_UP | IFF_NOARP))
        everywhere = _address("0.0.0.0")
        route = (everywhere, _address(gateway), everywhere, RTF_UP | RTF_GATEWAY)
        fcntl.ioctl(sock, SIOCADDRT, struct.pack("=8x16s16s16sH62x", *route))
    return tap


def _address(text: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))


def take(tap: int) -> list[bytes]:
    """Take the packets that want to leave; what is not IPv4 wants to reach nobody."""
    frames: list[bytes] = []
    with contextlib.suppress(OSError):  # there are no more, or the interface has just gone with its sandbox
        while len(frames) < MAX_KEPT:
            frame = os.read(tap, MAX_FRAME)
            if frame[12:ETHERNET] == IPV4:
                frames.append(frame)
    return frames


def let_go(tap: int) -> None:
    """Leave the interface without its other end, which somebody else will take."""
    fcntl.ioctl(tap, TUNSETPERSIST, 1)
    os.close(tap)


def send_again(frames: list[bytes]) -> None:
    """Send packets once more, as soon as the interface of the calling process's namespace has its other end again.

    Raises:
        TimeoutError: Nobody took that end.
    """
    end = time.monotonic() + SECONDS
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)  # queues drop without a word until they are told
        sock.bind((INTERFACE, 0))
        for frame in frames:
            while not _sent(sock, frame):
                if time.monotonic() > end:
                    raise TimeoutError("nobody carries packets")
                time.sleep(PAUSE)


def _sent(sock: socket.socket, frame: bytes) -> bool:
    try:
        sock.send(frame)
    except OSError as error:
        return error.errno not in (errno.ENOBUFS, errno.ENETDOWN)  # all others: as lost as any packet may be
    return True


def remove() -> None:
    """Remove the interface from the calling process's namespace, if it is there."""
    name = struct.pack("=HH", 4 + len(NAME) + 1, IFLA_IFNAME) + NAME + b"\0"
    name += bytes(-len(name) % 4)
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + name
    message = struct.pack("=IHHII", 16 + len(body), RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.send(message)
        sock.recv(1 << 16)
