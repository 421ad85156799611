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
    int64_t limit_ms;
    const char *what;
    atomic_bool expired;
} watchdog;

bool
watchdog_expired(void)
{
    return atomic_load(&watchdog.expired);
}

static int64_t
now_ms(void)
{
    const Clock *clock = world_real()->clock;

    return clock->monotonic_ns(clock) / 1000000;
}

/* No stdio: its lock may be held by the thread that hangs. */
static _Noreturn void
give_up(void)
{
    char message[512];
    const int size =
        snprintf(message, sizeof message,
                 "ERROR: %s: gave up, a file system does not answer\n"
                 "HINT: look at the disks and mounts of repository and data directory\n",
                 watchdog.what);

    if (write(STDERR_FILENO, message, (size_t)size) < 0)
        _exit(1);
    _exit(1);
}

static void *
watch(void *context)
{
    const Clock *clock = world_real()->clock;
    const int64_t limit_ms = now_ms() + watchdog.limit_ms;
    int64_t cancelled_ms = 0;

    (void)context;
    for (;;) {
        const int64_t now = now_ms();

        if (now >= limit_ms && !watchdog_expired()) {
            atomic_store(&watchdog.expired, true);
            if (!cancel_requested())
                kill(getpid(), SIGTERM);
        }
        if (cancelled_ms == 0 && cancel_requested())
            cancelled_ms = now;
        if (cancelled_ms != 0 && now - cancelled_ms >= GRACE_MS)
            give_up();
        clock->sleep_ms(clock,
                        limit_ms > now && limit_ms - now < STEP_MS ? limit_ms - now : STEP_MS);
    }
    return NULL;
}

bool
watchdog_start(int64_t limit_ms, const char *what, CairnError *err)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all;
    sigset_t before;

    watchdog.limit_ms = limit_ms;
    watchdog.what = what;
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
