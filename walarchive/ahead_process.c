#include "walarchive/ahead_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Only calls that are safe between fork and exec: there may be other threads, such as the watchdog.
 */
static _Noreturn void
become_ahead(char *const *command)
{
    const int null = open("/dev/null", O_RDWR);
    sigset_t none;

    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(null, STDERR_FILENO) < 0)
        _exit(1);
    close_range(STDERR_FILENO + 1, ~0U, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* The archiver ignores these while it waits for a command, and that is inherited. */
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    execv("/proc/self/exe", command);
    _exit(1);
}

void
ahead_process_start(char *const *command)
{
    const pid_t middle = fork();

    if (middle == 0) {
        setsid();
        /* Twice, so that the process is nobody's child: who started it may live long. */
        if (fork() == 0)
            become_ahead(command);
        _exit(0);
    }
    if (middle > 0)
        while (waitpid(middle, NULL, 0) < 0 && errno == EINTR)
            continue;
}
