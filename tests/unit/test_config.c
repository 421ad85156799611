#include "common/config.h"

#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const VARIABLES[] = {
    "PGCAIRN_CONFIG",
    "PGCAIRN_CLUSTER",
    "PGCAIRN_REPOSITORY",
    "PGCAIRN_REPOSITORY_PATH",
    "PGCAIRN_JOBS",
    "PGCAIRN_CLUSTER_CONNINFO",
    "PGCAIRN_REPOSITORY_TYPE",
    "PGCAIRN_REPOSITORY_COMPRESSION_LEVEL",
};

static int
clear_environment(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof VARIABLES / sizeof VARIABLES[0]; i++)
        unsetenv(VARIABLES[i]);
    return 0;
}

static const char *
write_config(const char *text)
{
    static const char *directory;
    if (directory == NULL)
        directory = scratch_directory();
    const char *path = scratch_path(directory, "pgcairn.conf");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    return path;
}

static Config *
load(const char *text)
{
    CairnError err = {0};
    Config *config = config_load(world_real(), write_config(text), &err);
    if (config == NULL)
        fail_msg("%s", err.message);
    return config;
}

static void
test_a_whole_file_is_read(void **state)
{
    (void)state;
    SCOPED(Config)
    config = load("# comment\n"
                  "[global]\n"
                  "jobs = 4\n"
                  "log-level=debug\n"
                  "max-memory = 512MiB\n"
                  "wal-timeout = 0\n"
                  "\n"
                  "[ repository  main ]\n"
                  "  path = /var/lib/pg cairn  \r\n"
                  "encryption = passphrase\n"
                  "passphrase-command = echo a ; echo b = c\n"
                  "compression = zstd\n"
                  "compression-level = 5\n"
                  "; comment\n"
                  "[cluster main]\n"
                  "conninfo = host=/run/postgresql user=pgcairn\n"
                  "pgdata = /var/lib/postgresql/15/main\n"
                  "timezone = Europe/Berlin\n"
                  "repository = main, other");
    CairnError err = {0};
    const GlobalConfig *global = config_global(config);
    assert_int_equal(global->jobs, 4);
    assert_string_equal(global->log_level, "debug");
    assert_true(global->max_memory_bytes == UINT64_C(512) << 20);
    assert_int_equal(global->wal_timeout_s, 0);
    assert_non_null(strstr(global->file, "/pgcairn.conf"));
    const RepositoryConfig *repository = config_repository(config, NULL, &err);
    assert_string_equal(repository->name, "main");
    assert_string_equal(repository->type, "posix");
    assert_string_equal(repository->path, "/var/lib/pg cairn");
    assert_string_equal(repository->encryption, "passphrase");
    assert_string_equal(repository->compression, "zstd");
    assert_int_equal(repository->compression_level, 5);
    const ClusterConfig *cluster = config_cluster(config, "main", &err);
    assert_string_equal(cluster->conninfo, "host=/run/postgresql user=pgcairn");
    assert_string_equal(cluster->pgdata, "/var/lib/postgresql/15/main");
    assert_string_equal(cluster->timezone, "Europe/Berlin");
    assert_string_equal(cluster->repositories, "main, other");
}

static void
test_what_is_not_said_has_its_default(void **state)
{
    (void)state;
    SCOPED(Config) config = load("[repository r]\npath=/x\n[cluster c]\n");
    CairnError err = {0};
    const RepositoryConfig *repository = config_repository(config, NULL, &err);
    assert_string_equal(repository->type, "posix");
    assert_string_equal(repository->compression, "lz4");
    assert_int_equal(repository->compression_level, 0);
    assert_null(repository->encryption);
    const ClusterConfig *cluster = config_cluster(config, NULL, &err);
    assert_non_null(cluster); /* an empty section is one */
    assert_null(cluster->conninfo);
    assert_int_equal(config_global(config)->jobs, 0);
    assert_int_equal(config_global(config)->wal_timeout_s, -1);
}

/* The names of a list, joined; "" when it is refused. */
enum { LIST_SIZE = 256 };

