#include "common/queue.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

struct Queue {
    pthread_mutex_t mutex;
    pthread_cond_t not_full;
    pthread_cond_t not_empty;
    void (*free_item)(void *item);
    size_t capacity;
    size_t first; /* index of the oldest item */
    size_t count;
    bool closed;
    bool cancelled;
    void *items[];
};

Queue *
queue_new(size_t capacity, void (*free_item)(void *item), CairnError *err)
{
    CAIRN_ASSERT(capacity > 0 && capacity < SIZE_MAX / sizeof(void *) / 2);
    Queue *queue = calloc(1, sizeof *queue + capacity * sizeof queue->items[0]);
    if (queue == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    /* With default attributes these cannot fail on Linux. */
    CAIRN_ASSERT(pthread_mutex_init(&queue->mutex, NULL) == 0);
    CAIRN_ASSERT(pthread_cond_init(&queue->not_full, NULL) == 0);
    CAIRN_ASSERT(pthread_cond_init(&queue->not_empty, NULL) == 0);
    queue->capacity = capacity;
    queue->free_item = free_item;
    return queue;
}

void
queue_free(Queue *queue)
{
    if (queue == NULL)
        return;
    for (; queue->count > 0; queue->count--) {
        if (queue->free_item != NULL)
            queue->free_item(queue->items[queue->first]);
        queue->first = (queue->first + 1) % queue->capacity;
    }
    pthread_cond_destroy(&queue->not_empty);
    pthread_cond_destroy(&queue->not_full);
    pthread_mutex_destroy(&queue->mutex);
    free(queue);
}

bool
queue_push(Queue *queue, void *item)
{
    pthread_mutex_lock(&queue->mutex);
    while (queue->count == queue->capacity && !queue->closed && !queue->cancelled)
        pthread_cond_wait(&queue->not_full, &queue->mutex);

    const bool taken = !queue->closed && !queue->cancelled;
    if (taken) {
        queue->items[(queue->first + queue->count) % queue->capacity] = item;
        queue->count++;
        pthread_cond_signal(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->mutex);
    return taken;
}

void *
queue_pop(Queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    while (queue->count == 0 && !queue->closed && !queue->cancelled)
        pthread_cond_wait(&queue->not_empty, &queue->mutex);

    void *item = NULL;
    if (queue->count > 0 && !queue->cancelled) {
        item = queue->items[queue->first];
        queue->first = (queue->first + 1) % queue->capacity;
        queue->count--;
        pthread_cond_signal(&queue->not_full);
    }
    pthread_mutex_unlock(&queue->mutex);
    return item;
}

static void
stop(Queue *queue, bool *flag)
{
    pthread_mutex_lock(&queue->mutex);
    *flag = true;
    pthread_cond_broadcast(&queue->not_full);
    pthread_cond_broadcast(&queue->not_empty);
    pthread_mutex_unlock(&queue->mutex);
}

void
queue_close(Queue *queue)
{
    stop(queue, &queue->closed);
}

void
queue_cancel(Queue *queue)
{
    stop(queue, &queue->cancelled);
}
