-- One row a job: what is known of its fate, in one pass over the events. Completed = acknowledged after the work,
-- dead-lettered, or a run said so, whatever came after that. `queue` and `other_queue` are the same unless the job was
-- seen in more than one. `enqueues` may have been accepted; `effects_promised` is what all of them together declare,
-- `effectless`: one of them declares none, so that no effect can show that it was completed.
-- `applied` and `unanswered` count its effect keys, `unnamed` its writes without a key; `puzzling`: the numbers of its
-- effects contradict their keys.
WITH told AS (
    SELECT
        schedule,
        job_id,
        min(queue) AS queue,
        max(queue) AS other_queue,
        max(effect_total) FILTER (event <> 'enqueue' OR outcome IS DISTINCT FROM 'failed') AS effect_total,
        count(*) FILTER (event = 'enqueue' AND outcome IS DISTINCT FROM 'failed') AS enqueues,
        CASE
            WHEN enqueues < 2 THEN max(effect_total) FILTER (event <> 'enqueue' OR outcome IS DISTINCT FROM 'failed')
            WHEN enqueues = count(effect_total) FILTER (event = 'enqueue' AND outcome IS DISTINCT FROM 'failed')
                THEN TRY_CAST(sum(effect_total) FILTER (event = 'enqueue' AND outcome IS DISTINCT FROM 'failed') AS BIGINT)
        END AS effects_promised,
        coalesce(bool_or(effect_total < 1) FILTER (event = 'enqueue' AND outcome IS DISTINCT FROM 'failed'), FALSE)
            AS effectless,
        min("at") FILTER (event = 'enqueue' AND outcome IS DISTINCT FROM 'failed') AS enqueued_at,
        min(position) FILTER (event = 'enqueue' AND outcome IS DISTINCT FROM 'failed') AS enqueue_position,
        count(*) FILTER (event = 'lease' AND outcome = 'ok') AS leases,
        count(*) FILTER (event = 'run') AS runs,
        min("at") FILTER (event IN ('lease', 'run')) AS begun_at,
        min(position) FILTER (event IN ('lease', 'run')) AS begun_position,
        coalesce(bool_or(event = 'dead_letter' AND outcome = 'ok'), FALSE) AS buried,
        coalesce(
            bool_or(
                outcome = 'ok'
                AND event IN ('ack', 'run')
                AND NOT (event = 'ack' AND reason IS NOT DISTINCT FROM 'early')
            ),
            FALSE
        ) AS worked
    FROM events
    WHERE job_id IS NOT NULL
    GROUP BY schedule, job_id
),
written AS (
    SELECT
        schedule,
        job_id,
        count(*) FILTER (applied) AS applied,
        count(*) FILTER (applied IS NULL) AS unanswered,
        coalesce(bool_or(least_index < most_index), FALSE)
            OR count(least_index) > count(DISTINCT least_index) AS puzzling
    FROM effects
    GROUP BY schedule, job_id
),
unnamed AS (
    SELECT schedule, job_id, count(*) AS unnamed
    FROM steps
    WHERE event = 'write'
        AND effect_key IS NULL
        AND happened IS DISTINCT FROM FALSE
    GROUP BY schedule, job_id
)
SELECT
    told.*,
    told.worked OR told.buried AS completed,
    coalesce(written.applied, 0) AS applied,
    coalesce(written.unanswered, 0) AS unanswered,
    coalesce(unnamed.unnamed, 0) AS unnamed,
    coalesce(written.puzzling, FALSE) AS puzzling
FROM told
LEFT JOIN written USING (schedule, job_id)
LEFT JOIN unnamed USING (schedule, job_id)
