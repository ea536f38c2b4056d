"""The file system of /: apart from the machine, of which `why` loads nothing."""

from reprieve.model.noun import noun

# Where a file without holes can be swapped to. btrfs wants one that is not copied on write, and no snapshot of it.
HOLD_SWAP = ("ext2", "ext3", "ext4", "xfs", "f2fs")


@noun
class RootFs:
    """The file system of /, where a swap file would be."""

    kind: str  # "ext4", "btrfs", "overlay"
    read_only: bool
    size_bytes: int | None = None
    free_bytes: int | None = None  # for who is not root
