"""What operators see: the server's own log, its metrics and its traces.

No payloads, no secrets, no caller input.  Any layer may count into `cells` and ask `spans`; what reads them is put together
beside the wiring.
"""
