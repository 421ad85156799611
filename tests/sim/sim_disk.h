/*
 * What lies on the model storage: objects and directories, each seen or not, durable or not
 * (sim_storage.c, which lets actors at it, tells why). Nothing here takes a step or fails.
 */
#ifndef PGCAIRN_TESTS_SIM_DISK_H
#define PGCAIRN_TESTS_SIM_DISK_H

#include "tests/sim/sim.h"

/* A test without memory is no test. */
void *sim_need(void *memory);
/* Returned owned. */
uint8_t *sim_copy(const void *data, size_t size);

/* Length of a name's directory part: 0 for the root. */
size_t sim_parent_size(const char *name, size_t size);

/* The name is created, once: false when it is seen already. */
bool sim_object_create(Sim *sim, const char *name, const uint8_t *data, size_t size,
                       unsigned creator);
void sim_object_set_seen(Sim *sim, SimObject *object, bool seen);

/* NULL: there is none of these `size` bytes of path. */
SimDirectory *sim_directory(const Sim *sim, const char *path, size_t size);
void sim_directory_add(Sim *sim, const char *path, size_t size, unsigned creator);
/* fsync of a directory: all its entries are as durable as they are seen. */
void sim_directory_sync(Sim *sim, const char *path, size_t size);

#endif
