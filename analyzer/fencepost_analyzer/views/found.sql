CREATE TABLE found (
    id VARCHAR NOT NULL,
    polarity VARCHAR NOT NULL,
    schedule BIGINT NOT NULL,
    job_id VARCHAR,
    "at" BIGINT,
    span_ids VARCHAR[],
    sentence VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL DEFAULT 'violated' CHECK (verdict IN ('violated', 'unknown')),
    missing VARCHAR,
    absent_since BIGINT,
    absent_until BIGINT,
    absent_from VARCHAR
)
