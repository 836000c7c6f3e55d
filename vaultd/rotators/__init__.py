"""How credentials that live elsewhere are changed there: one file per kind of system, each behind the Protocol of `base.py`.

No schedule, no retries, no rows and no policy: the engine decides what happens when, a rotator does one stage of it.
"""
