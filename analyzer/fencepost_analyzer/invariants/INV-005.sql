-- id: INV-005
-- title: no lost job
-- severity: critical
-- principle: P4
-- polarity: -
-- needs: enqueue.answered
-- claim: Every job whose enqueue was acknowledged was completed or dead-lettered, or the queue still holds it.
WITH enqueued AS (
    -- The last promise; `promised` NULL = nobody knows whether the producer was told yes.
    SELECT
        schedule, job_id,
        bool_or(promised) AS promised,
        arg_max(moment, "at") AS moment,
        max("at") AS "at",
        arg_max(span_id, "at") AS span_id
    FROM (
        SELECT *, CASE WHEN outcome = 'ok' THEN TRUE END AS promised
        FROM moments
        WHERE event = 'enqueue'
            AND answered(outcome, reason, producer_seq, producer_end_seq)
    )
    SEMI JOIN unfinished USING (schedule, job_id)
    GROUP BY schedule, job_id
),
attempted AS (
    SELECT
        schedule, job_id,
        bool_or(ended IS NULL) AS running,
        -- It ended, but nobody was told how.
        bool_or(until IS NOT NULL AND coalesce(outcome, 'unknown') = 'unknown') AS untold,
        arg_max(actor(worker_id, attempt), "at") AS actor,
        arg_max(crashed_at IS NOT NULL, "at") AS crashed,
        arg_max(span_id, "at") AS span_id
    FROM suspect_runs
    SEMI JOIN unfinished USING (schedule, job_id)
    GROUP BY schedule, job_id
),
settled AS (
    SELECT schedule, job_id
    FROM steps
    SEMI JOIN unfinished USING (schedule, job_id)
    WHERE event IN ('ack', 'dead_letter')
        AND happened IS NULL
        AND reason IS DISTINCT FROM 'early'
    GROUP BY schedule, job_id
),
leased AS (
    SELECT schedule, job_id, max(until) AS until
    FROM events
    SEMI JOIN unfinished USING (schedule, job_id)
    WHERE event IN ('lease', 'renew')
        AND outcome = 'ok'
    GROUP BY schedule, job_id
),
renewed AS (
    -- Nobody knows whether it was renewed, or until when.
    SELECT schedule, job_id
    FROM steps
    SEMI JOIN unfinished USING (schedule, job_id)
    WHERE event = 'renew'
        AND happened IS DISTINCT FROM FALSE
        AND (happened IS NULL OR until IS NULL)
    GROUP BY schedule, job_id
),
untold AS (
    SELECT schedule, job_id
    FROM unended
    WHERE until IS NULL
    GROUP BY schedule, job_id
),
judged AS (
    SELECT
        unfinished.* EXCLUDE (enqueued_at),
        enqueued.span_id AS enqueue_span_id,
        enqueued."at" AS enqueued_at,
        holdings.at AS taken_at,
        holdings.span_id AS inventory_span_id,
        attempted.actor,
        attempted.crashed,
        attempted.span_id AS run_span_id,
        CASE
            WHEN enqueued.promised IS NULL
                THEN 'its enqueue does not say whether it was accepted'
            WHEN NOT unfinished.surely
                THEN 'it was put into the queue more than once, and nothing tells which time it was completed'
            WHEN precedes(enqueued.moment, holdings.moment) IS DISTINCT FROM TRUE
                THEN 'no inventory taken after its enqueue says whether the queue still holds it'
            WHEN holdings.ended AND holdings.after_ending IS DISTINCT FROM TRUE
                THEN 'no inventory taken after its early acknowledgement says whether the queue still holds it'
            WHEN NOT holdings.current
                THEN 'no inventory taken after it was last seen says whether the queue still holds it'
            WHEN settled.job_id IS NOT NULL
                THEN 'its settlement got no answer, or does not say what it was: it may have been completed'
            WHEN NOT unfinished.effectless
                AND unfinished.applied + unfinished.unanswered + unfinished.unnamed >= unfinished.effect_total
                THEN 'the writes that got no answer, or do not say of which effect they are, may have completed it'
            WHEN attempted.untold
                THEN 'an execution ended without telling how'
            WHEN attempted.running OR untold.job_id IS NOT NULL
                THEN 'an execution of it was never seen to end'
            WHEN leased.until > holdings.at AND NOT holdings.ended
                THEN 'it was under a lease that had not run out'
            WHEN renewed.job_id IS NOT NULL AND NOT holdings.ended
                THEN 'it was under a lease of which nobody knows whether it was renewed, or until when'
        END AS doubt,
        holdings.moment IS NULL AS uncounted
    FROM unfinished
    JOIN enqueued USING (schedule, job_id)
    LEFT JOIN holdings USING (schedule, job_id)
    LEFT JOIN attempted USING (schedule, job_id)
    LEFT JOIN settled USING (schedule, job_id)
    LEFT JOIN leased USING (schedule, job_id)
    LEFT JOIN renewed USING (schedule, job_id)
    LEFT JOIN untold USING (schedule, job_id)
    WHERE (unfinished.effectless OR coalesce(unfinished.applied < unfinished.effects_promised, TRUE))
        AND NOT coalesce(
            holdings.state IS NOT NULL AND holdings.current AND (NOT holdings.ended OR holdings.after_ending), FALSE
        )
)
SELECT
    schedule,
    job_id,
    enqueued_at AS at,
    list_filter([enqueue_span_id, run_span_id, inventory_span_id], lambda span_id: span_id IS NOT NULL) AS span_ids,
    CASE WHEN doubt IS NULL THEN 'violated' ELSE 'unknown' END AS verdict,
    CASE WHEN uncounted THEN 'inventory' END AS missing,
    enqueued_at AS absent_since,
    taken_at AS absent_until,
    CASE
        WHEN doubt IS NULL THEN printf('Job %s is lost: its enqueue was acknowledged, it was %s, and the queue no longer held it %s.',
            job_id,
            CASE
                WHEN enqueues > 1 THEN 'not completed since'
                ELSE 'never completed' || coalesce(' (' || actor || CASE WHEN crashed THEN ' crashed' ELSE ' did not finish it' END || ')', '')
            END,
            how_long(taken_at - enqueued_at) || ' later')
        ELSE printf('Job %s was not seen to complete: %s.', job_id, doubt)
    END AS sentence
FROM judged
