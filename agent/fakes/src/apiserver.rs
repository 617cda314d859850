//! A stand-in Kubernetes API server on loopback: real HTTP to the real kube client, objects in memory.
//!
//! What it proves: that the agent's requests are well formed, that it follows lists, watches, bookmarks and
//! 410s, that it survives conflicts, refusals, throttling, silence and a proxy's pages, that its preconditions and
//! graces arrive, and what it asked for in which order ([`audit`]). What it does not prove: schema validation of whole objects, RBAC,
//! authentication, TLS, priority and fairness, server-side apply's ownership, or a budget's arithmetic. Those
//! are proven against a real control plane (tests/testbed).

pub mod admission;
pub mod audit;
pub mod deletion;
pub mod event;
pub mod lease;
pub mod misconduct;
pub mod patch;
pub mod path;
pub mod routes;
pub mod selector;
pub mod status;
pub mod storage;
pub mod watching;

use admission::User;
use audit::Audit;
use deletion::Budget;
use misconduct::Misconduct;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use storage::Storage;

/// The agents' own namespace: their claims are Leases in it, where the store decides none.
pub const AGENT_NAMESPACE: &str = "lifeboat-system";

/// What every request needs.
#[derive(Debug)]
struct ApiState {
    storage: Arc<Storage>,
    budgets: Vec<Budget>,
    misconduct: Misconduct,
    users: BTreeMap<String, User>,
    audit: Audit,
}

/// A running API server. Dropping it stops it.
#[derive(Debug)]
pub struct ApiServer {
    addr: SocketAddr,
    shared: Arc<ApiState>,
    server: tokio::task::JoinHandle<()>,
}

impl ApiServer {
    /// Starts to listen on a free loopback port.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(
        storage: Arc<Storage>,
        budgets: Vec<Budget>,
        misconduct: Misconduct,
        users: Vec<User>,
    ) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        // The token is the user's name: nothing secret is kept here.
        let users = users.into_iter().map(|user| (user.name.clone(), user)).collect();
        let shared = Arc::new(ApiState { storage, budgets, misconduct, users, audit: Audit::default() });
        let router = axum::Router::new().fallback(routes::any).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "the stand-in API server ended");
            }
        });
        Ok(Self { addr, shared, server })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The objects.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.shared.storage
    }

    /// Every request so far.
    pub fn audit(&self) -> Vec<audit::Request> {
        self.shared.audit.all()
    }

    /// The notice has appeared: faults count from here.
    pub fn begin(&self, zero: evacuation::moment::Moment) {
        self.shared.misconduct.begin(zero);
    }

    /// A fault with this outcome has struck.
    pub fn struck(&self, outcome: &str) -> bool {
        self.shared.misconduct.struck(outcome)
    }

    /// Does this, once, to the next request with this verb on a path that ends so.
    pub fn script(&self, verb: &'static str, end: &'static str, instead: misconduct::Instead) {
        self.shared.misconduct.script(verb, end, instead);
    }

    /// From now on no budget refuses anything.
    pub fn loosen_budgets(&self) {
        for budget in &self.shared.budgets {
            *budget.refuses.lock() = deletion::Refuses::Times(0);
        }
    }

    /// Writes a kubeconfig that makes its reader this user.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, user: &str) -> io::Result<()> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "drill",
            "clusters": [{"name": "drill", "cluster": {"server": self.url()}}],
            "users": [{"name": user, "user": {"token": user}}],
            "contexts": [{"name": "drill",
                "context": {"cluster": "drill", "user": user, "namespace": AGENT_NAMESPACE}}],
        });
        // JSON is YAML.
        std::fs::write(path, kubeconfig.to_string())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[cfg(test)]
mod tests;
