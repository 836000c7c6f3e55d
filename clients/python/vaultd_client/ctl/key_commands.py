"""`vaultctl keys`: key material in and out of files."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.names import ResourceName
from vaultd_client.ctl.output import Printer
from vaultd_client.ctl.repeating import REQUEST_ID, fresh_request_id, repeatable
from vaultd_client.errors import NotFound
from vaultd_client.key_files import KeyFileError, decode_material, encode_material, read_bytes, write_private
from vaultd_client.key_wrapping import Recipient, WrappingError, wrap_for_import
from vaultd_client.v1 import key_transfer_pb2 as pb
from vaultd_client.v1 import resources_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd_client import Client
    from vaultd_client.ctl.session import Session

METHODS = [name.removeprefix("WRAPPING_METHOD_") for name in pb.WrappingMethod.keys() if "UNSPECIFIED" not in name]
ALGORITHMS = [name.removeprefix("ALGORITHM_") for name in resources_pb2.Algorithm.keys() if "UNSPECIFIED" not in name]
LEVELS = ["SOFTWARE", "HSM", "HSM_ENVELOPE"]
PURPOSES = [name.removeprefix("KEY_PURPOSE_") for name in resources_pb2.KeyPurpose.keys() if "UNSPECIFIED" not in name]
KEY = click.argument("key", type=ResourceName("key"), metavar="KEY")
FILE = click.Path(path_type=Path)


def _tell(session: Session, made: Any) -> None:
    """Say the name of what was made, or all of it where a program reads it."""
    if session.output in {None, "table", "raw"}:
        click.echo(made.name)
    else:
        Printer(session.output).message(made)


def _attempt(act: Callable[[], Any]) -> Any:
    """Do something with files or key material; what goes wrong is one line, and exit code 2."""
    try:
        return act()
    except (KeyFileError, WrappingError) as error:
        fail(str(error))


def _existing(client: Client, name: str) -> resources_pb2.Key | None:
    try:
        return client.get_key(name)
    except NotFound:
        return None


@click.command("import", cls=Command)
@KEY
@click.argument("file", type=FILE)
@click.option("--algorithm", type=click.Choice(ALGORITHMS), help="What the material is for; by default the key's.")
@click.option("--create", is_flag=True, help="Create the key when it is not there; needs --algorithm and --purpose.")
@click.option("--purpose", type=click.Choice(PURPOSES), help="Of the key to create.")
@click.option("--level", type=click.Choice(LEVELS), default="SOFTWARE", show_default=True, help="Of the key to create.")
@click.option("--exportable", is_flag=True, help="The key to create can be exported.")
@click.option("--import-only", is_flag=True, help="The key to create never makes versions of its own.")
@click.option(
    "--encoding", type=click.Choice(["auto", "hex", "base64"]), default="auto", show_default=True, help="Of a raw key."
)
@click.option("--passphrase-file", type=FILE, help="Passphrase of an encrypted private key.")
@click.option("--job", help="An import job to use, `vaults/VAULT/importJobs/JOB`; by default one is created.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="HPKE_MLKEM768_X25519",
    show_default=True,
    help="Of the job to create.",
)
@click.option("--keep-primary", is_flag=True, help="The new version does not become primary.")
@click.option(
    "--prior-messages", type=click.IntRange(0), help="Messages that an AES-GCM or ChaCha20 key encrypted before."
)
@click.pass_obj
def import_key(session: Session, /, key: str, file: Path, **options: Any) -> None:
    """Make a version of KEY of the material in FILE (`-`: standard input).

    FILE is a private key in PEM or DER, or the raw bytes of a symmetric key. It is wrapped here, to a key of the server's, so
    that nothing between sees it.
    """
    client = session.client()
    found = _existing(client, key)
    algorithm = options["algorithm"]
    if found is None and not (options["create"] and algorithm and options["purpose"]):
        fail(f"{key} is not there: create it, or say --create, --algorithm and --purpose")
    if found is not None:
        algorithm = algorithm or resources_pb2.Algorithm.Name(found.algorithm).removeprefix("ALGORITHM_")
    passphrase = None
    if options["passphrase_file"] is not None:
        passphrase = _attempt(lambda: read_bytes(options["passphrase_file"])).rstrip(b"\r\n")
    content = _attempt(lambda: read_bytes(file))
    material = _attempt(lambda: decode_material(content, options["encoding"], algorithm, passphrase))
    if found is None:
        _create(client, key, algorithm, options)
    vault = "/".join(key.split("/")[:2])
    job = _job(client, vault, options["job"], options["method"])
    done = client.import_key_version(
        parent=key,
        import_job=job.name,
        algorithm=f"ALGORITHM_{algorithm}",
        wrapped_key=_attempt(lambda: wrap_for_import(job, material)),
        keep_primary=options["keep_primary"],
        prior_messages=options["prior_messages"],
    )
    _tell(session, done)


def _create(client: Client, name: str, algorithm: str, options: dict[str, Any]) -> None:
    parent, _, key_id = name.rpartition("/keys/")
    key = resources_pb2.Key(
        purpose=f"KEY_PURPOSE_{options['purpose']}",
        algorithm=f"ALGORITHM_{algorithm}",
        protection_level=f"PROTECTION_LEVEL_{options['level']}",
        exportable=options["exportable"],
        import_only=options["import_only"],
    )
    client.create_key(parent, key_id, key, skip_initial_version=True)


def _job(client: Client, vault: str, name: str | None, method: str) -> pb.ImportJob:
    if name is not None:
        return client.get_import_job(name)
    job = pb.ImportJob(wrapping_method=f"WRAPPING_METHOD_{method}")
    return client.create_import_job(vault, f"vaultctl-{secrets.token_hex(8)}", job)


@click.command("export", cls=Command)
@click.argument("key", type=ResourceName("key_or_version"), metavar="KEY[/VERSION]")
@click.argument("file", type=FILE)
@click.option(
    "--to", type=FILE, help="PEM of the recipient's public key: FILE gets the wrapping, which only they open."
)
@click.option("--method", type=click.Choice(METHODS), help="With --to: how it is wrapped.")
@click.option("--plaintext", is_flag=True, help="FILE gets the key itself: PEM (PKCS#8), or raw bytes.")
@REQUEST_ID
@click.pass_obj
def export_key(
    session: Session, key: str, file: Path, to: Path | None, method: str | None, plaintext: bool, request_id: str
) -> None:
    """Write a version of an exportable KEY to FILE, a new one with mode 0600 (`-`: standard output).

    Either wrapped for somebody (--to, --method), or in plaintext. In plaintext it is wrapped to a fresh key of this process, and is
    another request each time: where exports need approval, use --to.
    """
    if plaintext == (to is not None) or (to is not None) != (method is not None):
        fail("say --plaintext, or --to and --method")
    client = session.client()
    recipient = Recipient()
    if to is not None:
        pem = _attempt(lambda: read_bytes(to)).decode("ascii", "replace")
        request_id = request_id or fresh_request_id()
        with repeatable(f"--request-id {request_id}"):
            exported = client.export_key_version(
                key, f"WRAPPING_METHOD_{method}", public_key_pem=pem, request_id=request_id
            )
    else:
        exported = client.export_key_version(
            key, pb.WRAPPING_METHOD_HPKE_MLKEM768_X25519, public_key_raw=recipient.public_key_raw
        )
    content = exported.wrapped_key
    if plaintext:
        algorithm = resources_pb2.Algorithm.Name(exported.algorithm).removeprefix("ALGORITHM_")
        content = _attempt(lambda: encode_material(recipient.open(exported), algorithm))
    _attempt(lambda: write_private(file, content))


@click.command(cls=Command)
@KEY
@click.argument("file", type=FILE)
@click.pass_obj
def backup(session: Session, key: str, file: Path) -> None:
    """Write KEY with all its versions to FILE, sealed: only its vaultd opens it."""
    client = session.client()
    done = client.backup_key(key)
    _attempt(lambda: write_private(file, done.backup))


@click.command(cls=Command)
@click.argument("vault", type=ResourceName("vault"), metavar="VAULT")
@click.argument("file", type=FILE)
@REQUEST_ID
@click.pass_obj
def restore(session: Session, vault: str, file: Path, request_id: str) -> None:
    """Put a key back, from a FILE of `vaultctl keys backup`, into the VAULT that it was in."""
    client = session.client()
    content = _attempt(file.read_bytes)
    request_id = request_id or fresh_request_id()
    with repeatable(f"--request-id {request_id}"):
        restored = client.restore_key_backup(vault, content, request_id)
    _tell(session, restored)