static void
list_of(const Config *config, const char *names, char text[LIST_SIZE])
{
    const RepositoryConfig *list[CONFIG_REPOSITORIES_LIMIT];
    CairnError err = {0};
    size_t count = 0;
    text[0] = '\0';
    if (!config_repositories(config, names, list, &count, &err)) {
        assert_int_equal(err.kind, CAIRN_USAGE);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const size_t size = strlen(text);
        snprintf(text + size, LIST_SIZE - size, "%s%s", i > 0 ? " " : "", list[i]->name);
    }
}

static void
test_a_list_of_repositories_keeps_its_order_and_names_each_once(void **state)
{
    (void)state;
    SCOPED(Config)
    config = load("[repository a]\npath=/a\n[repository b]\npath=/b\nrequired=no\n[cluster c]\n");
    static const struct {
        const char *names, *expected;
    } CASES[] = {{"b, a", "b a"}, {"a", "a"}, {" a ,\tb ", "a b"}, {"a,a", ""}, {"a,,b", ""},
                 {"a, x", ""},    {"", ""},   {",", ""},           {"a,", "a"}, {NULL, ""}};
    char text[LIST_SIZE];
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        list_of(config, CASES[i].names, text);
        assert_string_equal(text, CASES[i].expected);
    }
    CairnError err = {0};
    assert_true(repository_is_required(config_repository(config, "a", &err)));
    assert_false(repository_is_required(config_repository(config, "b", &err)));
}

static void
test_long_values_are_not_cut(void **state)
{
    (void)state;
    char text[3000] = "[cluster c]\nconninfo = ";
    const size_t start = strlen(text);
    memset(text + start, 'x', 2500);
    SCOPED(Config) config = load(text);
    CairnError err = {0};
    assert_int_equal(strlen(config_cluster(config, NULL, &err)->conninfo), 2500);
}

static void
test_mistakes_are_refused_with_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *line;
        const char *what;
    } CASES[] = {
        {"[cluster c]\n\nconinfo = x\n", ":3:", "unknown key 'coninfo' in [cluster c]"},
        {"[global]\npath = /x\n", ":2:", "unknown key 'path' in [global]"},
        {"[clusters c]\n", ":1:", "unknown section 'clusters'"},
        {"[stanza]\n", ":1:", "unknown section 'stanza'"},
        {"[cluster]\n", ":1:", "needs a name"},
        {"[cluster a b]\n", ":1:", "needs a name"},
        {"[cluster ../x]\n", ":1:", "needs a name"},
        {"[cluster .x]\n", ":1:", "needs a name"},
        {"[cluster c]\n[cluster c]\n", ":2:", "defined twice"},
        {"[cluster c\n", ":1:", "a section is written"},
        {"[cluster c] x\n", ":1:", "a section is written"},
        {"jobs = 1\n", ":1:", "before the first section"},
        {"[global]\njobs\n", ":2:", "expected 'key = value'"},
        {"[global]\njobs =\n", ":2:", "has no value"},
        {"[global]\njobs = 1\njobs = 2\n", ":3:", "given twice"},
        {"[global]\njobs = 0\n", ":2:", "from 1 to 1024"},
        {"[global]\njobs = 4x\n", ":2:", "from 1 to 1024"},
        {"[global]\njobs = 99999999999999999999\n", ":2:", "from 1 to 1024"},
        {"[global]\nlog-level = loud\n", ":2:", "one of error warn info debug, not 'loud'"},
        {"[global]\nlog-level = error warn\n", ":2:", "one of"},
        {"[global]\nmax-memory = lots\n", ":2:", "a size like"},
        {"[repository r]\ntype = ftp\n", ":2:", "one of posix s3 ssh"},
        {"[repository r]\nencryption = rot13\n", ":2:", "one of none passphrase"},
        {"[repository r]\ncompression = gzip\n", ":2:", "one of none lz4 zstd"},
        {"[repository r]\ncompression-level = 99\n", ":2:", "from 0 to 19"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        const Config *config = config_load(world_real(), write_config(CASES[i].text), &err);
        if (config != NULL)
            fail_msg("accepted: %s", CASES[i].text);
        assert_int_equal(err.kind, CAIRN_USAGE);
        if (strstr(err.message, "pgcairn.conf:") == NULL ||
            strstr(err.message, CASES[i].line) == NULL ||
            strstr(err.message, CASES[i].what) == NULL)
            fail_msg("'%s' lacks '%s %s'", err.message, CASES[i].line, CASES[i].what);
    }
}

