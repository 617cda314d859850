//! Programs of this machine and of the cache, and what they need to start.

use super::root::Root;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Debian keeps programs.
const FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// The CPU backends of ggml that go into an image: those among which the wrapper of tests/real/llama-server chooses,
/// so that the engine calculates in a pod as it does in a drill.
const BACKENDS: [&str; 5] = ["haswell", "sandybridge", "sse42", "x64", "armv8.0_1"];

/// Debian's busybox-static.
pub(super) fn static_busybox() -> Result<PathBuf> {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join("busybox")).find(|path| path.exists());
    let found = found.context("busybox is not installed: tests/real/node-tools installs busybox-static")?;
    ensure!(
        libraries(&found)?.is_empty(),
        "{} is not static: install busybox-static (tests/real/node-tools)",
        found.display()
    );
    Ok(found)
}

/// What this busybox can be called as.
pub(super) fn applets(busybox: &Path) -> Result<Vec<String>> {
    let listed = output(Command::new(busybox).arg("--list"))?;
    let applets = listed.lines().map(str::trim).filter(|name| !name.is_empty() && *name != "busybox");
    Ok(applets.map(str::to_owned).collect())
}

/// The libraries of a program of this machine and their loader, where they lie here.
pub(super) fn add_libraries(root: &mut Root, program: &Path) -> Result<()> {
    for library in libraries(program)? {
        root.file(&library, Path::new(&library))?;
    }
    Ok(())
}

/// The libraries of a program and the loader; none for a static one.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let said = Command::new("ldd").arg(program).stdin(Stdio::null()).output().context("cannot run ldd")?;
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if out.contains("statically linked") || err.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    ensure!(said.status.success(), "ldd {}: {}", program.display(), err.trim());
    listed_libraries(&out).with_context(|| format!("what ldd says of {}", program.display()))
}

/// Reads the list of a loader: `name => /path (0x…)`; for the loader itself `/path (0x…)` or `/path => /path (0x…)`.
pub(super) fn listed_libraries(listed: &str) -> Result<Vec<String>> {
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        bail!("a library is missing: {}", missing.trim());
    }
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// Debian sid's llama-server out of the folder into which tests/real/llama-server unpacked it: the server, its loader,
/// the libraries that the loader finds for it and some CPU backends, all where sid has them, so that it needs no
/// wrapper.
pub(super) fn add_llama_server(root: &mut Root, sid: &Path) -> Result<()> {
    let absent = || format!("{} has no llama-server: run tests/real/llama-server", sid.display());
    let server = sid.join("usr/bin/llama-server");
    ensure!(server.exists(), absent());
    root.file("/usr/bin/llama-server", &server)?;
    let loader = find(&sid.join("usr/lib"), 2, "ld-linux-").with_context(absent)?;
    let lib = loader.parent().with_context(absent)?;
    let backends = find(&lib.join("ggml"), 1, "backends").with_context(absent)?;
    let search = [lib, &lib.join("llama"), &backends].map(|folder| folder.display().to_string()).join(":");

    let chosen = BACKENDS.map(|cpu| backends.join(format!("libggml-cpu-{cpu}.so")));
    let chosen: Vec<&PathBuf> = chosen.iter().filter(|backend| backend.exists()).collect();
    ensure!(!chosen.is_empty(), "{} has no CPU backend that is known here", backends.display());
    let mut files = vec![loader.clone()];
    for program in chosen.iter().copied().chain([&server]) {
        let listed = output(Command::new(&loader).args(["--library-path", &search, "--list"]).arg(program))?;
        let listed = listed_libraries(&listed)?.into_iter().map(PathBuf::from);
        // The loader is also listed by the name under which the server asks for it, which here is another loader.
        files.extend(listed.filter(|file| file.file_name() != loader.file_name()));
    }
    files.extend(chosen.into_iter().cloned());
    for file in files {
        let inside = file.strip_prefix(sid).with_context(|| format!("{} is not sid's", file.display()))?;
        root.file(&format!("/{}", inside.display()), &file)?;
    }
    // The name of the loader that is written in the server, and sid's own merged folders.
    let name = loader.file_name().unwrap_or_default().to_string_lossy();
    let target = loader.strip_prefix(sid)?.display();
    let folder = if name.contains("x86-64") { "usr/lib64" } else { "usr/lib" };
    root.link(&format!("/{folder}/{name}"), &format!("/{target}"));
    root.link("/lib", "usr/lib");
    root.link("/lib64", "usr/lib64");
    Ok(())
}

/// The first, by name, whose name begins so, this deep in a folder.
fn find(folder: &Path, depth: usize, begin: &str) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| match depth {
        1 => path.file_name()?.to_str()?.starts_with(begin).then_some(path),
        _ => find(&path, depth - 1, begin),
    })
}

/// The program `NAME` in the cache's folder `NAME-VERSION`; of several versions the one that was brought last.
pub(super) fn newest(cache: &Path, name: &str) -> Option<PathBuf> {
    let folders = std::fs::read_dir(cache).ok()?.flatten().filter(|entry| {
        let folder = entry.file_name();
        let version = folder.to_str().and_then(|folder| folder.strip_prefix(name)?.strip_prefix('-'));
        version.is_some_and(|version| !version.ends_with(".new"))
    });
    let programs = folders.map(|entry| entry.path().join(name)).filter(|program| program.is_file());
    programs.max_by_key(|program| program.metadata().and_then(|it| it.modified()).ok())
}

/// What a command prints, if it succeeds.
fn output(command: &mut Command) -> Result<String> {
    let said = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr).trim());
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}
