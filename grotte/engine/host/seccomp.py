"""The filter on system calls: a small assembler for the kernel's packet-filter machine, and the list of refusals.

Everything is allowed but what a sandbox has no use for and what kernel bugs like to live behind. Refused calls fail
with EPERM, or with ENOSYS where programs probe for a call and have another way.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from dataclasses import dataclass

LOAD, JUMP_EQUAL, JUMP_SET, JUMP_GREATER_EQUAL, RETURN, AND = 0x20, 0x15, 0x45, 0x35, 0x06, 0x54
ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000

NUMBER_OFFSET, ARCH_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16
X32_BIT = 0x40000000

NEW_NAMESPACES = 0x7E020080  # CLONE_NEW* for mount, cgroup, uts, ipc, user, pid, net and time
TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423  # the last loads drivers for modems
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
MOVING = 0x2A  # FALLOC_FL_PUNCH_HOLE, _COLLAPSE_RANGE and _INSERT_RANGE, which take nothing
NETLINK_ROUTE = 0
#: What the internet is made of: streams, datagrams, and raw ones, which nobody inside may have, by their protocols.
#: All others are modules, which the kernel would load for the asking.
SOCKET_TYPES, TYPE_MASK = (1, 2, 3), 0xF
PROTOCOLS = (1, 6, 17, 58, 262)  # ICMP, TCP, UDP, ICMP for version 6, and TCP by several ways

# name: (x86_64, aarch64); None where the architecture has no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    "open_tree_attr": (467, 467),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, None),
    "get_kernel_syms": (177, None), "query_module": (178, None), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "iopl": (172, None), "ioperm": (173, None),
    "syslog": (103, 116), "vhangup": (153, 58), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "uselib": (134, None), "ustat": (136, None), "sysfs": (139, None), "modify_ldt": (154, None),
    "kcmp": (312, 272), "process_madvise": (440, 440), "lsm_set_self_attr": (460, 460),
}  # fmt: skip
ABSENT: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435),  # its flags lie in memory that a filter cannot read; libc falls back to clone
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # its rules hold files that have no name and no descriptor any more, which nobody could find on a full disk
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}


@dataclass(frozen=True)
class Machine:
    """Numbers of one architecture."""

    column: int
    audit: int
    clone: int
    ioctl: int
    socket: int
    socketpair: int
    fallocate: int


MACHINES = {
    "x86_64": Machine(0, 0xC000003E, clone=56, ioctl=16, socket=41, socketpair=53, fallocate=285),
    "aarch64": Machine(1, 0xC00000B7, clone=220, ioctl=29, socket=198, socketpair=199, fallocate=47),
}


class Assembler:
    """Collects instructions; jumps go forward to named places."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, str | None, str | None]] = []
        self._places: dict[str, int] = {}

    def load(self, offset: int) -> None:
        """Load a word of the call's description."""
        self._code.append((LOAD, offset, None, None))

    def jump(self, operation: int, value: int, then: str | None = None, otherwise: str | None = None) -> None:
        """Compare the loaded word; a missing place means the next instruction."""
        self._code.append((operation, value, then, otherwise))

    def mask(self, value: int) -> None:
        """Keep only these bits of the loaded word."""
        self._code.append((AND, value, None, None))

    def answer(self, value: int, place: str | None = None) -> None:
        """End the program with a verdict."""
        if place is not None:
            self.place(place)
        self._code.append((RETURN, value, None, None))

    def place(self, name: str) -> None:
        """Name the next instruction."""
        self._places[name] = len(self._code)

    def assemble(self) -> bytes:
        """Return the program as the kernel takes it."""

        def distance(index: int, place: str | None) -> int:
            return 0 if place is None else self._places[place] - index - 1

        return b"".join(
            struct.pack("<HBBI", operation, distance(index, then), distance(index, otherwise), value)
            for index, (operation, value, then, otherwise) in enumerate(self._code)
        )


