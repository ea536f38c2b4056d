"""A decompressor alone: the loop that finding in a rotated log is measured against."""

import sys

from reprieve.machine.source import BLOCK_BYTES


def main(path: str) -> None:
    if path.endswith(".gz"):
        from isal import igzip

        opened = igzip.open(path)  # type: ignore[no-untyped-call]
    elif sys.version_info >= (3, 14):
        from compression import zstd

        opened = zstd.open(path)
    else:
        from backports import zstd

        opened = zstd.open(path)
    with opened as file:
        while file.read(BLOCK_BYTES):
            pass


if __name__ == "__main__":
    main(sys.argv[1])
