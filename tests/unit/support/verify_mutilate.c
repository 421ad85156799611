/* The hands of verify_fixture.h to damage an object with. */
#include "tests/unit/support/verify_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTENT_LIMIT = 4 << 20 };

/* Behind the storage's back. */
typedef struct {
    char path[1024];
    uint8_t *data;
    size_t size;
} Content;

static Content
load(const VerifyFixture *fixture, const char *name)
{
    Content content = {.data = malloc(CONTENT_LIMIT)};
    CAIRN_ASSERT(content.data != NULL);
    snprintf(content.path, sizeof content.path, "%s/%s", fixture->wal.root, name);
    SCOPED_FD fd = open(content.path, O_RDONLY | O_CLOEXEC);
    const ssize_t size = fd >= 0 ? read(fd, content.data, CONTENT_LIMIT) : -1;
    CAIRN_ASSERT(size > 0 && size < CONTENT_LIMIT);
    content.size = (size_t)size;
    return content;
}

static void
save(Content *content, const void *data, size_t size)
{
    chmod(content->path, 0600);
    SCOPED_FD fd = open(content->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    const ssize_t written = fd >= 0 ? write(fd, data, size) : -1;
    CAIRN_ASSERT(written == (ssize_t)size);
}

static void
flip(const VerifyFixture *fixture, const char *name, bool from_end, size_t at)
{
    Content content = load(fixture, name);
    CAIRN_ASSERT(at < content.size);
    content.data[from_end ? content.size - at : at] ^= 0x10;
    save(&content, content.data, content.size);
    free(content.data);
}

void
mutilate_header(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    flip(fixture, name, false, 40);
}

/* Where packs and WAL have frames: nothing but reading them sees it. */
void
mutilate_body(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    Content content = load(fixture, name);
    const size_t body = get_u32(content.data + 16); /* recipients lie before it */
    free(content.data);
    flip(fixture, name, false, body + 8);
}

void
mutilate_middle(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    Content content = load(fixture, name);
    free(content.data);
    flip(fixture, name, false, content.size / 2);
}

void
mutilate_trailer(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    flip(fixture, name, true, 40);
}

void
mutilate_digest(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    flip(fixture, name, true, 1);
}

static void
resize(const VerifyFixture *fixture, const char *name, size_t of, int more)
{
    Content content = load(fixture, name);
    memset(content.data + content.size, 0, 512);
    save(&content, content.data, content.size / of + (size_t)more);
    free(content.data);
}

void
mutilate_cut(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    resize(fixture, name, 2, 0);
}

void
mutilate_empty(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    resize(fixture, name, CONTENT_LIMIT, 0);
}

void
mutilate_append(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    resize(fixture, name, 1, 512);
}

void
mutilate_swap(const VerifyFixture *fixture, const char *name, const char *other)
{
    Content mine = load(fixture, name), theirs = load(fixture, other);
    save(&mine, theirs.data, theirs.size);
    save(&theirs, mine.data, mine.size);
    free(mine.data);
    free(theirs.data);
}

void
mutilate_remove(const VerifyFixture *fixture, const char *name, const char *other)
{
    (void)other;
    Content content = load(fixture, name);
    const int removed = unlink(content.path);
    CAIRN_ASSERT(removed == 0);
    free(content.data);
}
