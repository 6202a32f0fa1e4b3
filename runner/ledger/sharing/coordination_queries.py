"""Every statement by which machines coordinate in PostgreSQL, by what it is about.

Claims and holders lie in the ledger's schema; turns, budgets, keys and views in `paddock_runs`, a
schema of the whole database. `:me` is the participant, `:dead_s` the time without a heartbeat after
which one counts as dead.
"""

from __future__ import annotations

from paddock.engine.system.units import DAY_S

from ..database.ledger_tables import IS_ALIVE, SERVER_NOW

CLAIM_FORGOTTEN_S = DAY_S
SPENDING_FORGOTTEN_S = 30 * DAY_S

MAKE_SCHEMA = (
    "create schema if not exists paddock_runs",
    "create table if not exists paddock_runs.turns ("
    "holder text primary key, name text not null, job text not null, run text not null, "
    "host text not null, pid integer not null, began float8 not null, seen float8 not null, "
    "is_unwanted boolean not null default false)",
    "create index if not exists turns_name on paddock_runs.turns (name)",
    "create table if not exists paddock_runs.spent ("
    "job text not null, run text not null, began float8 not null, at float8 not null, "
    "tokens bigint not null default 0, n_ended bigint not null default 0, "
    "n_in_flight bigint not null default 0, primary key (job, run))",
    "create table if not exists paddock_runs.keys (name text primary key, value text not null)",
    "create table if not exists paddock_runs.views ("
    "holder text primary key, folders text not null, view text not null, at float8 not null)",
)
HAS_SCHEMA = "select to_regclass('paddock_runs.views') is not null"
# Until the transaction ends; one at a time for each text.
LOCK = "select pg_advisory_xact_lock(hashtext(:lock))"
NOW = f"select {SERVER_NOW}"
MOST_CONNECTIONS = "select current_setting('max_connections')"
COUNT_CONNECTIONS = "select count(*) from pg_stat_activity"

# --- keys that sign runs

ADD_KEY = (
    "insert into paddock_runs.keys (name, value) values (:name, :value) "
    "on conflict (name) do nothing"
)
KEY = "select value from paddock_runs.keys where name = :name"

# --- participants, their views and their claims

# The first one makes the participant known.
HEARTBEAT = (
    f"insert into holders (holder, host, pid, run, place, job, seen) "
    f"values (:me, :host, :pid, :run, :place, :job, {SERVER_NOW}) "
    f"on conflict (holder) do update set seen = excluded.seen"
)
DROP_FORGOTTEN = f"delete from holders where seen < {SERVER_NOW} - {CLAIM_FORGOTTEN_S}"
WRITE_VIEW = (
    f"insert into paddock_runs.views (holder, folders, view, at) "
    f"values (:me, :folders, :view, {SERVER_NOW}) on conflict (holder) do nothing"
)
DROP_FORGOTTEN_VIEWS = (
    f"delete from paddock_runs.views where at < {SERVER_NOW} - {SPENDING_FORGOTTEN_S}"
)
# Living participants in the same folders; an older Paddock wrote no view.
AT_WORK = (
    f"select place, job, holders.run, host, coalesce(view, '{{}}') from holders "
    f"left join paddock_runs.views using (holder) "
    f"where (place = :place or folders = :folders) and {IS_ALIVE} and holder <> :me order by seen"
)
# The other living participants at a place, those of a job, and the dead ones.
COUNT_OTHERS = f"select count(*) from holders where place = :place and holder <> :me and {IS_ALIVE}"
RUNS_OF_OTHERS = f"select run from holders where job = :job and holder <> :me and {IS_ALIVE}"
DROP_DEAD = f"delete from holders where place = :place and not {IS_ALIVE} returning holder"
# Items become ours unless a living participant holds them.
CLAIM = (
    f"insert into claims (scope, key, holder, at) "
    f"select :scope, key, :me, {SERVER_NOW} from unnest((:keys)::text[]) as wanted (key) "
    f"on conflict (scope, key) do update set holder = excluded.holder, at = excluded.at "
    f"where claims.holder = excluded.holder or not exists (select 1 from holders "
    f"where holders.holder = claims.holder and {IS_ALIVE}) returning key"
)
RELEASE = "delete from claims where scope = :scope and key = any((:keys)::text[]) and holder = :me"
HOLDS = "select 1 from claims where scope = :scope and key = :key and holder = :me"
HOLDER_OF = (
    "select holders.run, holders.host from claims join holders using (holder) "
    "where scope = :scope and key = any((:keys)::text[]) order by key limit 1"
)
_OF_JOB = "select run, host from holders where job = :job and seen"
ALIVE_IN_JOB = f"{_OF_JOB} >= {SERVER_NOW} - :ago_s"
SILENT_IN_JOB = f"{_OF_JOB} < {SERVER_NOW} - :ago_s"
LEAVE = tuple(
    f"delete from {table} where holder = :me"
    for table in ("claims", "holders", "paddock_runs.views")
)

