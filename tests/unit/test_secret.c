#include "common/secret.h"

#include "common/scoped.h"
#include "common/stretch.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECRET "correct horse battery"

static const char *
write_file(const char *name, const char *text, mode_t mode)
{
    const char *path = scratch_path(scratch_directory(), name);
    unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static void
test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(void **state)
{
    (void)state;
    static const struct {
        mode_t mode;
        bool accepted;         /* when we own it */
        bool accepted_of_root; /* when root does, and we are root */
    } cases[] = {
        {0600, true, true},   {0400, true, true},   {0640, false, true},  {0440, false, true},
        {0644, false, false}, {0660, false, false}, {0604, false, false}, {0601, false, false},
        {0610, false, false}, {0620, false, false}, {0777, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CairnError err = {0};
        const char *path = write_file("modes", SECRET "\n", cases[i].mode);
        const bool expected = geteuid() == 0 ? cases[i].accepted_of_root : cases[i].accepted;
        SCOPED(Secret) secret = secret_read_line(world_real(), path, &err);
        assert_int_equal(secret != NULL, expected);
        CairnError check_err = {0};
        assert_int_equal(secret_file_check(world_real(), path, &check_err), expected);
        if (secret != NULL) {
            assert_string_equal((const char *)secret->data, SECRET);
            continue;
        }
        assert_int_equal(err.kind, CAIRN_DENIED);
        assert_non_null(strstr(err.hint, "chmod 600"));
        assert_null(strstr(err.message, "horse"));
    }
}

/* As Kubernetes mounts a secret: a link to a file below a link. */
static void
test_a_link_leads_to_a_file_that_the_rules_are_for(void **state)
{
    (void)state;
    CairnError err = {0};
    const char *closed = write_file("closed", SECRET, 0600);
    const char *open = write_file("open", SECRET, 0644);
    const char *link = scratch_path(scratch_directory(), "mounted");
    assert_int_equal(symlink(closed, link), 0);
    SCOPED(Secret) secret = secret_read_line(world_real(), link, &err);
    assert_non_null(secret);
    assert_string_equal((const char *)secret->data, SECRET);

    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(open, link), 0);
    assert_null(secret_read_line(world_real(), link, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_non_null(strstr(err.message, "open to others"));
    cairn_error_clear(&err);

    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink("nowhere", link), 0);
    assert_null(secret_read_line(world_real(), link, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    cairn_error_clear(&err);

    if (geteuid() != 0)
        return;
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(closed, link), 0);
    assert_int_equal(lchown(link, 65534, 65534), 0);
    assert_null(secret_read_line(world_real(), link, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_non_null(strstr(err.message, "symbolic link of user 65534"));
}

static void
test_a_fifo_and_a_directory_are_no_secrets(void **state)
{
    (void)state;
    const char *fifo = scratch_path(scratch_directory(), "fifo");
    const char *link = scratch_path(scratch_directory(), "link");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(symlink(fifo, link), 0);
    const char *const paths[] = {link, fifo, scratch_directory()};
    for (size_t i = 0; i < 3; i++) {
        CairnError err = {0};
        assert_null(secret_read_file(world_real(), paths[i], 100, &err));
        assert_int_equal(err.kind, CAIRN_DENIED);
    }
    CairnError err = {0};
    assert_null(secret_read_file(world_real(), "/nonexistent/secret", 100, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

static void
test_files_are_bounded_and_lines_are_one(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *line; /* NULL: refused */
    } cases[] = {
        {"abc", "abc"},       {"abc\n", "abc"}, {"abc\r\n", "abc"},
        {" a b \n", " a b "}, {"", NULL},       {"\n", NULL},
        {"a\nb\n", NULL},     {"a\n\n", NULL},  {"\xc3\xa4\n", "\xc3\xa4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CairnError err = {0};
        const char *path = write_file("line", cases[i].text, 0600);
        SCOPED(Secret) secret = secret_read_line(world_real(), path, &err);
        if (cases[i].line == NULL) {
            assert_null(secret);
            assert_int_equal(err.kind, CAIRN_USAGE);
        } else {
            assert_non_null(secret);
            assert_string_equal((const char *)secret->data, cases[i].line);
        }
    }
    CairnError err = {0};
    const char *path = write_file("large", "0123456789", 0600);
    assert_null(secret_read_file(world_real(), path, 10, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
}

/*
 * Time that passes only where a test wants it: a command on a machine that has other things to do
 * is not late, and one that is to be late is so at a certain point.
 */
typedef struct {
    Clock clock; /* first */
    int64_t now_ns;
    bool sleeps_count; /* what is slept is time passed */
    int started_fd;    /* >= 0: once it can be read an hour has passed */
} CommandClock;

static int64_t
command_ns(const Clock *clock)
{
    CommandClock *ours = (CommandClock *)(uintptr_t)clock;
    struct pollfd started = {.fd = ours->started_fd, .events = POLLIN};
    if (ours->started_fd >= 0 && poll(&started, 1, 0) > 0)
        return INT64_C(3600) * 1000000000;
    return ours->now_ns;
}

static void
command_sleep_ms(const Clock *clock, int64_t duration_ms)
{
    CommandClock *ours = (CommandClock *)(uintptr_t)clock;
    const Clock *real = world_real()->clock;
    if (ours->sleeps_count)
        ours->now_ns += duration_ms * 1000000;
    real->sleep_ms(real, duration_ms);
}

static Secret *
run_by(CommandClock *clock, const char *command, int timeout_s, CairnError *err)
{
    World world = *world_real();
    clock->clock = *world.clock;
    clock->clock.monotonic_ns = command_ns;
    clock->clock.sleep_ms = command_sleep_ms;
    world.clock = &clock->clock;
    return secret_run_command(&world, command, timeout_s, err);
}

/* However long it takes. */
static Secret *
run(const char *command, CairnError *err)
{
    return run_by(&(CommandClock){.started_fd = -1}, command, 10, err);
}

static void
test_a_command_gives_its_one_line(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Secret) secret = run("printf '" SECRET "\\n'", &err);
    assert_non_null(secret);
    assert_string_equal((const char *)secret->data, SECRET);
    /* Its standard input is empty, not ours. */
    SCOPED(Secret) other = run("cat; echo x", &err);
    assert_non_null(other);
    assert_string_equal((const char *)other->data, "x");
}

static void
test_a_command_that_fails_is_named_and_nothing_of_it_is_quoted(void **state)
{
    (void)state;
    static const struct {
        const char *command;
        CairnErrorKind kind;
        const char *said;
    } cases[] = {
        {"echo " SECRET "; exit 3", CAIRN_UNAVAILABLE, "exit status 3"},
        {"echo " SECRET "; kill -KILL $$", CAIRN_UNAVAILABLE, "signal 9"},
        {"echo horse; echo horse", CAIRN_USAGE, "more than one line"},
        {"true", CAIRN_USAGE, "empty"},
        {"no-such-command-of-ours 2>/dev/null", CAIRN_UNAVAILABLE, "exit status 127"},
        {"yes horse", CAIRN_USAGE, "more than"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CairnError err = {0};
        assert_null(run(cases[i].command, &err));
        assert_int_equal(err.kind, cases[i].kind);
        assert_non_null(strstr(err.message, cases[i].said));
        assert_null(strstr(err.message, "horse"));
        assert_null(strstr(err.hint, "horse"));
    }
}

/* Its output is whole, and still it goes on. */
static void
test_a_command_that_closes_its_output_has_no_longer_than_others(void **state)
{
    (void)state;
    CairnError err = {0};
    CommandClock clock = {.started_fd = -1, .sleeps_count = true};
    assert_null(run_by(&clock, "echo " SECRET "; exec >&-; sleep 1000", 1, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_non_null(strstr(err.message, "longer than 1 seconds"));
    assert_true(clock.now_ns >= INT64_C(1000000000) && clock.now_ns < INT64_C(1100000000));
    cairn_error_clear(&err);
    SCOPED(Secret) secret = run("echo " SECRET "; exec >&-; sleep 0.2", &err);
    assert_non_null(secret);
}

/* The fifo tells that the child is there, and when the last one that holds it is dead. */
static void
test_a_command_that_hangs_is_ended_with_all_its_children(void **state)
{
    (void)state;
    enum { PATIENCE_MS = 60000 };
    CairnError err = {0};
    const char *path = scratch_path(scratch_directory(), "alive");
    char command[512], byte;
    assert_int_equal(mkfifo(path, 0600), 0);
    SCOPED_FD fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(fd >= 0);
    snprintf(command, sizeof command, "exec 9>'%s'; sleep 1000 & echo >&9; wait", path);
    CommandClock clock = {.started_fd = fd};
    assert_null(run_by(&clock, command, 3, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_non_null(strstr(err.message, "longer than 3 seconds"));

    struct pollfd alive = {.fd = fd, .events = POLLIN};
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_int_equal(poll(&alive, 1, PATIENCE_MS), 1);
    assert_int_equal(read(fd, &byte, 1), 0);
}

/* "dd" among the flags of its mapping: no core dump holds it. */
static void
test_a_secret_is_in_no_core_dump(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Secret) secret = secret_new(100, &err);
    assert_non_null(secret);
    FILE *maps = fopen("/proc/self/smaps", "r");
    assert_non_null(maps);
    char line[512];
    bool ours = false, found = false;
    while (fgets(line, sizeof line, maps) != NULL) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
            ours = (uintptr_t)secret->data >= from && (uintptr_t)secret->data < to;
        if (ours && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, " dd") != NULL;
    }
    fclose(maps);
    assert_true(found);
}

static void
test_a_protected_process_cannot_be_dumped(void **state)
{
    (void)state;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit limit;
        secret_protect_process();
        const bool off = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 &&
                         getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0;
        _exit(off ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* RFC 7914, section 12; of the 64 bytes there the first 32 are what 32 alone would be. */
static void
test_scrypt_gives_the_published_vectors(void **state)
{
    (void)state;
    static const struct {
        const char *passphrase, *salt;
        StretchCost cost;
        const char *key;
    } cases[] = {
        {"", "", {16, 1, 1}, "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"},
        {"password",
         "NaCl",
         {1024, 8, 16},
         "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"},
        {"pleaseletmein",
         "SodiumChloride",
         {16384, 8, 1},
         "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CairnError err = {0};
        uint8_t key[KEY_SIZE];
        char hex[2 * KEY_SIZE + 1];
        assert_true(stretch_passphrase(cases[i].passphrase, strlen(cases[i].passphrase),
                                       cases[i].salt, strlen(cases[i].salt), &cases[i].cost, key,
                                       &err));
        for (size_t k = 0; k < KEY_SIZE; k++)
            snprintf(hex + 2 * k, 3, "%02x", key[k]);
        assert_string_equal(hex, cases[i].key);
    }
}

static void
test_scrypt_refuses_bombs_before_it_takes_memory(void **state)
{
    (void)state;
    static const StretchCost bombs[] = {
        {UINT64_C(1) << 40, 8, 1},
        {UINT64_C(1) << 63, 1, 1},
        {UINT64_C(1) << 21, 8, 1},
        {1 << 17, 1u << 31, 1},
        {1 << 17, 8, 1u << 31},
        {1 << 17, 0, 1},
        {1 << 17, 8, 0},
        {0, 8, 1},
        {1, 8, 1},
        {(1 << 17) + 1, 8, 1},
        {UINT64_MAX, 8, 1},
        {1 << 17, 65, 1},
        {1 << 17, 8, 17},
    };
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0]; i++) {
        CairnError err = {0};
        uint8_t key[KEY_SIZE];
        struct rusage before, after;
        getrusage(RUSAGE_SELF, &before);
        assert_false(stretch_passphrase("x", 1, "y", 1, &bombs[i], key, &err));
        getrusage(RUSAGE_SELF, &after);
        assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
        assert_true(after.ru_maxrss - before.ru_maxrss < 1024);
    }
    CairnError err = {0};
    const StretchCost ours = STRETCH_COST;
    assert_true(stretch_check(&ours, &err));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it),
        cmocka_unit_test(test_a_link_leads_to_a_file_that_the_rules_are_for),
        cmocka_unit_test(test_a_fifo_and_a_directory_are_no_secrets),
        cmocka_unit_test(test_files_are_bounded_and_lines_are_one),
        cmocka_unit_test(test_a_command_gives_its_one_line),
        cmocka_unit_test(test_a_command_that_fails_is_named_and_nothing_of_it_is_quoted),
        cmocka_unit_test(test_a_command_that_closes_its_output_has_no_longer_than_others),
        cmocka_unit_test(test_a_command_that_hangs_is_ended_with_all_its_children),
        cmocka_unit_test(test_a_secret_is_in_no_core_dump),
        cmocka_unit_test(test_a_protected_process_cannot_be_dumped),
        cmocka_unit_test(test_scrypt_gives_the_published_vectors),
        cmocka_unit_test(test_scrypt_refuses_bombs_before_it_takes_memory),
    };
    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
