"""The command `vaultd`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vaultd import __version__
from vaultd.config import ConfigError, Settings, load_settings, read_yaml
from vaultd.errors import FailedPrecondition, VaultdError
from vaultd.hosts.transport import restrict_transport
from vaultd.process import harden_process

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AsyncExitStack

    from vaultd.audit.checkpoints import PublicKey
    from vaultd.audit.verify import Verdict
    from vaultd.secret import Secret
    from vaultd.workers.supervisor import Supervisor

ACCEPT_RESTORE = click.option(
    "--accept-restore",
    is_flag=True,
    help="Take a store that was put back from the past, this once; it is recorded.",
)
HOST = click.option(
    "--host", type=click.Choice(["grpc", "envoy"]), help="How calls arrive: in grpc.aio, or in an Envoy of its own."
)
WORKERS = click.option(
    "--workers", type=click.IntRange(1, 64), metavar="N", help="Processes that serve one port from one store."
)
CONFIG = click.option(
    "--config", "config", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="YAML file."
)


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end; what an operator did wrong is one line on standard error and exit code 1."""
    try:
        asyncio.run(main)
    except (VaultdError, ConfigError) as error:
        text = f"{error.reason}: {error.text}" if isinstance(error, VaultdError) else str(error)
        raise SystemExit(f"vaultd: {text}") from None
    except OSError as error:
        raise SystemExit(f"vaultd: {error}") from None


def _run_server(main: Coroutine[Any, Any, None]) -> NoReturn:
    """Run to the end of a drained server, and leave at once: gRPC's core would take two seconds to stop idle threads."""
    _run(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load(config: Path) -> Settings:
    from vaultd.telemetry.log import configure_logging

    try:
        settings = load_settings(config)
    except ConfigError as error:
        raise SystemExit(f"vaultd: {error}") from None
    configure_logging(settings.log.level, json=settings.log.format == "json")
    return settings


def _ask_passphrase(settings: Settings, *, confirm: bool) -> Secret | None:
    from vaultd.secret import Secret

    if settings.root_key.provider != "passphrase":
        return None
    if sys.stdin.isatty():
        text = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    else:
        text = sys.stdin.readline().rstrip("\n")
    return Secret(text.encode())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vaultd")
def main() -> None:
    """vaultd, a self-hosted key vault that speaks gRPC."""
    restrict_transport()
    harden_process()


@main.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=Path(".vaultd-dev"), show_default=True)
@click.option("--listen", default="127.0.0.1:7443", show_default=True, metavar="HOST:PORT")
@click.option("--hsm", is_flag=True, help="Make a SoftHSM token in the directory, for protection_level HSM.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus there, and plain HTTP health.")
@WORKERS
@HOST
@ACCEPT_RESTORE
def dev(
    directory: Path,
    listen: str,
    *,
    hsm: bool,
    metrics: str | None,
    workers: int | None,
    host: str | None,
    accept_restore: bool,
) -> None:
    """Make certificates and a vault in a directory (once), and serve."""
    from vaultd.dev import ADMIN, create_dev_directory, grpcurl_line
    from vaultd.softhsm import SoftHsmMissing

    try:
        config = create_dev_directory(directory, listen, hsm=hsm, metrics=metrics, workers=workers, host=host)
    except SoftHsmMissing as error:
        raise SystemExit(f"vaultd: {error}") from None
    settings = _load(config)

    def announce(address: str, plain: str, audit_keys: bytes) -> None:
        if audit_keys:
            (directory / "audit.pub").write_bytes(audit_keys)
        print(f"ready {address}", flush=True)
        print(grpcurl_line(directory, address), flush=True)
        if plain:
            print(f"metrics http://{plain}/metrics", flush=True)

    async def start() -> None:
        if not settings.store.path.exists():
            await _init(settings, [ADMIN], directory / "policy.yaml", None, lambda _: None)
        await _serve(config, settings, announce, accept_restore=accept_restore)

    if settings.workers > 1:
        if not settings.store.path.exists():
            # In a process of its own: the supervisor opens no store.
            command = [sys.executable, "-m", "vaultd", "init", "--config", str(config), "--admin", ADMIN]
            made = subprocess.run([*command, "--policy", str(directory / "policy.yaml")], stdout=subprocess.DEVNULL)  # noqa: S603
            if made.returncode:
                raise SystemExit(made.returncode)
        _supervise(config, settings, announce, accept_restore=accept_restore)
    _run_server(start())


