-- Jobs that a queue's last inventory lists, whichever queue's it is: a job may have moved, to a dead letter queue for
-- one. `state` is ready, leased or dead.
SELECT
    events.schedule,
    events.job_id,
    arg_max(events.reason, inventories.at) AS state,
    arg_max(inventories.moment, inventories.at) AS moment,
    arg_max(inventories.span_id, inventories.at) AS span_id,
    max(inventories.at) AS "at"
FROM events
JOIN inventories USING (schedule, span_id)
WHERE events.event = 'inventory'
    AND events.job_id IS NOT NULL
GROUP BY events.schedule, events.job_id
