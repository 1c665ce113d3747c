-- The attributes of each span by which a run of the reference runtime says which scenario it is of.
SELECT span_attributes
FROM spans
WHERE scope_name = $scope
    AND starts_with(name, 'scenario ')
LIMIT 2
