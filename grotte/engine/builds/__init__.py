"""From the steps of a template to layers: queue, cache, steps, logs."""
