"""Who takes part, and how each is asked to save or restore one file.

Everyone talks TLS to the same sink, trusts its certificate authority, sends payloads neither signed nor summed where
it can go without, and gets the settings that its makers give for speed. What is left, concurrency and the size of a
part, is swept.
"""

import itertools
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
REAL = HERE.parent / "real"
MIB = 1024 * 1024
BUCKET, KEY = "bench", "state.bin"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}


def real(name):
    """Prepares a real part, and gives what it is and where."""
    what, _, where = subprocess.check_output([REAL / name], text=True).strip().rpartition(": ")
    return what, where


class Sink:
    """What a contestant is told of a sink."""

    def __init__(self, endpoint, ca):
        self.endpoint, self.ca = endpoint, ca


class Contestant:
    """A client. `grid` gives the settings of its sweep, as pairs of concurrency and part size in MiB."""

    concurrency = (4, 8, 16)
    part_mib = (8, 16, 32)

    def grid(self, operation, quick):
        concurrency, part_mib = self.concurrency, self.part_mib
        if quick:
            concurrency, part_mib = concurrency[1:2], part_mib[::2]
        return list(itertools.product(concurrency, part_mib))

    def environment(self, sink, folder, setting):
        return CREDENTIALS

    def command(self, operation, sink, state, setting):
        """The command that saves the folder `state` or restores into it."""
        raise NotImplementedError


class Lifeboat(Contestant):
    """`identity` is by what blocks are told apart: their BLAKE3 hash, or only a fast one."""

    def __init__(self, programs, identity):
        self.name = "lifeboat" if identity == "blake3" else f"lifeboat-{identity}"
        self.what, self.program = f"the checkpoint crate, block identity {identity}", programs / "client"
        self.identity = identity

    def grid(self, operation, quick):
        # A restore has ranges of its own size.
        if operation == "restore":
            return [(parallel, None) for parallel in ((8,) if quick else (4, 8, 16, 32))]
        return super().grid(operation, quick)

    def command(self, operation, sink, state, setting):
        concurrency, part = setting
        place = [self.program, "--store", f"s3://{BUCKET}", "--endpoint", sink.endpoint, "--ca", sink.ca]
        if operation == "restore":
            return place + ["restore", state, "--parallel", str(concurrency)]
        delta = ["--delta"] if operation == "delta" else []
        save = ["save", state, "--slots", str(concurrency), "--pack-mib", str(part), "--identity", self.identity]
        return place + save + delta


class ObjectStore(Contestant):
    name = "object_store"

    def __init__(self):
        self.what, self.program = real("object-store")

    def command(self, operation, sink, state, setting):
        concurrency, part = setting
        verb = "put" if operation == "save" else "get"
        return [self.program, sink.endpoint, BUCKET, sink.ca, verb, KEY, state / KEY, str(concurrency), str(part)]


class AwsCrt(Contestant):
    name = "awscrt"

    def __init__(self):
        what, program = real("awscli")
        self.what = "awscrt " + what.rpartition(" ")[2]
        self.python = pathlib.Path(program).with_name("python")

    def command(self, operation, sink, state, setting):
        concurrency, part = setting
        verb = "put" if operation == "save" else "get"
        return [
            *(self.python, HERE / "awscrt_client.py", verb, sink.endpoint, sink.ca),
            *(f"{BUCKET}/{KEY}", state / KEY, str(concurrency), str(part)),
        ]


class AwsCli(Contestant):
    # Version 1, of PyPI, has no switch to the CRT.
    name = "awscli"
    concurrency = (2, 4, 10)

    def __init__(self):
        what, self.program = real("awscli")
        self.what = what.split(",")[0]

    def environment(self, sink, folder, setting):
        concurrency, part = setting
        config = folder / f"aws-config-{concurrency}-{part}"
        config.write_text(
            "[default]\nrequest_checksum_calculation = when_required\nresponse_checksum_validation = when_required\n"
            f"s3 =\n  max_concurrent_requests = {concurrency}\n  multipart_chunksize = {part}MB\n"
            "  payload_signing_enabled = false\n  addressing_style = path\n"
        )
        return CREDENTIALS | {"AWS_CONFIG_FILE": str(config), "AWS_CA_BUNDLE": str(sink.ca)}

    def command(self, operation, sink, state, setting):
        copy = [self.program, "s3", "cp", "--quiet", "--endpoint-url", sink.endpoint]
        there = f"s3://{BUCKET}/{KEY}"
        return copy + ([state / KEY, there] if operation == "save" else [there, state / KEY])


class S5cmd(Contestant):
    name = "s5cmd"

    def __init__(self):
        self.what, self.program = real("s5cmd")

    def environment(self, sink, folder, setting):
        return CREDENTIALS | {"SSL_CERT_FILE": str(sink.ca)}

    def command(self, operation, sink, state, setting):
        concurrency, part = setting
        copy = [self.program, "--endpoint-url", sink.endpoint, "--log", "error", "cp"]
        copy += ["--concurrency", str(concurrency), "--part-size", str(part)]
        there = f"s3://{BUCKET}/{KEY}"
        return copy + ([state / KEY, there] if operation == "save" else [there, state / KEY])


class Rclone(Contestant):
    name = "rclone"

    def __init__(self):
        self.what, self.program = real("rclone")

    def environment(self, sink, folder, setting):
        return CREDENTIALS | {"RCLONE_CONFIG": str(folder / "no-rclone-config")}

    def command(self, operation, sink, state, setting):
        concurrency, part = setting
        copy = [
            *(self.program, "copyto", "--quiet", "--ca-cert", sink.ca, "--ignore-checksum", "--retries", "1"),
            *("--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", sink.endpoint, "--s3-force-path-style"),
            *("--s3-no-check-bucket", "--s3-no-head", "--s3-disable-checksum"),
            *("--s3-upload-concurrency", str(concurrency), "--s3-chunk-size", f"{part}Mi"),
            *("--multi-thread-streams", str(concurrency), "--multi-thread-chunk-size", f"{part}Mi"),
            *("--multi-thread-cutoff", "1Mi"),
        ]
        there = f":s3:{BUCKET}/{KEY}"
        return copy + ([state / KEY, there] if operation == "save" else [there, state / KEY])


def all_of(programs):
    return [Lifeboat(programs, "blake3"), ObjectStore(), AwsCrt(), S5cmd(), Rclone(), AwsCli()]


def clean_environment():
    """This machine's own AWS account, settings and proxies are not for a benchmark."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
    nowhere = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    return kept | nowhere | {"AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
