/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads on one store. What each sees must make sense:
 *
 *   registers   blocks of a few files, written and read by all; forks of their trees are reads of all blocks at once. The
 *               history must be linearizable (history.h).
 *   pairs       one thread writes block 0 and then block 1 of its own file; a fork sees both, or the first one ahead by one.
 *   accounts    transactions move amounts between blocks of a file, some are taken back, trees are rolled back to
 *               snapshots; every fork sees the same sum.
 *   names       files made, renamed, removed and listed in one directory.
 *   scratch     trees made, forked, filled by clone, deleted; big deletions go on in the background.
 *
 * Beside it commits come from all sides, and the store is closed, opened and checked after each round.
 * In a last round the medium is the simulated one, and the power fails at random points: what was committed is there.
 *
 *   test_threads                the run of CI, about ten seconds
 *   test_threads SECONDS SEED   longer
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dev/dev.h"
#include "history.h"
#include "test.h"
#include "tree/store.h"

#define THREADS 8u
#define TREES 3u
#define BLOCKS 8u
#define REGISTERS (TREES * BLOCKS)
#define OPS_MAX 100000u /* of one thread in one round */
#define BALANCE 1000u
#define ROUND_MS 2500u

struct worker {
    pthread_t thread;
    unsigned number;
    uint64_t random, values;
    struct history_op *ops;
    size_t op_count;
    _Atomic uint64_t pair; /* last number that both blocks of its pair have */
    uint64_t ino_pair;
};

static struct {
    cow_store *store;
    struct cow_dev *sim;
    cow_tree *registers[TREES], *pairs, *accounts, *names;
    uint64_t ino_register[TREES], ino_accounts;
    struct worker workers[THREADS];
    _Atomic uint64_t tick;
    _Atomic bool stop;
    uint64_t pause_us;
} world;

static uint64_t tick(void) { return atomic_fetch_add(&world.tick, 1) + 1; }

static unsigned below(struct worker *me, unsigned n) { return (unsigned)(test_random(&me->random) % n); }

static void fill(uint64_t *block, uint64_t value)
{
    for (unsigned i = 0; i < COW_BLOCK_BYTES / 8; i++) block[i] = value + i;
}

/* The value of a block that must be whole. */
static uint64_t value_of(const uint64_t *block)
{
    for (unsigned i = 0; i < COW_BLOCK_BYTES / 8; i++)
        if (block[i] != block[0] + i) {
            CHECK(!"a block is made of two writes");
            break;
        }
    return block[0];
}

static uint64_t make_file(cow_tree *tree, const char *name)
{
    cow_attr attr = {.mode = S_IFREG | 0644};
    uint64_t ino;
    MUST(cow_dir_make(tree, COW_ROOT_INO, name, strlen(name), &attr, NULL, 0, &ino));
    return ino;
}

static void write_block(cow_tree *tree, uint64_t ino, uint64_t block, uint64_t value)
{
    uint64_t bytes[COW_BLOCK_BYTES / 8];
    fill(bytes, value);
    MUST(cow_file_write(tree, ino, block * COW_BLOCK_BYTES, bytes, sizeof bytes));
}

static cow_tree *snapshot(cow_tree *tree)
{
    cow_tree *fork;
    MUST(cow_tree_fork(tree, COW_FORK_SEALED, &fork));
    return fork;
}

static void drop(cow_tree *tree)
{
    MUST(cow_tree_delete(tree));
    cow_tree_close(tree);
}

/* ---- Registers ---- */

static void note(struct worker *me, uint64_t called, uint64_t answered, uint32_t reg, uint64_t value, bool write)
{
    if (me->op_count < OPS_MAX) me->ops[me->op_count++] = (struct history_op){called, answered, value, reg, write};
    else atomic_store(&world.stop, true);
}

