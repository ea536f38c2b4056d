"""A decompressor alone: the loop that finding in a rotated log is measured against."""

import sys

_READ_BYTES = 64 * 1024  # larger pieces are mapped and unmapped by malloc one by one, and cost twice as much


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
        while file.read(_READ_BYTES):
            pass


if __name__ == "__main__":
    main(sys.argv[1])
