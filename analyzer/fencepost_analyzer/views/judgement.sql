-- What gaps do to what the invariants found. A row that claims the absence of something is only as good as the
-- recording of the time and the producer it speaks of: where a gap touches both, it is unknown. This is the one
-- place where gaps meet violations; NULL is "any" on either side.
SELECT
    found.id,
    found.schedule,
    found.job_id,
    found.at,
    found.span_ids,
    found.missing,
    found.verdict = 'violated' AND touched.row IS NOT NULL AS gapped,
    CASE WHEN gapped THEN 'unknown' ELSE found.verdict END AS verdict,
    found.sentence
FROM found
LEFT JOIN (
    SELECT DISTINCT claim.rowid AS row
    FROM found AS claim
    JOIN gaps
        ON coalesce(gaps.producer = claim.absent_from, TRUE)
        AND coalesce(gaps.since_unix_nano <= claim.absent_until, TRUE)
        AND coalesce(gaps.until_unix_nano >= claim.absent_since, TRUE)
    WHERE claim.verdict = 'violated'
        AND (claim.polarity = '-' OR claim.absent_since IS NOT NULL OR claim.absent_until IS NOT NULL)
) AS touched
    ON found.rowid = touched.row