static void write_register(struct worker *me)
{
    uint32_t tree = below(me, TREES), block = below(me, BLOCKS);
    uint64_t value = ((uint64_t)me->number + 1) << 48 | ++me->values << 12, called = tick();
    write_block(world.registers[tree], world.ino_register[tree], block, value);
    note(me, called, tick(), tree * BLOCKS + block, value, true);
}

static void read_register(struct worker *me)
{
    uint32_t tree = below(me, TREES), block = below(me, BLOCKS);
    uint64_t bytes[COW_BLOCK_BYTES / 8], called = tick();
    MUST(cow_file_read(world.registers[tree], world.ino_register[tree], block * COW_BLOCK_BYTES, bytes, sizeof bytes));
    note(me, called, tick(), tree * BLOCKS + block, value_of(bytes), false);
}

/* A fork reads all registers of a tree at once; it does not change when the tree does. */
static void read_by_fork(struct worker *me)
{
    uint32_t tree = below(me, TREES);
    uint64_t bytes[BLOCKS][COW_BLOCK_BYTES / 8], called = tick();
    cow_tree *fork = snapshot(world.registers[tree]);
    uint64_t answered = tick();
    for (unsigned again = below(me, 2); again < 2; again++) {
        MUST(cow_file_read(fork, world.ino_register[tree], 0, bytes, sizeof bytes));
        for (uint32_t i = 0; i < BLOCKS; i++) note(me, called, answered, tree * BLOCKS + i, value_of(bytes[i]), false);
    }
    drop(fork);
}

/* ---- Pairs, accounts ---- */

static void write_pair(struct worker *me)
{
    uint64_t next = atomic_load(&me->pair) + 1;
    write_block(world.pairs, me->ino_pair, 0, next);
    write_block(world.pairs, me->ino_pair, 1, next);
    atomic_store(&me->pair, next);
}

static void check_pairs(cow_tree *tree)
{
    uint64_t bytes[2][COW_BLOCK_BYTES / 8];
    for (unsigned i = 0; i < THREADS; i++) {
        MUST(cow_file_read(tree, world.workers[i].ino_pair, 0, bytes, sizeof bytes));
        uint64_t first = value_of(bytes[0]), second = value_of(bytes[1]);
        CHECK(first == second || first == second + 1);
    }
}

static void read_pairs(void)
{
    cow_tree *fork = snapshot(world.pairs);
    check_pairs(fork);
    drop(fork);
}

static uint64_t balance(cow_tree *tree, unsigned account)
{
    uint64_t amount = 0;
    MUST(cow_file_read(tree, world.ino_accounts, account * COW_BLOCK_BYTES + 128, &amount, sizeof amount));
    return amount;
}

static void set_balance(cow_tree *tree, unsigned account, uint64_t amount)
{
    MUST(cow_file_write(tree, world.ino_accounts, account * COW_BLOCK_BYTES + 128, &amount, sizeof amount));
}

static void check_accounts(cow_tree *tree)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < BLOCKS; i++) sum += balance(tree, i);
    CHECK_EQ(sum, BLOCKS * BALANCE);
}

static void transfer(struct worker *me)
{
    unsigned from = below(me, BLOCKS), to = below(me, BLOCKS);
    MUST(cow_store_begin(world.store));
    check_accounts(world.accounts);
    uint64_t there = balance(world.accounts, from), amount = there ? 1 + below(me, (unsigned)there) : 0;
    set_balance(world.accounts, from, there - amount);
    set_balance(world.accounts, to, balance(world.accounts, to) + amount);
    bool keep = below(me, 3) != 0;
    if (!keep) set_balance(world.accounts, to, 12345); /* what is taken back must not be seen */
    MUST(cow_store_end(world.store, keep));
}

/* Others may have moved something since: rolling back loses that, but no money. */
static void roll_back(struct worker *me)
{
    cow_tree *fork = snapshot(world.accounts);
    transfer(me);
    check_accounts(fork);
    MUST(cow_tree_reset(world.accounts, fork));
    drop(fork);
}

