-- Every event with its place in time as one value, for the macro `precedes`.
SELECT
    *,
    {'position': position, 'host': host, 'producer': producer, 'producer_seq': producer_seq, 'at': "at"} AS moment
FROM events
