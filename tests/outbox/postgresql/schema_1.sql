-- The tables of version 1, as a database may still have them.
create table whisper_bridge.version (version integer not null);

create table whisper_bridge.calls (
  call_sid      text collate "C" primary key,
  owner         text not null,
  epoch         bigint not null,
  next_sequence bigint not null default 1,
  ended         boolean not null default false,
  erased        boolean not null default false,
  spoken        boolean not null default false,
  meta          bytea not null,
  created_at    double precision not null,
  seen_at       double precision not null
) with (fillfactor = 70);
create index calls_old on whisper_bridge.calls (created_at);
-- Not by seen_at: an index of what each publish changes would make each of them write every index.
create index calls_spoken on whisper_bridge.calls (created_at) where ended and spoken;

create table whisper_bridge.lines (
  call_sid      text collate "C" not null,
  number        integer not null,
  track         text not null,
  start_ms      bigint not null,
  end_ms        bigint not null,
  text          text not null,
  primary key (call_sid, number)
);

create table whisper_bridge.watermarks (
  call_sid      text collate "C" not null,
  track         text not null,
  position      bigint not null,
  primary key (call_sid, track)
) with (fillfactor = 70);

create table whisper_bridge.spent (
  nonce         text collate "C" primary key,
  expires       double precision not null
);
create index spent_old on whisper_bridge.spent (expires);

create table whisper_bridge.endpoints (
  endpoint      text collate "C" primary key,
  paused        text
);

