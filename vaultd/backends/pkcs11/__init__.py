"""Keys that are born, used and destroyed in a PKCS#11 token.

    HsmBackend -> TokenSlot (queue, deadlines, supervision) == socket ==> worker process (module, sessions, handles)

A vendor's module is loaded in a worker process of its own, which is spawned and never forked: whatever it does there, the
server lives on, and what was asked of it is asked again of the next worker.
"""
