//! The S3 server (versitygw, TLS, with an access log) and the image registry.

use super::World;
use super::control_plane::listens;
use super::process::Recipe;
use crate::layout::{ACCESS_KEY, BUCKET, REGISTRY_PORT, S3, S3_PORT, SECRET_KEY};
use anyhow::Result;
use std::time::Duration;

/// Starts both.
pub fn start(world: &World) -> Result<()> {
    let folder = &world.folder;
    std::fs::create_dir_all(folder.objects().join(BUCKET))?;
    let gateway = [
        world.plan.parts.versitygw.display().to_string(),
        "--port".into(),
        format!("{S3}:{S3_PORT}"),
        "--cert".into(),
        folder.path("pki/s3.crt").display().to_string(),
        "--key".into(),
        folder.path("pki/s3.key").display().to_string(),
        "--access-log".into(),
        folder.path("log/s3-access.log").display().to_string(),
        "--quiet".into(),
        "posix".into(),
        folder.objects().display().to_string(),
    ];
    let gateway = Recipe::new("versitygw", "s3", gateway)
        .env("ROOT_ACCESS_KEY", ACCESS_KEY)
        .env("ROOT_SECRET_KEY", SECRET_KEY);
    world.processes.start(gateway)?;

    let config = folder.path("registry.json");
    // JSON is YAML.
    let settings = serde_json::json!({
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": folder.path("registry")}},
        "http": {"addr": format!("{S3}:{REGISTRY_PORT}")},
    });
    std::fs::write(&config, settings.to_string())?;
    let registry =
        [world.plan.parts.registry.display().to_string(), "serve".into(), config.display().to_string()];
    world.processes.start(Recipe::new("registry", "s3", registry))?;
    let limit = Duration::from_secs(30);
    world.processes.until("versitygw", limit, || listens("s3", (S3, S3_PORT).into()))?;
    world.processes.until("registry", limit, || listens("s3", (S3, REGISTRY_PORT).into()))
}
