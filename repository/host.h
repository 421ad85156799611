/*
 * Who we are on this machine: what an intent says, so that a later run can tell a dead attempt of
 * this host from a live one and from a foreign one.
 */
#ifndef PGCAIRN_REPOSITORY_HOST_H
#define PGCAIRN_REPOSITORY_HOST_H

#include "repository/json.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { HOST_BOOT_ID_SIZE = 37 };

typedef struct {
    char host[65];
    char machine_id[33]; /* "" when the machine has none */
    char boot_id[HOST_BOOT_ID_SIZE];
    int pid;
    uint64_t process_start; /* clock ticks since boot, of /proc/<pid>/stat */
} Host;

void host_self(Host *host_out);
/* The same as host_self's boot_id, and nothing else of it: "" when this system does not tell. */
void host_boot_id(char boot_id_out[HOST_BOOT_ID_SIZE]);
/* True when the process that wrote this is certainly gone: same machine, and another boot or no
 * such process. */
bool host_is_dead(const Host *host);
/* {"host", "pid", "program"}: new reference. */
json_t *host_json(void);

/* Puts the fields of this very process into an object: host, machine_id, boot_id, pid,
 * process_start. False: out of memory. */
bool host_put(json_t *object) MUST_CHECK;
/* And reads them back; every field is checked, failure is the reader's. */
void host_read(JsonReader *fields, Host *host_out);

#endif
