-- Jobs that a queue's last inventory lists, or a later one that is not known to be whole, whichever queue's it is: a
-- job may have moved, to a dead letter queue for one. `state` is ready, leased or dead; held = it does not say which.
SELECT
    listed.schedule,
    listed.job_id,
    arg_max(coalesce(listed.reason, 'held'), listed.at) AS state,
    arg_max(
        CASE WHEN listed.span_id = inventories.span_id THEN inventories.moment ELSE listed.moment END, listed.at
    ) AS moment,
    arg_max(listed.span_id, listed.at) AS span_id,
    max(listed.at) AS "at"
FROM moments AS listed
LEFT JOIN inventories
    ON listed.schedule = inventories.schedule
    AND listed.queue IS NOT DISTINCT FROM inventories.queue
WHERE listed.event = 'inventory'
    AND listed.job_id IS NOT NULL
    AND listed.outcome IS DISTINCT FROM 'failed'
    AND coalesce(listed.at >= inventories.at, TRUE)
GROUP BY listed.schedule, listed.job_id
