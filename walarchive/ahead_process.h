/*
 * The process that pushes ahead: started by one call of push, and its child no more.
 *
 * It has a session of its own (signals for the archiver's group do not end it), no descriptor of
 * its starter (the server's log and locks end with the server) and, once it has opened the data
 * directory, the root as its current directory. A failure to start it is no failure: the files are
 * pushed one by one.
 */
#ifndef PGCAIRN_WALARCHIVE_AHEAD_PROCESS_H
#define PGCAIRN_WALARCHIVE_AHEAD_PROCESS_H

/* command: arguments for this very program, argv[0] first, NULL last. */
void ahead_process_start(char *const *command);

#endif
