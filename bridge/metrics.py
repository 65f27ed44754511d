"""Everything that `/metrics` shows, grouped by concern. Labels have few, fixed values: never a call or a number."""

from prometheus_client import Counter, Gauge, Histogram

WORKERS_LOST = Counter("bridge_workers_lost_total", "Worker processes that died and were replaced.")

# Twilio's side
CALLS_LIVE = Gauge("bridge_calls_live", "Calls whose media is arriving or being finished.")
DEFECTS = Counter(
    "bridge_defects_total", "Tasks of calls that failed for a reason nobody foresaw; the log has it."
)
CALLS = Counter("bridge_calls_total", "Calls ended.", ["reason"])
REATTACHED = Counter(
    "bridge_reattach_total",
    "Calls whose stream was lost: streamed again (streamed), streams that Twilio refused (refused), "
    "calls given up after the last try (failed).",
    ["result"],
)
FENCED = Counter("bridge_calls_fenced_total", "Calls let go of because another process has them.")
CALLS_TAKEN = Counter(
    "bridge_calls_taken_total", "Calls taken over from a node that is dead or has let them go."
)
HANDED_OVER = Counter(
    "bridge_calls_handed_over_total",
    "Calls that left a draining node, by who has them then: another node (heir) or nobody yet (open).",
    ["to"],
)
VOICE_ANSWERS = Counter("bridge_voice_answers_total", "Answers to POST /twilio/voice.", ["answer"])
NOT_STREAMED = Counter(
    "bridge_calls_not_streamed_total", "Calls that went on without a stream, by the reason why.", ["why"]
)
CAPACITY_CALLS = Gauge(
    "bridge_capacity_calls",
    "Calls that this process takes: server.max_calls, or by the processor time that its calls have cost.",
)
STREAMS_SILENT = Gauge("bridge_streams_silent", "Streams that have brought nothing for 10 s.")
REFUSALS = Counter("bridge_refusals_total", "Requests and streams refused.", ["why"])
UNCHECKED_TOKENS = Counter(
    "bridge_stream_tokens_unchecked_total", "Streams admitted while the outbox could not note their tokens."
)
HTTP_REFUSALS = Counter(
    "bridge_http_refusals_total", "HTTP answers of 400 and above, and bytes that were no HTTP.", ["status"]
)
MESSAGES = Counter(
    "bridge_twilio_messages_total",
    "Media Streams messages by event; media counts as audio seconds.",
    ["event"],
)
MESSAGES_IGNORED = Counter(
    "bridge_twilio_messages_ignored_total", "Messages that were not acted on.", ["why"]
)

# Audio
AUDIO_SECONDS = Counter("bridge_audio_seconds_total", "Seconds of audio received.", ["track"])
AUDIO_ANOMALIES = Counter("bridge_audio_anomalies_total", "Timestamps out of line with the audio.", ["kind"])
GAP_SECONDS = Counter("bridge_gap_seconds_total", "Seconds of audio reported as missing.", ["reason"])
JOURNAL_REFUSALS = Counter(
    "bridge_journal_refusals_total", "File operations of the audio journal that failed."
)
TICK_SECONDS = Histogram(
    "bridge_tick_seconds",
    "Time that one tick takes for all calls.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.05),
)

# Whisper's side
WHISPER_CONNECTS = Counter("bridge_whisper_connects_total", "Attempts to open a Whisper socket.", ["result"])
WHISPER_OPEN = Gauge("bridge_whisper_sockets_open", "Whisper sockets open now.")
WHISPER_DROPS = Counter(
    "bridge_whisper_drops_total",
    "Whisper sockets lost before their session ended, by what gave them up.",
    ["cause"],
)
WHISPER_FAILOVERS = Counter(
    "bridge_whisper_failovers_total", "Sessions that turned to the fallback, and back to the first.", ["to"]
)
WHISPER_MESSAGES = Counter("bridge_whisper_messages_total", "Messages from Whisper.", ["type"])
EVENTS_DROPPED = Counter(
    "bridge_events_dropped_total", "Gaps and digits given up because the outbox is behind."
)
FINALS = Counter("bridge_finals_total", "Final transcripts published.", ["track"])
FINALS_SUSPECT = Counter("bridge_finals_suspect_total", "Reasons to doubt a final.", ["reason"])
FINALS_DROPPED = Counter(
    "bridge_finals_dropped_total", "Finals not published because of transcript.drop_suspect.", ["reason"]
)

# Outbox
OUTBOX_PENDING = Gauge("bridge_outbox_pending", "Events that are not yet delivered.")
OUTBOX_OLDEST_SECONDS = Gauge("bridge_outbox_oldest_pending_seconds", "Age of the oldest such event.")
OUTBOX_DEAD = Gauge("bridge_outbox_dead", "Events given up (dead letters).")
OUTBOX_LANES_BACKOFF = Gauge(
    "bridge_outbox_lanes_backoff", "Lanes (a call at an endpoint) whose next event failed and waits."
)
OUTBOX_PUBLISH_SECONDS = Histogram(
    "bridge_outbox_publish_seconds",
    "Time from the wish to publish to the durable commit.",
    buckets=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.05, 0.2, 1, 5),
)

# Webhook
LANES = Counter(
    "bridge_webhook_lanes_total",
    "Lanes taken up (claimed), and of these lost to a newer owner (fenced) or left to the end of their lease (left).",
    ["what"],
)
ENDPOINTS_PAUSED = Gauge(
    "bridge_webhook_endpoints_paused",
    "Endpoints that answered 410: nothing is sent until a replay or a restart.",
)
BREAKERS_OPEN = Gauge(
    "bridge_webhook_breakers_open", "Endpoints taken to be down: one lane tries now and then."
)
POSTS_OPEN = Gauge("bridge_webhook_posts_open", "POSTs under way now, partials not counted.")
DELIVERIES = Counter("bridge_webhook_deliveries_total", "Attempts to deliver an event.", ["result"])
DELIVERY_ADDED_SECONDS = Histogram(
    "bridge_webhook_added_seconds",
    "Time from an event's publication to its first POST, replays not counted.",
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.05, 0.2, 1, 5, 60, 600),
)
PARTIALS = Counter("bridge_webhook_partials_total", "Partial transcripts by what became of them.", ["result"])