static void audit(void)
{
    cow_tree *fork = snapshot(world.accounts);
    check_accounts(fork);
    drop(fork);
}

/* ---- Names, scratch ---- */

static void names(struct worker *me)
{
    char name[16], other[16];
    cow_attr attr = {.mode = S_IFREG | 0644};
    uint64_t ino;
    uint64_t buffer[65536 / 8];
    (void)snprintf(name, sizeof name, "n%u", below(me, 40));
    (void)snprintf(other, sizeof other, "n%u", below(me, 40));
    int64_t rc = 0;
    switch (below(me, 6)) {
    case 0:
    case 1: rc = cow_dir_make(world.names, COW_ROOT_INO, name, strlen(name), &attr, NULL, 0, &ino); break;
    case 2: rc = cow_dir_remove(world.names, COW_ROOT_INO, name, strlen(name), COW_REMOVE_FILE); break;
    case 3:
        rc = cow_dir_rename(world.names, COW_ROOT_INO, name, strlen(name), COW_ROOT_INO, other, strlen(other), 0);
        break;
    case 4: rc = cow_dir_read(world.names, COW_ROOT_INO, 0, COW_READ_ATTR, buffer, sizeof buffer); break;
    default:
        if (cow_dir_lookup(world.names, COW_ROOT_INO, name, strlen(name), &ino, NULL) || cow_inode_get(world.names, ino)) break;
        rc = cow_file_write(world.names, ino, COW_APPEND, name, strlen(name)); /* it may have lost its name meanwhile */
        CHECK(rc == (int64_t)strlen(name) || rc == -ENOENT);
        MUST(cow_inode_put(world.names, ino));
        rc = 0;
        break;
    }
    CHECK(rc >= 0 || rc == -EEXIST || rc == -ENOENT);
}

static void scratch(struct worker *me)
{
    uint32_t from = below(me, TREES);
    uint64_t bytes[BLOCKS][COW_BLOCK_BYTES / 8];
    cow_tree *tree;
    MUST(cow_tree_create(world.store, below(me, 2) ? COW_FORK_TEMP : 0, &tree));
    uint64_t ino = make_file(tree, "clone");
    for (unsigned i = 0; i < 4; i++)
        MUST(cow_file_clone(world.registers[from], world.ino_register[from], 0, tree, ino, i * sizeof bytes, sizeof bytes));
    write_block(tree, ino, below(me, 4 * BLOCKS), (uint64_t)me->number << 48);
    MUST(cow_file_read(tree, ino, sizeof bytes, bytes, sizeof bytes));
    for (unsigned i = 0; i < BLOCKS; i++) (void)value_of(bytes[i]);
    char name[16];
    for (unsigned i = below(me, 60); i > 0; i--) {
        (void)snprintf(name, sizeof name, "f%u", i);
        uint64_t small = make_file(tree, name);
        MUST(cow_file_write(tree, small, 0, bytes, 1500));
    }
    cow_tree *fork = snapshot(tree);
    drop(tree);
    cow_tree_usage usage;
    MUST(cow_tree_get_usage(fork, &usage));
    drop(fork);
}

static void compare(struct worker *me)
{
    uint32_t from = below(me, TREES);
    uint64_t buffer[65536 / 8];
    cow_tree *old = snapshot(world.registers[from]), *new = snapshot(world.registers[from]);
    cow_diff *diff;
    MUST(cow_diff_open(old, new, &diff));
    while (cow_diff_read(diff, buffer, sizeof buffer) > 0) continue;
    cow_diff_close(diff);
    drop(old);
    drop(new);
}

/* ---- Rounds ---- */

static void check_store(void)
{
    cow_check_report report;
    MUST(cow_store_check(world.store, 1, NULL, NULL, &report));
    CHECK_EQ(report.errors, 0);
}

