#include "postgres/archive_queue.h"

#include <stdio.h>
#include <string.h>

static bool
is_history(const char *name)
{
    enum { TIMELINE_DIGITS = 8 };
    return strcmp(name + strnlen(name, TIMELINE_DIGITS), ".history") == 0;
}

static bool
comes_before(const char *left, const char *right)
{
    if (is_history(left) != is_history(right))
        return is_history(left);
    return strcmp(left, right) < 0;
}

void
archive_queue_add(ArchiveQueue *queue, const char *name)
{
    queue->total++;
    if (queue->count == ARCHIVE_QUEUE_LIMIT) {
        if (!comes_before(name, queue->names[ARCHIVE_QUEUE_LIMIT - 1]))
            return;
        queue->count--;
    }
    size_t at = queue->count++;
    for (; at > 0 && comes_before(name, queue->names[at - 1]); at--)
        memcpy(queue->names[at], queue->names[at - 1], sizeof queue->names[at]);
    snprintf(queue->names[at], sizeof queue->names[at], "%s", name);
}
