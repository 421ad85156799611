#include "common/cancel.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t received_signal;

static void
on_signal(int signal_number)
{
    received_signal = signal_number;
}

void
cancel_install(void)
{
    /*
     * No SA_RESTART: a wait on a socket must return and let its loop ask. SA_RESETHAND: whoever
     * presses Ctrl-C twice means it, and being killed is safe.
     */
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof SIGNALS / sizeof SIGNALS[0]; i++)
        CAIRN_ASSERT(sigaction(SIGNALS[i], &action, NULL) == 0);

    action.sa_handler = SIG_IGN;
    action.sa_flags = 0;
    CAIRN_ASSERT(sigaction(SIGPIPE, &action, NULL) == 0);
}

bool
cancel_requested(void)
{
    return received_signal != 0;
}

bool
cancel_check(CairnError *err)
{
    if (received_signal != 0)
        return cairn_error(err, CAIRN_CANCELLED, "interrupted by %s", strsignal(received_signal));
    return true;
}
