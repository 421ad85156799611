/*
 * Libraries that are loaded when they are first used: pgcairn-wal answers most calls without them,
 * and the dynamic linker took longer than the rest of such a call.
 *
 * Errors: what is not there ends the process as the dynamic linker would, with its message and exit
 * code 127: nobody could go on, and no other answer is safe for every caller. Threads: any; call
 * them from a pthread_once.
 */
#ifndef PGCAIRN_COMMON_LAZY_LIBRARY_H
#define PGCAIRN_COMMON_LAZY_LIBRARY_H

/* "libx.so." and a number that a header's macro tells. */
#define LAZY_LIBRARY_TEXT(word) #word
#define LAZY_LIBRARY_VERSION(macro) LAZY_LIBRARY_TEXT(macro)

/* Never NULL. */
void *lazy_library_open(const char *file);
void *lazy_library_find(void *library, const char *function);

#endif
