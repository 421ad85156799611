#include "walarchive/watchdog.h"

#include "common/cancel.h"
#include "common/world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STEP_MS = 200, GRACE_MS = 3000, STACK_SIZE = 64 << 10 };

/* One a process, like the signal handlers it works with. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t armed; /* so that a process that waits for work is not woken for nothing */
    int64_t limit_ms;     /* 0: disarmed */
    const char *what;
    atomic_bool expired;
    atomic_int answer;
} watchdog = {.answer = 1, .mutex = PTHREAD_MUTEX_INITIALIZER, .armed = PTHREAD_COND_INITIALIZER};

bool
watchdog_expired(void)
{
    return atomic_load(&watchdog.expired);
}

void
watchdog_answer(int exit_code)
{
    atomic_store(&watchdog.answer, exit_code);
}

static int64_t
now_ms(void)
{
    const Clock *clock = world_real()->clock;

    return clock->monotonic_ns(clock) / 1000000;
}

/* No stdio: its lock may be held by the thread that hangs. */
static _Noreturn void
give_up(const char *what)
{
    const int answer = atomic_load(&watchdog.answer);
    char message[512];
    const int size =
        answer == 0
            ? snprintf(message, sizeof message,
                       "WARNING: %.300s: done, but overflow-path does not answer\n"
                       "HINT: look at its disk or mount\n",
                       what)
            : snprintf(message, sizeof message,
                       "ERROR: %.300s: gave up, a file system does not answer\n"
                       "HINT: look at the disks and mounts of repository and data directory\n",
                       what);

    if (write(STDERR_FILENO, message, (size_t)size) < 0)
        _exit(answer);
    _exit(answer);
}

static int64_t
wait_armed(void)
{
    pthread_mutex_lock(&watchdog.mutex);
    while (watchdog.limit_ms == 0)
        pthread_cond_wait(&watchdog.armed, &watchdog.mutex);
    const int64_t limit_ms = watchdog.limit_ms;
    pthread_mutex_unlock(&watchdog.mutex);
    return limit_ms;
}

/* Under the mutex, so that what has been disarmed is neither signalled nor ended. */
static void
look(int64_t now, int64_t *cancelled_ms)
{
    pthread_mutex_lock(&watchdog.mutex);
    if (watchdog.limit_ms != 0) {
        if (now >= watchdog.limit_ms && !watchdog_expired()) {
            atomic_store(&watchdog.expired, true);
            if (!cancel_requested())
                kill(getpid(), SIGTERM);
        }
        if (*cancelled_ms == 0 && cancel_requested())
            *cancelled_ms = now;
        if (*cancelled_ms != 0 && now - *cancelled_ms >= GRACE_MS)
            give_up(watchdog.what);
    }
    pthread_mutex_unlock(&watchdog.mutex);
}

static void *
watch(void *context)
{
    const Clock *clock = world_real()->clock;
    int64_t cancelled_ms = 0;

    (void)context;
    for (;;) {
        const int64_t limit_ms = wait_armed();
        const int64_t now = now_ms();

        look(now, &cancelled_ms);
        clock->sleep_ms(clock,
                        limit_ms > now && limit_ms - now < STEP_MS ? limit_ms - now : STEP_MS);
    }
    return NULL;
}

bool
watchdog_prepare(CairnError *err)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all;
    sigset_t before;

    /* Signals are the first thread's: there they cut a sleep or a wait short. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_attr_init(&attributes);
    if (failure == 0) {
        pthread_attr_setstacksize(&attributes, STACK_SIZE);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        failure = pthread_create(&thread, &attributes, watch, NULL);
        pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0) {
        errno = failure;
        return cairn_error_errno(err, "unable to start the watchdog");
    }
    return true;
}

void
watchdog_arm(int64_t limit_ms, const char *what)
{
    pthread_mutex_lock(&watchdog.mutex);
    watchdog.limit_ms = now_ms() + limit_ms;
    watchdog.what = what;
    pthread_cond_signal(&watchdog.armed);
    pthread_mutex_unlock(&watchdog.mutex);
}

void
watchdog_disarm(void)
{
    pthread_mutex_lock(&watchdog.mutex);
    watchdog.limit_ms = 0;
    pthread_mutex_unlock(&watchdog.mutex);
}

bool
watchdog_start(int64_t limit_ms, const char *what, CairnError *err)
{
    /* Before there is a thread to wake: the calls that a push makes are the same every time. */
    watchdog_arm(limit_ms, what);
    return watchdog_prepare(err);
}
