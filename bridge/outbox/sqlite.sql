-- The outbox of one machine. Times are seconds since 1970, positions samples at 8 kHz.

create table calls (                       -- one row per call: who may publish, and where to go on
  call_sid      text primary key,
  owner         text not null,
  epoch         integer not null,          -- +1 at every takeover: the fencing token
  next_sequence integer not null default 1,
  ended         integer not null default 0,
  erased        integer not null default 0,
  spoken        integer not null default 0,   -- its lines or meta are stored
  meta          blob not null,             -- what a later owner needs to know; opaque here
  created_at    real not null,
  seen_at       real not null,
  node          text not null default '',  -- the life of a process that has it; empty: none
  heir          text not null default ''   -- the owner to be, who has the audio already; empty: none
) without rowid;
create index calls_old on calls (created_at);
create index calls_spoken on calls (seen_at) where ended and spoken;
create index calls_open on calls (node, created_at) where not ended;

create table nodes (                       -- when a node last said that it lives; one that is not here is silent
  node          text primary key,
  seen_at       real not null
) without rowid;

create table attachments (                 -- the telephone numbers that are ours
  number_sid    text primary key,
  number        text not null,
  before        blob not null,             -- what happened to its calls before; opaque here
  onward        text not null,             -- where its calls go on after the stream has started
  onward_method text not null
) without rowid;

create table lines (                       -- what was said on a call, for the transcript at its end
  call_sid      text not null,
  number        integer not null,
  track         text not null,
  start_ms      integer not null,
  end_ms        integer not null,
  text          text not null,
  primary key (call_sid, number)
) without rowid;

create table watermarks (                  -- everything before the position is finalised
  call_sid      text not null,
  track         text not null,
  position      integer not null,
  primary key (call_sid, track)
) without rowid;

create table spent (                        -- stream tokens that were admitted, until they expire
  nonce         text primary key,
  expires       real not null
) without rowid;

create table endpoints (
  endpoint      text primary key,          -- the webhook URL
  paused        text                       -- why; null: deliver
) without rowid;

create table lanes (                       -- (endpoint, call): the unit of order, backoff and lease
  lane          text primary key,          -- as lane_name() says; '/replay' after it if of replays
  endpoint      text not null,
  call_sid      text not null,
  head          integer not null default 1,   -- the position to deliver next
  next          integer not null default 1,   -- one past the last
  attempts      integer not null default 0,   -- failed ones, of the head
  first_failure real,                      -- since when nothing was accepted
  due_at        real not null,             -- of a leased lane: when the lease ends
  lease_by      text,
  lease_s       real not null default 0,
  epoch         integer not null default 0,   -- +1 at every claim
  priority      integer generated always as   -- live before failed before replays
    (case when lane glob '*/replay' then 2 else attempts > 0 end)
) without rowid;

-- Partial: lanes with nothing to deliver cost nothing, and those in backoff are skipped, not scanned.
create index lanes_due on lanes (endpoint, priority, due_at) where head < next;
create index lanes_waiting on lanes (lane, head, next, attempts) where head < next;
create index lanes_of_call on lanes (call_sid);
create index lanes_of_endpoint on lanes (endpoint);

create table events (
  serial        integer primary key,       -- in the order in which they were stored
  lane          text not null,
  position      integer not null,          -- in the lane; a replay moves an event to another one
  sequence      integer not null,          -- in the call, as the body has it
  event_id      text not null,
  type          text not null,
  body          blob,                      -- the exact bytes of every attempt; null when erased or past its time
  sha256        blob not null,             -- of the body: proves what was sent when the body is gone
  state         text not null default 'pending',   -- pending | done | dead | erased
  created_at    real not null,
  delivered_at  real,
  tries         integer not null default 0,
  last_status   integer,
  last_error    text,                      -- a class of error, never a response's body
  unique (lane, position)
);
create index events_by_id on events (event_id);
create index events_pending on events (serial) where state = 'pending';
create index events_dead on events (serial) where state = 'dead';
create index events_with_body on events (delivered_at) where state = 'done' and body is not null;
