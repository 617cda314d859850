//! The docker-archive: a layer, its configuration and a manifest in one tar.

use super::root::Root;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use tar::{Builder, Header};

/// Writes the archive of an image with this tree as its only layer. It appears whole or not at all.
pub(super) fn write(tar: &Path, name: &str, root: &Root, config: &Value) -> Result<()> {
    let folder = tar.parent().context("the tar has no folder")?;
    let mut layer = tempfile::tempfile_in(folder)?;
    let diff_id = {
        let mut hashing = Hashing { out: BufWriter::new(&mut layer), sha: Sha256::new() };
        root.write(&mut hashing)?;
        let Hashing { mut out, sha } = hashing;
        out.flush()?;
        format!("sha256:{}", hex(&sha.finalize()))
    };

    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "lifeboat-testbed"}],
    })
    .to_string();
    let config_name = format!("{}.json", hex(&Sha256::digest(config.as_bytes())));
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();

    let short = tar.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.rsplit_once('-'));
    let (short, _) = short.context("the tar's name has no hash")?;
    let unfinished = tempfile::Builder::new()
        .prefix(&format!("{short}-"))
        .rand_bytes(super::HASH)
        .suffix(".part")
        .tempfile_in(folder)?;
    let mut archive = Builder::new(BufWriter::new(unfinished.as_file()));
    put(&mut archive, &config_name, config.len() as u64, config.as_bytes())?;
    let bytes = layer.metadata()?.len();
    layer.rewind()?;
    put(&mut archive, "layer.tar", bytes, BufReader::new(layer))?;
    put(&mut archive, "manifest.json", manifest.len() as u64, manifest.as_bytes())?;
    archive.into_inner()?.flush()?;
    unfinished.persist(tar)?;
    Ok(())
}

fn put(archive: &mut Builder<impl Write>, name: &str, bytes: u64, content: impl Read) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes);
    archive.append_data(&mut header, name, content).with_context(|| format!("cannot pack {name}"))
}

/// As the image specification calls this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes and hashes in one pass.
struct Hashing<W> {
    out: W,
    sha: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sha.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
