"""Signs a digest with a key that never leaves the server, and verifies it here with the public key."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from vaultd_client import Client

KEY = "vaults/default/keys/release"

with Client.from_env() as vault:
    digest = hashlib.sha256(b"a release of any size").digest()
    signed = vault.sign(KEY, digest=digest)
    public = load_pem_public_key(vault.get_public_key(signed.key_version).pem.encode())

if not isinstance(public, EllipticCurvePublicKey):
    raise SystemExit(f"{KEY} is of another kind than this example is for")
try:
    public.verify(signed.signature, digest, ECDSA(Prehashed(hashes.SHA256())))
except InvalidSignature:
    print("forged")
else:
    print("verified with", signed.key_version)
