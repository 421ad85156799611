#include "common/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static unsigned freed;

static void
count_free(void *item)
{
    freed++;
    free(item);
}

static Queue *
make_queue(size_t capacity)
{
    CairnError err = {0};
    Queue *queue = queue_new(capacity, count_free, &err);
    assert_non_null(queue);
    freed = 0;
    return queue;
}

static int *
make_item(int value)
{
    int *item = malloc(sizeof *item);
    assert_non_null(item);
    *item = value;
    return item;
}

static void
test_items_come_out_in_the_order_they_went_in(void **state)
{
    (void)state;
    SCOPED(Queue) queue = make_queue(3);
    int expected = 0;
    for (int i = 0; i < 10; i++) {
        assert_true(queue_push(queue, make_item(i)));
        if (i % 3 == 2) {
            for (int j = 0; j < 3; j++) {
                int *item = queue_pop(queue);
                assert_int_equal(*item, expected++);
                free(item);
            }
        }
    }
}

static void
test_close_drains_and_then_ends(void **state)
{
    (void)state;
    SCOPED(Queue) queue = make_queue(4);
    assert_true(queue_push(queue, make_item(1)));
    queue_close(queue);
    int *refused = make_item(2);
    assert_false(queue_push(queue, refused));
    free(refused); /* still the caller's */
    int *item = queue_pop(queue);
    assert_non_null(item);
    free(item);
    assert_null(queue_pop(queue));
    assert_null(queue_pop(queue));
}

static void
test_cancel_ends_at_once_and_free_gets_the_rest(void **state)
{
    (void)state;
    Queue *queue = make_queue(4);
    assert_true(queue_push(queue, make_item(1)));
    assert_true(queue_push(queue, make_item(2)));
    queue_cancel(queue);
    assert_null(queue_pop(queue));
    int *refused = make_item(3);
    assert_false(queue_push(queue, refused));
    free(refused);
    assert_int_equal(freed, 0);
    queue_free(queue);
    assert_int_equal(freed, 2);
}

typedef struct {
    Queue *queue;
    atomic_long sum;
    atomic_int refused;
} Shared;

static void *
produce(void *context)
{
    Shared *shared = context;
    for (int i = 1; i <= 2000; i++) {
        int *item = malloc(sizeof *item);
        *item = i;
        if (!queue_push(shared->queue, item)) {
            free(item);
            atomic_fetch_add(&shared->refused, 1);
            break;
        }
    }
    return NULL;
}

static void *
consume(void *context)
{
    Shared *shared = context;
    int *item;
    while ((item = queue_pop(shared->queue)) != NULL) {
        atomic_fetch_add(&shared->sum, *item);
        free(item);
    }
    return NULL;
}

static void
test_many_threads_lose_and_invent_nothing(void **state)
{
    (void)state;
    SCOPED(Queue) queue = make_queue(2);
    Shared shared = {.queue = queue};
    pthread_t producers[3];
    pthread_t consumers[3];
    for (int i = 0; i < 3; i++) {
        pthread_create(&consumers[i], NULL, consume, &shared);
        pthread_create(&producers[i], NULL, produce, &shared);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(producers[i], NULL);
    queue_close(queue);
    for (int i = 0; i < 3; i++)
        pthread_join(consumers[i], NULL);
    assert_int_equal(atomic_load(&shared.sum), 3L * 2000 * 2001 / 2);
    assert_int_equal(freed, 0);
}

static void
test_cancel_wakes_who_waits(void **state)
{
    (void)state;
    /* The producer fills the one place and blocks, or comes late and is refused: it ends. */
    SCOPED(Queue) full = make_queue(1);
    Shared pushing = {.queue = full};
    pthread_t producer;
    pthread_create(&producer, NULL, produce, &pushing);
    queue_cancel(full);
    pthread_join(producer, NULL);
    assert_int_equal(atomic_load(&pushing.refused), 1);

    SCOPED(Queue) empty = make_queue(1);
    Shared popping = {.queue = empty};
    pthread_t consumer;
    pthread_create(&consumer, NULL, consume, &popping);
    queue_cancel(empty);
    pthread_join(consumer, NULL);
    assert_int_equal(atomic_load(&popping.sum), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_come_out_in_the_order_they_went_in),
        cmocka_unit_test(test_close_drains_and_then_ends),
        cmocka_unit_test(test_cancel_ends_at_once_and_free_gets_the_rest),
        cmocka_unit_test(test_many_threads_lose_and_invent_nothing),
        cmocka_unit_test(test_cancel_wakes_who_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
