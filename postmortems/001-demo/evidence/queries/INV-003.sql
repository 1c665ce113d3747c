-- id: INV-003
-- title: no stale write
-- severity: critical
-- principle: P2
-- polarity: +
-- needs: lease, write
-- claim: Every write that was applied came from the execution that held the job's newest lease at that time.
SELECT
    schedule,
    job_id,
    "at",
    [rival_span_id, span_id] AS span_ids,
    CASE WHEN overtaken AND happened THEN 'violated' ELSE 'unknown' END AS verdict,
    CASE
        WHEN verdict = 'violated' THEN printf('Job %s: %s applied effect %s %s %s had taken the job over.',
            job_id, actor(worker_id, attempt), coalesce(effect_key, '(unnamed)'), how_long_after("at" - rival_at),
            actor(rival_worker_id, rival_attempt))
        WHEN overtaken THEN printf('Job %s: %s tried effect %s %s %s had taken the job over, and never learned whether it was applied.',
            job_id, actor(worker_id, attempt), coalesce(effect_key, '(unnamed)'), how_long_after("at" - rival_at),
            actor(rival_worker_id, rival_attempt))
        ELSE printf('Job %s: nothing proves that %s applied effect %s before %s took the job over.',
            job_id, actor(worker_id, attempt), coalesce(effect_key, '(unnamed)'), actor(rival_worker_id, rival_attempt))
    END AS sentence
FROM takeovers
WHERE event = 'write'
