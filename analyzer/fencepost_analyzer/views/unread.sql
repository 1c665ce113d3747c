-- Spans that speak of jobs, by their attributes, and became no event: of a scope that no mapping knows, or, in a scope
-- of ours, of a name that is none of its words. What was read by a mapping of the user's is the user's to decide, unless
-- it became an event without a kind.
WITH untold AS MATERIALIZED (
    SELECT spans.*
    FROM spans
    ANTI JOIN (FROM mapped WHERE event IS NOT NULL) AS told USING (trace_id, span_id)
    WHERE NOT list_contains($own, coalesce(scope_name, ''))
    UNION ALL
    SELECT spans.*
    FROM spans
    SEMI JOIN (FROM mapped WHERE event IS NULL) AS blank USING (trace_id, span_id)
    WHERE list_contains($own, coalesce(scope_name, ''))
)
SELECT
    coalesce(scope_name, '') AS scope,
    name,
    producer,
    start_time_unix_nano AS since,
    TRY(start_time_unix_nano + duration_time_unix_nano) AS until,
    span_id
FROM untold
WHERE CASE
    WHEN json_valid(span_attributes) THEN len(list_filter(
        json_keys(span_attributes),
        lambda key: regexp_matches(key, '^(job|messaging)\.') AND NOT starts_with(key, 'job.scenario')
    )) > 0
END
