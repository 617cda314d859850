//! A testbed leaves nothing behind, also when the process that holds it is killed.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbed::layout::Folder;
use testbed::parts;

/// The processes that have this folder, or the testbed's name for it, open as their root's mount or in their words.
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_it = |entry: &std::fs::DirEntry| {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
        let words = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        (words.contains(&name) || mounts.contains(&name)).then_some(words)
    };
    all.filter_map(|entry| of_it(&entry)).collect()
}

#[tokio::test]
async fn a_testbed_whose_holder_is_killed_leaves_no_process_no_mount_and_no_cgroup() -> Result<()> {
    let mut holder = Command::new(parts::binaries()?.join("testbed"))
        .arg("hold")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().context("its output")?).read_line(&mut line)?;
    let folder = Folder(line.trim().into());
    let before = processes_of(&folder.0);
    ensure!(before.iter().any(|words| words.contains("kubelet")), "no kubelet runs: {before:?}");

    holder.kill()?;
    holder.wait()?;
    let began = Instant::now();
    loop {
        let left = processes_of(&folder.0);
        if left.is_empty() {
            break;
        }
        ensure!(began.elapsed() < Duration::from_secs(20), "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains("lifeboat-testbed/t"), "mounts outside its own namespace: {mounts}");
    // What no namespace takes with it is swept by the next one.
    testbed::bed::discard(&folder);
    let name = folder.0.file_name().context("its name")?;
    for root in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let cgroup = root.path().join("lifeboat-testbed").join(name);
        ensure!(!cgroup.exists(), "{} is left", cgroup.display());
    }
    ensure!(!folder.0.exists(), "{} is left", folder.0.display());
    Ok(())
}
