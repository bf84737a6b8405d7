"""The rules of a fleet, without input or output: who may start when, who gets what, what a failure means."""