create table whisper_bridge.lanes (
  lane          text collate "C" primary key,
  -- An endpoint that is not there would never be looked at, so none goes while a lane is being made.
  endpoint      text collate "C" not null references whisper_bridge.endpoints,
  call_sid      text collate "C" not null,
  head          bigint not null default 1,
  next          bigint not null default 1,
  attempts      integer not null default 0,
  first_failure double precision,
  due_at        double precision not null,
  lease_by      text,
  lease_s       double precision not null default 0,
  epoch         bigint not null default 0,
  priority      integer not null generated always as (
    case when lane like '%/replay' then 2 when attempts > 0 then 1 else 0 end) stored
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
create index lanes_due on whisper_bridge.lanes (endpoint, priority, due_at) where head < next;
create index lanes_of_call on whisper_bridge.lanes (call_sid);

create table whisper_bridge.events (
  serial        bigint generated always as identity primary key,
  lane          text collate "C" not null,
  position      bigint not null,
  sequence      bigint not null,
  event_id      text collate "C" not null,
  type          text not null,
  body          bytea,
  sha256        bytea not null,
  state         text not null default 'pending',
  created_at    double precision not null,
  delivered_at  double precision,
  tries         integer not null default 0,
  last_status   integer,
  last_error    text,
  unique (lane, position)
) with (fillfactor = 90);
create index events_by_id on whisper_bridge.events (event_id);
create index events_pending on whisper_bridge.events (serial) where state = 'pending';
create index events_dead on whisper_bridge.events (serial) where state = 'dead';
create index events_with_body on whisper_bridge.events (delivered_at) where state = 'done' and body is not null;

-- When the first lane of each (endpoint, priority) is due: one look into the index for each that has any.
create view whisper_bridge.waiting as
with recursive first as (
  (select endpoint, priority, due_at from whisper_bridge.lanes where head < next
   order by endpoint, priority, due_at limit 1)
  union all
  select following.* from first cross join lateral (
    select lanes.endpoint, lanes.priority, lanes.due_at from whisper_bridge.lanes
    where head < next and (lanes.endpoint, lanes.priority) > (first.endpoint, first.priority)
    order by lanes.endpoint, lanes.priority, lanes.due_at limit 1
  ) as following
)
select endpoint, priority, due_at from first;

create function whisper_bridge.now(at double precision) returns double precision
language sql stable as $$ select coalesce(at, extract(epoch from statement_timestamp())::double precision) $$;

-- Functions, since what they do takes several statements and each of those has to see what was committed
-- while the one before it waited for a lock; and one call is one round trip and one commit.

create function whisper_bridge.own_call(
  at double precision, sid text, taker text, about bytea, only_from text,
  out epoch bigint, out next_sequence bigint, out watermarks json, out ended boolean, out erased boolean,
  out meta bytea
) language plpgsql as $$
#variable_conflict use_column
declare
  moment constant double precision := whisper_bridge.now(at);
  taken whisper_bridge.calls;
begin
  insert into whisper_bridge.calls as c (call_sid, owner, epoch, meta, spoken, created_at, seen_at)
  values (sid, taker, 1, about, length(about) > 0, moment, moment)
  on conflict (call_sid) do update
  set owner = excluded.owner, epoch = c.epoch + 1, seen_at = excluded.seen_at,
      meta = case when c.erased or length(c.meta) > 0 then c.meta else excluded.meta end,
      spoken = c.spoken or excluded.spoken and not c.erased
  where only_from in ('', c.owner) or c.owner = excluded.owner
  returning c.* into taken;
  epoch := taken.epoch;  -- null: it is somebody else's
  next_sequence := taken.next_sequence;
  select coalesce(json_object_agg(track, position), '{}') into watermarks
  from whisper_bridge.watermarks where call_sid = sid;
  ended := taken.ended;
  erased := taken.erased;
  meta := taken.meta;
end $$;

-- `events` come sorted by lane, their bodies in hexadecimal; `marks` are positions by track. Returns null, or
-- why nothing was stored: 'fenced' or 'erased'.
create function whisper_bridge.publish(
  at double precision, sid text, held bigint, ending boolean, events json, marks json, lines json
) returns text language plpgsql as $$
#variable_conflict use_column
declare
  moment constant double precision := whisper_bridge.now(at);
  event record;
  following bigint;
  known text;
begin
  update whisper_bridge.calls
  set seen_at = moment, ended = ended or ending, spoken = spoken or json_array_length(lines) > 0,
      next_sequence = greatest(
        next_sequence, (select max(each.sequence) + 1 from json_to_recordset(events) as each (sequence bigint)))
  where call_sid = sid and epoch = held and not erased;
  if not found then
    perform 1 from whisper_bridge.calls where call_sid = sid and erased;
    return case when found then 'erased' else 'fenced' end;
  end if;

  for event in
    select each.lane, each.endpoint, each.sequence, each.event_id, each.type, decode(each.body, 'hex') as body
    from json_to_recordset(events)
      as each (lane text, endpoint text, sequence bigint, event_id text, type text, body text)
  loop
    select next into following from whisper_bridge.lanes where lane = event.lane for update;
    if not found then
      following := 1;
      insert into whisper_bridge.endpoints (endpoint) values (event.endpoint) on conflict do nothing;
      insert into whisper_bridge.lanes (lane, endpoint, call_sid, due_at)
      values (event.lane, event.endpoint, sid, moment);
    end if;
    if event.sequence not between 1 and following then
      raise exception using errcode = 'WB001',
        message = format('%s: event %s published where %s is the next', event.lane, event.sequence, following);
    elsif event.sequence < following then
      -- It may be gone, or in the lane of replays: then a repeat is all that this can be.
      select event_id into known from whisper_bridge.events
      where lane = event.lane and position = event.sequence;
      if known <> event.event_id then
        raise exception using errcode = 'WB001',
          message = format('%s: another event is stored as number %s', event.lane, event.sequence);
      end if;
    else
      insert into whisper_bridge.events (lane, position, sequence, event_id, type, body, sha256, created_at)
      values (event.lane, following, following, event.event_id, event.type, event.body, sha256(event.body), moment);
      -- An idle lane is due at once, even if the clock was set back since it became idle.
      update whisper_bridge.lanes
      set next = next + 1,
          due_at = case when head = next and lease_by is null then least(due_at, moment) else due_at end
      where lane = event.lane;
    end if;
  end loop;

  insert into whisper_bridge.watermarks as mark (call_sid, track, position)
  select sid, each.key, each.value::bigint from json_each_text(marks) as each
  on conflict (call_sid, track) do update set position = greatest(mark.position, excluded.position);

  insert into whisper_bridge.lines
  select sid, each.* from json_to_recordset(lines)
    as each (number integer, track text, start_ms bigint, end_ms bigint, text text)
  on conflict do nothing;
  return null;
end $$;

-- `room` is by endpoint; an endpoint that it lacks has room for `each`. Candidates are not locked, so that what
-- is locked and written is what is leased; each is looked at again with its lock, as others claim too. Who finds
-- some of them taken asks for more: lanes are there for as many as 16 who ask at the same moment.
create function whisper_bridge.claim(
  at double precision, taker text, most integer, seconds double precision, each integer, room jsonb,
  out lane text, out endpoint text, out call_sid text, out epoch bigint, out head bigint, out attempts integer,
  out first_failure double precision
) returns setof record language plpgsql set jit = off as $$
#variable_conflict use_column
declare
  moment constant double precision := whisper_bridge.now(at);
  candidate record;
  got integer := 0;
  missed boolean;
  share integer;
  times integer;
begin
  foreach times in array array[1, 16] loop
    missed := false;
    for candidate in
      with first as (
        select endpoint, priority, least(most, coalesce((room ->> endpoint)::integer, each)) as share
        from whisper_bridge.waiting join whisper_bridge.endpoints using (endpoint)
        where paused is null and due_at <= moment and coalesce((room ->> endpoint)::integer, each) > 0
        -- Of three priorities, the first has room: so these are `most` lanes, and others come after them.
        order by priority, due_at limit 3 * most * times
      )
      select due.lane, endpoint from first cross join lateral (
        select lane, due_at from whisper_bridge.lanes
        where lanes.endpoint = first.endpoint and lanes.priority = first.priority
          and head < next and due_at <= moment
        order by due_at limit share * times
      ) as due
      order by priority, due_at, due.lane
    loop
      exit when got = most;
      share := coalesce((room ->> candidate.endpoint)::integer, each);
      continue when share <= 0;
      update whisper_bridge.lanes
      set lease_by = taker, lease_s = seconds, due_at = moment + seconds, epoch = epoch + 1
      where lane = (
        select lane from whisper_bridge.lanes where lane = candidate.lane and head < next and due_at <= moment
        for update skip locked)
      returning lane, endpoint, call_sid, epoch, head, attempts, first_failure
      into lane, endpoint, call_sid, epoch, head, attempts, first_failure;
      if found then
        room := room || jsonb_build_object(candidate.endpoint, share - 1);
        got := got + 1;
        return next;
      else
        missed := true;
      end if;
    end loop;
    exit when got = most or not missed;
  end loop;
end $$;
