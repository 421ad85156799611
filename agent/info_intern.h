/*
 * What the files of info share: info.c reads backups and what can be recovered, info_wal.c the WAL.
 * Nobody else includes this.
 */
#ifndef PGCAIRN_AGENT_INFO_INTERN_H
#define PGCAIRN_AGENT_INFO_INTERN_H

#include "agent/info.h"

/* The cluster that is being read. */
typedef struct {
    Info *info;
    InfoCluster *cluster;
} ClusterReader;

void info_warn(ClusterReader *reader, const char *format, ...) PRINTF_LIKE(2, 3);
/* Fills the cluster's incarnations; its catalog is read. */
bool info_read_wal(ClusterReader *reader, Repository *repository, CairnError *err) MUST_CHECK;

#endif
