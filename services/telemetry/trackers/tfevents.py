"""TensorBoard's event files, as far as scalars need them.

By hand, as every package that writes them loads torch or TensorFlow: of a process that needs
neither, 190 MB and a second. A file is TFRecords: length (8 bytes, little-endian), its masked
CRC-32C, an Event message, its masked CRC-32C. The messages are tensorflow/core/util/event.proto
and framework/summary.proto; the numbers below are their field numbers.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()


class EventFile:
    """One new file in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # Readers take the files of a folder in the order of their names.
        name = f"events.out.tfevents.{now:017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._write(_double(1, now) + _bytes(3, b"brain.Event:2"))

    def scalars(self, at: float, step: int, values: Mapping[str, float]) -> None:
        """Values by tag; `at` in seconds since the epoch."""
        each = (_bytes(1, _bytes(1, tag.encode()) + _float(2, x)) for tag, x in values.items())
        self._write(_double(1, at) + _varint(2, step) + _bytes(5, b"".join(each)))

    def begin_at(self, step: int) -> None:
        """Readers leave out what the files before have from this step on."""
        started = _varint(1, 1)  # SessionLog.START
        self._write(_double(1, time.time()) + _varint(2, step) + _bytes(7, started))

    def flush(self) -> None:
        """To the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def _checksum(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)


def _varint(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _number(value)


def _double(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return bytes([field << 3 | 5]) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _number(len(value)) + value


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have the high bit."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
