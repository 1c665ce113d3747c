-- Gaps that could hide an event. What is missing is of unknown content, so it does not matter when it went missing:
-- what was lost after the last event could be the second write of an effect. Only what a process tells after all that
-- was seen, because it was still recording when the recording was sealed, is no part of what is judged. Of a clock that
-- was set nothing is missing, but of several inventories of that time nobody knows which is the last.
SELECT count(*)
FROM gaps
CROSS JOIN (SELECT max(ended) AS ended FROM horizon) AS seen
WHERE CASE
    WHEN gaps.cause = 'clock_set' THEN (
        SELECT count(DISTINCT (schedule, span_id)) > 1
        FROM events
        WHERE event = 'inventory'
            AND coalesce("at" >= gaps.since_unix_nano, TRUE)
            AND coalesce("at" <= gaps.until_unix_nano, TRUE)
    )
    WHEN gaps.cause = 'still_recording' THEN coalesce(gaps.since_unix_nano <= seen.ended, TRUE)
    ELSE TRUE
END
