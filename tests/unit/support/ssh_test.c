#include "tests/unit/support/ssh_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

SshFixture ssh_test;

int
ssh_test_setup(void **state)
{
    (void)state;
    ssh_fixture_init(&ssh_test);
    return 0;
}

int
ssh_test_teardown(void **state)
{
    (void)state;
    ssh_fixture_free(&ssh_test);
    return 0;
}

Storage *
ssh_test_connect(void)
{
    CairnError err = {0};
    Storage *storage = ssh_fixture_connect(&ssh_test, &err);
    if (storage == NULL)
        print_error("%s\n", err.message);
    assert_non_null(storage);
    return storage;
}

/* What nobody mistakes for another place or object. */
void
ssh_test_fill(uint8_t *data, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (uint8_t)(seed >> 24);
    }
}

bool
ssh_test_put(Storage *storage, const char *name, size_t size, uint32_t seed, CairnError *err)
{
    uint8_t *data = malloc(size + 1);
    ssh_test_fill(data, size, seed);
    SCOPED(StorageWriter) writer = storage_create(storage, name, err);
    bool done = writer != NULL;
    for (size_t at = 0; done && at < size;) {
        const size_t part = size - at < 100000 ? size - at : 100000;
        done = storage_write(writer, data + at, part, err);
        at += part;
    }
    done = done && storage_commit(writer, err);
    free(data);
    return done;
}

/* Behind the server's back. */
bool
ssh_test_has(const char *name, size_t size, uint32_t seed)
{
    char path[1024];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", ssh_test.root, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    assert_int_equal(fstat(fd, &status), 0);
    uint8_t *expected = malloc(size + 1), *found = malloc(size + 1);
    ssh_test_fill(expected, size, seed);
    const bool same = (size_t)status.st_size == size && read(fd, found, size) == (ssize_t)size &&
                      memcmp(found, expected, size) == 0;
    close(fd);
    free(expected);
    free(found);
    return same;
}

unsigned
ssh_test_count(const char *directory)
{
    char path[1024];
    unsigned count = 0;
    snprintf(path, sizeof path, "%s/%s", ssh_test.root, directory);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 ? 1 : 0;
    if (dir != NULL)
        closedir(dir);
    return count;
}

void
ssh_test_read_back(Storage *storage, const char *name, size_t size, uint32_t seed, size_t step)
{
    CairnError err = {0};
    uint8_t *expected = malloc(size), *found = malloc(size);
    ssh_test_fill(expected, size, seed);
    SCOPED(StorageReader) reader = storage_open(storage, name, &err);
    assert_non_null(reader);
    assert_int_equal(reader->size_bytes, size);
    for (size_t at = 0; at < size; at += step) {
        const size_t part = size - at < step ? size - at : step;
        if (!storage_pread(reader, found + at, part, at, &err))
            fail_msg("%s", err.message);
    }
    assert_memory_equal(found, expected, size);
    free(expected);
    free(found);
}
