"""Page headers of parquet files: structures of numbers in Thrift's compact protocol."""

from collections.abc import Mapping

Struct = Mapping[int, "int | Struct"]  # values by field id; texts and lists are skipped
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


class TruncatedError(Exception):
    """The bytes end inside a structure."""


class Reader:
    """Reads structures from bytes. position: behind what was read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def struct(self) -> Struct:
        """The numbers, flags and structures of a structure."""
        values: dict[int, int | Struct] = {}
        field = 0
        while header := self._byte():
            kind, delta = header & 15, header >> 4
            field = field + delta if delta else self._number()
            if kind in (TRUE, FALSE):
                values[field] = int(kind == TRUE)
            elif (value := self._value(kind)) is not None:
                values[field] = value
        return values

    def _value(self, kind: int) -> "int | Struct | None":
        """A number or a structure; None for anything else, which is skipped."""
        if kind == STRUCT:
            return self.struct()
        if kind in (BYTE, TRUE, FALSE):  # a flag in a list is a byte
            return self._byte()
        if BYTE < kind < DOUBLE:
            return self._number()
        if kind == DOUBLE:
            self._skip(8)
        elif kind == BINARY:
            self._skip(self.varint())
        elif kind in (LIST, SET):
            header = self._byte()
            count = header >> 4 if header >> 4 < 15 else self.varint()
            for _ in range(count):
                self._value(header & 15)
        else:
            raise ValueError(f"a value of the unknown type {kind}")
        return None

    def varint(self) -> int:
        """An unsigned integer, seven bits per byte."""
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _number(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def _byte(self) -> int:
        self._skip(1)
        return self.data[self.position - 1]

    def _skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self.data):
            raise TruncatedError
