# syntax=docker/dockerfile:1
# The agent's image: one binary, the C library it is linked with, the CA roots that S3 and the API server need, and the
# licences and the bill of materials of all of it (agent/image/assemble).
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/lifeboat:VERSION .
#
# The target `sandbox` is another image, for trying things out: it has `lifeboat drill` without a cluster, with its stand-ins of a
# whole world. No node runs it.
#
#   docker buildx build --target sandbox -t REGISTRY/lifeboat-sandbox:VERSION .
#
# Or of files that agent/image/assemble has made elsewhere, in CONTEXT/image, with no compiler and no base image:
#
#   buildah bud --build-arg FILES=prebuilt -f Dockerfile CONTEXT
#
# No base image is named by digest: none has been resolved where this was written. Pin rust:1.95 by the digest that your
# registry shows before you build what you ship.
ARG FILES=built
ARG SANDBOX_FILES=built-sandbox

FROM rust:1.95 AS source
# The versions of tests/real.
RUN cargo install --locked cargo-cyclonedx@0.5.9 && cargo install --locked --features cli cargo-about@0.9.3
WORKDIR /src
COPY . .

FROM source AS built
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    agent/image/build \
    && agent/image/assemble target/image/lifeboat /image

FROM source AS built-sandbox
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    agent/image/build --features drill \
    && FEATURES=drill agent/image/assemble target/image/lifeboat /image

FROM scratch AS prebuilt
COPY image /image

FROM ${SANDBOX_FILES} AS sandbox-files

FROM scratch AS sandbox
COPY --from=sandbox-files /image /
USER 65532:65532
ENTRYPOINT ["/usr/bin/lifeboat"]
CMD ["drill"]

FROM ${FILES} AS files

# No shell, no package manager.
FROM scratch
COPY --from=files /image /
# All commands but the agent's own work without root. The DaemonSet says runAsUser: 0, which it needs (manifests/README.md).
USER 65532:65532
ENTRYPOINT ["/usr/bin/lifeboat"]
CMD ["run"]
