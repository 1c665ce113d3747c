-- How processes ended that `fencepost record` saw end: who closes no log may have left by _exit(), as forked workers do.
WITH seen AS (
    SELECT
        span_id, name, span_attributes, start_time_unix_nano,
        unnest(TRY_CAST(TRY(json_extract(span_attributes, '$."fencepost.producers"')) AS VARCHAR[])) AS producer
    FROM spans
    WHERE scope_name = 'fencepost.supervisor'
        AND name IN ('crash', 'exit')
)
SELECT
    producer,
    name = 'crash' AS killed,
    TRY(json_extract_string(span_attributes, CASE name WHEN 'crash' THEN '$."process.signal"' ELSE '$."process.exit.code"' END)) AS how
FROM seen
QUALIFY count(*) OVER (PARTITION BY producer) = 1
ORDER BY producer
