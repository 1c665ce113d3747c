-- What gaps do to what the invariants found. A row that claims the absence of something is only as good as the
-- recording of the time and the producer it speaks of: where a gap touches both, it is unknown. A row that shows a span
-- which was recorded with different contents shows only one of them, so it is unknown, too. This is the one place where
-- gaps meet violations; NULL is "any" on either side.
WITH touched AS (
    SELECT claim.rowid AS row, min(holes.kind) AS kind
    FROM found AS claim
    JOIN (
        SELECT 'gapped' AS kind, NULL AS schedule, producer, since_unix_nano AS since, until_unix_nano AS until
        FROM gaps
        UNION ALL
        -- What was recorded, but nobody knows of which job, could be what a claim takes to be absent.
        SELECT 'nameless' AS kind, schedule, producer, "at" AS since, until
        FROM nameless
        WHERE lacks = 'job_id'
        UNION ALL
        SELECT 'unread' AS doubt, NULL AS schedule, producer, since, until
        FROM unread
    ) AS holes
        ON coalesce(holes.schedule = claim.schedule, TRUE)
        AND coalesce(holes.producer = claim.absent_from, TRUE)
        AND coalesce(holes.since <= claim.absent_until, TRUE)
        AND coalesce(holes.until >= claim.absent_since, TRUE)
    WHERE claim.polarity = '-' OR claim.absent_since IS NOT NULL OR claim.absent_until IS NOT NULL
    GROUP BY claim.rowid
),
contradicted AS (
    SELECT DISTINCT claim.rowid AS row
    FROM found AS claim
    JOIN disputed ON list_contains(claim.span_ids, disputed.span_id)
)
SELECT
    found.id,
    found.schedule,
    found.job_id,
    found.at,
    found.span_ids,
    found.missing,
    CASE
        WHEN found.verdict <> 'violated' THEN NULL
        WHEN contradicted.row IS NOT NULL THEN 'disputed'
        ELSE touched.kind
    END AS doubt,
    CASE WHEN doubt IS NULL THEN found.verdict ELSE 'unknown' END AS verdict,
    found.sentence
FROM found
LEFT JOIN touched ON found.rowid = touched.row
LEFT JOIN contradicted ON found.rowid = contradicted.row
