/*
 * A bounded queue of owned pointers between threads.
 *
 * push blocks while full, pop blocks while empty. close: no more pushes; pops drain, then NULL.
 * cancel: both sides return at once (push false, pop NULL), for the first failure of a pipeline;
 * what is still inside is handed to the free function by queue_free. Threads: any number on either
 * side.
 */
#ifndef PGCAIRN_COMMON_QUEUE_H
#define PGCAIRN_COMMON_QUEUE_H

#include "common/error.h"
#include "common/scoped.h"

#include <stddef.h>

typedef struct Queue Queue;
Queue *queue_new(size_t capacity, void (*free_item)(void *item), CairnError *err) MUST_CHECK;
void queue_free(Queue *queue);
/* Takes item when true; false when closed or cancelled (the caller keeps it). */
bool queue_push(Queue *queue, void *item) MUST_CHECK;
/* Returned owned; NULL when closed and drained, or cancelled. */
void *queue_pop(Queue *queue) MUST_CHECK;
void queue_close(Queue *queue);
void queue_cancel(Queue *queue);
SCOPED_TYPE(Queue, queue_free);

#endif
