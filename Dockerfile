# syntax=docker/dockerfile:1
# The agent's image: one binary, the C library it is linked with, and the CA roots that S3 and the API server need.
# It works and is small; signing, provenance, an SBOM and the second architecture come with issue 8.

FROM rust:1.95 AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile image -p lifeboat --bin lifeboat \
    && mkdir -p /image/usr/bin /image/etc/ssl/certs /image/tmp \
    && chmod 1777 /image/tmp \
    && cp target/image/lifeboat /image/usr/bin/lifeboat \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && ldd /image/usr/bin/lifeboat | grep -o '/[^ ]*' | xargs -I LIB cp --parents --dereference LIB /image

# No shell, no package manager. The DaemonSet says which user it runs as: it must reach into other pods' volumes.
FROM scratch
COPY --from=build /image /
ENTRYPOINT ["/usr/bin/lifeboat"]
CMD ["run"]