@main.command()
@CONFIG
@WORKERS
@HOST
@ACCEPT_RESTORE
def serve(config: Path, *, workers: int | None, host: str | None, accept_restore: bool) -> None:
    """Serve with a configuration file."""
    chosen = {"workers": workers, "host": host}
    settings = _load(config).model_copy(update={name: value for name, value in chosen.items() if value is not None})
    if problem := settings.host_problem():
        raise SystemExit(f"vaultd: {problem}")

    def announce(address: str, plain: str, audit_keys: bytes) -> None:
        del plain, audit_keys
        print(f"ready {address}", flush=True)

    if settings.workers > 1:
        _supervise(config, settings, announce, accept_restore=accept_restore)
    _run_server(_serve(config, settings, announce, accept_restore=accept_restore))


def _supervise(
    config: Path, settings: Settings, announce: Callable[[str, str, bytes], None], *, accept_restore: bool
) -> NoReturn:
    """Serve with several processes, and leave when they have ended."""
    from vaultd.audit.segments import lock_directory, prepare_directory
    from vaultd.engine.shared_buckets import TABLE_BYTES
    from vaultd.workers.pages import serve_pages
    from vaultd.workers.supervisor import Supervisor, shared_file, worker_command

    listen, plain = settings.metrics.listen, ""

    async def beside(stack: AsyncExitStack, supervisor: Supervisor) -> None:
        nonlocal plain
        if listen:
            plain = f"{listen.rpartition(':')[0]}:{await serve_pages(stack, supervisor, listen)}"

    async def start() -> None:
        # The chain in the directory itself is nobody's while workers have theirs: nor is it that of a command beside them.
        prepare_directory(settings.audit.directory)
        lock_directory(settings.audit.directory)
        supervisor = Supervisor(
            worker_command(config),
            settings.workers,
            settings.listen,
            settings.listen_tls,
            settings.drain_grace_s,
            lambda address, audit_keys: announce(address, plain, audit_keys),
            counts_fd=shared_file(TABLE_BYTES),
            accept_restore=accept_restore,
        )
        if not await supervisor.run(beside):
            raise SystemExit(1)  # whoever failed has said why

    _run(start())
    raise SystemExit(0)


@main.command(hidden=True)
@CONFIG
@click.option("--index", type=click.IntRange(0, 63), required=True)
@click.option("--control-fd", type=int, required=True)
def worker(config: Path, index: int, control_fd: int) -> None:
    """Serve as one of several workers.  For the supervisor of `serve --workers` and `dev --workers`."""
    settings = _load(config)

    async def start() -> None:
        from vaultd.wiring.worker import serve_worker

        await serve_worker(settings, index, control_fd)

    _run_server(start())


async def _serve(
    config: Path, settings: Settings, announce: Callable[[str, str, bytes], None], *, accept_restore: bool
) -> None:
    if settings.host == "envoy":
        from vaultd.envoy_process import serve_in_envoy

        await serve_in_envoy(config, settings, announce, accept_restore=accept_restore)
        return
    from vaultd.wiring import Server

    server = Server(settings, accept_restore=accept_restore)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    async with server.running():
        plain = settings.metrics.listen and f"{settings.metrics.listen.rpartition(':')[0]}:{server.observing.port}"
        audit_keys = server.witness.public_pem if server.witness.public_keys else b""
        announce(f"{settings.listen.rpartition(':')[0]}:{server.port}", plain, audit_keys)
        await stop.wait()


