#include "agent/page_checks.h"

#include "postgres/page.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

struct PageChecks {
    _Atomic bool enabled;
    uint64_t start_lsn; /* written before enabled */
    pthread_mutex_t mutex;
    Arena *arena;
    FateChecksumFailure failures[FATE_CHECKSUM_FAILURES_LISTED];
    size_t listed;
    uint64_t count;
};

PageChecks *
page_checks_new(void)
{
    PageChecks *checks = calloc(1, sizeof *checks);
    CAIRN_ASSERT(checks != NULL);
    checks->arena = arena_new();
    pthread_mutex_init(&checks->mutex, NULL);
    return checks;
}

void
page_checks_free(PageChecks *checks)
{
    if (checks == NULL)
        return;
    pthread_mutex_destroy(&checks->mutex);
    arena_free(checks->arena);
    free(checks);
}

void
page_checks_enable(PageChecks *checks, uint64_t start_lsn)
{
    checks->start_lsn = start_lsn;
    atomic_store(&checks->enabled, true);
}

static void
note_failure(PageChecks *checks, const char *path, uint64_t block)
{
    pthread_mutex_lock(&checks->mutex);
    if (checks->listed < FATE_CHECKSUM_FAILURES_LISTED) {
        checks->failures[checks->listed++] =
            (FateChecksumFailure){.path = arena_strdup(checks->arena, path), .block = block};
    }
    checks->count++;
    pthread_mutex_unlock(&checks->mutex);
}

void
page_checks_see(void *context, const char *path, uint64_t first_unit, const uint8_t *data,
                uint32_t units, uint32_t tail_bytes)
{
    PageChecks *checks = context;
    RelationFile file;
    if (!atomic_load(&checks->enabled) || !relation_file_parse(path, &file))
        return;
    uint32_t whole = tail_bytes > 0 ? units - 1 : units; /* a short end is no page */
    for (uint32_t i = 0; i < whole; i++) {
        uint64_t in_file = first_unit + i;
        uint32_t block = (uint32_t)(file.segment * (uint64_t)PAGE_SEGMENT_BLOCKS + in_file);
        if (page_verify(data + (size_t)i * PAGE_SIZE_BYTES, block, checks->start_lsn) == PAGE_BAD)
            note_failure(checks, path, block);
    }
}

static int
by_place(const void *a, const void *b)
{
    const FateChecksumFailure *left = a, *right = b;
    int order = strcmp(left->path, right->path);
    return order != 0 ? order : (left->block > right->block) - (left->block < right->block);
}

void
page_checks_report(PageChecks *checks, Fate *fate)
{
    pthread_mutex_lock(&checks->mutex);
    qsort(checks->failures, checks->listed, sizeof *checks->failures, by_place);
    fate->checksum_failures =
        arena_alloc(fate->arena, (checks->listed + 1) * sizeof *checks->failures);
    for (size_t i = 0; i < checks->listed; i++) {
        fate->checksum_failures[i] = (FateChecksumFailure){
            .path = arena_strdup(fate->arena, checks->failures[i].path),
            .block = checks->failures[i].block,
        };
    }
    fate->checksum_failures_listed = checks->listed;
    fate->checksum_failure_count = checks->count;
    pthread_mutex_unlock(&checks->mutex);
}
