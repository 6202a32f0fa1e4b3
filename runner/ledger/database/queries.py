"""The statements that read or remove rows of a ledger, by the table that they are about.

Portable between SQLite and PostgreSQL, with named values (`:name`). `ledger_tables` makes the
tables and writes whole rows. A query that ends in a condition may be narrowed to some keys
(`Ledger.rows_of_keys`); `{listed}` is a list of keys as the database reads it
(`LedgerDatabase.listed_keys`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..entries import FILED, Entry, InFlightRow, OutputRow, PipelineRow, RunRow, StoredRow
from .ledger_tables import COLUMNS

# --- items: the state of each, the fold of its events; and the event with which it ended

_OF_STATE = ("key", "state", "gone", "run", "at")
_OF_BOTH = ("hash", "parts")
_NO_TEXT = "''"


def _column(name: str) -> str:
    if name in _OF_BOTH:
        return f"coalesce(i.{name}, e.{name})"
    return f"{'i' if name in _OF_STATE else 'e'}.{name}"


def _entry(left_out: Mapping[str, str] = {}) -> str:
    return ", ".join(left_out.get(name) or _column(name) for name in Entry.__match_args__)


_ENTRY = _entry()
_LINEAGE = "items i join events e on e.n = i.ended"  # also of what has no state
_ENDED = f"{_LINEAGE} and i.state is not null"
_OF_SCOPE = f"from {_ENDED} where i.scope = :scope"
ENTRIES = f"select {_ENTRY} {_OF_SCOPE}"  # narrowed by `i.key`
# Without parts, which tell why a hash is another one: for 10,000 items 5 MB and more.
ENTRIES_WITHOUT_PARTS = f"select {_entry({'parts': _NO_TEXT})} {_OF_SCOPE}"
# Without results, what they are of, and when they were made: for 10,000 items 12 MB and more.
_LEFT_OUT = {"returns": "null", "was": "null", "seconds": "0", "at": "0"}
_LEFT_OUT |= dict.fromkeys(("hash", "parts", "run"), _NO_TEXT)
ENTRIES_WITHOUT_RESULTS = f"select {_entry(_LEFT_OUT)} {_OF_SCOPE}"
LAST_DONE = "select max(at) from items where scope = :scope"
KEYS_OF_SCOPE = "select key from items where scope = :scope and state is not null"
# Added for those not filed, of which a scope may have 100,000.
NOT_FILED = f" and (i.gone is null or i.gone > '{FILED}')"
_ITEMS = (
    f"select i.scope, scopes.step, {_ENTRY} from {_ENDED} "
    f"left join scopes on scopes.scope = i.scope"
)
# Those that its report counts: a step that only writes a file `was` nothing.
ITEMS_OF_RUN = (
    f"{_ITEMS} where i.run = :run and coalesce(e.was, 'new') <> '' order by scopes.step, i.key"
)
# Those that a run did not try, since they had been given up before it.
QUARANTINED_BEFORE_RUN = (
    f"{_ITEMS} where scopes.file = :file and i.state = 'quarantined' and i.gone is null "
    f"and i.at < (select started from runs where run = :run) order by scopes.step, i.key"
)
# Latest records by other runs, with the source, for a run whose items they replaced.
ITEMS_OF_OTHER_RUNS = (
    f"select i.scope, scopes.step, i.key, i.run, i.state, e.was, i.gone, e.path from {_ENDED} "
    "join scopes on scopes.scope = i.scope "
    "where scopes.file = :file and i.run <> :run order by i.at"
)
HAS_ITEM_OF_RUN = "select 1 from items where run = :run limit 1"
HAS_FILED = f"select 1 from items where scope = :scope and gone = '{FILED}' limit 1"
_IS_DELETED = f"gone is not null and gone <> '{FILED}'"
GONE_ITEMS = f"select scope, key from items where {_IS_DELETED}"
GONE_ITEMS_BEFORE = f"{GONE_ITEMS} and at < :before"
_LAST = "select last from items where scope = :scope and key = :key and state is not null"
IS_GONE_ITEM = f"{_LAST} and {_IS_DELETED}"
KEYS_OF_ITEMS = "select scope, key from items where state is not null"
ITEMS_BEFORE = f"{KEYS_OF_ITEMS} and scope = :scope and at < :before"
IS_ITEM_BEFORE = f"{_LAST} and at < :before"
DROP_ITEM = "delete from items where scope = :scope and key = :key"
# `:name` is as it stands in the JSON of dependencies. `like` would fold case, and know wildcards.
ITEMS_THAT_READ = f"select i.scope, i.key from {_ENDED} where replace(reads, :name, '') <> reads"
READS_NAMING = (
    f"select e.reads, i.state from {_ENDED} where not (i.gone is not null and i.gone <> '{FILED}') "
    "and replace(reads, :name, '') <> reads"
)
# Narrowed by `scope`.
COUNT_NEWER_ITEMS = (
    f"select count(*) from items where state = 'done' and coalesce(gone, '{FILED}') = '{FILED}' "
    f"and at > :at"
)

# --- events: the log of items

LAST_EVENT = "select max(n) from events"


def insert_row(table: str, columns: Iterable[str]) -> str:
    names = [*columns]
    values = ", ".join(f":{name}" for name in names)
    return f"insert into {table} ({', '.join(names)}) values ({values})"


def change_item(columns: Iterable[str]) -> str:
    sets = ", ".join(f"{name} = :{name}" for name in columns)
    return f"update items set {sets} where scope = :scope and key = :key"


# What a state is the fold of, and what there is of it.
_OF_LOG = (name for name in COLUMNS["items"] if name not in ("ended", "last", "gone"))
STATE_COLUMNS = ("n", "kind", *_OF_LOG)
STATE_EVENTS = (
    f"select {', '.join(STATE_COLUMNS)} from events where n > 0 and scope <> '' order by n"
)
STATES = f"select {', '.join(COLUMNS['items'])} from items"
EVENTS_OF_ITEM = f"select {', '.join(COLUMNS['events'])} from events"
EVENTS_OF_ITEM += " where scope = :scope and key = :key order by n"
# Of items that have several: later ones may replace what earlier ones say.
ITEMS_WITH_HISTORY = (
    "select scope, key from events where n > 0 and scope <> '' group by scope, key "
    "having count(*) > 1"
)
DROP_EVENTS = "delete from events where cast(n as text) in (select value from {listed})"
# What is left of items of which nothing is known, but for moves and what is in flight.
DROP_UNUSED_EVENTS = (
    "delete from events where n > 0 and origin is null and not exists "
    "(select 1 from items i where i.scope = events.scope and i.key = events.key)"
)
OBJECTS_OF_EVENTS = (
    "select scope, key, returns_object, made_object from events "
    "where returns_object is not null or made_object is not null"
)

# --- scopes: what the digest of a scope stands for

SCOPES = "select scope, file, step, inputs from scopes"
SCOPES_OF_FILE = f"{SCOPES} where file = :file"
SCOPE = f"{SCOPES} where scope = :scope"
SCOPES_OF_STEP = f"{SCOPES_OF_FILE} and step = :step"
SCOPES_WITHIN = f"{SCOPES_OF_FILE} and substr(step, 1, :n) = :prefix"
SCOPES_OF_FOLDERS = "select scope, step from scopes where file = :file and inputs = :inputs"
KNOWN_PIPELINES = f"select {', '.join(PipelineRow.__match_args__)} from pipelines order by name"
# What follows the file of a pipeline: `:head` begins the heads of its reviews.
RENAME_PIPELINE = (
    *(f"update {t} set file = :file where file = :was" for t in ("pipelines", "scopes", "runs")),
    "update reviews set head = replace(head, :head_was, :head) "
    "where substr(head, 1, :n) = :head_was",
)
# All that is known of a scope; itself stays with its outputs and rows.
DROP_SCOPE = (
    "delete from events where scope = :scope",
    "delete from items where scope = :scope",
    "delete from scopes where scope = :scope and scope not in (select scope from outputs "
    "union all select scope from stored)",
)

# --- outputs: the files that items wrote; without a size a file of the user's that was moved, with
# a negative one a path that another pipeline took over

OUTPUTS = f"select {', '.join(OutputRow.__match_args__)} from outputs"
OUTPUTS_OF_SCOPE = f"{OUTPUTS} where scope = :scope"
WRITTEN_OUTPUTS = f"{OUTPUTS} where size is not null"
MOVED_BELOW = "select scope, path from outputs where size is null and substr(path, 1, :n) = :at"
MOVED_CONTENTS = "select intended from outputs where path = :path and size is null"
# Scopes of other pipelines' files that wrote a path; `in` is by the primary key.
OTHER_WRITERS = (
    "select scope from outputs where path = :path and size >= 0 "
    "and scope in (select scope from scopes where file <> :file)"
)
_WRITERS = "select path, scope, key, run, at from outputs where size >= 0"
WRITERS = f"{_WRITERS} and path = :path order by at"
WRITERS_BELOW = f"{_WRITERS} and substr(path, 1, :n) = :prefix order by path, at"
PATHS_OF_CONTENT = (
    "select distinct path from outputs where sha256 = :digest order by path limit :most"
)
SOME_PATHS = "select distinct path from outputs limit :most"
PATHS_OF_ITEM = "select path from outputs where scope = :scope and key = :key"
OUTPUTS_WITHOUT_ITEM = "select distinct scope, key from outputs where at < :before "
OUTPUTS_WITHOUT_ITEM += (
    "and (scope, key) not in (select scope, key from items where state is not null)"
)
DROP_OUTPUT = "delete from outputs where scope = :scope and key = :key and path = :path"

# --- calls: model calls with their replies

CALL_COLUMNS = (
    "hash", "kind", "model", "digest", "served_digest", "done_reason", "scope", "step", "key",
)  # fmt: skip
REPLY_COLUMNS = (*CALL_COLUMNS, "run", "at", "usage", "reply", "reply_object")
WHOLE_CALL_COLUMNS = (*REPLY_COLUMNS, "request", "request_object")
CALL_WITH_REPLY = f"select {', '.join(REPLY_COLUMNS)} from calls where hash = :hash"
WHOLE_CALL = f"select {', '.join(WHOLE_CALL_COLUMNS)} from calls where hash = :hash"
HAS_CALLS = "select hash from calls limit 1"
ALL_CALLS = f"select {', '.join(COLUMNS['calls'])} from calls"
CALLS_OF_ITEM = "select hash from calls where scope = :scope and key = :key order by at"
CALLS_OF_SCOPE = "select hash from calls where scope = :scope"
CALLS_OF_RUN = "select step, key, hash, kind from calls where run = :run order by at"
CHATS = "select hash, run, at from calls where kind = 'chat'"
LAST_DIGEST_OF_MODEL = "select digest from calls where model = :model order by at desc limit 1"
DROP_CALLS = "delete from calls where hash in (select value from {listed})"
CALLS_BY_AGE = (
    "select hash, at, length(coalesce(request, '')) + length(coalesce(reply, '')), "
    "request_object, reply_object from calls where at < :before order by at"
)
OBJECTS_OF_CALLS = (
    "select hash, request_object, reply_object from calls "
    "where request_object is not null or reply_object is not null"
)

# --- lineage: the last end of each item, or act of a step, also of one that is forgotten while its
# outputs are there

_MADE = f"select i.scope, i.key, e.run, e.at, e.spec, e.path, e.made, e.made_object from {_LINEAGE}"
LINEAGE_OF_SCOPE = f"{_MADE} where i.scope = :scope"  # narrowed by `i.key`
LINEAGE_OF_ITEM = f"{LINEAGE_OF_SCOPE} and i.key = :key"
LINEAGE_OF_RUN = f"{_MADE} where e.run = :run"
LINEAGE_OF_SOURCE = f"{_MADE} where e.path = :source order by i.scope, i.key"
ITEMS_WITH_SOURCE_BELOW = (
    f"select e.path, i.scope, i.key from {_LINEAGE} where substr(e.path, 1, :n) = :prefix "
    "order by e.path, i.scope"
)
STATES_OF_SOURCES_BELOW = (
    f"select e.path, i.state from {_ENDED} join scopes c on c.scope = i.scope "
    "where c.file = :file and substr(e.path, 1, :n) = :prefix"
)
# Of the items whose documents are still there.
LINEAGE_OF_LIVING = (
    f"select i.scope, i.key, e.made, e.made_object from {_LINEAGE} where i.gone is null"
)
SPECS_OF_SCOPE = (
    f"select i.key, e.spec from {_LINEAGE} where i.scope = :scope and e.spec is not null"
)
SPEC = "select text from specs where spec = :spec"
DROP_UNUSED_SPECS = (
    "delete from specs where spec not in (select spec from events where spec is not null)"
)

# --- forgetting: all that is known of a document

DOCUMENTS = (  # as `ledger.forgetting.DocumentItem`, then the lineage
    "select i.scope, i.key, c.file, coalesce(i.name, i.key), coalesce(i.path, e.path), "
    f"i.sha256, i.target, e.made, e.made_object from {_ENDED} join scopes c on c.scope = i.scope "
    "where coalesce(i.path, e.path) is not null"
)
FORGET_ITEM = tuple(
    f"delete from {table} where scope = :scope and key = :key"
    for table in ("items", "events", "reviews")
)
FORGET_MOVE = "delete from events where origin = :path and sha256 = :content"
# Filed ones in whose `reads` one of the texts stands: the next run looks if they are still so.
FILED_THAT_READ = (
    f"select i.scope, i.key, i.last from {_ENDED} where i.gone = '{FILED}' "
    "and exists (select 1 from {listed} as one where replace(reads, one.value, '') <> reads)"
)


# --- stored: rows of items in vector stores

STORED = f"select {', '.join(StoredRow.__match_args__)} from stored"
STORED_IN = f"{STORED} where path = :path"
STORED_BY_FILE = (
    f"select c.inputs, c.step, i.state is not null, s.{', s.'.join(StoredRow.__match_args__)} "
    f"from stored s join scopes c on c.scope = s.scope "
    f"left join items i on i.scope = s.scope and i.key = s.key where c.file = :file"
)
STORES = "select distinct path from stored"

# --- moves: where files went; items that are filed

_MOVED = "events m where m.origin is not null"
# The last one of each path and content, as `MoveRow`; narrowed by `m.origin`.
LAST_MOVES = (
    f"select m.origin, m.sha256, m.target, m.scope, m.key, m.at from {_MOVED} and not exists "
    "(select 1 from events later where later.origin = m.origin and later.sha256 = m.sha256 "
    "and later.n > m.n)"
)
UNFINISHED_MOVES = f"{LAST_MOVES} and m.scope = :scope order by m.origin, m.sha256"
ORIGINS_OF = f"select distinct m.origin from {_MOVED} and m.target = :target and m.at > :since"
ORIGINS_BELOW = (
    f"select distinct m.origin from {_MOVED} and substr(m.target, 1, :n) = :prefix "
    "order by m.origin"
)
# Of an item whose document came again `gone` is null.
_IS_FILED = f"i.name is not null and coalesce(i.gone, '{FILED}') = '{FILED}'"
FILED_OF_SCOPE = (  # as `FiledRow`
    "select i.key, i.name, i.path, i.sha256, i.target, i.made_by, i.outdated_by, e.returns, "
    f"e.returns_object, i.state {_OF_SCOPE} and {_IS_FILED}"
)
MAY_HAVE_FILED = (
    f"select 1 from {_MOVED} union all "
    "select 1 from items where scope = :scope and name is not null limit 1"
)
FILED_TARGET = (
    f"select i.target from items i where {_IS_FILED} and i.scope = :scope and i.key = :key"
)
FILED_OF_CONTENT = (
    f"select i.scope, i.key from items i where {_IS_FILED} and i.sha256 = :content "
    "order by i.path, i.scope, i.key"
)

# --- runs

RUNS = f"select {', '.join(RunRow.__match_args__)} from runs"
RUN = f"{RUNS} where run = :run"
# Without a time all of them, also a damaged one that is compared to none.
_BEFORE = "(cast(:before as float8) is null or started < cast(:before as float8))"
RUNNING = f"{RUNS} where status = 'running'"
LATEST_RUNS = f"{RUNS} where {_BEFORE} order by started desc limit :limit"
LATEST_RUNS_OF_FILE = f"{RUNS} where {_BEFORE} and file = :file order by started desc limit :limit"
# That work, or crashed, and have no item begun.
RUNNING_WITHOUT_ITEMS_BEGUN = (
    f"{RUNS} where status = 'running' and started > :since and not exists "
    "(select 1 from events where n < 0 and events.run = runs.run)"
)
RUNS_OF_PARENTS = f"{RUNS} where 1 = 1"  # narrowed by `parent`
COUNT_RUNS = "select count(*) from runs"
COUNT_RUNS_OF_FILE = f"{COUNT_RUNS} where file = :file"
RUN_NAMES = "select run from runs"
RUNS_OF_JOB = "select run from runs where run = :job or parent = :job"
RUN_STATES = "select run, status from runs"
LAST_SUMMARIES = (
    "select summary from runs where file = :file and summary is not null "
    "order by started desc limit 20"
)
HAS_RUN_OF_OTHER_FILE = (
    "select 1 from runs where file <> :file and (ended is null or ended > :since) limit 1"
)
LAST_START_BY_FILE = "select file, max(started) from runs group by file"
RUNS_WITHOUT_ITEMS = (
    "select run, file, coalesce(ended, started) from runs "
    "where run not in (select run from items where run is not null) order by started desc"
)
# A name that another machine may want too: no row where it is taken.
RESERVE_RUN = (
    "insert into runs (run, pipeline, file, started, status) "
    "values (:run, :pipeline, :file, :started, 'running') "
    "on conflict (run) do nothing returning run"
)
DROP_RUNS = "delete from runs where run in (select value from {listed})"
# Of a run that never began: its inputs were not recorded.
RELEASE_RUN = "delete from runs where run = :run and given is null"

# What `paddock adopt` shows of a ledger: how many rows of which kind, and what leads out of it.
CONTENTS = (
    "select 'runs of ' || file, count(*) from runs group by file "
    "union all select 'items, ' || state, count(*) from items where state is not null "
    "group by state "
    "union all select 'decisions, ' || state, count(*) from reviews where state <> 'open' "
    "group by state union all select 'outputs', count(*) from outputs "
    "union all select 'replies of models', count(*) from calls"
)
GIVEN_INPUTS = "select given from runs where given is not null order by started desc"
NAMED_PATHS = (
    "select distinct 'documents in', path from roots union all "
    "select distinct 'output', path from outputs"
)

# --- items that a run has begun: events below zero

IN_FLIGHT = f"select {', '.join(InFlightRow.__match_args__)} from events where n < 0 order by n"
# For each innermost item that a run had begun: whether another run had begun it, too.
SUSPECTS = (
    "select exists (select 1 from events other where other.n < 0 "
    "and other.scope = e.scope and other.key = e.key and other.run <> :run) "
    "from events e where e.n < 0 and e.run = :run and not exists "
    "(select 1 from events inner_ where inner_.n < 0 and inner_.run = e.run "
    "and inner_.around_scope = e.scope and inner_.around_key = e.key)"
)

# --- watched and roots: what watches have processed, and which folders machines saw

WATCHED = "select path, size, mtime_ns from watched where watch = :watch"
ROOTS_OF = (
    "select folder from roots where owner = :owner and path = :path "
    "order by case when host = :host then 0 else 1 end, at"
)

# --- reviews: questions and what people decided

# `{now}` is SQL, by the clock of the database.
_REVIEW_COLUMNS = (
    "scope, key, step, id, state, question, run, asked_at, expires_at, decided_by, decided_at, "
    "is_applied, lease_by, lease_until, reason, together, earlier, head"
)
REVIEWS = f"select {_REVIEW_COLUMNS} from reviews"
REVIEWS_AND_NOW = f"select {{now}}, {_REVIEW_COLUMNS} from reviews"
WHOLE_REVIEWS = (
    f"select {_REVIEW_COLUMNS}, value, value_object, subject, subject_object from reviews"
)
"""Each is followed by one of these:"""
OF_SCOPE = "where scope = :scope"
OF_ID = "where id = :id"
OF_ANSWER = "where scope = :scope and key = :key and step = :step"
OPEN = "where state = 'open' order by asked_at, key, id"
DECIDED = "where state <> 'open' order by decided_at desc, key, id"
ASKED_AGAIN = (
    "where state in ('open', 'expired') and earlier <> '[]' order by decided_at desc, key, id"
)
PENDING = "where state = 'open' or is_applied = 0 order by asked_at, key, id"
UNDONE = (
    "where is_applied = 0 and (state <> 'open' or decided_at is not null or expires_at <= {now}) "
    "order by asked_at, key, id"
)
HAS_LATE = "select 1 from reviews where state = 'open' and expires_at <= {now} limit 1"

# Changes with every question, its terms, decision and lease: where the terms of a step change, one
# of the heads shows it.
REVIEWS_MARK = (
    "select state, scope, step, count(*), sum(asked_at), sum(decided_at), sum(lease_until), "
    "sum(expires_at), sum(length(head)), min(head) from reviews group by state, scope, step "
    "order by state, scope, step"
)
# Decisions of a person who looked at the answer, or may have before it was asked again; the oldest
# first.
LOOKED_AT = (
    "select id, question, decided_at from reviews where state = 'edited' "
    "or (state = 'accepted' and together is null) "
    "or (state in ('open', 'expired') and earlier <> '[]') order by decided_at, key desc, id desc"
)
NOW = "select {now}"
_CHANGING = (
    "state", "decided_by", "decided_at", "is_applied", "lease_by", "lease_until", "reason",
    "together", "earlier", "value", "value_object",
)  # fmt: skip
DECIDE_REVIEW = f"update reviews set {', '.join(f'{n} = :{n}' for n in _CHANGING)} where id = :id"
WRITE_REVIEW = (
    f"insert into reviews ({', '.join(COLUMNS['reviews'])}) "
    f"values ({', '.join(f':{name}' for name in COLUMNS['reviews'])}) on conflict "
    f"(scope, key, step) do update set "
    f"{', '.join(f'{name} = excluded.{name}' for name in COLUMNS['reviews'])}"
)
EXPIRE_REVIEWS = (
    "update reviews set state = 'expired', decided_at = :now, is_applied = 0, lease_by = null, "
    "lease_until = null where state = 'open' and expires_at <= :now"
)
APPLY_REVIEW = "update reviews set is_applied = 1 where id = :id"
WITHDRAW_REVIEW = "delete from reviews where id = :id"
DROP_REVIEWS_OF_SCOPE = "delete from reviews where scope = :scope"
DROP_REVIEWS_OF_ITEM = f"{DROP_REVIEWS_OF_SCOPE} and key = :key"
OBJECTS_OF_REVIEWS = "select scope, key, objects, value_object from reviews"
