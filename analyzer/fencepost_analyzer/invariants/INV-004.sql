-- id: INV-004
-- title: only the holder settles
-- severity: high
-- principle: P3
-- polarity: +
-- needs: lease, ack | fail | dead_letter | retry
-- claim: Every settlement that the queue accepted came from the execution that held the job's newest lease at that time.
SELECT
    schedule,
    job_id,
    "at",
    [rival_span_id, span_id] AS span_ids,
    CASE WHEN overtaken AND happened THEN 'violated' ELSE 'unknown' END AS verdict,
    CASE
        WHEN verdict = 'violated' THEN printf('Job %s: the queue accepted the %s of %s %s %s had taken the job over.',
            job_id, replace(event, '_', ' '), actor(worker_id, attempt), how_long_after("at" - rival_at),
            actor(rival_worker_id, rival_attempt))
        WHEN overtaken THEN printf('Job %s: the %s of %s, %s %s had taken the job over, never got an answer.',
            job_id, replace(event, '_', ' '), actor(worker_id, attempt), how_long_after("at" - rival_at),
            actor(rival_worker_id, rival_attempt))
        ELSE printf('Job %s: nothing proves that the %s of %s was accepted before %s took the job over.',
            job_id, replace(event, '_', ' '), actor(worker_id, attempt), actor(rival_worker_id, rival_attempt))
    END AS sentence
FROM takeovers
WHERE event <> 'write'
