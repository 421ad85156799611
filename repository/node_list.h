/*
 * Nodes of one level of a parent's tree, on local scratch: written in key order, read back in key
 * order. Memory: one buffer. Threads: one thread. Inside repository/ only.
 */
#ifndef PGCAIRN_REPOSITORY_NODE_LIST_H
#define PGCAIRN_REPOSITORY_NODE_LIST_H

#include "repository/map.h"

typedef struct NodeList NodeList;
NodeList *node_list_new(const World *world, const char *scratch_directory,
                        CairnError *err) MUST_CHECK;
void node_list_free(NodeList *list);
bool node_list_add(NodeList *list, const void *key, size_t key_size, const MapNodeRef *ref,
                   CairnError *err) MUST_CHECK;
/* The node with exactly this first key; keys asked for ascend. Nothing is added any more. */
bool node_list_find(NodeList *list, const void *key, size_t key_size, MapNodeRef *ref_out,
                    bool *found_out, CairnError *err) MUST_CHECK;
SCOPED_TYPE(NodeList, node_list_free);

#endif
