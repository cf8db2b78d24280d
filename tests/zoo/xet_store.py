"""The store behind a Hub that takes large files by the Xet protocol: pieces of them, then what they make up.

A client cuts a file into chunks, sends them compressed in "xorbs", and then a "shard", which lists for each
file the ranges of chunks that it consists of and its SHA-256. The specification: https://huggingface.co/docs/xet.
"""

import hashlib
import itertools
import struct
from collections.abc import Iterator

import imagecodecs
import numpy as np


class XetStore:
    """files: SHA-256 -> bytes of each file whose shard has arrived."""

    TOKEN = "xet_test"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._xorbs: dict[str, list[bytes]] = {}

    def take(self, path: str, body: bytes) -> dict[str, object] | None:
        """The answer to a POST; None to those newer than the specification, without which clients do."""
        if path == "/xet/v1/shards":
            for sha256, ranges in _files(body):
                data = b"".join(
                    itertools.chain(*(self._xorbs[xorb][first:end] for xorb, first, end in ranges))
                )
                assert hashlib.sha256(data).hexdigest() == sha256
                self.files[sha256] = data
            return {"result": 1}
        start, _, name = path.rpartition("/")
        if start != "/xet/v1/xorbs/default":
            return None
        self._xorbs[name] = list(_chunks(body))
        return {"was_inserted": True}


def _chunks(xorb: bytes) -> Iterator[bytes]:
    """A header of eight bytes before each: version, packed size, kind of compression, size."""
    at = 0
    while at < len(xorb):
        fields = xorb[at + 1 : at + 4], xorb[at + 4 : at + 5], xorb[at + 5 : at + 8]
        packed, kind, size = (int.from_bytes(field, "little") for field in fields)
        data = xorb[at + 8 : at + 8 + packed]
        at += 8 + packed
        if kind:
            data = imagecodecs.lz4f_decode(data)
        if kind == 2:  # all first bytes of four, then all second ones …
            places, grouped = np.arange(size), np.frombuffer(data, np.uint8)
            order = np.concatenate([places[first::4] for first in range(4)])
            data = grouped[np.argsort(order)].tobytes()
        assert len(data) == size
        yield data


def _files(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Rows of 48 bytes after the header: each file's SHA-256, and its ranges of chunks (xorb, first, end)."""
    rows = (shard[at : at + 48] for at in range(48, len(shard), 48))
    for row in rows:
        if row[:32] == b"\xff" * 32:
            return
        flags, count = struct.unpack_from("<II", row, 32)
        entries = [next(rows) for _ in range(count)]
        ranges = [(_name(entry[:32]), *struct.unpack_from("<II", entry, 40)) for entry in entries]
        for _ in range(count if flags >> 31 else 0):
            next(rows)  # verification
        assert flags >> 30 & 1, "no SHA-256"
        yield _name(next(rows)[:32]), ranges


def _name(hash_: bytes) -> str:
    """A hash as text: four numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", hash_))
