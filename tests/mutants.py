"""Damage to files: flipped, cut, spliced and rewritten bytes, drawn by hypothesis."""

import struct
import zlib
from collections.abc import Iterator, Mapping

from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 4096, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)

_place = st.integers(0, 300) | st.integers(0, 2**20)  # headers lie at the beginning; taken modulo the length
_byte = st.integers(0, 255)
_size = st.sampled_from((1, 2, 4, 8))
_order = st.sampled_from(("little", "big"))


def mutants(originals: Mapping[str, bytes]) -> st.SearchStrategy:
    """A name of ``originals``, and the changes that ``mutant`` makes."""
    name = st.sampled_from(sorted(originals))
    change = st.one_of(
        st.tuples(st.just("flip"), _place, _byte),
        st.tuples(st.just("number"), _place, st.sampled_from(NUMBERS), _size, _order),
        st.tuples(st.just("field"), st.integers(0, 400), st.sampled_from(NUMBERS) | st.integers(0, 2**16)),
        st.tuples(st.just("cut"), _place),
        st.tuples(st.just("remove"), _place, st.integers(1, 64)),
        st.tuples(st.just("insert"), _place, st.binary(min_size=1, max_size=64)),
        st.tuples(st.just("fill"), _place, st.integers(1, 200), st.sampled_from((0, 255))),
        st.tuples(st.just("splice"), _place, name, _place),
        st.tuples(st.just("repeat"), _place, st.integers(1, 200), st.integers(2, 50)),
    )
    return st.tuples(name, st.lists(change, min_size=1, max_size=3), st.booleans())


def mutant(originals: Mapping[str, bytes], case: tuple) -> bytes:
    """The file of a case that ``mutants`` has drawn."""
    name, changes, checksums = case
    data = bytearray(originals[name])
    for kind, place, *rest in changes:
        at = place % max(len(data), 1)
        match kind, *rest:
            case "flip", byte:
                data[at : at + 1] = bytes([byte])
            case "number", number, size, order:
                data[at : at + size] = (number % 256**size).to_bytes(size, order)
            case "field", number:
                where = list(_fields(originals[name]))
                start, size, order = where[place % len(where)] if where else (at, 4, "little")
                data[start : start + size] = (number % 256**size).to_bytes(size, order)
            case "cut", *_:
                del data[at:]
            case "remove", length:
                del data[at : at + length]
            case "insert", more:
                data[at:at] = more
            case "fill", length, byte:
                data[at : at + length] = bytes([byte]) * len(data[at : at + length])
            case "splice", other, start:
                tail = originals[other]
                data[at:] = tail[start % len(tail) :]
            case "repeat", length, times:
                data[at : at + length] = data[at : at + length] * times
    if checksums and data.startswith(b"\x89PNG"):
        _mend_checksums(data)
    return bytes(data)


def _fields(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Where a PNG's or TIFF's header has its numbers, their sizes and byte order."""
    if data.startswith(b"\x89PNG"):
        yield from ((16, 4, "big"), (20, 4, "big"), *((24 + i, 1, "big") for i in range(5)))
    elif data[:4] in (b"II*\0", b"MM\0*"):
        order = "little" if data[:1] == b"I" else "big"
        sign = "<" if order == "little" else ">"
        (start,) = struct.unpack_from(sign + "I", data, 4)
        (entries,) = struct.unpack_from(sign + "H", data, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            _, kind, count, value = struct.unpack_from(sign + "HHII", data, entry)
            yield from ((entry + 2, 2, order), (entry + 4, 4, order), (entry + 8, 4, order))
            if kind == 4 and 1 < count < 100:  # offsets and byte counts that stand elsewhere
                yield from ((value + 4 * i, 4, order) for i in range(count))


def _mend_checksums(data: bytearray) -> None:
    """What a PNG's checksums should be, so that its decoder gets to see the damage."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
