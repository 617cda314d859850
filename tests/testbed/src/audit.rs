//! What the API server says was asked of it: its audit log, one JSON object per line.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Whatever lifeboat's own accounts ask has this in its line.
const ACCOUNTS: &str = "\"system:serviceaccount:lifeboat-system:";

/// One request, when it was answered.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it came in.
    pub at: Timestamp,
    /// `create`, `patch`, `delete`, …
    pub verb: String,
    /// Who asked, as the API server knows him.
    pub user: String,
    /// Whom he impersonated.
    pub impersonated: Option<String>,
    /// `pods`, `nodes`, …
    pub resource: String,
    /// `eviction`, `status`, …; empty for the object itself.
    pub subresource: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The answer's code.
    pub code: u64,
    /// The body, for writes.
    pub body: Value,
    /// All of it.
    pub raw: Value,
}

/// The service account of the agents.
pub const AGENT: &str = "system:serviceaccount:lifeboat-system:lifeboat-agent";

impl Entry {
    fn read(raw: Value) -> Option<Self> {
        let text = |path: &str| raw.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("/stage") == "ResponseStarted" {
            return None; // it comes once more when it ends
        }
        Some(Self {
            at: text("/requestReceivedTimestamp").parse().ok()?,
            verb: text("/verb"),
            user: text("/user/username"),
            impersonated: raw
                .pointer("/impersonatedUser/username")
                .and_then(Value::as_str)
                .map(str::to_owned),
            resource: text("/objectRef/resource"),
            subresource: text("/objectRef/subresource"),
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: raw.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0),
            body: raw.pointer("/requestObject").cloned().unwrap_or(Value::Null),
            raw,
        })
    }

    /// An agent asked, on whichever node.
    pub fn by_agent(&self) -> bool {
        self.user == AGENT
    }

    /// The agent of this node asked: its token names the node.
    pub fn by_agent_of(&self, node: &str) -> bool {
        let claim = self.raw.pointer("/user/extra/authentication.kubernetes.io~1node-name/0");
        self.by_agent() && claim.and_then(Value::as_str) == Some(node)
    }

    /// It was done.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// An eviction of a pod.
    pub fn is_eviction(&self) -> bool {
        self.verb == "create" && self.resource == "pods" && self.subresource == "eviction"
    }

    /// A deletion of a pod.
    pub fn is_pod_deletion(&self) -> bool {
        self.verb == "delete" && self.resource == "pods" && self.subresource.is_empty()
    }

    /// A write to this node object.
    pub fn writes_node(&self, node: &str) -> bool {
        self.resource == "nodes" && self.name == node && matches!(self.verb.as_str(), "patch" | "update")
    }

    /// The uid without which it was to be refused: an eviction's or a deletion's precondition.
    pub fn uid_precondition(&self) -> Option<&str> {
        let options = if self.is_eviction() { self.body.pointer("/deleteOptions") } else { Some(&self.body) };
        options?.pointer("/preconditions/uid")?.as_str()
    }

    /// The grace that it asked for, in seconds.
    pub fn grace(&self) -> Option<u64> {
        let options = if self.is_eviction() { self.body.pointer("/deleteOptions") } else { Some(&self.body) };
        options?.pointer("/gracePeriodSeconds")?.as_u64()
    }
}

/// Reads an audit log, oldest request first.
///
/// # Errors
/// It is not there.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut entries: Vec<Entry> = lines.filter_map(Entry::read).collect();
    entries.sort_by_key(|entry| entry.at);
    Ok(entries)
}

/// Keeps what lifeboat's own accounts asked in this testbed before `until`, where a run collects it
/// (`LIFEBOAT_RIGHTS_USED`): a file named by the scenario, which is this thread. tests/manifests/used.py compares all of
/// them with the roles.
///
/// # Errors
/// The log cannot be read, or the folder not written.
pub fn keep(path: &Path, testbed: &str, until: Option<Timestamp>) -> Result<()> {
    let Some(folder) = std::env::var_os("LIFEBOAT_RIGHTS_USED").map(PathBuf::from) else { return Ok(()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let in_time = |line: &str| {
        let at = || serde_json::from_str(line).ok().and_then(Entry::read).map(|entry| entry.at);
        until.is_none_or(|until| at().is_some_and(|at| at < until))
    };
    let ours = |line: &&str| line.contains(ACCOUNTS) && in_time(line);
    let lines: String = text.split_inclusive('\n').filter(ours).collect();
    std::fs::create_dir_all(&folder)?;
    let thread = std::thread::current();
    let scenario = thread.name().unwrap_or_default();
    std::fs::write(folder.join(format!("{scenario} {testbed}.jsonl")), lines)?;
    Ok(())
}