# --- turns in a group

TAKE_TURN = (
    f"insert into paddock_runs.turns (holder, name, job, run, host, pid, began, seen) "
    f"values (:holder, :name, :job, :run, :host, :pid, :began, {SERVER_NOW}) "
    f"on conflict (holder) do update set seen = excluded.seen"
)
TURN_OF_OTHERS = (
    f"select run, host, pid, began from paddock_runs.turns "
    f"where name = :name and job <> :job and {IS_ALIVE} order by began limit 1"
)
# Of several groups, as `paddock up` looks at them before it starts a run.
TURNS = (
    f"select name, run, host, pid, began from paddock_runs.turns "
    f"where name = any((:names)::text[]) and {IS_ALIVE} order by began desc"
)
UNWANT = "update paddock_runs.turns set is_unwanted = true where name = any((:names)::text[])"
DROP_DEAD_TURNS = f"delete from paddock_runs.turns where name = :name and not {IS_ALIVE}"
# Ask runs that began earlier to stop; they see it at their next heartbeat.
REQUEST_RELEASE = (
    "update paddock_runs.turns set is_unwanted = true "
    "where name = :name and job <> :job and began < :began"
)
TURN_HEARTBEAT = (
    f"update paddock_runs.turns set seen = {SERVER_NOW} where holder = :holder "
    f"returning is_unwanted"
)
LEAVE_TURN = "delete from paddock_runs.turns where holder = :holder"

# --- what a job has spent

# Forget what a job spent in an earlier life, in which no present participant took part.
RESTART_JOB = (
    f"delete from paddock_runs.spent where at < {SERVER_NOW} - {SPENDING_FORGOTTEN_S} "
    f"or (job = :job and not exists (select 1 from paddock_runs.spent as other "
    f"where other.job = :job and other.at > {SERVER_NOW} - :dead_s))"
)
BEGIN_SPENDING = (
    f"insert into paddock_runs.spent (job, run, began, at) "
    f"values (:job, :run, {SERVER_NOW}, {SERVER_NOW}) on conflict do nothing"
)
WRITE_OWN = (
    f"update paddock_runs.spent set at = {SERVER_NOW}, tokens = :tokens, n_ended = :n_ended, "
    f"n_in_flight = :n_in_flight where job = :job and run = :run"
)
# Items in flight at a machine that died no longer count.
SPENT_BY_OTHERS = (
    f"select {SERVER_NOW} - min(began), coalesce(sum(tokens) filter (where run <> :run), 0), "
    f"coalesce(sum(n_ended) filter (where run <> :run), 0), "
    f"coalesce(sum(n_in_flight) filter (where run <> :run and run in "
    f"(select holders.run from holders where {IS_ALIVE})), 0) "
    f"from paddock_runs.spent where job = :job"
)