static void step(struct worker *me)
{
    unsigned what = below(me, 1000);
    if (what < 330) read_register(me);
    else if (what < 620) write_register(me);
    else if (what < 690) read_by_fork(me);
    else if (what < 790) write_pair(me);
    else if (what < 810) read_pairs();
    else if (what < 840) transfer(me);
    else if (what < 850) roll_back(me);
    else if (what < 870) audit();
    else if (what < 950) names(me);
    else if (what < 965) scratch(me);
    else if (what < 975) compare(me);
    else if (what < 990) MUST(cow_store_commit(world.store));
    else if (what < 998) MUST(cow_file_sync(world.registers[0], world.ino_register[0]));
    else if (what == 999 && below(me, 10) == 0) check_store();
}

static void *work(void *argument)
{
    struct worker *me = argument;
    while (!atomic_load_explicit(&world.stop, memory_order_relaxed)) {
        step(me);
        if (world.pause_us) (void)usleep((useconds_t)world.pause_us);
    }
    return NULL;
}

static const cow_options options = {
    .flags = COW_OPEN_CREATE, .commit_interval_ms = 15, .node_cache_bytes = 1, .record_cache_bytes = 1 << 16, .lookup_entries = 256};

static void make_world(uint64_t seed)
{
    for (uint32_t i = 0; i < TREES; i++) {
        MUST(cow_tree_create(world.store, 0, &world.registers[i]));
        world.ino_register[i] = make_file(world.registers[i], "registers");
        for (uint32_t block = 0; block < BLOCKS; block++)
            write_block(world.registers[i], world.ino_register[i], block, i * BLOCKS + block);
    }
    MUST(cow_tree_create(world.store, 0, &world.pairs));
    MUST(cow_tree_create(world.store, 0, &world.accounts));
    MUST(cow_tree_create(world.store, 0, &world.names));
    world.ino_accounts = make_file(world.accounts, "accounts");
    for (unsigned i = 0; i < BLOCKS; i++) set_balance(world.accounts, i, BALANCE);
    atomic_store(&world.tick, 0);
    atomic_store(&world.stop, false);
    for (unsigned i = 0; i < THREADS; i++) {
        struct worker *me = &world.workers[i];
        char name[16];
        (void)snprintf(name, sizeof name, "pair%u", i);
        me->number = i;
        me->random = seed * 1000 + i;
        me->values = me->op_count = 0;
        atomic_store(&me->pair, 0);
        me->ino_pair = make_file(world.pairs, name);
        write_block(world.pairs, me->ino_pair, 0, 0);
        write_block(world.pairs, me->ino_pair, 1, 0);
    }
}

static void start_threads(void)
{
    for (unsigned i = 0; i < THREADS; i++) MUST(-pthread_create(&world.workers[i].thread, NULL, work, &world.workers[i]));
}

static void stop_threads(void)
{
    atomic_store(&world.stop, true);
    for (unsigned i = 0; i < THREADS; i++) (void)pthread_join(world.workers[i].thread, NULL);
}

static size_t check_history(void)
{
    size_t count = 0;
    for (unsigned i = 0; i < THREADS; i++) count += world.workers[i].op_count;
    struct history_op *ops = malloc((count + 1) * sizeof *ops);
    MUST(ops ? 0 : -ENOMEM);
    size_t at = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        memcpy(ops + at, world.workers[i].ops, world.workers[i].op_count * sizeof *ops);
        at += world.workers[i].op_count;
    }
    CHECK(history_check(ops, count, true));
    free(ops);
    return count;
}

