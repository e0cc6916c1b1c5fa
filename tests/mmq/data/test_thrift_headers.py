"""Structures in Thrift's compact protocol are read; what is not a number is skipped."""

import pytest

from mmq.data.thrift_headers import Reader, TruncatedError

HEADER = bytes([
    0x15, 0x06,  # field 1: a number, 3
    0x18, 0x02, 0x41, 0x42,  # field 2: a text
    0x19, 0x25, 0x02, 0x04,  # field 3: a list of two numbers
    0x11,  # field 4: true
    0x2C, 0x15, 0x01, 0x00,  # field 6: a structure with field 1: -1
    0x05, 0x28, 0x80, 0x01,  # field 20, written in full: 64
    0x17, *bytes(8),  # field 21: a floating-point number
    0x00, 0xEE,
])  # fmt: skip


def test_numbers_flags_and_structures_are_read():
    reader = Reader(HEADER)
    assert reader.struct() == {1: 3, 4: 1, 6: {1: -1}, 20: 64}
    assert reader.position == len(HEADER) - 1


def test_the_end_inside_a_structure_is_noticed():
    for end in range(len(HEADER) - 1):
        with pytest.raises(TruncatedError):
            Reader(HEADER[:end]).struct()
