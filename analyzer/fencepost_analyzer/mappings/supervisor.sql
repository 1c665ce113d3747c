-- scope: fencepost.supervisor
-- attributes: process.pid BIGINT, process.signal VARCHAR, fencepost.producers VARCHAR[]
-- resource: host.name VARCHAR

-- What `fencepost record` saw befall processes. A worker is known by the process that recorded it, as in other mappings
-- that have nothing better: by the logs that it wrote, else by the process id that its spans' resource tells.
-- It happened at some time from the start of the span to its end, which is when it was seen.
-- `supervise` and `exit` are no events.
WITH befallen AS (
    SELECT
        name AS event,
        "process.pid" AS pid,
        "process.signal" AS reason,
        "fencepost.producers" AS producers,
        TRY(start_time_unix_nano + duration_time_unix_nano) AS decided_by,
        CASE WHEN decided_by IS NOT NULL THEN start_time_unix_nano END AS at,
        "host.name" AS host,
        producer, producer_seq, producer_end_seq, trace_id, span_id
    FROM staged
    WHERE name IN ('crash', 'pause', 'resume')
),
others AS (
    SELECT DISTINCT
        producer AS worker_id,
        TRY_CAST(TRY(json_extract_string(resource_attributes, '$."process.pid"')) AS BIGINT) AS pid,
        TRY(json_extract_string(resource_attributes, '$."host.name"')) AS host
    FROM spans
    WHERE scope_name IS DISTINCT FROM 'fencepost.supervisor'
        AND EXISTS (FROM befallen)
),
-- Whose log it was, ran here, whatever its resource calls this host.
aliases AS (
    SELECT worker_id, min(host) AS host
    FROM others
    GROUP BY worker_id
    HAVING count(DISTINCT host) = 1
),
known AS (
    SELECT named.span_id, named.worker_id, aliases.host
    FROM (SELECT span_id, unnest(producers) AS worker_id FROM befallen) AS named
    LEFT JOIN aliases USING (worker_id)
    UNION
    SELECT befallen.span_id, others.worker_id, NULL AS host
    FROM befallen
    JOIN others
        ON befallen.pid = others.pid
        AND befallen.host = coalesce(others.host, befallen.host)
    WHERE befallen.producers IS NULL
)
SELECT
    event,
    known.worker_id,
    befallen.at,
    befallen.decided_by,
    'ok' AS outcome,
    reason,
    coalesce(known.host, befallen.host) AS host,
    producer, producer_seq, producer_end_seq, trace_id, befallen.span_id
FROM befallen
LEFT JOIN known USING (span_id)