/* The judge itself: histories that are fine, and one of each kind that is not. */
static void test_judge(void)
{
    struct history_op fine[] = {{1, 4, 100, 0, true}, {2, 3, 0, 0, false}, {5, 6, 100, 0, false}, {7, 9, 200, 0, true},
                                {8, 10, 200, 0, false}, {11, 12, 200, 0, false}, {7, 8, 1, 1, false}};
    struct history_op stale[] = {{1, 2, 100, 0, true}, {3, 4, 200, 0, true}, {5, 6, 100, 0, false}};
    struct history_op early[] = {{1, 2, 100, 0, false}, {3, 4, 100, 0, true}};
    struct history_op unknown[] = {{1, 2, 100, 0, false}};
    struct history_op back[] = {{1, 2, 100, 0, true}, {3, 4, 0, 0, false}};
    struct history_op turns[] = {{1, 9, 100, 0, true}, {2, 10, 200, 0, true}, {11, 12, 100, 0, false},
                                 {13, 14, 200, 0, false}, {15, 16, 100, 0, false}};
    CHECK(history_check(fine, 7, true));
    CHECK(!history_check(stale, 3, false));
    CHECK(!history_check(early, 2, false));
    CHECK(!history_check(unknown, 1, false));
    CHECK(!history_check(back, 2, false));
    CHECK(!history_check(turns, 5, false));
}

static uint64_t tree_id(cow_tree *tree)
{
    cow_tree_info info;
    MUST(cow_tree_get_info(tree, &info));
    return info.id;
}

static void close_handles(void)
{
    for (unsigned i = 0; i < TREES; i++) cow_tree_close(world.registers[i]);
    cow_tree_close(world.pairs);
    cow_tree_close(world.accounts);
    cow_tree_close(world.names);
}

/* On host files: works, closes, opens, compares. */
static size_t round_on_files(uint64_t seed, uint64_t ms)
{
    char path[] = "/dev/shm/pycow-threads-XXXXXX", command[64]; /* syncs cost nothing there: more happens at once */
    if (!mkdtemp(path)) {
        strcpy(path, "/tmp/pycow-threads-XXXXXX");
        MUST(mkdtemp(path) ? 0 : -errno);
    }
    MUST(cow_store_open(path, &options, &world.store));
    make_world(seed);
    start_threads();
    for (uint64_t at = 0; at < ms && !atomic_load(&world.stop); at += 10) (void)usleep(10000);
    stop_threads();
    size_t count = check_history();
    check_store();
    uint64_t pairs = tree_id(world.pairs), accounts = tree_id(world.accounts);
    close_handles();
    MUST(cow_store_close(world.store));

    MUST(cow_store_open(path, &options, &world.store));
    MUST(cow_tree_open(world.store, pairs, &world.pairs));
    MUST(cow_tree_open(world.store, accounts, &world.accounts));
    for (unsigned i = 0; i < THREADS; i++) {
        uint64_t bytes[COW_BLOCK_BYTES / 8];
        MUST(cow_file_read(world.pairs, world.workers[i].ino_pair, COW_BLOCK_BYTES, bytes, sizeof bytes));
        CHECK_EQ(value_of(bytes), world.workers[i].pair);
    }
    check_accounts(world.accounts);
    check_store();
    cow_tree_close(world.pairs);
    cow_tree_close(world.accounts);
    MUST(cow_store_close(world.store));
    (void)snprintf(command, sizeof command, "rm -r %s", path);
    CHECK_EQ(system(command), 0);
    return count;
}

/* ---- Power failures while threads work ---- */

#define ACKS_MAX 512u

static struct {
    uint64_t events, pair[THREADS]; /* acknowledged when so many events had been issued: these numbers */
} acks[ACKS_MAX];
static unsigned ack_count;

static void commit_and_note(void)
{
    uint64_t pair[THREADS];
    for (unsigned i = 0; i < THREADS; i++) pair[i] = atomic_load(&world.workers[i].pair);
    MUST(cow_store_commit(world.store));
    if (ack_count == ACKS_MAX) return;
    acks[ack_count].events = cow_dev_sim_events(world.sim);
    memcpy(acks[ack_count++].pair, pair, sizeof pair);
}