@main.command()
@CONFIG
@click.option(
    "--admin", "admins", multiple=True, required=True, help="Principal that gets every permission; repeatable."
)
@click.option(
    "--policy", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="YAML file to seed policy from."
)
def init(config: Path, admins: tuple[str, ...], policy: Path | None) -> None:
    """Make the key ring, `vaults/default` and the policy.  The server must not be running."""
    settings = _load(config)
    _run(_init(settings, list(admins), policy, _ask_passphrase(settings, confirm=True), click.echo))
    click.echo(f"initialized {settings.store.path}; start the server with `vaultd serve --config {config}`")


async def _init(
    settings: Settings,
    admins: list[str],
    policy: Path | None,
    passphrase: Secret | None,
    tell: Callable[[str], None],
) -> None:
    from vaultd.engine.policy import seed_policy

    seeded = seed_policy(admins, read_yaml(policy) if policy is not None else None)
    settings.store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with _offline(settings) as server:
        await server.audit_event("init")
        await server.engine.seal.init(seeded, passphrase)
        tell("The audit log is signed with this key. Keep a copy elsewhere, for `vaultd audit verify --public-key`:")
        tell(server.witness.public_pem.decode().rstrip())


def _offline(settings: Settings, *, accept_restore: bool = False) -> Any:
    from vaultd.wiring import Server

    return Server(settings, accept_restore=accept_restore).offline()


def _require_store(settings: Settings) -> None:
    """Nothing but init and restore may make a store: an empty one would be in the way of a restore."""
    if not settings.store.path.exists():
        raise FailedPrecondition(
            "STORE_MISSING", f"there is no store at {settings.store.path}; run `vaultd init` or `vaultd restore` first"
        )


@main.command("check-config")
@CONFIG
def check_config(config: Path) -> None:
    """Read the configuration and every file that it names, and say what is wrong."""
    from vaultd.engine.clock import SystemClock
    from vaultd.observing import check_collector
    from vaultd.sinks import check_files
    from vaultd.trust import read_trust_bundles, require_fresh
    from vaultd.wiring import TlsFiles

    settings = _load(config)
    try:
        require_fresh(read_trust_bundles(settings.trust_bundles), SystemClock().now_us())
        TlsFiles(settings).read()
        check_files(settings.audit.sinks)
        check_collector(settings.otlp)
    except ConfigError as error:
        raise SystemExit(f"vaultd: {error}") from None
    click.echo("configuration ok")


@main.command("check-store")
@CONFIG
@ACCEPT_RESTORE
def check_store(config: Path, *, accept_restore: bool) -> None:
    """Open every row and compare all of them with their digests.  Exit code 1 names what was tampered with."""
    settings = _load(config)
    passphrase = _ask_passphrase(settings, confirm=False)

    async def check() -> None:
        _require_store(settings)
        async with _offline(settings, accept_restore=accept_restore) as server:
            await server.engine.seal.unseal(passphrase)
            rows = await server.engine.ledger.check(deep=True)
            click.echo(f"store ok: {rows} rows")

    _run(check())


