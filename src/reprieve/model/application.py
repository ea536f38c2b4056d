"""Applications that bound their memory themselves: what they were told, parsed. Their command lines never get here."""

from reprieve.model.noun import noun

Origins = tuple[tuple[str, str], ...]  # a setting by the application's own name, and where it was told


@noun
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


@noun
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


@noun
class Postgres:
    """A PostgreSQL server, by its postmaster. The fields are its settings; None: not told, and its own default holds.

    They are what files and command line say: what is set for one role, database or session is not among them, and what
    was changed in a file since the server read it is.
    """

    pid: int
    start_ticks: int
    postgres_version: str | None = None  # "15", "9.6": of the file PG_VERSION in its data
    port: int | None = None
    shared_buffers_bytes: int | None = None
    huge_pages: str | None = None  # "try", "on", "off": for what is shared
    wal_buffers_bytes: int | None = None  # -1, a share of shared_buffers, is None
    max_connections: int | None = None
    work_mem_bytes: int | None = None  # of each sort, hash and the like in a running query
    hash_mem_multiplier: float | None = None  # how much more of it a hash may take, since 13
    temp_buffers_bytes: int | None = None  # of each session that uses temporary tables
    maintenance_work_mem_bytes: int | None = None
    autovacuum_work_mem_bytes: int | None = None  # -1, as maintenance_work_mem, is None
    autovacuum_max_workers: int | None = None
    max_parallel_workers: int | None = None
    backends: int | None = None  # that serve a connection now; None: which of its processes do could not be told
    origins: Origins = ()
    unseen: tuple[str, ...] = ()  # where more may be told, and could not be read: a file


@noun
class Redis:
    """A Redis server. The fields are its settings; None: not told, and its own default holds.

    What it said itself counts, and nothing else does then; where it could not be asked, command line and file do.
    """

    pid: int
    start_ticks: int
    redis_version: str | None = None
    port: int | None = None  # 0: none, it listens on a socket of the file system alone
    config_file: str | None = None  # it was started with, where that is the file of this path for us too
    maxmemory_bytes: int | None = None  # 0: no bound
    maxmemory_policy: str | None = None  # what it does there: "noeviction", "allkeys-lru", …
    save: str | None = None  # "3600 1 300 100": after so many seconds with so many changes; "": never
    appendonly: bool | None = None
    replica_buffer_bytes: int | None = None  # client-output-buffer-limit of replicas, the hard one; 0: no bound
    repl_backlog_size_bytes: int | None = None
    replicas: int | None = None  # connected now
    used_memory_bytes: int | None = None  # as it counts itself, what maxmemory is held against
    used_memory_peak_bytes: int | None = None
    last_cow_bytes: int | None = None  # what its last save copied, since it was written to meanwhile
    last_save_failed: bool | None = None
    origins: Origins = ()
    unseen: tuple[str, ...] = ()  # where more may be told, and could not be read: "the server itself", a file