static void check_image(uint64_t event, uint64_t crash, uint64_t pairs_id, uint64_t accounts_id)
{
    struct cow_dev *image;
    cow_tree *pairs, *accounts;
    unsigned acked = 0;
    while (acked < ack_count && acks[acked].events <= event) acked++;
    MUST(cow_dev_sim_crash(world.sim, event, crash, &image));
    cow_options quiet = {.flags = COW_OPEN_CREATE};
    MUST(cow_store_open_dev(image, &quiet, &world.store));
    check_store();
    if (acked > 0) {
        MUST(cow_tree_open(world.store, pairs_id, &pairs));
        MUST(cow_tree_open(world.store, accounts_id, &accounts));
        check_pairs(pairs);
        check_accounts(accounts);
        for (unsigned i = 0; i < THREADS; i++) {
            uint64_t bytes[COW_BLOCK_BYTES / 8];
            MUST(cow_file_read(pairs, world.workers[i].ino_pair, COW_BLOCK_BYTES, bytes, sizeof bytes));
            CHECK(value_of(bytes) >= acks[acked - 1].pair[i]);
        }
        cow_tree_close(pairs);
        cow_tree_close(accounts);
    }
    MUST(cow_store_close(world.store));
}

/* Threads make no log that can be made again, so a failure here is found again only by trying. */
static unsigned round_of_crashes(uint64_t seed, uint64_t ms, unsigned images)
{
    const struct cow_tuning tuning = {.journal_pages = 8};
    uint64_t random = seed;
    MUST(cow_dev_sim_open(&world.sim));
    cow_dev_sim_hold(world.sim);
    cow_dev_sim_slow(world.sim, 400); /* so that much happens between the closing of a generation and its end */
    MUST(cow_store_open_dev(world.sim, &options, &world.store));
    cow_store_tune(world.store, &tuning);
    make_world(seed);
    MUST(cow_store_commit(world.store));
    uint64_t first = cow_dev_sim_events(world.sim), pairs = tree_id(world.pairs), accounts = tree_id(world.accounts);
    ack_count = 0;
    world.pause_us = 1500;
    start_threads();
    for (uint64_t at = 0; at < ms; at += 10) {
        (void)usleep(5000);
        commit_and_note();
    }
    stop_threads();
    world.pause_us = 0;
    close_handles();
    MUST(cow_store_close(world.store));
    uint64_t events = cow_dev_sim_events(world.sim) - first;
    for (unsigned i = 0; i < images; i++) { /* rising: going back in the log is dear */
        uint64_t event = first + events * i / images + test_random(&random) % (events / images + 1);
        if (event > first + events) event = first + events;
        check_image(event, test_random(&random) % 9, pairs, accounts);
    }
    cow_dev_destroy(world.sim);
    return images;
}

static void alarmed(int number)
{
    static const char text[] = "test_threads: no end in sight, a deadlock?\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored, (void)number;
    abort();
}

static uint64_t now_ms(void) { return (uint64_t)cow_now_ns() / 1000000; }

int main(int argc, char **argv)
{
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 10, seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t end = now_ms() + seconds * 1000;
    size_t operations = 0;
    unsigned rounds = 0, images = 0;
    (void)signal(SIGALRM, alarmed);
    test_judge();
    for (unsigned i = 0; i < THREADS; i++) {
        world.workers[i].ops = malloc(OPS_MAX * sizeof *world.workers[i].ops);
        MUST(world.workers[i].ops ? 0 : -ENOMEM);
    }
    do {
        (void)alarm(600);
        operations += round_on_files(seed * 100 + rounds, ROUND_MS);
        images += round_of_crashes(seed * 100 + rounds, ROUND_MS / 3, 60);
        rounds++;
    } while (now_ms() < end && test_failed_checks == 0);
    for (unsigned i = 0; i < THREADS; i++) free(world.workers[i].ops);
    printf("threads: %u rounds, %zu operations on registers in linearizable order, %u crash images; %u checks failed\n", rounds,
           operations, images, test_failed_checks);
    return test_failed_checks != 0;
}