def build(machine: str = "", *, allocate: bool = False) -> bytes:
    """Return the filter for this machine, or for the one named.

    Args:
        machine: As ``uname -m`` says it.
        allocate: Whether files may take space that nobody writes to. A whole disk is gone that way in a moment, sooner
            than anything can be measured; programs have other ways, since not all file systems do it.

    Raises:
        KeyError: The architecture is not known.
    """
    numbers = MACHINES[machine or platform.machine()]
    program = Assembler()
    program.load(ARCH_OFFSET)
    program.jump(JUMP_EQUAL, numbers.audit, otherwise="kill")  # 32-bit calls have other numbers
    program.load(NUMBER_OFFSET)
    program.jump(JUMP_GREATER_EQUAL, X32_BIT, then="kill")
    for table, place in ((REFUSED, "eperm"), (ABSENT, "enosys")):
        for row in table.values():
            number = row[numbers.column]
            if number is not None:
                program.jump(JUMP_EQUAL, number, then=place)
    for number, place in _inspected(numbers, allocate=allocate):
        program.jump(JUMP_EQUAL, number, then=place)
    program.answer(ALLOW)
    _check_arguments(program)
    program.answer(ALLOW, "allow")
    program.answer(ERRNO | errno.EPERM, "eperm")
    program.answer(ERRNO | errno.ENOSYS, "enosys")
    program.answer(ERRNO | errno.EAFNOSUPPORT, "family")
    program.answer(ERRNO | errno.EOPNOTSUPP, "unsupported")
    program.answer(ERRNO | errno.EPROTONOSUPPORT, "protocol")
    program.answer(KILL, "kill")
    return program.assemble()


def _inspected(numbers: Machine, *, allocate: bool) -> list[tuple[int, str]]:
    return [
        (numbers.fallocate, "allow" if allocate else "fallocate"),
        (numbers.clone, "clone"),
        (numbers.ioctl, "ioctl"),
        (numbers.socket, "socket"),
        (numbers.socketpair, "socketpair"),
    ]


def _check_arguments(program: Assembler) -> None:
    program.place("clone")
    _argument(program, 0)
    program.jump(JUMP_SET, NEW_NAMESPACES, then="eperm", otherwise="allow")

    program.place("ioctl")
    _argument(program, 1)
    program.jump(JUMP_EQUAL, TIOCSTI, then="eperm")
    program.jump(JUMP_EQUAL, TIOCSETD, then="eperm")
    program.jump(JUMP_EQUAL, TIOCLINUX, then="eperm", otherwise="allow")

    program.place("socket")
    _argument(program, 0)
    program.jump(JUMP_EQUAL, AF_INET, then="internet")
    program.jump(JUMP_EQUAL, AF_INET6, then="internet")
    program.jump(JUMP_EQUAL, AF_UNIX, then="allow")
    program.jump(JUMP_EQUAL, AF_NETLINK, otherwise="family")
    _argument(program, 2)
    program.jump(JUMP_EQUAL, NETLINK_ROUTE, then="allow", otherwise="family")

    program.place("internet")
    _argument(program, 1)
    program.mask(TYPE_MASK)
    for number in SOCKET_TYPES[:-1]:
        program.jump(JUMP_EQUAL, number, then="by protocol")
    program.jump(JUMP_EQUAL, SOCKET_TYPES[-1], otherwise="protocol")

    program.place("by protocol")
    _argument(program, 2)
    for number in PROTOCOLS:
        program.jump(JUMP_EQUAL, number, then="allow")
    program.jump(JUMP_EQUAL, 0, then="allow", otherwise="protocol")  # the usual one

    program.place("socketpair")
    _argument(program, 0)
    program.jump(JUMP_EQUAL, AF_UNIX, then="allow", otherwise="family")

    program.place("fallocate")
    _argument(program, 1)
    program.jump(JUMP_SET, MOVING, then="allow", otherwise="unsupported")


def _argument(program: Assembler, index: int) -> None:
    """Load the low half of an argument: all that the kernel looks at for these."""
    program.load(ARGUMENTS_OFFSET + 8 * index)


def write(path: str, program: bytes) -> None:
    """Write the filter where the launcher finds it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(program)
