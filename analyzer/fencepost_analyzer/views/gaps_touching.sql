-- Gaps that could hide an event. What is missing is of unknown content, so it does not matter when it went missing:
-- what was lost after the last event could be the second write of an effect. Only what a process tells after all that
-- was seen, because it was still recording when the recording was sealed, is no part of what is judged. Of a clock that
-- was set nothing is missing.
SELECT count(*)
FROM gaps
CROSS JOIN (SELECT max(ended) AS ended FROM horizon) AS seen
WHERE gaps.cause IS DISTINCT FROM 'clock_set'
    AND coalesce(gaps.cause <> 'still_recording' OR gaps.since_unix_nano <= seen.ended, TRUE)