static void
test_a_named_file_must_exist(void **state)
{
    (void)state;
    CairnError err = {0};
    assert_null(config_load(world_real(), "/nonexistent/pgcairn.conf", &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    cairn_error_clear(&err);
    setenv("PGCAIRN_CONFIG", "/nonexistent/other.conf", 1);
    assert_null(config_load(world_real(), NULL, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    assert_non_null(strstr(err.message, "other.conf"));
}

static void
test_choosing_among_several(void **state)
{
    (void)state;
    static const char TEXT[] = "[cluster a]\n[cluster b]\n[repository r]\npath=/r\n";
    CairnError err = {0};
    {
        SCOPED(Config) config = load(TEXT);
        assert_int_equal(config_cluster_count(config), 2);
        assert_null(config_cluster(config, NULL, &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
        assert_non_null(strstr(err.hint, "--cluster"));
        cairn_error_clear(&err);
        assert_string_equal(config_cluster(config, "b", &err)->name, "b");
        assert_null(config_cluster(config, "c", &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
        cairn_error_clear(&err);
    }
    setenv("PGCAIRN_CLUSTER", "a", 1);
    SCOPED(Config) config = load(TEXT);
    assert_string_equal(config_cluster(config, NULL, &err)->name, "a");
    assert_string_equal(config_cluster(config, "b", &err)->name, "b");
}

static void
test_the_environment_overrides_the_file(void **state)
{
    (void)state;
    setenv("PGCAIRN_REPOSITORY_PATH", "/from/environment", 1);
    setenv("PGCAIRN_REPOSITORY_COMPRESSION_LEVEL", "7", 1);
    setenv("PGCAIRN_JOBS", "9", 1);
    SCOPED(Config) config = load("[global]\njobs=2\n[repository r]\npath=/from/file\n");
    CairnError err = {0};
    const RepositoryConfig *repository = config_repository(config, NULL, &err);
    assert_string_equal(repository->name, "r");
    assert_string_equal(repository->path, "/from/environment");
    assert_int_equal(repository->compression_level, 7);
    assert_int_equal(config_global(config)->jobs, 9);
}

static void
test_the_environment_alone_defines_main(void **state)
{
    (void)state;
    setenv("PGCAIRN_REPOSITORY_PATH", "/x", 1);
    setenv("PGCAIRN_CLUSTER_CONNINFO", "host=/run", 1);
    SCOPED(Config) config = load("");
    CairnError err = {0};
    assert_string_equal(config_repository(config, NULL, &err)->name, "main");
    assert_string_equal(config_repository(config, NULL, &err)->path, "/x");
    assert_string_equal(config_cluster(config, NULL, &err)->name, "main");
    assert_string_equal(config_cluster(config, NULL, &err)->conninfo, "host=/run");
}

static void
test_bad_environment_names_its_variable(void **state)
{
    (void)state;
    CairnError err = {0};
    setenv("PGCAIRN_JOBS", "many", 1);
    assert_null(config_load(world_real(), write_config(""), &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    assert_non_null(strstr(err.message, "PGCAIRN_JOBS"));
    unsetenv("PGCAIRN_JOBS");
    cairn_error_clear(&err);
    setenv("PGCAIRN_REPOSITORY_PATH", "/x", 1); /* of which one? */
    assert_null(config_load(world_real(), write_config("[repository a]\n[repository b]\n"), &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
}

static void
test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t size;
    } GOOD[] = {{"0", 0},
                {"1048576", 1048576},
                {"64MiB", UINT64_C(64) << 20},
                {"16MB", UINT64_C(16) << 20},
                {"1G", UINT64_C(1) << 30},
                {"3K", 3072},
                {"5B", 5},
                {"2T", UINT64_C(2) << 40},
                {"18446744073709551615", UINT64_MAX}};
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        uint64_t size;
        assert_true(parse_size(GOOD[i].text, &size));
        assert_true(size == GOOD[i].size);
    }
    static const char *const BAD[] = {"",
                                      "x",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 G",
                                      "1Gx",
                                      "1iB",
                                      "1.5G",
                                      "1m",
                                      "1GiBx",
                                      "18446744073709551616",
                                      "18446744073709551615K"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        uint64_t size;
        if (parse_size(BAD[i], &size))
            fail_msg("accepted '%s'", BAD[i]);
    }
}

#define CONFIG_TEST(test) cmocka_unit_test_setup(test, clear_environment)

static void
test_a_cluster_is_taken_by_its_name_where_none_is_configured(void **state)
{
    static const char REPOSITORY[] = "[repository main]\npath = /r\n";
    CairnError err = {0};
    (void)state;
    SCOPED(Config) alone = load(REPOSITORY);
    assert_true(config_assume_cluster(alone, "other", &err));
    const ClusterConfig *cluster = config_cluster(alone, "other", &err);
    assert_non_null(cluster);
    assert_string_equal(cluster->name, "other");
    assert_null(cluster->conninfo);

    SCOPED(Config) invalid = load(REPOSITORY);
    assert_false(config_assume_cluster(invalid, "../x", &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    cairn_error_clear(&err);

    SCOPED(Config) unnamed = load(REPOSITORY);
    assert_true(config_assume_cluster(unnamed, NULL, &err));
    assert_int_equal(config_cluster_count(unnamed), 0);

    /* A name beside configured ones is a typo. */
    SCOPED(Config) typo = load("[repository main]\npath = /r\n[cluster main]\n");
    assert_true(config_assume_cluster(typo, "mian", &err));
    assert_null(config_cluster(typo, "mian", &err));
}

static void
test_a_secret_in_a_file_that_others_can_read_is_refused(void **state)
{
    static const char SECTION[] = "[repository main]\ntype = s3\nendpoint = h\nbucket = b\n"
                                  "access-key = A\nsecret-key = HUSH\n";
    CairnError err = {0};
    (void)state;
    const char *path = write_config(SECTION);
    assert_int_equal(chmod(path, 0644), 0);
    assert_null(config_load(world_real(), path, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_non_null(strstr(err.message, "secret-key of repository 'main'"));
    assert_null(strstr(err.message, "HUSH"));
    assert_non_null(strstr(err.hint, "chmod 600"));

    cairn_error_clear(&err);
    assert_int_equal(chmod(path, 0600), 0);
    SCOPED(Config) closed = config_load(world_real(), path, &err);
    assert_non_null(closed);
    assert_int_equal(chmod(path, 0644), 0); /* without a secret it may be open */
    SCOPED(Config) open = load("[repository main]\npath = /r\n");
    assert_non_null(open);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CONFIG_TEST(test_a_whole_file_is_read),
        CONFIG_TEST(test_what_is_not_said_has_its_default),
        CONFIG_TEST(test_a_list_of_repositories_keeps_its_order_and_names_each_once),
        CONFIG_TEST(test_long_values_are_not_cut),
        CONFIG_TEST(test_mistakes_are_refused_with_file_and_line),
        CONFIG_TEST(test_a_named_file_must_exist),
        CONFIG_TEST(test_choosing_among_several),
        CONFIG_TEST(test_the_environment_overrides_the_file),
        CONFIG_TEST(test_the_environment_alone_defines_main),
        CONFIG_TEST(test_bad_environment_names_its_variable),
        CONFIG_TEST(test_a_cluster_is_taken_by_its_name_where_none_is_configured),
        CONFIG_TEST(test_a_secret_in_a_file_that_others_can_read_is_refused),
        CONFIG_TEST(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
