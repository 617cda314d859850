//! The processes of a testbed: started in a network namespace, with a log, by a name.

use crate::layout::Folder;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name in requests and of its log.
    pub name: String,
    /// The network namespace.
    pub host: String,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Environment, besides PATH.
    pub env: Vec<(&'static str, String)>,
}

impl Recipe {
    /// A process by words.
    pub fn new<W: Into<OsString>>(name: &str, host: &str, command: impl IntoIterator<Item = W>) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            command: command.into_iter().map(Into::into).collect(),
            env: Vec::new(),
        }
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }
}

#[derive(Debug)]
struct Running {
    recipe: Recipe,
    child: Child,
}

/// All of them.
#[derive(Debug)]
pub struct Processes {
    folder: Folder,
    running: Mutex<BTreeMap<String, Running>>,
}

impl Processes {
    pub fn new(folder: Folder) -> Self {
        Self { folder, running: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it.
    pub fn start(&self, recipe: Recipe) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.log(&recipe.name))?;
        // Not `ip netns exec`: that mounts /sys anew, and the kubelet then finds no cgroups (measured: kubelet 1.34.4).
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", recipe.host))
            .args(&recipe.command)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // Most of them are Go programs that live for a minute, on a machine with memory to spare and two cores.
            .env("GOGC", "400")
            .envs(recipe.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", recipe.name))?;
        self.lock().insert(recipe.name.clone(), Running { recipe, child });
        Ok(())
    }

    /// Starts it again as it was.
    pub fn again(&self, name: &str) -> Result<()> {
        let recipe = {
            let mut all = self.lock();
            let running = find(&mut all, name)?;
            if matches!(running.child.try_wait(), Ok(None)) {
                bail!("{name} runs");
            }
            running.recipe.clone()
        };
        self.start(recipe)
    }

    /// Sends it a signal; after SIGKILL it is gone when this returns.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let mut all = self.lock();
        let running = find(&mut all, name)?;
        if matches!(running.child.try_wait(), Ok(None)) {
            kill(Pid::from_raw(i32::try_from(running.child.id())?), signal)?;
        }
        if signal == Signal::SIGKILL {
            running.child.wait()?;
        }
        Ok(())
    }

    /// Lets it end by itself, and forgets it.
    pub fn end(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::SIGTERM)?;
        let running = self.lock().remove(name);
        running.map_or(Ok(()), |mut running| Ok(running.child.wait().map(drop)?))
    }

    /// The names of a host's processes.
    pub fn of(&self, host: &str) -> Vec<String> {
        self.lock()
            .values()
            .filter(|one| one.recipe.host == host)
            .map(|one| one.recipe.name.clone())
            .collect()
    }

    /// Which of them run.
    pub fn alive(&self) -> BTreeMap<String, bool> {
        let mut all = self.lock();
        all.iter_mut().map(|(name, one)| (name.clone(), matches!(one.child.try_wait(), Ok(None)))).collect()
    }

    /// Waits until `check` holds; a process that ends meanwhile ends the wait.
    pub fn until(&self, name: &str, limit: Duration, check: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !check() {
            let log = self.folder.log(name);
            if self.alive().get(name) != Some(&true) {
                bail!("{name} ended: see {}", log.display());
            }
            if began.elapsed() > limit {
                bail!("{name} was not ready after {} s: see {}", limit.as_secs(), log.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn find<'a>(all: &'a mut BTreeMap<String, Running>, name: &str) -> Result<&'a mut Running> {
    let names = all.keys().cloned().collect::<Vec<_>>().join(", ");
    all.get_mut(name).with_context(|| format!("there is no process {name}: there are {names}"))
}

/// Runs a command to its end; its own words are the error.
pub fn run<W: Into<OsString>>(command: impl IntoIterator<Item = W>) -> Result<String> {
    let mut words = command.into_iter().map(Into::into);
    let program = words.next().context("an empty command")?;
    let words: Vec<OsString> = words.collect();
    let output = Command::new(&program)
        .args(&words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program:?}"))?;
    if !output.status.success() {
        bail!("{program:?} {words:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// [`run`] with the words of a line.
pub fn line(command: &str) -> Result<String> {
    run(command.split_whitespace())
}
