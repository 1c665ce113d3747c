-- Every event with its place in time as one value, for the macro `precedes`: decided at `at`, or at any time from then to
-- `by`; its span started and ended at these places of its process's log. Of a run it is the moment at which it began.
-- Where only the end of a span was recorded, its start has no place.
SELECT
    *,
    {
        'position': position,
        'host': host,
        'producer': producer,
        'producer_seq': CASE WHEN producer_seq = producer_end_seq THEN NULL ELSE producer_seq END,
        'producer_end_seq': CASE WHEN event = 'run' THEN producer_seq ELSE producer_end_seq END,
        'at': "at",
        'by': greatest("at", decided_by)
    } AS moment
FROM events
