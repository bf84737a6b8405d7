"""Huffman-coded strings (RFC 7541 §5.2 and Appendix B), decoded a byte at a time by a state machine.

The code is canonical, so its lengths define it. A state is a place in the code's tree where a byte may end; a row of
the machine holds, for each next byte, the row it leads to and what is decoded on the way. Rows fill as bytes turn up:
ordinary traffic touches a small part of the 65,536 transitions.
"""

from __future__ import annotations

from grotte._proto.http2.codec import ErrorCode, ProtocolError

_EOS = 256

#: The code's length for each byte, and for the end of the string.
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)


class _Node:
    """An inner node of the code's tree: where each bit leads, a symbol or another node."""

    __slots__ = ("accepting", "branches")

    def __init__(self) -> None:
        self.branches: list[_Node | int | None] = [None, None]
        #: A string may end here: the bits since the last symbol are at most seven ones.
        self.accepting = False


class _Row(dict[int, "tuple[_Row, bytes]"]):
    """A state: its known transitions, and how to find the others."""

    __slots__ = ("accepting", "machine", "node")

    def __init__(self, machine: _Machine, node: _Node) -> None:
        super().__init__()
        self.machine = machine
        self.node = node
        self.accepting = node.accepting

    def __missing__(self, byte: int) -> tuple[_Row, bytes]:
        node = self.node
        out = bytearray()
        for shift in range(7, -1, -1):
            branch = node.branches[byte >> shift & 1]
            if isinstance(branch, _Node):
                node = branch
                continue
            if branch is None or branch == _EOS:
                raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "a Huffman string holds the end symbol")
            out.append(branch)
            node = self.machine.root
        step = self[byte] = (self.machine.row(node), bytes(out))
        return step


class _Machine:
    """The tree, and the rows made so far."""

    def __init__(self) -> None:
        self.root = _Node()
        self._rows: dict[_Node, _Row] = {}
        code = previous = 0
        for length, symbol in sorted((length, symbol) for symbol, length in enumerate(_LENGTHS)):
            code <<= length - previous
            self._insert(code, length, symbol)
            code += 1
            previous = length
        node: _Node | int | None = self.root
        for _ in range(8):
            assert isinstance(node, _Node)
            node.accepting = True
            node = node.branches[1]

    def _insert(self, code: int, length: int, symbol: int) -> None:
        node = self.root
        for shift in range(length - 1, 0, -1):
            branch = node.branches[code >> shift & 1]
            if not isinstance(branch, _Node):
                branch = node.branches[code >> shift & 1] = _Node()
            node = branch
        node.branches[code & 1] = symbol

    def row(self, node: _Node) -> _Row:
        """The state that is this node."""
        row = self._rows.get(node)
        if row is None:
            row = self._rows[node] = _Row(self, node)
        return row


_MACHINE = _Machine()
_FIRST_ROW = _MACHINE.row(_MACHINE.root)


def decode(data: bytes) -> bytes:
    """Decode a Huffman-coded string.

    Raises:
        ProtocolError: the string holds the end symbol, or its padding is not made of at most seven ones.
    """
    row = _FIRST_ROW
    out: list[bytes] = []
    for byte in data:
        row, decoded = row[byte]
        out.append(decoded)
    if not row.accepting:
        raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "a Huffman string has the wrong padding")
    return b"".join(out)
