-- One row: what can be said of a recording's spans at a glance.
SELECT
    min(start_time_unix_nano) FILTER (start_time_unix_nano > 0) AS began,
    -- In a wider type: a hostile start and length must not overflow.
    least(
        max(start_time_unix_nano::HUGEINT + coalesce(duration_time_unix_nano, 0)) FILTER (start_time_unix_nano > 0)
            - min(start_time_unix_nano) FILTER (start_time_unix_nano > 0),
        9_000_000_000_000_000_000
    )::BIGINT AS lasted,
    count(*) FILTER (duration_time_unix_nano IS NULL) AS unfinished,
    (SELECT count(DISTINCT job_id) FROM events WHERE job_id IS NOT NULL) AS jobs,
    coalesce(list(DISTINCT scope_name ORDER BY scope_name) FILTER (scope_name IS NOT NULL), []) AS scopes
FROM spans
