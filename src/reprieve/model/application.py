"""Applications that bound their memory themselves: what they were told, parsed. Their command lines never get here."""

from dataclasses import dataclass

Origins = tuple[tuple[str, str], ...]  # a setting by the application's own name, and where it was told


@dataclass(frozen=True, slots=True, kw_only=True)
class Jvm:
    """A Java virtual machine (HotSpot). The fields are its flags; None: it was not told, and its own default holds."""

    pid: int
    start_ticks: int
    java_version: str | None = None  # "17.0.15", "1.8.0_372": of the file `release` beside it
    collector: str | None = None  # "G1", "Serial", "Parallel", "Z", …; None: it chooses by CPUs and memory
    max_heap_size_bytes: int | None = None  # -Xmx
    initial_heap_size_bytes: int | None = None  # -Xms
    max_ram_bytes: int | None = None  # taken for the size of the machine
    max_ram_percentage: float | None = None
    min_ram_percentage: float | None = None  # counts on small machines, as the largest heap all the same
    initial_ram_percentage: float | None = None
    max_metaspace_size_bytes: int | None = None
    max_direct_memory_size_bytes: int | None = None
    reserved_code_cache_size_bytes: int | None = None
    thread_stack_size_bytes: int | None = None  # -Xss
    use_container_support: bool | None = None
    origins: Origins = ()
    unseen: tuple[str, ...] = ()  # where more may be told, and could not be read: "environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJs:
    """A Node.js process. The fields are options of V8; None: it was not told, and its own default holds."""

    pid: int
    start_ticks: int
    node_version: str | None = None  # "20.20.2": of the header file beside it
    max_old_space_size_bytes: int | None = None
    max_old_space_size_percentage: float | None = None  # since 24: of the memory it sees
    max_semi_space_size_bytes: int | None = None
    max_heap_size_bytes: int | None = None  # old and young together
    origins: Origins = ()
    unseen: tuple[str, ...] = ()  # where more may be told, and could not be read: "environment"
