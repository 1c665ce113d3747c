-- All events in the order in which they happened, as far as that is known; at most $most of them.
SELECT * EXCLUDE (schedule)
FROM events
ORDER BY "at" NULLS LAST, position NULLS LAST, producer, producer_seq, event, job_id, span_id
LIMIT $most
