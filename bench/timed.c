/*
 * timed [-u FILE] [-p MS] [-r DIR] < COMMANDS
 * timed -a FILE COMMAND
 *
 * Runs each line of its input by sh, as PostgreSQL's archiver and recovery do, one after the other,
 * in the current directory. Prints for each: wall ms, CPU ms of the command and all that it waited
 * for, peak resident kB of its largest process. -u removes FILE before each call, outside the
 * measured time, as recovery does before it asks for the next segment; -p sleeps as long before
 * each call, as recovery replays. -r renames, after each call and outside the measured time as
 * well, DIR/NAME.ready to DIR/NAME.done, as the archiver does; NAME is what follows the last slash
 * of the command. Processes that a command leaves behind become ours: they are waited for at the
 * end, and a last line "behind CPU-ms" says what they took. Ends with 1 at the first command that
 * fails.
 *
 * With -a it runs the one command, appends its wall ms and when it ended (seconds since 1970) to
 * the file, and exits as the command did: what a server calls can so be measured.
 *
 * It is in C because a process begins with its parent's peak memory: started by a large program, no
 * command could ever look smaller than that.
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double
now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static double
to_ms(struct timeval time)
{
    return (double)time.tv_sec * 1e3 + (double)time.tv_usec / 1e3;
}

static void
die(const char *what)
{
    perror(what);
    exit(1);
}

/* What the command prints goes to our standard error: the output is for numbers. */
static pid_t
start(char *command, const posix_spawn_file_actions_t *actions)
{
    char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, command, NULL};
    pid_t pid;

    if (posix_spawn(&pid, "/bin/sh", actions, NULL, argv, environ) != 0)
        die("timed: unable to start sh");
    return pid;
}

/* What the server does when archive_command answers 0. */
static void
note_done(const char *directory, const char *command)
{
    const char *slash = strrchr(command, '/');
    char ready[4096];
    char done[4096];

    if (slash == NULL)
        die("timed: no name in the command");
    snprintf(ready, sizeof ready, "%s%s.ready", directory, slash);
    snprintf(done, sizeof done, "%s%s.done", directory, slash);
    if (rename(ready, done) != 0)
        die("timed: rename");
}

/* CPU of what commands left behind, as each of them ends. */
static double
wait_for_the_rest(void)
{
    struct rusage usage;
    double cpu = 0;

    while (wait4(-1, NULL, 0, &usage) > 0)
        cpu += to_ms(usage.ru_utime) + to_ms(usage.ru_stime);
    return cpu;
}

/* Exits as the command did. */
static void
run_one(const char *file, char *command)
{
    const double started = now_ms();
    posix_spawn_file_actions_t actions;
    int status;

    posix_spawn_file_actions_init(&actions);
    if (waitpid(start(command, &actions), &status, 0) < 0)
        die("timed: waitpid");
    const double wall = now_ms() - started;
    struct timespec ended;
    clock_gettime(CLOCK_REALTIME, &ended);
    FILE *log = fopen(file, "a");
    if (log == NULL ||
        fprintf(log, "%.3f %.6f\n", wall, (double)ended.tv_sec + (double)ended.tv_nsec / 1e9) < 0 ||
        fclose(log) != 0)
        die(file);
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void
run(char *command, const posix_spawn_file_actions_t *actions)
{
    const double started = now_ms();
    struct rusage usage;
    int status;

    if (wait4(start(command, actions), &status, 0, &usage) < 0)
        die("timed: wait4");
    const double wall = now_ms() - started;
    if (status != 0) {
        fprintf(stderr, "timed: wait status 0x%x: %s\n", (unsigned)status, command);
        exit(1);
    }
    printf("%.3f %.3f %ld\n", wall, to_ms(usage.ru_utime) + to_ms(usage.ru_stime), usage.ru_maxrss);
    fflush(stdout);
}

int
main(int argc, char **argv)
{
    const char *remove_first = NULL;
    const char *status_directory = NULL;
    long pause_ms = 0;
    int option;
    posix_spawn_file_actions_t actions;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;

    if (argc == 4 && strcmp(argv[1], "-a") == 0)
        run_one(argv[2], argv[3]);
    while ((option = getopt(argc, argv, "u:p:r:")) != -1) {
        if (option == 'u')
            remove_first = optarg;
        else if (option == 'p')
            pause_ms = atol(optarg);
        else if (option == 'r')
            status_directory = optarg;
        else
            return 2;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    while ((size = getline(&line, &capacity, stdin)) > 0) {
        if (line[size - 1] == '\n')
            line[size - 1] = '\0';
        if (remove_first != NULL)
            unlink(remove_first);
        if (pause_ms > 0)
            usleep((useconds_t)pause_ms * 1000);
        run(line, &actions);
        if (status_directory != NULL)
            note_done(status_directory, line);
    }
    printf("behind %.3f\n", wait_for_the_rest());
    free(line);
    posix_spawn_file_actions_destroy(&actions);
    return 0;
}
