"""The statements that read or remove rows of a ledger, by the table that they are about.

Portable between SQLite and PostgreSQL, with named values (`:name`). `ledger_tables` makes the
tables and writes whole rows. A query that ends in a condition may be narrowed to some keys
(`Ledger.rows_of_keys`); `{listed}` is a list of keys as the database reads it
(`LedgerDatabase.listed_keys`).
"""

from __future__ import annotations

from ..entries import FILED, Entry, InFlightRow, OutputRow, PipelineRow, RunRow, StoredRow
from .ledger_tables import COLUMNS

# --- items: one entry for each item and each step outside of blocks

ENTRIES = f"select {', '.join(Entry.__match_args__)} from items where scope = :scope"
# Without results, what they are of, and when they were made: for 10,000 items 12 MB and more.
_LEFT_OUT = {"returns": "null", "was": "null", "seconds": "0", "at": "0"}
_LEFT_OUT |= dict.fromkeys(("hash", "parts", "run"), "''")
_WITHOUT_RESULTS = ", ".join(_LEFT_OUT.get(name, name) for name in Entry.__match_args__)
ENTRIES_WITHOUT_RESULTS = f"select {_WITHOUT_RESULTS} from items where scope = :scope"
LAST_DONE = "select max(at) from items where scope = :scope"
KEYS_OF_SCOPE = "select key from items where scope = :scope"
# Added for those not filed, of which a scope may have 100,000: an `or` would read them all.
NOT_FILED = (
    f" and key in ({KEYS_OF_SCOPE} and gone is null union all {KEYS_OF_SCOPE} and gone > '{FILED}')"
)
_ITEMS = (
    f"select items.scope, scopes.step, items.{', items.'.join(Entry.__match_args__)} from items "
    f"left join scopes on scopes.scope = items.scope"
)
# Those that its report counts: a step that only writes a file `was` nothing.
ITEMS_OF_RUN = (
    f"{_ITEMS} where items.run = :run and coalesce(items.was, 'new') <> '' "
    f"order by scopes.step, items.key"
)
# Those that a run did not try, since they had been given up before it.
QUARANTINED_BEFORE_RUN = (
    f"{_ITEMS} where scopes.file = :file and items.state = 'quarantined' and items.gone is null "
    f"and items.at < (select started from runs where run = :run) order by scopes.step, items.key"
)
# Latest records by other runs, with the source, for a run whose items they replaced.
ITEMS_OF_OTHER_RUNS = (
    "select items.scope, scopes.step, items.key, items.run, items.state, items.was, items.gone, "
    "provenance.source from items join scopes on scopes.scope = items.scope "
    "left join provenance on provenance.scope = items.scope and provenance.key = items.key "
    "where scopes.file = :file and items.run <> :run order by items.at"
)
HAS_ITEM_OF_RUN = "select 1 from items where run = :run limit 1"
OBJECTS_OF_ITEMS = "select scope, key, returns_object from items where returns_object is not null"
HAS_FILED = f"select 1 from items where scope = :scope and gone = '{FILED}' limit 1"
_IS_DELETED = f"gone is not null and gone <> '{FILED}'"
GONE_ITEMS = f"select scope, key from items where {_IS_DELETED}"
GONE_ITEMS_BEFORE = f"select scope, key from items where {_IS_DELETED} and at < :before"
DROP_GONE_ITEM = (
    f"delete from items where scope = :scope and key = :key and {_IS_DELETED} returning key"
)
KEYS_OF_ITEMS = "select scope, key from items"
ITEMS_BEFORE = f"{KEYS_OF_ITEMS} where scope = :scope and at < :before"
DROP_ITEM_BEFORE = (
    "delete from items where scope = :scope and key = :key and at < :before returning key"
)
# `:name` is as it stands in the JSON of dependencies. `like` would fold case, and know wildcards.
ITEMS_THAT_READ = "select scope, key from items where replace(reads, :name, '') <> reads"
READS_NAMING = f"select reads, state from items where not ({_IS_DELETED}) "
READS_NAMING += "and replace(reads, :name, '') <> reads"
# Narrowed by `scope`.
COUNT_NEWER_ITEMS = (
    f"select count(*) from items where state = 'done' and coalesce(gone, '{FILED}') = '{FILED}' "
    f"and at > :at"
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
    "delete from provenance where scope = :scope",
    "delete from attempts where scope = :scope",
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
OUTPUTS_WITHOUT_ITEM += "and (scope, key) not in (select scope, key from items)"
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

# --- provenance and specs: what an entry was made from

LINEAGE_COLUMNS = "scope, key, run, at, spec, source, made, made_object"
LINEAGE = f"select {LINEAGE_COLUMNS} from provenance where 1 = 1"  # narrowed by `scope`
LINEAGE_OF_SCOPE = f"{LINEAGE} and scope = :scope"
LINEAGE_OF_ITEM = f"{LINEAGE_OF_SCOPE} and key = :key"
LINEAGE_OF_RUN = f"select {LINEAGE_COLUMNS} from provenance where run = :run"
LINEAGE_OF_SOURCE = (
    f"select {LINEAGE_COLUMNS} from provenance where source = :source order by scope, key"
)
ITEMS_WITH_SOURCE_BELOW = (
    "select source, scope, key from provenance where substr(source, 1, :n) = :prefix "
    "order by source, scope"
)
STATES_OF_SOURCES_BELOW = (
    "select p.source, i.state from provenance p join scopes c on c.scope = p.scope "
    "join items i on i.scope = p.scope and i.key = p.key "
    "where c.file = :file and substr(p.source, 1, :n) = :prefix"
)
# Of the items whose documents are still there.
LINEAGE_OF_LIVING = (
    "select p.scope, p.key, p.made, p.made_object from provenance p "
    "left join items i on i.scope = p.scope and i.key = p.key where i.gone is null"
)
SPECS_OF_SCOPE = "select key, spec from provenance where scope = :scope and spec is not null"
SPEC = "select text from specs where spec = :spec"
DROP_LINEAGE = "delete from provenance where scope = :scope and key = :key"
OBJECTS_OF_LINEAGE = "select scope, key, made_object from provenance where made_object is not null"
DROP_UNUSED_SPECS = "delete from specs where spec not in (select spec from provenance)"

# --- forgetting: all that is known of a document

DOCUMENTS = (  # as `ledger.forgetting.DocumentItem`, then the lineage
    "select i.scope, i.key, c.file, coalesce(i.name, i.key), coalesce(i.path, p.source), "
    "i.sha256, i.target, p.made, p.made_object from items i join scopes c on c.scope = i.scope "
    "left join provenance p on p.scope = i.scope and p.key = i.key "
    "where coalesce(i.path, p.source) is not null"
)
FORGET_ITEM = tuple(
    f"delete from {table} where scope = :scope and key = :key"
    for table in ("items", "provenance", "attempts", "reviews", "moves")
)
FORGET_MOVE = "delete from moves where path = :path and sha256 = :content"
# Those in whose `reads` one of the texts stands: the next run looks whether they are still so.
VERIFY_FILED_AGAIN = (
    f"update items set made_by = '' where gone = '{FILED}' "
    "and exists (select 1 from {listed} as one where replace(reads, one.value, '') <> reads)"
)


# --- stored: rows of items in vector stores

STORED = f"select {', '.join(StoredRow.__match_args__)} from stored"
STORED_IN = f"{STORED} where path = :path"
STORED_BY_FILE = (
    f"select c.inputs, c.step, i.key is not null, s.{', s.'.join(StoredRow.__match_args__)} "
    f"from stored s join scopes c on c.scope = s.scope "
    f"left join items i on i.scope = s.scope and i.key = s.key where c.file = :file"
)
STORES = "select distinct path from stored"

# --- moves: documents that a step moved away; items that are filed

_MOVES = "select path, sha256, target, scope, key, at from moves"  # as `MoveRow`
MOVES_AT = f"{_MOVES} where 1 = 1"  # narrowed by `path`
UNFINISHED_MOVES = f"{_MOVES} where scope = :scope"
ORIGINS_OF = "select distinct path from moves where target = :target and at > :since"
ORIGINS_BELOW = (
    "select distinct path from moves where substr(target, 1, :n) = :prefix order by path"
)
# Of an item whose document came again `gone` is null.
_FILED = f"items where name is not null and coalesce(gone, '{FILED}') = '{FILED}'"
FILED_OF_SCOPE = (  # as `FiledRow`
    "select key, name, path, sha256, target, made_by, outdated_by, returns, "
    f"returns_object, state from {_FILED} and scope = :scope"
)
MAY_HAVE_FILED = (
    "select 1 from moves union all select 1 from items where scope = :scope and name is not null "
    "limit 1"
)
FILED_TARGET = f"select target from {_FILED} and scope = :scope and key = :key"
FILED_OF_CONTENT = (
    f"select scope, key from {_FILED} and sha256 = :content order by path, scope, key"
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
RUNNING_WITHOUT_ATTEMPTS = (
    f"{RUNS} where status = 'running' and started > :since "
    f"and not exists (select 1 from attempts where attempts.run = runs.run)"
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
    "where run not in (select run from items) order by started desc"
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
    "union all select 'items, ' || state, count(*) from items group by state "
    "union all select 'decisions, ' || state, count(*) from reviews where state <> 'open' "
    "group by state union all select 'outputs', count(*) from outputs "
    "union all select 'replies of models', count(*) from calls"
)
GIVEN_INPUTS = "select given from runs where given is not null order by started desc"
NAMED_PATHS = (
    "select distinct 'documents in', path from roots union all "
    "select distinct 'output', path from outputs"
)

# PostgreSQL's: whether a run is at work on any machine.

# --- attempts: items that a run has begun

ATTEMPTS = f"select {', '.join(InFlightRow.__match_args__)} from attempts where 1 = 1"
# For each innermost item that a run had begun: whether another run had begun it, too.
SUSPECTS = (
    "select exists (select 1 from attempts other where other.scope = attempts.scope "
    "and other.key = attempts.key and other.run <> :run) "
    "from attempts where run = :run and not exists (select 1 from attempts inner_ "
    "where inner_.run = attempts.run and inner_.around_scope = attempts.scope "
    "and inner_.around_key = attempts.key)"
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
