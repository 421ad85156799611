/*
 * sql/role.sql, carried by the program so that `init --print` needs no installed file.
 */
#ifndef PGCAIRN_AGENT_ROLE_SQL_H
#define PGCAIRN_AGENT_ROLE_SQL_H

extern const char role_sql[]; /* NUL-terminated */

#endif