@main.command("recover-admin")
@CONFIG
@click.option(
    "--admin", "admins", multiple=True, required=True, help="Principal that gets every permission; repeatable."
)
@click.option(
    "--lift-approval-rules",
    "lift",
    is_flag=True,
    help="Take all approval rules away too, when nobody is left to approve.",
)
@ACCEPT_RESTORE
def recover_admin(config: Path, admins: tuple[str, ...], *, lift: bool, accept_restore: bool) -> None:
    """Give principals every permission, when nobody is left who could.  The server must not be running; it is recorded."""
    settings = _load(config)
    passphrase = _ask_passphrase(settings, confirm=False)

    async def recover() -> None:
        from vaultd.engine.authority import put_policy
        from vaultd.engine.policy import seed_policy
        from vaultd.engine.revocations import lift as lift_revocations

        _require_store(settings)
        async with _offline(settings, accept_restore=accept_restore) as server:
            await server.engine.seal.unseal(passphrase)
            document = server.engine.authority.engine.policy.to_document()
            await server.audit_event("recover_admin", admins=" ".join(admins))
            if lift:
                await server.audit_event("lift_approval_rules")
            groups = {group["name"] for group in document["groups"] if set(group["members"]) & set(admins)}
            barred = set(admins) | {f"group:{name}" for name in groups}
            denies = [deny for deny in document["denies"] if not set(deny["members"]) & barred]
            dropped = len(document["denies"]) - len(denies)
            async with server.engine.ledger.change() as changes:
                await put_policy(changes, seed_policy(list(admins), {**document, "denies": denies}))
                restored = await lift_revocations(changes, admins)
                lifted = await server.engine.approvals.lift(changes, "vaultd:recover-admin") if lift else 0
            click.echo(
                f"the policy now names these administrators; {dropped} denies that bound them are gone, "
                f"and {restored} revocations of them"
            )
            if lift:
                click.echo(f"{lifted} approval rules are gone, and every request that waited under them is void")

    _run(recover())


@main.command()
@CONFIG
@click.argument("directory", type=click.Path(path_type=Path))
def backup(config: Path, directory: Path) -> None:
    """Copy the store into a new directory while the server runs, and verify the copy."""
    from vaultd.store.archive import write_backup
    from vaultd.wiring import open_store

    settings = _load(config)

    async def copy() -> None:
        _require_store(settings)
        store = open_store(settings)
        await store.open()
        try:
            manifest = await write_backup(store, directory)
        finally:
            await store.close()
        click.echo(f"backup of revision {manifest.revision}, {sum(manifest.rows.values())} rows, verified: {directory}")

    _run(copy())


@main.command()
@CONFIG
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
def restore(config: Path, directory: Path) -> None:
    """Put a backup in place on a host that has no store.  The root key must be there, or be given to Unseal."""
    from vaultd.store.archive import restore_backup

    settings = _load(config)

    async def put() -> None:
        settings.store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        manifest = restore_backup(directory, settings.store.path)
        click.echo(f"restored revision {manifest.revision}; check it with `vaultd check-store --config {config}`")
        click.echo("beside an audit log that is newer, with --accept-restore")
        click.echo(
            "rotate AES-GCM and ChaCha20-Poly1305 keys that were used since the backup: their message counts were turned back"
        )

    _run(put())


@main.group()
def audit() -> None:
    """The audit log, from its files."""


@audit.command("replay")
@CONFIG
@click.option("--sink", "name", required=True, metavar="NAME", help="One of audit.sinks.")
@click.option(
    "--from", "begin", required=True, metavar="SEQUENCE|TIME", help="The first record, or 2026-11-26T03:00:00Z."
)
@click.option("--to", "end", default="", metavar="SEQUENCE|TIME", help="The last record; the newest by default.")
@click.option("--worker", "index", type=click.IntRange(0, 63), metavar="I", help="Of this worker's chain.")
def audit_replay(config: Path, name: str, begin: str, end: str, index: int | None) -> None:
    """Send records to a sink once more, while the server runs or not.  The sink's cursor stays where it is."""
    settings = _load(config)
    section = next((section for section in settings.audit.sinks if section.name == name), None)
    if section is None:
        raise SystemExit("vaultd: audit.sinks has no sink of this name")

    async def send() -> None:
        from vaultd.audit.segments import read_chain_id
        from vaultd.audit.shipping.replay import Point, replay
        from vaultd.audit.ties import worker_directory
        from vaultd.engine.clock import SystemClock
        from vaultd.sinks import make_sink, origin_of

        first, last = Point.parse(begin), Point.parse(end) if end else None
        directory = settings.audit.directory if index is None else worker_directory(settings.audit.directory, index)
        sink = make_sink(section, origin_of(read_chain_id(directory) or b""), SystemClock())
        try:
            done = await replay(sink, directory, first, last, timeout_s=section.timeout_s)
        finally:
            await sink.close()
        said = f"{done.records} records, {done.first} to {done.last}, were sent to {name}"
        said += f"; it rejected {done.rejected}" if done.rejected else ""
        said += f"; {done.missing} are not in the directory any more" if done.missing else ""
        click.echo(said, err=True)  # standard output may be the sink

    _run(send())


