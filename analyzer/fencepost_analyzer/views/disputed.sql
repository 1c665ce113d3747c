-- The spans to set aside where one id was recorded with different contents. One is kept to judge by: a span that ended,
-- before one that did not, then the one that was begun first, then the one that was received first.
SELECT rowid AS "row", trace_id, span_id
FROM spans
QUALIFY row_number() OVER (
    PARTITION BY trace_id, span_id
    ORDER BY
        duration_time_unix_nano IS NULL,
        producer_seq NULLS LAST,
        received_time_unix_nano NULLS LAST,
        rowid
) > 1
