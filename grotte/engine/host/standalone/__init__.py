"""Programs that run beside the engine, on the standard library alone: the launcher and the guest.

Nothing here imports the rest of grotte: the launcher is started by path, and the guest runs inside the sandbox from
a copy of these files.
"""
