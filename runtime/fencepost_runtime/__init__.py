"""The reference job system: a persistent queue, workers, recovery, and the faults that strike them."""
