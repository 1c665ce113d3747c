-- How far each schedule was observed. Expiry times do not count: they lie in the future when they are written.
SELECT schedule, min("at") AS began, max(greatest("at", decided_by, CASE WHEN event = 'run' THEN until END)) AS ended
FROM events
GROUP BY schedule
