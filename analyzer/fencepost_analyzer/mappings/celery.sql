-- title: Celery, as opentelemetry-instrumentation-celery tells it (seen with Celery 5.7, instrumentation 0.66b2)
-- scope_name: opentelemetry.instrumentation.celery

-- What these spans do not prove is left out or unknown:
-- An apply_async span proves nothing by its end. For a task that the producer knows only by name it ends before the
-- message is sent; for any other, a failed publish leaves it open. Only a run that descends from it shows that the
-- broker had the message: then the enqueue is ok, else unknown.
-- There is no span for lease, acknowledgement, write or what the broker holds, and none for a job that no worker knows.
-- A redelivered message has the id, trace, parent and celery.retries of the first delivery: its attempt is null.
-- celery.hostname is the producer's, so a worker is known by the process that recorded it.
-- Most attributes are set when a run ends. The job of a run that never ended is that of the publish above it.
WITH told AS MATERIALIZED (
    SELECT
        span_id, trace_id, parent_span_id, name, kind, producer, producer_seq, producer_end_seq,
        start_time_unix_nano AS at,
        start_time_unix_nano + duration_time_unix_nano AS until,
        json_extract_string(resource_attributes, '$."host.name"') AS host,
        json_extract_string(links_json, ['$[0].trace_id', '$[0].span_id']) AS link,
        json_extract_string(span_attributes, [
            '$."messaging.message.id"', '$."messaging.destination"', '$."celery.state"', '$."celery.retries"',
            '$."celery.retry.reason"', '$."celery.delivery_info"', '$."celery.eta"'
        ]) AS tag
    FROM spans
    WHERE scope_name = 'opentelemetry.instrumentation.celery'
),
publishes AS (
    SELECT *, tag[1] AS message_id, tag[2] AS queue
    FROM told
    WHERE kind = 4
),
runs AS (
    SELECT
        run.* EXCLUDE (link, tag, name, kind),
        publish.trace_id AS publish_trace_id,
        publish.span_id AS publish_span_id,
        coalesce(run.tag[1], publish.message_id) AS job_id,
        coalesce(run.tag[2], publish.queue) AS queue,
        run.tag[3] AS state,
        CASE
            WHEN run.tag[3] IS NOT NULL AND NOT coalesce(contains(run.tag[6], '''redelivered'': True'), FALSE)
                THEN coalesce(try_cast(run.tag[4] AS BIGINT), 0) + 1
        END AS attempt,
        run.tag[5] AS retry_reason,
        CASE
            -- Without an estimated time of arrival a message is available at once.
            WHEN run.tag[3] IS NOT NULL
                THEN coalesce(epoch_ns(try_cast(run.tag[7] AS TIMESTAMP)), publish.at)
        END AS available_at
    FROM told AS run
    -- The parent, or, where the instrumentation was told to use links, the link.
    LEFT JOIN publishes AS publish
        ON publish.trace_id = coalesce(run.link[1], run.trace_id)
        AND publish.span_id = coalesce(run.link[2], run.parent_span_id)
    WHERE run.kind = 5
),
arrivals AS (
    SELECT
        publish_trace_id,
        publish_span_id,
        any_value(job_id) AS job_id,
        max(available_at) AS available_at
    FROM runs
    WHERE publish_span_id IS NOT NULL
    GROUP BY publish_trace_id, publish_span_id
),
sent AS (
    -- A job that is retried is published again under its own id, by the run that gives up.
    SELECT
        publish.*,
        coalesce(publish.message_id, arrivals.job_id) AS job_id,
        arrivals.publish_span_id IS NOT NULL AS arrived,
        arrivals.available_at,
        run.span_id AS run_span_id,
        run.attempt,
        run.state,
        run.retry_reason
    FROM publishes AS publish
    LEFT JOIN arrivals
        ON arrivals.publish_trace_id = publish.trace_id
        AND arrivals.publish_span_id = publish.span_id
    LEFT JOIN runs AS run
        ON run.trace_id = publish.trace_id
        AND run.span_id = publish.parent_span_id
        AND run.job_id = coalesce(publish.message_id, arrivals.job_id)
)
SELECT
    'run' AS event,
    job_id,
    attempt,
    NULL::VARCHAR AS execution_id,
    producer AS worker_id,
    queue,
    runs.at,
    runs.until,
    CASE state
        WHEN 'SUCCESS' THEN 'ok'
        WHEN 'FAILURE' THEN 'failed'
        WHEN 'RETRY' THEN 'failed'
        WHEN 'REJECTED' THEN 'failed'
        ELSE 'unknown'
    END AS outcome,
    CASE state
        WHEN 'FAILURE' THEN 'error'
        WHEN 'RETRY' THEN 'retry'
        WHEN 'REJECTED' THEN 'rejected'
        WHEN 'IGNORED' THEN 'ignored'
    END AS reason,
    host, producer, producer_seq, producer_end_seq, trace_id, span_id
FROM runs
UNION ALL BY NAME
SELECT
    CASE WHEN run_span_id IS NULL THEN 'enqueue' ELSE 'retry' END AS event,
    job_id,
    attempt,
    job_id || '@' || run_span_id AS execution_id,
    CASE WHEN run_span_id IS NOT NULL THEN producer END AS worker_id,
    queue,
    sent.at,
    CASE WHEN run_span_id IS NOT NULL THEN available_at END AS until,
    -- A run ends in state RETRY only after the publish of its successor was accepted.
    CASE WHEN arrived OR state = 'RETRY' THEN 'ok' ELSE 'unknown' END AS outcome,
    CASE WHEN run_span_id IS NOT NULL THEN retry_reason END AS reason,
    host, producer, producer_seq, producer_end_seq, trace_id, span_id
FROM sent
