"""The rules: key ring, lifecycle, transit, policy, quotas, sealing.  Frozen dataclasses in and out.

No grpc, no SQL, no PKCS#11, no logging of data.
"""