@audit.command("verify")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--public-key",
    "public_key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file that was kept elsewhere, such as audit.pub. Without it the keys that the log names itself are used.",
)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Also check the MACs, with the key ring of this configuration's store; its keys are used without --public-key.",
)
def audit_verify(directory: Path, public_key: Path | None, config: Path | None) -> None:
    """Verify an audit directory, beside a running server or without one.  Exit code 1 names the first bad record."""
    from vaultd.audit.checkpoints import read_public_keys
    from vaultd.audit.ties import OWN
    from vaultd.audit.verify import verify_chains
    from vaultd.audit.walk import BadRecord

    try:
        keys = read_public_keys(public_key.read_bytes()) if public_key is not None else None
        mac_key, own = _audit_keys(config) if config is not None else (None, [])
        verdicts = verify_chains(directory, keys=keys or own or None, mac_key=mac_key)
    except BadRecord as bad:
        raise SystemExit(f"vaultd: bad record: {bad}") from None
    except VaultdError as error:
        raise SystemExit(f"vaultd: {error.reason}: {error.text}") from None
    except (OSError, ValueError) as error:
        raise SystemExit(f"vaultd: {error}") from None
    for name, verdict in verdicts.items():
        _tell_verdict(verdict, "" if name == OWN else f", in {name}", macs=config is not None)
    if not keys and not own and any(verdict.newest is not None for verdict in verdicts.values()):
        click.echo("the key is the one that the log names: pin it with --public-key")
    if len(verdicts) > 1:
        click.echo(f"tied: {len(verdicts)} chains, and none that they name is missing or cut off")


def _tell_verdict(verdict: Verdict, where: str, *, macs: bool) -> None:
    begin = verdict.pruned + 1 if verdict.pruned else verdict.first
    click.echo(f"ok: chain {verdict.chain_id.hex()}, records {begin} to {verdict.last}{where}")
    if verdict.pruned:
        click.echo(f"pruned: records up to {verdict.pruned}, behind a signed tree head")
    if verdict.newest is None:
        click.echo("signed: nothing yet")
    else:
        click.echo(
            f"signed: records up to {verdict.newest.last} at {verdict.newest.time}, {verdict.checkpoints} checkpoints, "
            f"by {' '.join(verdict.keys)}"
        )
    if verdict.unsigned:
        click.echo(f"after it: {verdict.unsigned} records, chained and not signed yet")
    if macs:
        click.echo(f"MACs: {verdict.macs} verified")


def _audit_keys(config: Path) -> tuple[Callable[[bytes], bytes], list[PublicKey]]:
    """What gives the key of a chain's MACs, and who signs its checkpoints, from the store."""
    from vaultd.engine.audit_witness import mac_key, stored_public_keys
    from vaultd.wiring import Server

    settings = _load(config)
    passphrase = _ask_passphrase(settings, confirm=False)

    async def read() -> tuple[Callable[[bytes], bytes], list[PublicKey]]:
        _require_store(settings)
        server = Server(settings)
        await server.engine.store.open()
        try:
            await asyncio.gather(*(slot.open() for slot in server.slots))
            sealer = await server.engine.seal.read_ring(passphrase)
            keys = await stored_public_keys(server.engine.store, sealer)
        finally:
            for backend in server.engine.backends.values():
                await backend.close()
            await server.engine.store.close()
        return partial(mac_key, sealer), keys

    return asyncio.run(read())
