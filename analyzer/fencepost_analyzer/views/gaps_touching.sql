-- Gaps that could hide an event: those that touch the time that the events span.
SELECT count(*)
FROM gaps
CROSS JOIN (SELECT min("at") AS began, max(greatest("at", CASE WHEN event = 'run' THEN until END)) AS ended FROM events) AS span
WHERE coalesce(gaps.since_unix_nano <= span.ended, TRUE)
    AND coalesce(gaps.until_unix_nano >= span.began, TRUE)
