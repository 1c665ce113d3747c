-- What the last inventory of each queue listed, job by job: ready, leased or dead.
SELECT events.schedule, events.job_id, events.span_id, any_value(events.reason) AS state
FROM events
SEMI JOIN inventories USING (schedule, span_id)
WHERE events.event = 'inventory'
    AND events.job_id IS NOT NULL
GROUP BY events.schedule, events.job_id, events.span_id
