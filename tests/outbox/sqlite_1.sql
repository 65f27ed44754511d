-- The first schema, as files of it may still lie about.

create table calls (                       -- one row per call: who may publish, and where to go on
  call_sid      text primary key,
  owner         text not null,
  epoch         integer not null,          -- +1 at every takeover: the fencing token
  next_sequence integer not null default 1,
  ended         integer not null default 0,
  meta          blob not null,             -- what a later owner needs to know; opaque here
  seen_at       real not null
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
  lane          text primary key,          -- short hash of the endpoint '/' call_sid
  endpoint      text not null,
  call_sid      text not null,
  head          integer not null default 1,   -- the sequence to deliver next
  next          integer not null default 1,   -- one past the last published
  attempts      integer not null default 0,   -- failed ones, of the head
  first_failure real,                      -- since when nothing was accepted
  due_at        real not null,             -- of a leased lane: when the lease ends
  lease_by      text,
  lease_s       real not null default 0,
  epoch         integer not null default 0    -- +1 at every claim
) without rowid;

-- Partial: lanes with nothing to deliver cost nothing, and those in backoff are skipped, not scanned.
create index lanes_due on lanes (endpoint, due_at) where head < next;
create index lanes_leased on lanes (endpoint) where lease_by is not null;

create table events (
  lane          text not null,
  sequence      integer not null,
  event_id      text not null,
  type          text not null,
  body          blob not null,             -- the exact bytes of every attempt
  state         text not null default 'pending',   -- pending | done | dead
  created_at    real not null,
  delivered_at  real,
  tries         integer not null default 0,
  last_status   integer,
  last_error    text,                      -- a class of error, never a response's body
  primary key (lane, sequence)
);
create index events_dead on events (created_at) where state = 'dead';
