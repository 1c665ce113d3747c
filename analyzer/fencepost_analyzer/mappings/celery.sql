-- scope: opentelemetry.instrumentation.celery
-- attributes: messaging.message.id VARCHAR, messaging.destination VARCHAR, celery.state VARCHAR, celery.retries BIGINT,
--   celery.retry.reason VARCHAR, celery.delivery_info VARCHAR, celery.eta VARCHAR
-- resource: host.name VARCHAR

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
        span_id, trace_id, kind, producer, producer_seq, producer_end_seq,
        start_time_unix_nano AS at,
        start_time_unix_nano + duration_time_unix_nano AS until,
        "host.name" AS host,
        "messaging.message.id" AS message_id,
        "messaging.destination" AS queue,
        "celery.state" AS state,
        "celery.retry.reason" AS retry_reason,
        contains("celery.delivery_info", '''redelivered'': True') AS redelivered,
        try(coalesce("celery.retries", 0) + 1) AS attempt,
        try(epoch_ns(try_cast("celery.eta" AS TIMESTAMP))) AS eta,
        parent_span_id,
        -- The parent, or, where the instrumentation was told to use links, the link.
        coalesce(try(json_extract_string(links_json, '$[0].trace_id')), trace_id) AS cause_trace_id,
        coalesce(try(json_extract_string(links_json, '$[0].span_id')), parent_span_id) AS cause_span_id
    FROM staged
),
publishes AS (
    SELECT *
    FROM told
    WHERE kind = 4
),
runs AS MATERIALIZED (
    SELECT
        run.span_id, run.trace_id, run.producer, run.producer_seq, run.producer_end_seq, run.at, run.until, run.host,
        run.state, run.retry_reason,
        publish.trace_id AS publish_trace_id,
        publish.span_id AS publish_span_id,
        coalesce(run.message_id, publish.message_id) AS job_id,
        coalesce(run.queue, publish.queue) AS queue,
        CASE WHEN run.state IS NOT NULL AND run.redelivered IS DISTINCT FROM TRUE THEN run.attempt END AS attempt,
        -- Without a time of its own a message is available at once.
        CASE WHEN run.state IS NOT NULL THEN coalesce(run.eta, publish.at) END AS available_at
    FROM told AS run
    LEFT JOIN publishes AS publish
        ON publish.trace_id = run.cause_trace_id
        AND publish.span_id = run.cause_span_id
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
    -- A job that is retried or replaced is published again under its own id, by the run that gives up. A run that goes
    -- on, or of which nobody knows, has put its job into the queue once more.
    SELECT
        publish.* EXCLUDE (state, retry_reason, attempt),
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
        AND run.state IN ('RETRY', 'IGNORED')
)
SELECT
    'run' AS event,
    job_id,
    attempt,
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
