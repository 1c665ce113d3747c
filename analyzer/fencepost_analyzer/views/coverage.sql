-- How many events of each kind each schedule has, and in how many of them each column is filled.
SELECT schedule, event, count(*) AS "rows", count(COLUMNS(* EXCLUDE (schedule, event)))
FROM events
GROUP BY schedule, event
