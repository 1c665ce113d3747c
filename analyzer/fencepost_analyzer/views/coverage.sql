-- How many events of each kind each schedule has, in how many of them each column is filled, and how many of them were
-- answered by yes, or may have been.
SELECT
    schedule, event, count(*) AS "rows",
    count(COLUMNS(* EXCLUDE (schedule, event))),
    count(*) FILTER (answered(outcome, reason, producer_seq, producer_end_seq)) AS answered
FROM events
GROUP BY schedule, event
