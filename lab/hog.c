/* hog: takes memory the way a scenario asks for, touching every page of it with content that does not compress.
 *
 * hog --mib N [--kib N] [--kind anon|shared|lock|socket|file=PATH] [--name COMM] [--adj N] [--node N] [--children N]
 *     [--threads N] [--step-mib N] [--pace-ms N] [--hold S]
 *
 * Exit status: 0 it had all it wanted, 12 the kernel refused (ENOMEM), 2 wrong usage, 1 anything else. --hold -1 stays
 * until it is killed. Static and alone: it is the only program of the guest that may grow.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define PAGE 4096
#define MPOL_BIND 2 /* linux/mempolicy.h, which libc does not bring */

struct wishes {
    const char *kind, *name, *adj;
    long kib, step_mib, pace_ms, hold_s, children, threads;
    int node;
};

static void fail(const char *what)
{
    int refused = errno == ENOMEM; /* now: strict overcommit refuses tmpfs the page that the message needs, too */

    perror(what);
    exit(refused ? 12 : 1);
}

static void rest(long ms)
{
    struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&span, NULL);
}

static void hold(long seconds)
{
    if (seconds < 0)
        pause();
    rest(seconds * 1000);
    while (wait(NULL) > 0)
        ;
}

/* xorshift64: pages that zram and KSM cannot make smaller. */
static void fill(char *at, size_t bytes)
{
    uint64_t seed = 88172645463325252u ^ (uintptr_t)at;
    for (uint64_t *word = (uint64_t *)at; word < (uint64_t *)(at + bytes); word += 8) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        *word = seed;
    }
}

static void take_pages(const struct wishes *want)
{
    int shared = !strcmp(want->kind, "shared"), locked = !strcmp(want->kind, "lock"), file = -1;
    size_t all = want->kib / want->threads * 1024, step;
    int flags = shared ? MAP_SHARED | MAP_ANONYMOUS : MAP_PRIVATE | MAP_ANONYMOUS;

    if (!strncmp(want->kind, "file=", 5)) {
        flags = MAP_SHARED;
        if ((file = open(want->kind + 5, O_RDWR | O_CREAT, 0600)) < 0)
            fail("open");
    }
    for (size_t done = 0; done < all; done += step) {
        off_t from = file < 0 ? 0 : (off_t)done;
        step = all - done < want->step_mib * MIB ? all - done : want->step_mib * MIB;
        if (file >= 0 && ftruncate(file, from + (off_t)step))
            fail("ftruncate");
        char *at = mmap(NULL, step, PROT_READ | PROT_WRITE, flags, file, from);
        if (at == MAP_FAILED)
            fail("mmap");
        if (locked && mlock(at, step))
            fail("mlock");
        for (size_t page = 0; page < step; page += PAGE)
            fill(at + page, PAGE);
        rest(want->pace_ms);
    }
}

/* A thread that has its part stays: the kernel lets each keep a few of its pages uncounted. */
static void *take_part(void *want)
{
    take_pages(want);
    printf("hog %d has a part\n", getpid());
    fflush(stdout);
    pause();
    return NULL;
}

/* Kernel memory that belongs to no process: datagrams that nobody reads, queued on unix sockets. */
static void take_sockets(const struct wishes *want)
{
    static char datagram[16000];
    struct rlimit many = {1 << 20, 1 << 20};
    int pair[2];

    setrlimit(RLIMIT_NOFILE, &many);
    for (size_t queued = 0; queued < (size_t)want->kib * 1024;) {
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair))
            fail("socketpair");
        for (ssize_t sent; (sent = write(pair[0], datagram, sizeof datagram)) > 0;)
            queued += sent;
    }
}

static void become(const struct wishes *want)
{
    if (want->adj) {
        int file = open("/proc/self/oom_score_adj", O_WRONLY);
        if (file < 0 || write(file, want->adj, strlen(want->adj)) < 0)
            fail("oom_score_adj");
        close(file);
    }
    if (want->name)
        prctl(PR_SET_NAME, want->name, 0, 0, 0);
    if (want->node >= 0) {
        unsigned long mask = 1ul << want->node;
        if (syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 8 * sizeof mask))
            fail("set_mempolicy");
    }
    for (long child = 0; child < want->children; child++)
        if (fork() == 0)
            break;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"mib", 1, 0, 'm'},     {"kib", 1, 0, 'b'},     {"step-mib", 1, 0, 's'}, {"kind", 1, 0, 'k'},
        {"name", 1, 0, 'n'},    {"adj", 1, 0, 'a'},     {"node", 1, 0, 'N'},     {"children", 1, 0, 'c'},
        {"threads", 1, 0, 't'}, {"pace-ms", 1, 0, 'p'}, {"hold", 1, 0, 'H'},     {0}};
    struct wishes want = {.kind = "anon", .step_mib = 4, .node = -1, .threads = 1};

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'm': want.kib += atol(optarg) * 1024; break;
        case 'b': want.kib += atol(optarg); break;
        case 's': want.step_mib = atol(optarg); break;
        case 'k': want.kind = optarg; break;
        case 'n': want.name = optarg; break;
        case 'a': want.adj = optarg; break;
        case 'N': want.node = atoi(optarg); break;
        case 'c': want.children = atol(optarg); break;
        case 't': want.threads = atol(optarg); break;
        case 'p': want.pace_ms = atol(optarg); break;
        case 'H': want.hold_s = atol(optarg); break;
        default: return 2;
        }
    if (want.kib <= 0 || want.step_mib <= 0 || want.threads <= 0)
        return 2;
    become(&want);
    for (long other = 1; other < want.threads; other++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, take_part, &want)))
            fail("pthread_create");
    }
    if (!strcmp(want.kind, "socket"))
        take_sockets(&want);
    else
        take_pages(&want);
    printf("hog %d has %ld MiB\n", getpid(), want.kib / 1024);
    fflush(stdout);
    hold(want.hold_s);
    return 0;
}
